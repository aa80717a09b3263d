package spillover

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// An answerBody is the body of an answer on its way to the caller, which is
// learnt from as it passes. The attempt ends with it: at its end, at an error,
// when it is closed, or with the context of a caller who forgets to, whichever
// is first.
type responseBody struct {
	io.ReadCloser
	held    []byte // of a stream, what was read before its commit
	attempt *attempt
	unhook  func() bool // from the caller's context; nil if that cannot end

	watcher  wire.FieldScanner
	events   *wire.EventReader  // of a stream that is judged
	ids      *wire.IDScanner    // nil when there are none to learn
	inflater *wire.Decompressor // of a compressed answer
	usage    wire.Usage         // as the answer said last

	idle        time.Duration // the longest silence; 0 when there is no limit
	idleError   error         // what it ends with then
	idleFor     time.Duration // how long it has been silent so far
	hasContent  bool          // there was content: before, a silence has no end
	readContent bool          // what was read last has content

	failed bool  // an error event has passed
	err    error // that the answer ended with

	countsFailure bool        // the deployment, when the answer breaks off
	closed        atomic.Bool // by the caller, whose doing an error is then
}

// An upgradedBody is that of a 101, which net/http lets be written to as well.
type upgradedBody struct {
	*responseBody
	io.Writer
}

// hand puts the end of an attempt behind the body of its answer.
func (b *responseBody) attach(ctx context.Context, resp *http.Response, a *attempt) {
	b.ReadCloser, b.attempt = resp.Body, a
	if ctx.Done() != nil {
		b.unhook = context.AfterFunc(ctx, b.end)
	}
	resp.Body = b
	if w, ok := b.ReadCloser.(io.Writer); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = upgradedBody{b, w}
	}
}

// learnFrom makes the body tell its usage, the ids of what it stores, and the
// errors in a stream.
func (b *responseBody) inspect(resp *http.Response, r *request) {
	if !wire.CanDecompress(resp.Header) || b.events == nil && wire.MediaType(resp.Header) != "application/json" && !wire.IsStream(resp.Header) {
		return
	}
	b.watcher.FindErrors = b.events != nil
	if r.stateless() {
		b.watcher.Keys = wire.UsageFields
	}
	if r.tellsIDs() {
		b.ids = wire.NewIDScanner(r.spec().Has(wire.OfItems), wire.IsStream(resp.Header))
	}
	if encoding := wire.ContentEncoding(resp.Header); encoding != "" && (b.watcher.Keys != nil || b.ids != nil || b.events != nil) {
		b.inflater = wire.NewDecompressor(encoding, b.read)
	}
}

func (b *responseBody) Read(p []byte) (int, error) {
	if len(b.held) > 0 {
		n := copy(p, b.held)
		if b.held = b.held[n:]; len(b.held) == 0 {
			b.held = nil
		}
		b.watch(p[:n])
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	// A caller who does not read is no silence.
	var from time.Time
	if b.idle > 0 && b.hasContent {
		from = b.attempt.timeout.start(max(b.idle-b.idleFor, 1), b.idleError)
	}
	n, err := b.ReadCloser.Read(p)
	b.watch(p[:n])
	if !from.IsZero() {
		b.attempt.timeout.stop()
		if b.readContent {
			b.idleFor = 0
		} else {
			b.idleFor += time.Since(from)
		}
	}
	if err != nil {
		err = b.ended(err)
		b.finish()
	}
	return n, err
}

// conclude is what the end of an answer says of its deployment.
func (b *responseBody) ended(err error) error {
	if b.events != nil && len(b.events.Partial) > 0 {
		b.checkEvent(b.events.Partial)
	}
	switch {
	case b.closed.Load():
	case err != io.EOF:
		if err = b.attempt.timeoutCause(err); b.countsFailure && !b.failed {
			b.attempt.interrupted()
		}
	case b.countsFailure && !b.failed:
		b.attempt.readToEnd()
	}
	b.err = err
	return err
}

// watch learns from what passes.
func (b *responseBody) watch(p []byte) {
	b.readContent = false
	switch {
	case len(p) == 0:
	case b.inflater == nil:
		b.read(p)
	case !b.inflater.Feed(p):
		b.readContent = true // whatever it says
	}
	b.hasContent = b.hasContent || b.readContent
}

// learn reads a piece of the text of the answer. It is true: there may be more.
func (b *responseBody) read(p []byte) bool {
	if b.watcher.Keys != nil || b.watcher.FindErrors {
		for _, value := range b.watcher.Values(p) {
			b.learnUsage(value)
		}
	}
	if b.ids != nil {
		b.ids.Scan(p, func(id wire.ObjectID) {
			b.attempt.call.pool.stored.Learn(time.Now(), id, b.attempt.deployment.backend.resource)
		})
	}
	if b.events == nil {
		b.readContent = true
		return true
	}
	suspect := b.watcher.MayBeError
	b.watcher.MayBeError = false
	for event, split := range b.events.Events(p) {
		switch {
		case suspect, split:
			b.checkEvent(event)
		case b.idle > 0 && !b.readContent:
			b.readContent = hasContent(event)
		}
	}
	return true
}

// hasContent tells whether an event that is not suspect has content.
func hasContent(event []byte) bool {
	// Most events have one of these. Inside of a string the quotes would be escaped.
	if i := bytes.Index(event, []byte(`delta":`)); i > 0 && event[i-1] == '"' && event[0] != ':' {
		text := bytes.TrimPrefix(event[i+len(`delta":`):], []byte(`{"content":`))
		if len(text) > 1 && text[0] == '"' && text[1] != '"' {
			return true
		}
	}
	if i := bytes.IndexByte(event, '{'); i >= 0 && event[0] != ':' {
		return wire.CarriesContent(event[i:], true)
	}
	t, _ := wire.ClassifyEvent(wire.ParseEvent(event))
	return t != wire.Preamble
}

// judge reads an event of a stream that is the caller's.
func (b *responseBody) checkEvent(event []byte) {
	t, problem := wire.ClassifyEvent(wire.ParseEvent(event))
	b.readContent = b.readContent || t != wire.Preamble
	if t != wire.Failure || b.failed {
		return
	}
	// What the caller may leave behind it does not matter: it has ended so.
	b.failed = true
	b.attempt.endState.Store(endInterrupted)
	if b.countsFailure {
		b.attempt.failedInStream(problem)
	}
}

func (b *responseBody) learnUsage(value []byte) {
	u, ok := wire.ParseUsage(value)
	if !ok {
		return
	}
	d := b.attempt.deployment
	d.input.Add(u.Input - b.usage.Input)
	d.output.Add(u.Output - b.usage.Output)
	b.usage = u
	b.attempt.usedTokens.Store(u.Input + u.Output)
	if b.attempt.wholeWait > 0 {
		d.Whole.Observe(time.Now(), float64(b.attempt.wholeWait)/float64(health.FirstTokenCost+u.Output))
		b.attempt.wholeWait = 0
	}
	b.attempt.input.Store(u.Input)
	b.attempt.output.Store(u.Output)
}

func (b *responseBody) Close() error {
	b.closed.Store(true)
	err := b.ReadCloser.Close()
	b.finish()
	return err
}

func (b *responseBody) finish() {
	if b.unhook != nil {
		b.unhook()
	}
	b.end()
}

func (b *responseBody) end() {
	if b.inflater != nil {
		b.inflater.Close()
	}
	b.attempt.end()
}
