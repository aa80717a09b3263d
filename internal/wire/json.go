package wire

import (
	"bytes"
	"encoding/json"
	"iter"
	"strings"
)

// Span is a stretch of a text: from is its first byte, to the one after its last.
type Span struct{ From, To int }

func (s Span) in(text []byte) []byte { return text[s.From:s.To] }

// Members walks the members of a JSON object, up to where the text breaks off
// or is no JSON. It makes no copy and parses nothing that is not asked for: a
// key is quoted, a value as it stands.
func Members(text []byte) iter.Seq2[Span, Span] {
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

// isKey tells whether a JSON string spells a key, escapes included.
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

// keyName is what a JSON string spells; nil for one that is not valid.
func keyName(quoted []byte) []byte {
	if name := quoted[1 : len(quoted)-1]; bytes.IndexByte(name, '\\') < 0 {
		return name
	}
	s, _ := unquote(quoted)
	return []byte(s)
}

func unquote(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if inner := value[1 : len(value)-1]; plain(inner) {
		return string(inner), true
	}
	var s string
	return s, json.Unmarshal(value, &s) == nil
}

// plain tells whether the inside of a JSON string stands for itself.
func plain(inner []byte) bool {
	for _, c := range inner {
		if c < ' ' || c == '\\' || c >= 0x80 {
			return false
		}
	}
	return true
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t') {
		i++
	}
	return i
}

// skipString returns the index behind the string that begins at i, or -1.
func skipString(text []byte, i int) int {
	for i++; ; i++ {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		// The quote ends the string unless an odd number of backslashes is before it.
		escapes := 0
		for text[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// skipValue returns the index behind the value that begins at i, or -1.
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
