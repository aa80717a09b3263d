package wire

import (
	"bytes"
	"iter"
	"strconv"
)

// isFinishReason reports whether a finish_reason ends its choice. Some services send ""
// or "null" instead of null.
func isFinishReason(value []byte) bool {
	return len(value) > 2 && value[0] == '"' && value[1] != '"' && !bytes.HasPrefix(value, []byte(`"null"`))
}

// CarriesContent reports whether the JSON of an event has something that the caller
// waits for: a string that is not empty, such as text, arguments, audio or an image, or
// the reason why a choice ends. Numbers do not count, and neither do the values of
// bookkeeping members, which describe, announce or repeat. Encrypted content counts
// only in a final event.
func CarriesContent(text []byte, final bool) bool {
	bookkeeping := false // the current values belong to such a member
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
			if string(s) == "finish_reason" && isFinishReason(value) || final && isAction(s, value) {
				return true
			}
			bookkeeping = isBookkeeping(s, value[0]) || !final && string(s) == "encrypted_content"
			if bookkeeping && (value[0] == '{' || value[0] == '[') {
				if next = skipValue(text, next); next < 0 {
					return false
				}
			}
		} else if !bookkeeping && len(s) > 0 {
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

// isAction reports whether a member of a finished item is an action, such as a click.
// An action need not contain any text.
func isAction(key, value []byte) bool {
	switch string(key) {
	case "action":
		return bytes.HasPrefix(value, []byte("{")) && !bytes.HasPrefix(value, []byte("{}"))
	case "actions":
		return bytes.HasPrefix(value, []byte("[")) && !bytes.HasPrefix(value, []byte("[]"))
	}
	return false
}

// isBookkeeping reports whether a member, by its key, describes the event, the item or
// the request instead of being content.
func isBookkeeping(key []byte, value byte) bool {
	switch string(key) {
	case "type", "object", "status", "state", "role", "model", "phase", "execution", "id", "ids", "index", "event", "channel", "provider", "reason",
		"created", "timestamp", "time", "ts", "seq", "sequence", "version", "obfuscation", "padding",
		"size", "quality", "background", "format", "speaker",
		"usage", "logprobs", "metadata", "headers", "prompt_annotations":
		return true
	case "response": // repeats the request
		return value == '{'
	case "message", "action": // a text for people, and a kind of action, unless it is an object
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

// elements iterates over the elements of a JSON array.
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

// A CompletionTracker follows whether a stream is complete. Some streams have no final
// event.
//
// Services that implement the protocol end a chat completion in one of two ways: with
// a finish reason in each choice, or with [DONE]. Azure and OpenAI send both. Without
// either the response is truncated, however regularly its connection ends.
type CompletionTracker struct {
	begun, finished choiceSet
	open            bool // something has begun whose end is an event that has not come yet
	ended           bool // by an event
	unknown         bool // it may have ended in a part of an event that was not examined
}

// A choiceSet is a set of choices, by their index. (OpenAI's reference allows n up to
// 128.) Choices with a larger index are not distinguished.
type choiceSet [2]uint64

func (c *choiceSet) add(index int) {
	index = min(max(index, 0), 64*len(c)-1)
	c[index/64] |= 1 << (index % 64)
}

// Add takes note of an event and its kind, unless it is a failure. cut means that data is
// only the beginning of the event.
func (e *CompletionTracker) Add(kind EventKind, data []byte, cut bool) {
	switch kind {
	case End:
		e.ended = true
		return
	case Failure:
		return
	}
	for key, value := range members(data) {
		switch v := value.in(data); string(key.in(data)) {
		case `"choices"`:
			for choice := range elements(v) {
				e.addChoice(choice)
			}
		case `"type"`:
			if open, ok := opens(v); ok {
				e.open, cut = open, false // this is all that matters
			}
		}
	}
	e.unknown = e.unknown || cut
}

// opens reports, of the type in quotes of an event in a stream that ends with a certain
// event, whether that one has still to come. After the event that completes an image
// there may be further images. Of Anthropic's messages only the first event counts.
func opens(kind []byte) (open, ok bool) {
	if string(kind) == `"message_start"` {
		return true, true
	}
	for _, family := range [...]string{`"response.`, `"image_generation.`, `"image_edit.`, `"speech.`, `"transcript.`} {
		if bytes.HasPrefix(kind, []byte(family)) {
			return family == `"response.` || !bytes.HasSuffix(kind, []byte(`.completed"`)), true
		}
	}
	return false, false
}

// addChoice takes note of a choice, and of its finish reason.
func (e *CompletionTracker) addChoice(choice []byte) {
	index, finished := 0, false
	for key, value := range members(choice) {
		switch v := value.in(choice); string(key.in(choice)) {
		case `"index"`:
			index, _ = strconv.Atoi(string(v))
		case `"finish_reason"`:
			finished = isFinishReason(v)
		}
	}
	if e.begun.add(index); finished {
		e.finished.add(index)
	}
}

// knows reports whether a choice has begun, by the index at the beginning of a text.
func (e *CompletionTracker) knows(text []byte) bool {
	text = bytes.TrimPrefix(text, []byte{' '})
	digit := len(text) > 1 && text[0] >= '0' && text[0] <= '9' && (text[1] < '0' || text[1] > '9')
	return digit && e.begun[0]>>(text[0]-'0')&1 == 1
}

// isNew reports whether an event of this type, in quotes, changes what is known.
func (e *CompletionTracker) isNew(kind []byte) bool {
	open, ok := opens(kind)
	return ok && open != e.open || isFinalType(kind)
}

// Complete reports whether everything that has begun has also ended, or may have. Then
// the response is complete, with or without [DONE].
func (e *CompletionTracker) Complete() bool {
	return e.ended || e.unknown || e.begun == e.finished && !e.open
}
