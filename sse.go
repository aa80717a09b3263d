package spillover

import (
	"bytes"
	"cmp"
	"encoding/json"
	"iter"
	"net/http"
	"slices"
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

// maxEvent is how much of an event is looked at. Longer ones, such as those
// with a picture, say what they are at their beginning.
const maxEvent = maxPreamble

// An eventReader cuts a stream that arrives in pieces into its events. Of an
// event that arrives in several pieces it keeps the beginning.
type eventReader struct {
	cutter
	part []byte // of the unfinished event, at most maxEvent
}

// events are those that a further piece completes, each with whether it came in
// several pieces. They are valid until the next.
func (r *eventReader) events(p []byte) iter.Seq2[[]byte, bool] {
	return func(yield func([]byte, bool) bool) {
		for len(p) > 0 {
			n, whole := r.end(p)
			event, split := p[:n], len(r.part) > 0
			p = p[n:]
			if split || !whole {
				r.part = append(r.part, event[:min(n, maxEvent-len(r.part))]...)
				event = r.part
			}
			if !whole {
				return
			}
			more := yield(event, split)
			if r.part = r.part[:0]; !more {
				return
			}
		}
	}
}

// A cutter finds where the events of a stream end, which arrives in pieces: at
// a blank line. Lines end in LF, CR LF or CR (the HTML standard's server-sent
// events). Its zero value is at the beginning of an event.
type cutter struct {
	text bool // the line at hand is not blank
	cr   bool // a line ended in CR: a LF that follows belongs to it
	last bool // that line was the blank one
}

// end is how much of a piece belongs to the event at hand, and whether the
// event ends there.
func (c *cutter) end(p []byte) (n int, whole bool) {
	for n < len(p) {
		if c.cr {
			if c.cr = false; p[n] == '\n' {
				n++
			}
			if c.last {
				c.last = false
				return n, true
			}
			continue
		}
		i := lineEnd(p[n:])
		if i < 0 {
			c.text = true
			return len(p), false
		}
		blank := i == 0 && !c.text
		c.text = false
		n += i + 1
		if p[n-1] == '\r' {
			c.cr, c.last = true, blank
		} else if blank {
			return n, true
		}
	}
	return n, false
}

// lineEnd is the index of the first LF or CR, or -1.
func lineEnd(p []byte) int {
	const window = 1 << 10 // a stream without any LF is searched once, too
	for from := 0; from < len(p); from += window {
		w := p[from:min(from+window, len(p))]
		lf := bytes.IndexByte(w, '\n')
		if lf >= 0 {
			w = w[:lf]
		}
		if cr := bytes.IndexByte(w, '\r'); cr >= 0 {
			return from + cr
		}
		if lf >= 0 {
			return from + lf
		}
	}
	return -1
}

// readEvent is the name and the data of an event. A JSON object that is no
// event, as gateways put one in the place of a stream, is data.
func readEvent(event []byte) (name, data []byte) {
	event = bytes.TrimPrefix(event, []byte("\ufeff"))
	if i := skipSpace(event, 0); i < len(event) && event[i] == '{' {
		return nil, event
	}
	lines := 0
	for len(event) > 0 {
		line := event
		if i := lineEnd(event); i >= 0 {
			line, event = event[:i], event[i+1:] // of CR LF a blank line is left
		} else {
			event = nil
		}
		field, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(field) {
		case "event":
			name = value
		case "data":
			switch lines++; lines {
			case 1:
				data = value
				continue
			case 2:
				data = bytes.Clone(data)
			}
			data = append(append(data, '\n'), value...)
		}
	}
	return name, data
}

// judgeEvent tells the tone of an event, and of a failing one the error object.
// What is not understood is content: it is the caller's to see.
func judgeEvent(name, data []byte) (t tone, problem []byte) {
	data = bytes.TrimSpace(data)
	switch {
	case len(data) == 0, bytes.Equal(data, name):
		return preamble, nil
	case string(data) == "[DONE]":
		return ending, nil
	}
	var kind, choices, failure, response []byte
	var flat flatError
	end := 1
	for key, value := range members(data) {
		end = value.to
		switch k, v := key.in(data), value.in(data); {
		case isKey(k, "type"):
			kind = v
		case isKey(k, "error"):
			if !isEmpty(v) {
				failure = v
			}
		case isKey(k, "choices"):
			choices = v
		case isKey(k, "response"):
			response = v
		default:
			flat.note(k, v)
		}
	}
	object := data[0] == '{' && skipSpace(data, end) == len(data)-1 && data[len(data)-1] == '}'
	switch {
	case isKey(kind, "response.failed"):
		if response == nil {
			response = cutResponse(data[end:])
		}
		switch e := responseError(response); {
		case e != nil:
			return failing, e
		case failure != nil:
			return failing, data
		}
		return failing, []byte("{}")
	case failure != nil, isKey(kind, "error") || string(name) == "error":
		return failing, data
	case endsStream(kind):
		return ending, nil
	case choices != nil && choices[0] != '[' && string(choices) != "null":
		return content, nil
	case choices != nil && !carries(choices, true):
		return preamble, nil
	case choices == nil && response == nil && object && flat.fails(kind):
		return failing, data
	case choices == nil && (object || data[0] != '{' && json.Valid(data)) && !carries(data, bytes.HasSuffix(kind, []byte(`.done"`))):
		return preamble, nil
	}
	return content, nil
}

// isEmpty tells of the values with which some services say that there is no error.
func isEmpty(value []byte) bool {
	switch string(value) {
	case "null", `""`, "false", "{}", "[]", "0":
		return true
	}
	return false
}

// A flatError is what an event has of an error that is not put into an object
// of that name: gateways have them so, and other services that speak the protocol.
type flatError struct {
	object, message bool // it says that it is an error; it has a text for people
	status, code    bool // it has a status of an error; it has a code
	more            bool // it has something that errors do not have
}

func (f *flatError) note(key, value []byte) {
	switch name, _ := unquote(key); name {
	case "object":
		f.object = isKey(value, "error")
	case "message":
		f.message = value[0] == '"'
	case "status", "statusCode", "status_code", "code":
		text, _ := strings.CutPrefix(strings.TrimSuffix(string(value), `"`), `"`)
		switch n, err := strconv.Atoi(text); {
		case err == nil:
			f.status = f.status || n >= 400 && n < 600
		case name == "code":
			f.code = value[0] == '"' && text != "" && text != "null"
		}
	case "param", "innererror", "inner_error", "details", "target", "headers", "request_id", "requestId", "activityId", "event_id", "sequence_number":
	default:
		f.more = true
	}
}

// fails tells whether that is an error, of an event of a kind.
func (f flatError) fails(kind []byte) bool {
	return f.object || f.status && (f.message || !f.more) || f.code && !f.more || saysError(kind) && (f.message || f.code || f.status)
}

// saysError tells of a type, quoted, that ends in that word, such as
// "rate_limit_error" and "BadRequestError".
func saysError(kind []byte) bool {
	return hasSuffix(kind, `error"`) || hasSuffix(kind, `Error"`)
}

// cutResponse is the response that the rest of an event has, which breaks off in it.
func cutResponse(rest []byte) []byte {
	_, after, _ := bytes.Cut(rest, []byte(`"response"`))
	if i := skipSpace(after, 0); i < len(after) && after[i] == ':' {
		return after[i+1:]
	}
	return nil
}

// responseError is the error of a response; nil if it does not say of what it failed.
func responseError(response []byte) []byte {
	for key, value := range members(response) {
		if isKey(key.in(response), "error") {
			if v := value.in(response); !isEmpty(v) {
				return v
			}
		}
	}
	return nil
}

// endsStream tells of the type of an event, quoted, behind which no more comes.
// (Of pictures there may be several, each with an event that completes it.)
func endsStream(kind []byte) bool {
	switch string(kind) {
	case `"response.completed"`, `"response.incomplete"`, `"response.cancelled"`, `"speech.audio.done"`, `"transcript.text.done"`:
		return true
	}
	return false
}

// isReason tells whether a choice ends: some services send "" or "null" where
// the others have null.
func isReason(value []byte) bool {
	return len(value) > 2 && value[0] == '"' && value[1] != '"' && !bytes.HasPrefix(value, []byte(`"null"`))
}

// carries tells whether the JSON of an event has anything in it that a caller
// waits for: text, arguments, audio, a picture, all of which are strings that
// are not empty, or the reason why a choice ends. Numbers are not, nor what is
// under the keys that only keep the books, announce or repeat. What is
// encrypted nobody can read: it counts where it is final.
func carries(text []byte, final bool) bool {
	books := false // the values at hand are under such a key
	for i := bytes.IndexByte(text, '"'); i >= 0; {
		end := skipString(text, i)
		if end < 0 {
			return false
		}
		s := text[i+1 : end-1]
		next := skipSpace(text, end)
		if next < len(text) && text[next] == ':' {
			if next = skipSpace(text, next+1); next == len(text) {
				return false
			}
			value := text[next:]
			if string(s) == "finish_reason" && isReason(value) || final && isAction(s, value) {
				return true
			}
			books = keepsBooks(s, value[0]) || !final && string(s) == "encrypted_content"
			if books && (value[0] == '{' || value[0] == '[') {
				if next = skipValue(text, next); next < 0 {
					return false
				}
			}
		} else if !books && len(s) > 0 {
			return true
		}
		n := bytes.IndexByte(text[next:], '"')
		if n < 0 {
			return false
		}
		i = next + n
	}
	return false
}

// isAction tells of what a finished item wants done, such as a click: there need
// be no text in it.
func isAction(key, value []byte) bool {
	switch string(key) {
	case "action":
		return bytes.HasPrefix(value, []byte("{")) && !bytes.HasPrefix(value, []byte("{}"))
	case "actions":
		return bytes.HasPrefix(value, []byte("[")) && !bytes.HasPrefix(value, []byte("[]"))
	}
	return false
}

// keepsBooks tells of a member that is about the event, the item or the request
// and nothing of the answer itself, by its key.
func keepsBooks(key []byte, value byte) bool {
	switch string(key) {
	case "type", "object", "status", "state", "role", "model", "phase", "execution", "id", "ids", "index", "event", "channel", "provider", "reason",
		"created", "timestamp", "time", "ts", "seq", "sequence", "version", "obfuscation", "padding",
		"size", "quality", "background", "format", "speaker",
		"usage", "logprobs", "metadata", "headers", "prompt_annotations":
		return true
	case "response": // an echo of the request
		return value == '{'
	case "message", "action": // to people, and what is about to be done, where it is no object with more in it
		return value == '"'
	}
	if i := bytes.LastIndexByte(key, '_'); i >= 0 {
		switch string(key[i+1:]) {
		case "id", "ids", "index", "number", "at", "time", "type", "status", "state", "tier", "format", "fingerprint", "label", "reason", "by":
			return true
		}
		return bytes.HasPrefix(key, []byte("content_filter")) || bytes.HasPrefix(key, []byte("prompt_filter")) || bytes.HasPrefix(key, []byte("rate_limit"))
	}
	return false
}

// elements walks a JSON array as members walks an object.
func elements(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		i := skipSpace(text, 0)
		if i >= len(text) || text[i] != '[' {
			return
		}
		for {
			from := skipSpace(text, i+1)
			if i = skipValue(text, from); i < 0 || !yield(text[from:i]) {
				return
			}
			if i = skipSpace(text, i); i >= len(text) || text[i] != ',' {
				return
			}
		}
	}
}

// An endState is what a stream has said of its end so far, if it has no event
// that is its last.
type endState struct {
	choices map[string]bool // by the index of each, whether it has said why it ends
	open    bool            // something has begun that an event of its kind ends
}

// note reads an event with content.
func (e *endState) note(data []byte) {
	for key, value := range members(data) {
		switch v := value.in(data); string(key.in(data)) {
		case `"choices"`:
			for choice := range elements(v) {
				e.noteChoice(choice)
			}
		case `"type"`:
			for _, family := range [...]string{`"response.`, `"image_generation.`, `"image_edit.`, `"speech.`, `"transcript.`} {
				if bytes.HasPrefix(v, []byte(family)) {
					e.open = family == `"response.` || !bytes.HasSuffix(v, []byte(`.completed"`))
				}
			}
		}
	}
}

func (e *endState) noteChoice(choice []byte) {
	index, ended := []byte("0"), false
	for key, value := range members(choice) {
		switch v := value.in(choice); string(key.in(choice)) {
		case `"index"`:
			index = v
		case `"finish_reason"`:
			ended = isReason(v)
		}
	}
	if e.choices == nil {
		e.choices = map[string]bool{}
	}
	if len(e.choices) < maxChoices || e.choices[string(index)] {
		e.choices[string(index)] = e.choices[string(index)] || ended
	}
}

// maxChoices bounds the choices of an answer that are told apart. (OpenAI's
// reference allows n up to 128.)
const maxChoices = 1 << 10

// whole tells that everything that began has ended: then the answer is
// complete, with [DONE] or without.
func (e *endState) whole() bool {
	for _, ended := range e.choices {
		if !ended {
			return false
		}
	}
	return !e.open
}

// A streamError is what an error that came in a stream has beside what errors
// have: the status and the headers that its answer would have had.
type streamError struct {
	Status     looseString            `json:"status"`
	StatusCode looseString            `json:"statusCode"`
	Snake      looseString            `json:"status_code"`
	Headers    map[string]looseString `json:"headers"`
	Inner      struct {
		Code looseString `json:"code"`
	} `json:"innererror"`
	Older struct {
		Code looseString `json:"code"`
	} `json:"inner_error"`
}

// standsFor is the status that an error in a stream stands for, and the
// answer's header with what the error has of its own put before it. The problem
// is an error object, or what has one.
func standsFor(h http.Header, problem []byte) (int, http.Header) {
	e := readError(problem)
	var outer struct {
		streamError
		Error json.RawMessage `json:"error"`
	}
	var inner streamError
	_ = json.Unmarshal(problem, &outer)
	_ = json.Unmarshal(outer.Error, &inner)
	for _, headers := range []map[string]looseString{outer.Headers, inner.Headers} {
		if len(headers) > 0 {
			h = h.Clone()
		}
		for name, value := range headers {
			if value != "" {
				h.Set(name, string(value))
			}
		}
	}
	for _, s := range []looseString{inner.Status, inner.StatusCode, inner.Snake, outer.Status, outer.StatusCode, outer.Snake, e.Code} {
		if n, err := strconv.Atoi(string(s)); err == nil && n >= 400 && n < 600 {
			return n, h
		}
	}
	if e.Code == "" {
		// Azure's word for what it is about, where it has no other.
		e.Code = cmp.Or(inner.Inner.Code, inner.Older.Code, outer.Inner.Code, outer.Older.Code)
	}
	word := strings.ToLower(string(e.Code) + " " + string(e.Type))
	for _, w := range streamErrors {
		if strings.Contains(word, w.word) {
			return w.status, h
		}
	}
	words := slices.Concat(splitWords(string(e.Code)), splitWords(string(e.Type)))
	switch {
	case strings.Contains(string(e.Message), "existing deployment"):
		return http.StatusNotFound, h
	case len(words) == 0:
		return http.StatusInternalServerError, h
	case e.Code == "" && (e.Type == "tokens" || e.Type == "requests"):
		return http.StatusTooManyRequests, h
	case strings.Contains(word, "invalid"), strings.Contains(word, "unsupported"):
		return http.StatusBadRequest, h
	}
	for _, w := range serviceWords {
		if slices.Contains(words, w.word) {
			return w.status, h
		}
	}
	// The request was accepted, and what it is refused for is no trouble of the
	// service's that anybody has heard of: it is the request's own.
	return http.StatusBadRequest, h
}

// splitWords are the words of a code or type, in lower case: those of
// "server_error" as well as those of "ServerError". "error" says nothing.
func splitWords(s string) (words []string) {
	from := 0
	cut := func(to int) {
		if w := strings.ToLower(s[from:to]); w != "" && w != "error" && w != "null" {
			words = append(words, w)
		}
		from = to
	}
	for i, c := range []byte(s) {
		switch upper := c >= 'A' && c <= 'Z'; {
		case !upper && (c < 'a' || c > 'z'):
			cut(i)
			from = i + 1
		case upper && i > 0 && s[i-1] >= 'a' && s[i-1] <= 'z':
			cut(i)
		}
	}
	cut(len(s))
	return words
}

// streamErrors are the codes and types of errors in streams (Azure's and
// OpenAI's, as seen) by what they stand for, the more telling ones first.
var streamErrors = []struct {
	word   string
	status int
}{
	{"rate_limit", http.StatusTooManyRequests}, {"ratelimit", http.StatusTooManyRequests},
	{"too_many_requests", http.StatusTooManyRequests}, {"toomanyrequests", http.StatusTooManyRequests}, {"no_capacity", http.StatusTooManyRequests},
	{"slow_down", http.StatusTooManyRequests}, {"quota", http.StatusTooManyRequests},
	{"credit_balance", http.StatusTooManyRequests}, {"spend_limit", http.StatusTooManyRequests}, {"usage_limit", http.StatusTooManyRequests},
	{"billing", http.StatusTooManyRequests},
	{"deploymentnotfound", http.StatusNotFound}, {"model_not_found", http.StatusNotFound},
	{"invalid_api_key", http.StatusUnauthorized}, {"authentication", http.StatusUnauthorized},
	{"permission", http.StatusForbidden},
	{"content_filter", http.StatusBadRequest}, {"context_length", http.StatusBadRequest}, {"invalid_prompt", http.StatusBadRequest},
	{"overloaded", http.StatusServiceUnavailable}, {"unavailable", http.StatusServiceUnavailable},
	{"timeout", http.StatusRequestTimeout},
	{"policy", http.StatusBadRequest}, {"moderation", http.StatusBadRequest},
	{"service_error", http.StatusInternalServerError}, {"server_error", http.StatusInternalServerError}, {"internal", http.StatusInternalServerError}, {"api_error", http.StatusInternalServerError},
	{"image", http.StatusBadRequest}, // all of ResponseErrorCode's that are not above
}

// serviceWords are the words of a code or type that is not known otherwise by
// which it is the service's trouble.
var serviceWords = []struct {
	word   string
	status int
}{
	{"rate", http.StatusTooManyRequests}, {"capacity", http.StatusTooManyRequests}, {"concurrency", http.StatusTooManyRequests},
	{"throttled", http.StatusTooManyRequests}, {"throttling", http.StatusTooManyRequests},
	{"unauthorized", http.StatusUnauthorized}, {"forbidden", http.StatusForbidden},
	{"busy", http.StatusServiceUnavailable}, {"overload", http.StatusServiceUnavailable},
	{"server", http.StatusInternalServerError}, {"upstream", http.StatusInternalServerError},
	{"backend", http.StatusInternalServerError}, {"gateway", http.StatusInternalServerError},
}
