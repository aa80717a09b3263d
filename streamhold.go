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

// How much of a stream is held before its first content, and how much if it is
// held whole. In bytes.
const (
	maxPreamble = 256 << 10
	maxHeld     = 8 << 20
)

// A streamHold reads a stream up to where it is passed to the caller: its first
// event with content, or its end if it is held whole. An error before that is
// judged as the status it stands for, and so fails over. What was read is the
// beginning of what the caller reads.
type streamHold struct {
	resp        *http.Response
	operation   string
	whole       bool // hold it until it is complete
	requested   bool // the request asked for a stream
	repeatable  bool // the request may be sent again
	timeout     *timeout
	idleTimeout time.Duration

	held       []byte
	events     wire.EventReader
	ends       wire.CompletionTracker
	hasContent bool
	done       bool    // it need not be held any longer
	failure    outcome // of an error in it
	sniffed    []byte  // the beginning of what may not be a stream; nil once that is known
	notEvents  bool    // it is not a stream
	jsonObject bool    // it is a JSON object: not a stream, unless it is an error
	guessed    bool    // only its beginning shows that it is a stream

	decompressor *wire.Decompressor // of a compressed stream
}

// read reads until the stream need not be held any longer. With an error there
// is no stream to pass.
func (h *streamHold) read() (err error) {
	h.held = make([]byte, 0, 4<<10)
	if wire.MediaType(h.resp.Header) != wire.EventStream {
		h.sniffed, h.guessed = []byte{}, !h.requested
	}
	if encoding := wire.ContentEncoding(h.resp.Header); encoding != "" {
		h.decompressor = wire.NewDecompressor(encoding, h.feed)
		defer h.decompressor.Close()
	}
	defer func() { h.notEvents = h.notEvents || h.jsonObject && h.failure.status == 0 }()
	for err == nil {
		h.held = slices.Grow(h.held, 4<<10)
		var n int
		n, err = h.resp.Body.Read(h.held[len(h.held):cap(h.held)])
		p := h.held[len(h.held) : len(h.held)+n]
		h.held = h.held[:len(h.held)+n]
		switch {
		case h.decompressor == nil:
			h.feed(p)
		case !h.decompressor.Feed(p):
			return nil // it cannot be read here: the caller gets it as it is
		}
		if h.jsonObject {
			h.timeout.start(h.idleTimeout, errIdleTimeout) // it has begun
		}
		if h.done || err == nil && (len(h.held) > maxHeld || !h.hasContent && len(h.held) > maxPreamble) {
			return nil
		}
	}
	if err != io.EOF {
		return err
	}
	// A last event without a blank line after it is an event all the same.
	if h.sniffed != nil && !h.looksLikeEvents(true) {
		return nil
	}
	if len(h.events.Partial) > 0 {
		h.event(h.events.Partial, h.events.Truncated())
	}
	switch {
	case h.done, h.hasContent && h.ends.Complete():
		return nil
	case h.jsonObject && json.Valid(h.events.Partial), h.guessed:
		h.notEvents = true // and it is complete
		return nil
	case !h.hasContent:
		// A refusal may consist of headers alone: only a refusal has Retry-After.
		if o := h.judge(nil); o.wait > 0 {
			h.failure = o
			return nil
		}
	}
	return errUnfinished
}

// feed reads the next piece of the stream. It is false when nothing more needs
// to be read.
func (h *streamHold) feed(p []byte) bool {
	if h.sniffed != nil {
		if h.sniffed = append(h.sniffed, p...); !h.looksLikeEvents(false) {
			return !h.done
		}
		p, h.sniffed = h.sniffed, nil
	}
	for event := range h.events.Events(p) {
		if h.event(event, false); h.done {
			return false
		}
	}
	return true
}

// looksLikeEvents reports whether a response without the Content-Type of a
// stream is one, or is the JSON object of an error in place of one. Anything
// else goes to the caller at once.
func (h *streamHold) looksLikeEvents(all bool) bool {
	text := bytes.TrimLeft(bytes.TrimPrefix(h.sniffed, []byte("\ufeff")), " \t\r\n")
	for _, start := range [...]string{"data:", "event:", "id:", "retry:", ":", "{"} {
		switch {
		case bytes.HasPrefix(text, []byte(start)):
			h.jsonObject = start == "{"
			return true
		case !all && len(h.sniffed) < 1<<10 && strings.HasPrefix(start, string(text)):
			return false // not known yet
		}
	}
	if all && len(text) == 0 && h.requested {
		return true // the stream was interrupted before it began
	}
	h.done, h.notEvents = true, true
	return false
}

// event judges an event. truncated means that its end is missing.
func (h *streamHold) event(event []byte, truncated bool) {
	name, data := wire.ParseEvent(event)
	t, problem := wire.ClassifyEvent(name, data)
	if h.whole && !truncated {
		h.ends.Add(t, data, len(event) >= wire.MaxEvent)
	}
	switch {
	case t == wire.Failure:
		h.done, h.failure = true, h.judge(problem)
	case truncated:
		// A caller cannot use part of an event, so it is not content, and ends nothing.
	case t == wire.End:
		h.done = true
	case t == wire.Content && !h.whole:
		h.done, h.hasContent = true, true
	case t == wire.Content:
		// Only content restarts the idle timeout.
		h.timeout.stop()
		h.timeout.start(h.idleTimeout, errIdleTimeout)
		h.hasContent = true
	case len(data) > 0 && !h.repeatable:
		// It cannot be sent again, so there is not a reason to hold it, and the caller
		// may need the id of what was begun.
		h.done = true
	}
}

// judge is the outcome of an error in the stream; nil stands for a stream that is
// empty.
func (h *streamHold) judge(problem []byte) outcome {
	status, header := http.StatusTooManyRequests, h.resp.Header
	if problem != nil {
		status, header = wire.StreamErrorStatus(header, problem)
	}
	return judge(status, header, problem, h.operation, time.Now())
}
