package spillover

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// A tone is what an event of a stream says of the stream as a whole.
type tone int

const (
	preamble tone = iota // nothing yet: it may be thrown away
	content              // something of the answer
	failing              // an error
	ending               // the answer is complete
)

// cutEvent is the first whole event of a stream, its blank line included; n is
// 0 when there is none yet. Lines end in LF, CR LF or CR (the HTML standard's
// server-sent events).
func cutEvent(text []byte) (n int) {
	for line := 0; ; {
		i := bytes.IndexAny(text[n:], "\r\n")
		if i < 0 {
			return 0
		}
		line, n = i, n+i+1
		if text[n-1] == '\r' {
			if n == len(text) {
				return 0 // a LF may follow
			}
			if text[n] == '\n' {
				n++
			}
		}
		if line == 0 {
			return n
		}
	}
}

// lastEvent is the last event of the end of a stream, but for [DONE].
func lastEvent(tail []byte) (last []byte) {
	for len(tail) > 0 {
		n := cutEvent(tail)
		if n == 0 {
			n = len(tail)
		}
		if _, data := readEvent(tail[:n]); len(data) > 0 && string(bytes.TrimSpace(data)) != "[DONE]" {
			last = tail[:n]
		}
		tail = tail[n:]
	}
	return last
}

// readEvent is the name and the data of an event.
func readEvent(event []byte) (name string, data []byte) {
	lines := 0
	for _, line := range bytes.FieldsFunc(event, func(r rune) bool { return r == '\r' || r == '\n' }) {
		field, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(field) {
		case "event":
			name = string(value)
		case "data":
			if lines++; lines == 1 {
				data = value
			} else {
				data = append(append(bytes.Clone(data), '\n'), value...)
			}
		}
	}
	return name, data
}

// judgeEvent tells the tone of an event, and of a failing one the error object.
// What is not understood is content: it is the caller's to see.
func judgeEvent(name string, data []byte) (t tone, problem []byte) {
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return preamble, nil
	}
	if string(data) == "[DONE]" {
		return ending, nil
	}
	var kind string
	var choices, failure, response []byte
	for key, value := range members(data) {
		switch v := value.in(data); {
		case isKey(key.in(data), "type"):
			kind, _ = unquote(v)
		case isKey(key.in(data), "error") && string(v) != "null":
			failure = v
		case isKey(key.in(data), "choices"):
			choices = v
		case isKey(key.in(data), "response"):
			response = v
		}
	}
	switch {
	case kind == "response.failed":
		return failing, responseError(response)
	case failure != nil:
		return failing, failure
	case kind == "error" || name == "error":
		return failing, data
	case kind == "response.created" || kind == "response.in_progress" || kind == "response.queued":
		return preamble, nil
	case kind == "response.completed" || kind == "response.incomplete":
		return ending, nil
	case choices != nil:
		return judgeChoices(choices), nil
	}
	return content, nil
}

func responseError(response []byte) []byte {
	for key, value := range members(response) {
		if isKey(key.in(response), "error") {
			return value.in(response)
		}
	}
	return []byte("{}") // it failed, and does not say of what
}

// judgeChoices tells whether a chunk of a completion has anything in it: Azure
// begins with one about the prompt, and both services with one for the role.
func judgeChoices(choices []byte) tone {
	var list []choice
	if json.Unmarshal(choices, &list) != nil {
		return content
	}
	for _, c := range list {
		if c.Text != "" || c.FinishReason != nil {
			return content
		}
		for name, value := range c.Delta {
			if v := string(value); name != "role" && v != "null" && v != `""` && v != "[]" {
				return content
			}
		}
	}
	return preamble
}

// A choice is one of a chunk of a completion.
type choice struct {
	Index        int                        `json:"index"`
	Text         string                     `json:"text"`
	FinishReason *string                    `json:"finish_reason"`
	Delta        map[string]json.RawMessage `json:"delta"`
}

// The endings of a completion are which of its choices have said why they end.
type endings map[int]bool

// note reads a chunk.
func (e endings) note(data []byte) {
	for key, value := range members(data) {
		var list []choice
		if isKey(key.in(data), "choices") && json.Unmarshal(value.in(data), &list) == nil {
			for _, c := range list {
				e[c.Index] = e[c.Index] || c.FinishReason != nil
			}
		}
	}
}

// all tells that every choice has: then the answer is complete, with [DONE] or without.
func (e endings) all() bool {
	for _, ended := range e {
		if !ended {
			return false
		}
	}
	return len(e) > 0
}

// A streamError is an error that came in a stream, where it may carry the
// headers that its status would have had.
type streamError struct {
	Status     looseString            `json:"status"`
	StatusCode looseString            `json:"status_code"`
	Headers    map[string]looseString `json:"headers"`
}

// standsFor is the status that an error in a stream stands for, and the
// answer's header with what the error has of its own put before it.
func standsFor(h http.Header, problem []byte) (int, http.Header) {
	e, extra := readError(problem), streamError{}
	_ = json.Unmarshal(problem, &extra)
	if len(extra.Headers) > 0 {
		h = h.Clone()
		for name, value := range extra.Headers {
			if value != "" {
				h.Set(name, string(value))
			}
		}
	}
	for _, s := range []looseString{extra.Status, extra.StatusCode, e.Code} {
		if n, err := strconv.Atoi(string(s)); err == nil && n >= 400 && n < 600 {
			return n, h
		}
	}
	word := strings.ToLower(string(e.Code) + " " + string(e.Type))
	for _, w := range streamErrors {
		if strings.Contains(word, w.word) {
			return w.status, h
		}
	}
	if strings.Contains(string(e.Message), "existing deployment") {
		return http.StatusNotFound, h
	}
	if strings.Contains(word, "invalid") {
		return http.StatusBadRequest, h
	}
	return http.StatusInternalServerError, h
}

// streamErrors are the codes and types of errors in streams (Azure's and
// OpenAI's, as seen) by what they stand for, the more telling ones first.
var streamErrors = []struct {
	word   string
	status int
}{
	{"rate_limit", http.StatusTooManyRequests}, {"ratelimit", http.StatusTooManyRequests},
	{"too_many_requests", http.StatusTooManyRequests}, {"no_capacity", http.StatusTooManyRequests},
	{"slow_down", http.StatusTooManyRequests}, {"quota", http.StatusTooManyRequests},
	{"credit_balance", http.StatusTooManyRequests}, {"_limit_exceeded", http.StatusTooManyRequests},
	{"billing", http.StatusTooManyRequests},
	{"deploymentnotfound", http.StatusNotFound}, {"model_not_found", http.StatusNotFound},
	{"invalid_api_key", http.StatusUnauthorized}, {"authentication", http.StatusUnauthorized},
	{"permission", http.StatusForbidden},
	{"content_filter", http.StatusBadRequest}, {"context_length", http.StatusBadRequest}, {"invalid_prompt", http.StatusBadRequest},
	{"overloaded", http.StatusServiceUnavailable}, {"unavailable", http.StatusServiceUnavailable},
	{"timeout", http.StatusRequestTimeout},
	{"server_error", http.StatusInternalServerError}, {"internal", http.StatusInternalServerError},
	{"image", http.StatusBadRequest}, // all of ResponseErrorCode's that are not above
}
