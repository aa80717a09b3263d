package wire

import (
	"bytes"
	"encoding/json"
	"iter"
	"strconv"
	"strings"
)

// A EventKind is what an event of a stream says of the stream as a whole.
type EventKind int

const (
	Preamble EventKind = iota // nothing yet: it may be thrown away
	Content                   // something of the answer
	Failure                   // an error
	End                       // the answer is complete
)

// MaxEvent is how much of an event is looked at. Longer ones, such as those
// with a picture, say what they are at their beginning.
const MaxEvent = 256 << 10

// An EventReader cuts a stream that arrives in pieces into its events. Of an
// event that arrives in several pieces it keeps the beginning.
type EventReader struct {
	eventSplitter
	Partial []byte // of the unfinished event, at most maxEvent
}

// Events are those that a further piece completes, each with whether it came in
// several pieces. They are valid until the next.
func (r *EventReader) Events(p []byte) iter.Seq2[[]byte, bool] {
	return func(yield func([]byte, bool) bool) {
		for len(p) > 0 {
			n, whole := r.next(p)
			event, split := p[:n], len(r.Partial) > 0
			p = p[n:]
			if split || !whole {
				r.Partial = append(r.Partial, event[:min(n, MaxEvent-len(r.Partial))]...)
				event = r.Partial
			}
			if !whole {
				return
			}
			more := yield(event, split)
			if r.Partial = r.Partial[:0]; !more {
				return
			}
		}
	}
}

// A cutter finds where the events of a stream end, which arrives in pieces: at
// a blank line. Lines end in LF, CR LF or CR (the HTML standard's server-sent
// events). Its zero value is at the beginning of an event.
type eventSplitter struct {
	text bool // the line at hand is not blank
	cr   bool // a line ended in CR: a LF that follows belongs to it
	last bool // that line was the blank one
}

// end is how much of a piece belongs to the event at hand, and whether the
// event ends there.
func (c *eventSplitter) next(p []byte) (n int, whole bool) {
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

// ParseEvent is the name and the data of an event. A JSON object that is no
// event, as gateways put one in the place of a stream, is data.
func ParseEvent(event []byte) (name, data []byte) {
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

// ClassifyEvent tells the tone of an event, and of a failing one the error object.
// What is not understood is content: it is the caller's to see.
func ClassifyEvent(name, data []byte) (t EventKind, problem []byte) {
	data = bytes.TrimSpace(data)
	switch {
	case len(data) == 0, bytes.Equal(data, name):
		return Preamble, nil
	case string(data) == "[DONE]":
		return End, nil
	}
	var kind, choices, failure, response []byte
	var flat flatError
	end := 1
	for key, value := range Members(data) {
		end = value.To
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
			return Failure, e
		case failure != nil:
			return Failure, data
		}
		return Failure, []byte("{}")
	case failure != nil, isKey(kind, "error") || string(name) == "error":
		return Failure, data
	case endsStream(kind):
		return End, nil
	case choices != nil && choices[0] != '[' && string(choices) != "null":
		return Content, nil
	case choices != nil && !CarriesContent(choices, true):
		return Preamble, nil
	case choices == nil && response == nil && object && flat.fails(kind):
		return Failure, data
	case choices == nil && (object || data[0] != '{' && json.Valid(data)) && !CarriesContent(data, bytes.HasSuffix(kind, []byte(`.done"`))):
		return Preamble, nil
	}
	return Content, nil
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
	for key, value := range Members(response) {
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
