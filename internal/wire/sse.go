package wire

import (
	"bytes"
	"encoding/json"
	"iter"
	"strconv"
	"strings"
)

// An EventKind is what an event means for the stream as a whole.
type EventKind int

const (
	Preamble EventKind = iota // no content yet: the event can be discarded, and the request can fail over
	Content                   // a part of the response
	Failure                   // an error
	End                       // the response is complete
)

// MaxEvent is how many bytes of an event are examined. Longer events, such as those
// with an image, can be classified by their beginning.
const MaxEvent = 256 << 10

// An EventReader splits a stream, which arrives in pieces, into its events. Of an event
// that arrives in several pieces it keeps the beginning.
type EventReader struct {
	eventSplitter
	Partial []byte // the beginning of the unfinished event, at most MaxEvent
}

// Events iterates over the events that a further piece completes, each with whether it
// came in several pieces. An event is valid until the next one.
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

// Truncated reports, at the end of a stream, whether its last event is incomplete. An
// event may be whole without the blank line after it. Then Partial has all of it.
func (r *EventReader) Truncated() bool {
	_, data := ParseEvent(r.Partial)
	data = bytes.TrimSpace(data)
	return len(data) > 0 && len(r.Partial) < MaxEvent && string(data) != "[DONE]" && !json.Valid(data)
}

// An eventSplitter finds the ends of events, which are blank lines, in a stream that
// arrives in pieces. A line ends in LF, CR LF or CR (the HTML standard's server-sent
// events). The zero value is at the beginning of an event.
type eventSplitter struct {
	lineHasText bool // the current line is not blank
	afterCR     bool // a line has ended in CR: a following LF belongs to it
	blankEnded  bool // that line was blank
}

// next returns how many bytes of a piece belong to the current event, and whether it
// ends there.
func (c *eventSplitter) next(p []byte) (n int, whole bool) {
	for n < len(p) {
		if c.afterCR {
			if c.afterCR = false; p[n] == '\n' {
				n++
			}
			if c.blankEnded {
				c.blankEnded = false
				return n, true
			}
			continue
		}
		i := lineEnd(p[n:])
		if i < 0 {
			c.lineHasText = true
			return len(p), false
		}
		blank := i == 0 && !c.lineHasText
		c.lineHasText = false
		n += i + 1
		if p[n-1] == '\r' {
			c.afterCR, c.blankEnded = true, blank
		} else if blank {
			return n, true
		}
	}
	return n, false
}

// lineEnd returns the index of the first LF or CR, or -1.
func lineEnd(p []byte) int {
	const window = 1 << 10 // avoids searching the whole of a stream without LF again for each CR
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

// ParseEvent returns the name and the data of an event. If a gateway sends a JSON
// object instead of a stream, the object is the data.
func ParseEvent(event []byte) (name, data []byte) {
	event = bytes.TrimPrefix(event, []byte("\ufeff"))
	if i := skipSpace(event, 0); i < len(event) && event[i] == '{' {
		return nil, event
	}
	lines := 0
	for len(event) > 0 {
		line := event
		if i := lineEnd(event); i >= 0 {
			line, event = event[:i], event[i+1:] // the LF of CR LF remains as a blank line
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

// ClassifyEvent returns the kind of an event, and the error object of a failure. An
// event that is not understood is content, so that the caller receives it.
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
	for key, value := range members(data) {
		end = value.To
		switch k, v := key.in(data), value.in(data); {
		case isKey(k, "type"):
			kind = v
		case isKey(k, "error"):
			if !isNoError(v) {
				failure = v
			}
		case isKey(k, "choices"):
			choices = v
		case isKey(k, "response"):
			response = v
		default:
			flat.addMember(k, v)
		}
	}
	object := data[0] == '{' && skipSpace(data, end) == len(data)-1 && data[len(data)-1] == '}'
	switch {
	case isKey(kind, "response.failed"):
		if response == nil {
			response = truncatedResponse(data[end:])
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
	case isFinalType(kind):
		return End, nil
	case choices != nil && choices[0] != '[' && string(choices) != "null":
		return Content, nil
	case choices != nil && !CarriesContent(choices, true):
		return Preamble, nil
	case choices == nil && response == nil && object && flat.isError(kind):
		return Failure, data
	case choices == nil && (object || data[0] != '{' && json.Valid(data)) && !CarriesContent(data, bytes.HasSuffix(kind, []byte(`.done"`))):
		return Preamble, nil
	}
	return Content, nil
}

// isNoError reports whether a value of "error" means that there is none. Services have
// several such values.
func isNoError(value []byte) bool {
	switch string(value) {
	case "null", `""`, "false", "{}", "[]", "0":
		return true
	}
	return false
}

// A flatError collects the members of an event that may be an error without an object
// "error" around it. Gateways and other services that implement the protocol send such
// errors.
type flatError struct {
	hasErrorObject, hasMessage bool // "object" is "error"; there is a message
	hasErrorStatus, hasCode    bool // there is a status from 400 to 599; there is a code that is not a number
	hasOtherMembers            bool // there is a member that errors do not have
}

// addMember takes note of a member of the event.
func (f *flatError) addMember(key, value []byte) {
	switch name, _ := unquote(key); name {
	case "object":
		f.hasErrorObject = isKey(value, "error")
	case "message":
		f.hasMessage = value[0] == '"'
	case "status", "statusCode", "status_code", "code":
		text, _ := strings.CutPrefix(strings.TrimSuffix(string(value), `"`), `"`)
		switch n, err := strconv.Atoi(text); {
		case err == nil:
			f.hasErrorStatus = f.hasErrorStatus || n >= 400 && n < 600
		case name == "code":
			f.hasCode = value[0] == '"' && text != "" && text != "null"
		}
	case "param", "innererror", "inner_error", "details", "target", "headers", "request_id", "requestId", "activityId", "event_id", "sequence_number":
	default:
		f.hasOtherMembers = true
	}
}

// isError reports whether the event, with a type in quotes, is an error.
func (f flatError) isError(kind []byte) bool {
	return f.hasErrorObject || f.hasErrorStatus && (f.hasMessage || !f.hasOtherMembers) || f.hasCode && !f.hasOtherMembers || isErrorType(kind) && (f.hasMessage || f.hasCode || f.hasErrorStatus)
}

// isErrorType reports whether a type in quotes ends in "error", such as
// "rate_limit_error" and "BadRequestError".
func isErrorType(kind []byte) bool {
	return hasSuffix(kind, `error"`) || hasSuffix(kind, `Error"`)
}

// truncatedResponse returns the member "response" in the rest of an event of which the
// end is missing.
func truncatedResponse(rest []byte) []byte {
	_, after, _ := bytes.Cut(rest, []byte(`"response"`))
	if i := skipSpace(after, 0); i < len(after) && after[i] == ':' {
		return after[i+1:]
	}
	return nil
}

// responseError returns the error of a response, or nil if it has none.
func responseError(response []byte) []byte {
	for key, value := range members(response) {
		if isKey(key.in(response), "error") {
			if v := value.in(response); !isNoError(v) {
				return v
			}
		}
	}
	return nil
}

// isFinalType reports whether the stream ends after an event with this type, in quotes.
// (The event that completes an image is not final, because several images may follow
// each other.)
func isFinalType(kind []byte) bool {
	switch string(kind) {
	case `"response.completed"`, `"response.incomplete"`, `"response.cancelled"`, `"speech.audio.done"`, `"transcript.text.done"`, `"message_stop"`:
		return true
	}
	return false
}
