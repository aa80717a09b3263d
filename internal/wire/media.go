package wire

import "bytes"

// The estimated tokens of content that is not text. They depend on its kind.
const (
	// ImageTokens are the tokens of an image (as measured with OpenAI's counters).
	ImageTokens = 765
	// A second of audio is ten tokens (OpenAI's guide to audio) and about 16 KB:
	// 128 kbit/s, or 8 kHz with 16 bits.
	bytesPerAudioToken = 1600
	// A page of a document counts as its text and its image, and has about 100 KiB.
	pageTokens = 1000
	pageBytes  = 100 << 10
)

// RareKeys are keys in a JSON body, at any depth, that most bodies do not have. Without
// them a body need not be searched for their values.
type RareKeys struct {
	IDs   bool // in chat completions: a file, or the audio of an earlier response
	Media bool // a file or audio, in base64
}

// MediaTokens estimates the tokens of base64 content in a JSON text, and returns its
// length in bytes. It recognises data URLs, and the fields for files and audio if keys
// has them.
func MediaTokens(text []byte, keys RareKeys) (tokens, length int64) {
	count := func(kind string, begin, from int) int {
		end := skipString(text, from)
		if end < 0 {
			end = len(text)
		}
		tokens += tokensOfMedia(kind, int64(end-from)*3/4)
		length += int64(end - begin)
		return end
	}
	const marker, longestKind = ";base64,", 64
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte(marker))
		if i < 0 {
			break
		}
		at := from + i
		begin := at - min(longestKind, at-from)
		from = at + len(marker)
		kind := text[begin:at]
		if i := bytes.LastIndex(kind, []byte("data:")); i >= 0 {
			from = count(string(kind[i+len("data:"):]), at, from-1)
		}
	}
	if !keys.Media {
		return tokens, length
	}
	// The values of these fields may be base64 without a data URL.
	for _, c := range [...]struct{ field, key, kind string }{{`"file_data"`, "", "application/"}, {`"input_audio"`, `"data"`, "audio/"}} {
		for from := 0; ; {
			i := bytes.Index(text[from:], []byte(c.field))
			if i < 0 {
				break
			}
			from += i + len(c.field)
			at := skipSpace(text, from)
			if at >= len(text) || text[at] != ':' {
				continue
			}
			at = skipSpace(text, at+1)
			if c.key != "" {
				at = findMember(text, at, c.key)
			}
			if at < 0 || at >= len(text) || text[at] != '"' || bytes.HasPrefix(text[at+1:], []byte("data:")) {
				continue
			}
			from = count(c.kind, at, at)
		}
	}
	return tokens, length
}

// tokensOfMedia estimates the tokens of size bytes of a media type.
func tokensOfMedia(kind string, size int64) int64 {
	is := func(prefix string) bool { return len(kind) >= len(prefix) && kind[:len(prefix)] == prefix }
	switch {
	case is("image/"):
		return ImageTokens
	case is("audio/"):
		return 1 + size/bytesPerAudioToken
	case is("text/"):
		return size / 4
	}
	return pageTokens * (1 + size/pageBytes)
}

// findMember returns the index of the value of a key, in quotes, in an object of
// strings that begins at i, or -1. An object with other values is not audio. To skip
// such values at every level of nesting would take quadratic time.
func findMember(text []byte, i int, quoted string) int {
	if i >= len(text) || text[i] != '{' {
		return -1
	}
	for separator := byte('{'); i < len(text) && text[i] == separator; separator = ',' {
		from := skipSpace(text, i+1)
		to := endOfString(text, from)
		if i = skipSpace(text, to); i >= len(text) || text[i] != ':' {
			break
		}
		i = skipSpace(text, i+1)
		if string(text[from:to]) == quoted {
			return i
		}
		i = skipSpace(text, endOfString(text, i))
	}
	return -1
}

// endOfString returns the index after the string that begins at i, or the end of the
// text.
func endOfString(text []byte, i int) int {
	if i < len(text) && text[i] == '"' {
		if end := skipString(text, i); end >= 0 {
			return end
		}
	}
	return len(text)
}
