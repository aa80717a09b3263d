package wire

import (
	"bytes"
	"encoding/json"
	"iter"
	"strings"
)

// A Span is a range of bytes in a text. To is the index after the last byte.
type Span struct{ From, To int }

// in returns the bytes of text in the range.
func (s Span) in(text []byte) []byte { return text[s.From:s.To] }

// members iterates over the members of a JSON object, up to the point where the text
// ends or is not JSON. It copies and unescapes nothing: a key includes its quotes, a
// value is as it stands.
func members(text []byte) iter.Seq2[Span, Span] {
	return func(yield func(key, value Span) bool) {
		i := skipSpace(text, 0)
		if i >= len(text) || text[i] != '{' {
			return
		}
		for i = skipSpace(text, i+1); i < len(text) && text[i] == '"'; i = skipSpace(text, i+1) {
			key := Span{i, skipString(text, i)}
			if key.To < 0 {
				return
			}
			if i = skipSpace(text, key.To); i >= len(text) || text[i] != ':' {
				return
			}
			value := Span{From: skipSpace(text, i+1)}
			if value.To = skipValue(text, value.From); value.To < 0 || !yield(key, value) {
				return
			}
			if i = skipSpace(text, value.To); i >= len(text) || text[i] != ',' {
				return
			}
		}
	}
}

// isKey reports whether a JSON string, in quotes and possibly with escapes, is a key.
func isKey(quoted []byte, key string) bool {
	if len(quoted) == len(key)+2 && string(quoted[1:len(quoted)-1]) == key {
		return true
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		return false
	}
	s, ok := unquote(quoted)
	return ok && s == key
}

// keyName returns the text of a key in quotes, or nil if its escapes are not valid.
func keyName(quoted []byte) []byte {
	if name := quoted[1 : len(quoted)-1]; bytes.IndexByte(name, '\\') < 0 {
		return name
	}
	s, _ := unquote(quoted)
	return []byte(s)
}

// unquote returns the text of a JSON string. ok is false if the value is not one.
func unquote(value []byte) (text string, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if inner := value[1 : len(value)-1]; isPlain(inner) {
		return string(inner), true
	}
	var s string // on its own, so that text is not allocated for it
	ok = json.Unmarshal(value, &s) == nil
	return s, ok
}

// isPlain reports whether the inside of a JSON string needs no unescaping.
func isPlain(inner []byte) bool {
	for _, c := range inner {
		if c < ' ' || c == '\\' || c >= 0x80 {
			return false
		}
	}
	return true
}

// skipSpace returns the index of the next byte that is not white space.
func skipSpace(text []byte, i int) int {
	for i < len(text) && text[i] <= ' ' && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
		i++
	}
	return i
}

// skipString returns the index after the string that begins at i, or -1 if it does not
// end.
func skipString(text []byte, i int) int {
	for i++; ; i++ {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		// The quote ends the string unless an odd number of backslashes
		// precedes it.
		backslashes := 0
		for text[i-1-backslashes] == '\\' {
			backslashes++
		}
		if backslashes%2 == 0 {
			return i + 1
		}
	}
}

// skipValue returns the index after the value that begins at i, or -1 if it does not
// end.
func skipValue(text []byte, i int) int {
	if i >= len(text) {
		return -1
	}
	switch text[i] {
	case '"':
		return skipString(text, i)
	case '{', '[':
		for depth := 0; ; {
			switch text[i] {
			case '"':
				if i = skipString(text, i); i < 0 {
					return -1
				}
				i--
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			if i++; i >= len(text) {
				return -1
			}
		}
	}
	start := i
	for i < len(text) && strings.IndexByte(",]} \n\r\t", text[i]) < 0 {
		i++
	}
	if i == start || i == len(text) {
		return -1
	}
	return i
}
