package spillover

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// How much of a stream is held before its first content, and how much of one
// that is to be committed when it is whole.
const (
	maxPreamble = 256 << 10
	maxHeld     = 8 << 20
)

// A hold is a stream that is read up to where it belongs to the caller: its
// first event with content, or with HoldStreams its end. An error until then is
// judged as the status it stands for, and so fails over. What was read is the
// beginning of what the caller reads.
type streamHold struct {
	call       *call
	send       *attempt
	resp       *http.Response
	held       []byte
	events     wire.EventReader
	ends       wire.Completion
	hasContent bool    // there was content
	done       bool    // it need not be held any longer
	failure    outcome // of an error
	sniff      []byte  // the beginning of what may be no stream; nil once that is known
	notEvents  bool    // it is none
	jsonObject bool    // it is a JSON object: an answer that is no stream, unless it is an error
	guessed    bool    // nothing says that it is one, but that it begins so

	inflater *wire.Decompressor // of a compressed stream
}

// commit holds an event stream until it is the caller's. With an error there
// was no stream to speak of.
func (c *call) holdStream(resp *http.Response, a *attempt) (h *streamHold, err error) {
	h = &streamHold{call: c, send: a, resp: resp, held: make([]byte, 0, 4<<10)}
	if !wire.IsStream(resp.Header) {
		h.sniff, h.guessed = []byte{}, !c.naming.Stream
	}
	if encoding := wire.ContentEncoding(resp.Header); encoding != "" {
		h.inflater = wire.NewDecompressor(encoding, h.feed)
		defer h.inflater.Close()
	}
	defer func() { h.notEvents = h.notEvents || h.jsonObject && h.failure.status == 0 }()
	for err == nil {
		h.held = slices.Grow(h.held, 4<<10)
		var n int
		n, err = resp.Body.Read(h.held[len(h.held):cap(h.held)])
		p := h.held[len(h.held) : len(h.held)+n]
		h.held = h.held[:len(h.held)+n]
		switch {
		case h.inflater == nil:
			h.feed(p)
		case !h.inflater.Feed(p):
			return h, nil // it cannot be read: it is the caller's
		}
		if h.jsonObject {
			a.startTimeout(a.deployment.backend.idleTimeout, errIdleTimeout) // it has begun
		}
		if h.done || err == nil && (len(h.held) > maxHeld || !h.hasContent && len(h.held) > maxPreamble) {
			return h, nil
		}
	}
	if err != io.EOF {
		return h, a.timeoutCause(err)
	}
	// What ends the stream without a blank line is its last event all the same.
	if h.sniff != nil && !h.looksLikeEvents(true) {
		return h, nil
	}
	if len(h.events.Partial) > 0 {
		h.event(h.events.Partial, true)
	}
	switch {
	case h.done, h.hasContent && h.ends.Complete():
		return h, nil
	case h.jsonObject && json.Valid(h.events.Partial), h.guessed:
		h.notEvents = true // and all of it is there
		return h, nil
	case !h.hasContent:
		// A refusal may be nothing but a header: a stream has Retry-After only
		// when it is one.
		if o := c.judgeStreamError(resp, nil); o.wait > 0 {
			h.failure = o
			return h, nil
		}
	}
	return h, errUnfinished
}

// feed reads a further piece of the stream. It is false when nothing more
// needs to be read.
func (h *streamHold) feed(p []byte) bool {
	if h.sniff != nil {
		if h.sniff = append(h.sniff, p...); !h.looksLikeEvents(false) {
			return !h.done
		}
		p, h.sniff = h.sniff, nil
	}
	for event := range h.events.Events(p) {
		if h.event(event, false); h.done {
			return false
		}
	}
	return true
}

// looksLikeEvents tells whether what has no Content-Type of a stream is one, or
// the JSON object of an error in the place of one. What is neither is the
// caller's at once.
func (h *streamHold) looksLikeEvents(all bool) bool {
	text := bytes.TrimLeft(bytes.TrimPrefix(h.sniff, []byte("\ufeff")), " \t\r\n")
	for _, start := range [...]string{"data:", "event:", "id:", "retry:", ":", "{"} {
		switch {
		case bytes.HasPrefix(text, []byte(start)):
			h.jsonObject = start == "{"
			return true
		case !all && len(h.sniff) < 1<<10 && strings.HasPrefix(start, string(text)):
			return false // that is not known yet
		}
	}
	if all && len(text) == 0 && h.call.naming.Stream {
		return true // it broke off before it began
	}
	h.done, h.notEvents = true, true
	return false
}

// event judges an event. cut tells of the last one, which has no blank line
// behind it.
func (h *streamHold) event(event []byte, cut bool) {
	name, data := wire.ParseEvent(event)
	t, problem := wire.ClassifyEvent(name, data)
	whole := h.call.cfg.HoldStreams && h.call.repeatable()
	switch {
	case t == wire.Failure:
		h.done, h.failure = true, h.call.judgeStreamError(h.resp, problem)
	case t == wire.End:
		h.done = true
	case cut && t == wire.Content && !json.Valid(data):
		// A part of an event is no content: nothing of it can be used.
	case t == wire.Content && !whole:
		h.done, h.hasContent = true, true
	case t == wire.Content:
		// Only content ends a silence.
		h.send.stopTimeout()
		h.send.startTimeout(h.send.deployment.backend.idleTimeout, errIdleTimeout)
		h.hasContent = true
		h.ends.Add(data)
	case len(data) > 0 && !h.call.repeatable():
		// It cannot be sent again: there is nothing to hold it for, and its
		// caller may need the id of what was begun.
		h.done = true
	}
}

// judgeProblem is the outcome of an error in a stream.
func (c *call) judgeStreamError(resp *http.Response, problem []byte) outcome {
	status, h := http.StatusTooManyRequests, resp.Header
	if problem != nil {
		status, h = wire.StreamErrorStatus(h, problem)
	}
	return judge(status, h, problem, c.Operation, time.Now())
}

// streamed tells whether an answer is, or may be, a stream of events that is
// judged: those of all operations that leave nothing behind at the service.
// Some gateways leave out what type it is.
func (c *call) streamed(resp *http.Response) bool {
	if resp.StatusCode != http.StatusOK || !c.stateless() || !wire.CanDecompress(resp.Header) {
		return false
	}
	switch t := wire.MediaType(resp.Header); t {
	case "text/event-stream":
		return true
	case "", "text/plain", "application/octet-stream":
		// It is looked at only where a stream was asked for, as far as that is known.
		return resp.Body != http.NoBody && (c.naming.Stream || !c.naming.Complete)
	case "application/json":
		return resp.Body != http.NoBody && c.naming.Stream // an error in the place of the stream
	}
	return false
}
