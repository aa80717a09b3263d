package wire

import (
	"bytes"
)

// What is no text costs by its kind, whatever its bytes.
const (
	// PictureTokens is what a picture costs (as measured on OpenAI's counters).
	PictureTokens = 765
	// A second of sound costs ten tokens (OpenAI's guide to audio) and takes
	// about 16 KB: 128 kbit/s, or 8 kHz of 16 bits.
	bytesPerAudioToken = 1600
	// A page of a document costs its text and its picture, and takes about
	// 100 KiB.
	pageTokens = 1000
	pageBytes  = 100 << 10
)

// RareKeys are the keys in a JSON body, at any depth, that most bodies do not have.
type RareKeys struct {
	IDs   bool // in chat completions: a file, or the sound of an earlier answer
	Files bool // a file or sound, in base64
}

// MediaTokens is what the base64 in a JSON text costs in tokens, and its bytes:
// data URLs, and the fields that hold files and sound, if the text has any of those.
func MediaTokens(text []byte, keys RareKeys) (tokens, bytesOf int64) {
	count := func(kind string, begin, from int) int {
		end := skipString(text, from)
		if end < 0 {
			end = len(text)
		}
		tokens += mediaTokens(kind, int64(end-from)*3/4)
		bytesOf += int64(end - begin)
		return end
	}
	const mark, longestKind = ";base64,", 64
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte(mark))
		if i < 0 {
			break
		}
		at := from + i
		begin := at - min(longestKind, at-from)
		from = at + len(mark)
		kind := text[begin:at]
		if i := bytes.LastIndex(kind, []byte("data:")); i >= 0 {
			from = count(string(kind[i+len("data:"):]), at, from-1)
		}
	}
	if !keys.Files {
		return tokens, bytesOf
	}
	// These may be base64 alone.
	for _, c := range [...]struct{ mark, key, kind string }{{`"file_data"`, "", "application/"}, {`"input_audio"`, `"data"`, "audio/"}} {
		for from := 0; ; {
			i := bytes.Index(text[from:], []byte(c.mark))
			if i < 0 {
				break
			}
			from += i + len(c.mark)
			at := skipSpace(text, from)
			if at >= len(text) || text[at] != ':' {
				continue
			}
			at = skipSpace(text, at+1)
			if c.key != "" {
				at = memberOf(text, at, c.key)
			}
			if at < 0 || at >= len(text) || text[at] != '"' || bytes.HasPrefix(text[at+1:], []byte("data:")) {
				continue
			}
			from = count(c.kind, at, at)
		}
	}
	return tokens, bytesOf
}

// mediaTokens is what so many bytes of a kind cost.
func mediaTokens(kind string, size int64) int64 {
	is := func(prefix string) bool { return len(kind) >= len(prefix) && kind[:len(prefix)] == prefix }
	switch {
	case is("image/"):
		return PictureTokens
	case is("audio/"):
		return 1 + size/bytesPerAudioToken
	case is("text/"):
		return size / 4
	}
	return pageTokens * (1 + size/pageBytes)
}

// memberOf is where the value of a member begins, of an object of strings that
// begins at i, or -1. What has other values in it is no sound; to pass over them
// at every level of an object would take long.
func memberOf(text []byte, i int, quoted string) int {
	if i >= len(text) || text[i] != '{' {
		return -1
	}
	for sep := byte('{'); i < len(text) && text[i] == sep; sep = ',' {
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

// endOfString is the index behind the string that begins at i, or the end of the
// text if none does.
func endOfString(text []byte, i int) int {
	if i < len(text) && text[i] == '"' {
		if end := skipString(text, i); end >= 0 {
			return end
		}
	}
	return len(text)
}
