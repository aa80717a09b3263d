package wire

import (
	"bytes"
	"encoding/json"
	"iter"
)

// A Usage is the token usage that a response reports.
type Usage struct {
	Input, Output int64
}

// ParseUsage parses the usage object of completions, chat completions, embeddings or
// the Responses API.
func ParseUsage(text []byte) (Usage, bool) {
	if len(text) == 0 || text[0] != '{' {
		return Usage{}, false // most events of a stream have null
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
	// Without any number it is not a usage object but, for example, a property with
	// that name in an echoed schema.
	usage := Usage{min(max(u.Prompt, u.Input, 0), MaxTokenCount), min(max(u.Completion, u.Output, 0), MaxTokenCount)}
	return usage, usage != Usage{}
}

// A FieldScanner finds the values of some keys in JSON that arrives in pieces, as a
// body or as the events of a stream. It keeps only what may be the beginning of such a
// value. Inside a JSON string the quotes of a key are escaped, so JSON that the model
// writes is not mistaken for the service's.
type FieldScanner struct {
	Keys []ScannedField
	rest []byte
	Ends *CompletionTracker // of a stream that is judged: also set Notable
	// Notable means that a member was found which only an error event has, or an event
	// that changes what Ends knows. The caller resets it.
	Notable bool
}

// A ScannedField is a key to search for, or all keys with the same end.
type ScannedField struct {
	suffix string // the end of the key, with its closing quote and colon
	limit  int    // maximum length of the value; longer ones are ignored
}

// Values iterates over the values that a further piece completes, each with the index
// of its key in Keys.
func (w *FieldScanner) Values(p []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		if len(w.rest) > 0 {
			p = append(w.rest, p...)
			w.rest = nil
		}
		for {
			key, i := w.findKey(p)
			if i < 0 {
				w.keepRest(p[len(p)-w.partialKey(p):])
				return
			}
			text, limit := p[i:], w.Keys[key].limit
			near := text[:min(len(text), limit+1)] // a longer value is ignored
			from := skipSpace(near, 0)
			to := skipValue(near, from)
			switch {
			case to >= 0 && to <= limit:
				if !yield(key, text[from:to]) {
					return
				}
				text = text[to:]
			case to < 0 && len(text) <= limit:
				if w.Ends == nil || !bytes.ContainsAny(text, "\r\n") { // a value does not continue in the next event
					w.keepRest(p[i-len(w.Keys[key].suffix):])
					return
				}
			}
			p = text
		}
	}
}

// keepRest keeps p for the next piece.
func (w *FieldScanner) keepRest(p []byte) {
	if len(p) > 0 {
		w.rest = append(make([]byte, 0, 2*len(p)), p...)
	}
}

// partialKey returns the length of the longest suffix of p that is the beginning of a
// key.
func (w *FieldScanner) partialKey(p []byte) (longest int) {
	if len(p) == 0 || p[len(p)-1] == '\n' {
		return 0 // an event ends here
	}
	for _, key := range w.Keys {
		for n := min(len(p), len(key.suffix)-1); n > longest; n-- {
			if string(p[len(p)-n:]) == key.suffix[:n] {
				longest = n
			}
		}
	}
	return longest
}

// findKey returns the index of the first key in p and the position after it, or -1. It
// searches for the colon because that is the rarest character of a key.
func (w *FieldScanner) findKey(p []byte) (key, end int) {
	begun := w.Ends != nil && w.Ends.begun[0]&1 != 0 // the choice 0, which most responses have alone
	for end = 2; end < len(p); end++ {
		i := bytes.IndexByte(p[end:], ':')
		if i < 0 {
			break
		}
		end += i
		last, quote := p[end-2], p[end-1]
		if quote == '"' {
			for key := range w.Keys {
				if name := w.Keys[key].suffix; last == name[len(name)-3] && hasSuffix(p[:end+1], name) {
					return key, end + 1
				}
			}
		}
		if w.Ends == nil {
			continue
		}
		// The key ends as "error", "type" or "code" does, as "object" with a value that
		// begins with e, or as "choices", "index" or "finish_reason", unless the value
		// is the usual one, or as "status" with a number; or it is the field event.
		next := byte(0)
		if end+1 < len(p) {
			next = p[end+1]
		}
		if quote == '"' && (last == 'r' || last == 'e' || last == 't' && !startsOtherWord(p[end+1:], 'e') ||
			last == 's' && (!begun || next < 'A') || last == 'x' && !(begun && next == '0') || last == 'n' && next != 'n') || quote == 't' || quote == ' ' {
			w.Notable = w.Notable || w.isNotable(p, end)
		}
	}
	return 0, -1
}

// startsOtherWord reports whether p begins with a string that has another first letter.
func startsOtherWord(p []byte, first byte) bool { return len(p) > 1 && p[0] == '"' && p[1] != first }

// hasSuffix reports whether p ends in s.
func hasSuffix(p []byte, s string) bool { return len(p) >= len(s) && string(p[len(p)-len(s):]) == s }

// isNotable reports whether the key or the field before a colon, with its value, may
// belong to an error event, or to one that changes what is known of the stream's end.
// It may be wrong: ClassifyEvent and the tracker decide.
func (w *FieldScanner) isNotable(p []byte, colon int) bool {
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
		return isErrorType(value) || string(value) == `"response.failed"` || w.Ends.isNew(value)
	case hasSuffix(name, `"object"`):
		return bytes.HasPrefix(value, []byte(`"error"`))
	case hasSuffix(name, `"code"`), hasSuffix(name, `"statusCode"`), hasSuffix(name, `"status_code"`):
		return !bytes.HasPrefix(value, []byte("null"))
	case hasSuffix(name, `"status"`):
		value = bytes.TrimPrefix(value, []byte(`"`))
		return len(value) > 0 && value[0] < 'A' // a number, and no word such as completed
	case hasSuffix(name, "event"):
		return bytes.HasPrefix(value, []byte("error"))
	case hasSuffix(name, `"choices"`):
		return w.Ends.begun[0]&1 == 0 // a choice without an index has the index 0
	case hasSuffix(name, `"index"`):
		return !w.Ends.knows(value)
	case hasSuffix(name, `"finish_reason"`):
		return isFinishReason(value)
	}
	return false
}

// maxUsage is the maximum length of a usage object, in bytes.
const maxUsage = 1 << 10

// UsageFields find the usage of a response.
var UsageFields = []ScannedField{{`"usage":`, maxUsage}}
