package spillover

import (
	"bytes"
	"encoding/json"
	"iter"
)

// A usage is what an answer says it cost, in tokens.
type usage struct {
	input, output int64
}

// readUsage reads the usage object of chat completions, completions and
// embeddings, or that of the Responses API.
func readUsage(text []byte) (usage, bool) {
	if len(text) == 0 || text[0] != '{' {
		return usage{}, false // most chunks have null
	}
	var u struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
		Input      int64 `json:"input_tokens"`
		Output     int64 `json:"output_tokens"`
	}
	if json.Unmarshal(text, &u) != nil {
		return usage{}, false
	}
	// One without a number is a property of that name, of a schema that is echoed.
	told := usage{max(u.Prompt, u.Input, 0), max(u.Completion, u.Output, 0)}
	return told, told != usage{}
}

// A watcher looks for the values of one key in JSON that passes in pieces,
// be it an answer or the events of a stream, and keeps nothing but what may be
// the beginning of one. Inside a JSON string the key's quotes are escaped, so
// that a model that writes JSON is not mistaken for the service.
type watcher struct {
	key   string // quoted, with its colon; "" watches nothing
	limit int    // a longer value is not one of those looked for
	rest  []byte
}

// values are those that a further piece completes.
func (w *watcher) values(p []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if len(w.rest) > 0 {
			p = append(w.rest, p...)
			w.rest = nil
		}
		for {
			i := w.find(p)
			if i < 0 {
				w.keep(p[len(p)-partial(p, w.key):])
				return
			}
			text := p[i+len(w.key):]
			from := skipSpace(text, 0)
			to := skipValue(text, from)
			switch {
			case to >= 0 && to <= w.limit:
				if !yield(text[from:to]) {
					return
				}
				text = text[to:]
			case to < 0 && len(text) <= w.limit:
				w.keep(p[i:])
				return
			}
			p = text
		}
	}
}

func (w *watcher) keep(p []byte) {
	if len(p) > 0 {
		w.rest = append(make([]byte, 0, 2*len(p)), p...)
	}
}

// partial is how long an end of p is that a key begins with.
func partial(p []byte, key string) int {
	for n := min(len(p), len(key)-1); n > 0; n-- {
		if string(p[len(p)-n:]) == key[:n] {
			return n
		}
	}
	return 0
}

// find is where the key is, or -1. JSON is full of quotes: what is behind the
// key's first is much rarer, and so found faster.
func (w *watcher) find(p []byte) int {
	for from := 1; from < len(p); {
		i := bytes.Index(p[from:], []byte(w.key[1:]))
		if i < 0 {
			return -1
		}
		if i += from; p[i-1] == w.key[0] {
			return i - 1
		}
		from = i + 1
	}
	return -1
}
