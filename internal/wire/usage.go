package wire

import (
	"bytes"
	"encoding/json"
	"iter"
)

// A Usage is what an answer says it cost, in tokens.
type Usage struct {
	Input, Output int64
}

// ParseUsage reads the usage object of chat completions, completions and
// embeddings, or that of the Responses API.
func ParseUsage(text []byte) (Usage, bool) {
	if len(text) == 0 || text[0] != '{' {
		return Usage{}, false // most chunks have null
	}
	var u struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
		Input      int64 `json:"input_tokens"`
		Output     int64 `json:"output_tokens"`
	}
	if json.Unmarshal(text, &u) != nil {
		return Usage{}, false
	}
	// One without a number is a property of that name, of a schema that is echoed.
	told := Usage{min(max(u.Prompt, u.Input, 0), MaxTokenCount), min(max(u.Completion, u.Output, 0), MaxTokenCount)}
	return told, told != Usage{}
}

// A FieldScanner looks for the values of some keys in JSON that passes in pieces,
// be it an answer or the events of a stream, and keeps nothing but what may be
// the beginning of one. Inside a JSON string the key's quotes are escaped, so
// that a model that writes JSON is not mistaken for the service.
type FieldScanner struct {
	Keys       []ScannedField
	Rest       []byte
	FindErrors bool // look for what an event that fails has, too
	MayBeError bool // there was such a thing
}

// A ScannedField is one of these keys, or all keys with the same end.
type ScannedField struct {
	name  string // the key's end, with its quote and colon
	limit int    // a longer value is not one of those looked for
}

// Values are those that a further piece completes, each with its key's place
// among the keys.
func (w *FieldScanner) Values(p []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		if len(w.Rest) > 0 {
			p = append(w.Rest, p...)
			w.Rest = nil
		}
		for {
			key, i := w.find(p)
			if i < 0 {
				w.keep(p[len(p)-w.partial(p):])
				return
			}
			text, limit := p[i:], w.Keys[key].limit
			near := text[:min(len(text), limit+1)] // what is longer is not looked for
			from := skipSpace(near, 0)
			to := skipValue(near, from)
			switch {
			case to >= 0 && to <= limit:
				if !yield(key, text[from:to]) {
					return
				}
				text = text[to:]
			case to < 0 && len(text) <= limit:
				w.keep(p[i-len(w.Keys[key].name):])
				return
			}
			p = text
		}
	}
}

func (w *FieldScanner) keep(p []byte) {
	if len(p) > 0 {
		w.Rest = append(make([]byte, 0, 2*len(p)), p...)
	}
}

// partial is how long an end of p is that a key begins with.
func (w *FieldScanner) partial(p []byte) (longest int) {
	if len(p) == 0 || p[len(p)-1] == '\n' {
		return 0 // as events end
	}
	for _, key := range w.Keys {
		for n := min(len(p), len(key.name)-1); n > longest; n-- {
			if string(p[len(p)-n:]) == key.name[:n] {
				longest = n
			}
		}
	}
	return longest
}

// find is the first key that is there, and where it ends, or -1. There are
// fewer colons than anything else that a key has.
func (w *FieldScanner) find(p []byte) (key, end int) {
	for end = 2; end < len(p); end++ {
		i := bytes.IndexByte(p[end:], ':')
		if i < 0 {
			break
		}
		end += i
		last, quote := p[end-2], p[end-1]
		if quote == '"' {
			for key := range w.Keys {
				if name := w.Keys[key].name; last == name[len(name)-3] && hasSuffix(p[:end+1], name) {
					return key, end + 1
				}
			}
		}
		// "error", "type", "code", event and, before "error", "object".
		if w.FindErrors && (quote == '"' && (last == 'r' || last == 'e' || last == 't' && !isWordBut(p[end+1:], 'e')) || quote == 't' || quote == ' ') {
			w.MayBeError = w.MayBeError || mayFail(p, end)
		}
	}
	return 0, -1
}

// isWordBut tells whether a string begins there, with another letter.
func isWordBut(p []byte, first byte) bool { return len(p) > 1 && p[0] == '"' && p[1] != first }

func hasSuffix(p []byte, s string) bool { return len(p) >= len(s) && string(p[len(p)-len(s):]) == s }

// mayFail tells whether the key or the field before a colon is one by which an
// event fails, as far as that can be told at a glance.
func mayFail(p []byte, colon int) bool {
	name, from := bytes.TrimRight(p[:colon], " "), skipSpace(p, colon+1)
	const longest = 64
	value := p[from:min(from+longest, len(p))]
	switch {
	case hasSuffix(name, `"error"`):
		return !bytes.HasPrefix(value, []byte("null"))
	case hasSuffix(name, `"type"`):
		if len(value) > 0 {
			if i := bytes.IndexByte(value[1:], '"'); i >= 0 {
				value = value[:i+2]
			}
		}
		return saysError(value) || string(value) == `"response.failed"`
	case hasSuffix(name, `"object"`):
		return bytes.HasPrefix(value, []byte(`"error"`))
	case hasSuffix(name, `"code"`), hasSuffix(name, `"statusCode"`), hasSuffix(name, `"status_code"`):
		return !bytes.HasPrefix(value, []byte("null"))
	case hasSuffix(name, "event"):
		return bytes.HasPrefix(value, []byte("error"))
	}
	return false
}

// maxUsage bounds a usage object, in bytes.
const maxUsage = 1 << 10

// UsageFields is the usage of an answer.
var UsageFields = []ScannedField{{`"usage":`, maxUsage}}
