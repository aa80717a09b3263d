package wire

import (
	"bytes"
	"iter"
)

// isReason tells whether a choice ends: some services send "" or "null" where
// the others have null.
func isReason(value []byte) bool {
	return len(value) > 2 && value[0] == '"' && value[1] != '"' && !bytes.HasPrefix(value, []byte(`"null"`))
}

// CarriesContent tells whether the JSON of an event has anything in it that a caller
// waits for: text, arguments, audio, a picture, all of which are strings that
// are not empty, or the reason why a choice ends. Numbers are not, nor what is
// under the keys that only keep the books, announce or repeat. What is
// encrypted nobody can read: it counts where it is final.
func CarriesContent(text []byte, final bool) bool {
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
			books = isBookkeeping(s, value[0]) || !final && string(s) == "encrypted_content"
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
func isBookkeeping(key []byte, value byte) bool {
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

// An Completion is what a stream has said of its end so far, if it has no event
// that is its last.
type Completion struct {
	choices map[string]bool // by the index of each, whether it has said why it ends
	open    bool            // something has begun that an event of its kind ends
}

// Add reads an event with content.
func (e *Completion) Add(data []byte) {
	for key, value := range Members(data) {
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

func (e *Completion) noteChoice(choice []byte) {
	index, ended := []byte("0"), false
	for key, value := range Members(choice) {
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

// Complete tells that everything that began has ended: then the answer is
// complete, with [DONE] or without.
func (e *Completion) Complete() bool {
	for _, ended := range e.choices {
		if !ended {
			return false
		}
	}
	return !e.open
}
