package spillover

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// A responseBody is the body of a response on its way to the caller. It is
// inspected as it passes. The attempt ends with it: at its end, at an error,
// when it is closed, or when the caller's context ends, whichever comes first.
type responseBody struct {
	io.ReadCloser
	held    []byte // what was read of a stream before it was passed on
	attempt *attempt
	unhook  func() bool // from the caller's context; nil if that cannot end

	watcher  wire.FieldScanner
	events   *judgedEvents      // of a stream that is judged
	ids      *wire.IDScanner    // nil if there are no ids to learn
	inflater *wire.Decompressor // of a compressed answer
	usage    wire.Usage         // as reported last

	idle        time.Duration // the idle timeout; 0 for none
	idleError   error         // of the idle timeout
	idleFor     time.Duration // the silence so far
	hasContent  bool          // there was content; before it there is no idle timeout
	readContent bool          // the last read had content

	failed bool  // an error event has passed
	err    error // that the body ended with

	countsFailure bool        // an interruption counts against the deployment
	closed        atomic.Bool // by the caller, which then has caused any error
}

// judgedEvents are the events of a stream.
type judgedEvents struct {
	wire.EventReader
	ends       wire.CompletionTracker
	endUnknown bool // whether the stream is complete cannot be judged
	stored     bool // of a stored response: only whether the stream is complete is judged
}

// An upgradedBody is the body of a 101, which net/http makes writable.
type upgradedBody struct {
	*responseBody
	io.Writer
}

// attach puts the body between a response and its caller. The attempt ends with
// it.
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

// inspect decides what is read of the body: its usage, the ids of stored
// objects, and the errors in a stream.
func (b *responseBody) inspect(resp *http.Response, mediaType string, r *request) {
	if !wire.CanDecompress(resp.Header) || b.events == nil && mediaType != "application/json" && mediaType != wire.EventStream {
		return
	}
	if b.events != nil {
		b.watcher.Ends = &b.events.ends
	}
	if r.stateless() {
		b.watcher.Keys = wire.UsageFields
	}
	if r.answersIDs() {
		b.ids = wire.NewIDScanner(r.spec.HasTrait(wire.ReturnsItems), mediaType == wire.EventStream)
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
	// Only the time of reads counts: a caller that does not read is not a silence of the service.
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

// ended records how the body has ended.
func (b *responseBody) ended(err error) error {
	if b.events != nil && len(b.events.Partial) > 0 {
		b.checkEvent(b.events.Partial, b.events.Truncated())
	}
	if err == io.EOF && b.truncated() {
		err = errTruncated
	}
	switch {
	case b.closed.Load():
	case err != io.EOF:
		if err = b.attempt.timeoutCause(err); b.countsFailure && !b.failed {
			b.attempt.interrupted(err)
		}
	case b.countsFailure && !b.failed:
		b.attempt.readToEnd()
	}
	b.err = err
	return err
}

// truncated reports whether a stream that has ended regularly is incomplete. A caller
// could not know that.
func (b *responseBody) truncated() bool {
	return b.events != nil && !b.events.ends.Complete() && !b.events.endUnknown && !b.failed && !b.closed.Load() && !b.attempt.ended.Load()
}

// watch inspects a piece that passes.
func (b *responseBody) watch(p []byte) {
	b.readContent = false
	switch {
	case len(p) == 0:
	case b.inflater == nil:
		b.read(p)
	case !b.inflater.Feed(p):
		b.readContent = true // it cannot be read
		if b.events != nil {
			b.events.endUnknown = true
		}
	}
	b.hasContent = b.hasContent || b.readContent
}

// read inspects a piece of the decompressed body. It always asks for more.
func (b *responseBody) read(p []byte) bool {
	if b.watcher.Keys != nil || b.watcher.Ends != nil {
		for _, value := range b.watcher.Values(p) {
			b.learnUsage(value)
		}
	}
	if b.ids != nil {
		b.ids.Scan(p, func(id wire.ObjectID) {
			b.attempt.call.pool.stored.Learn(time.Now(), id, b.attempt.deployment.backend.resource)
		})
	}
	if b.events == nil || b.events.stored {
		b.readContent = true
	}
	if b.events == nil {
		return true
	}
	notable := b.watcher.Notable
	b.watcher.Notable = false
	for event, split := range b.events.Events(p) {
		switch {
		case notable, split, !endsInObject(event):
			b.checkEvent(event, false)
			notable = notable || split // what follows was searched before this event was complete
		case b.idle > 0 && !b.readContent:
			b.readContent = hasContent(event)
		}
	}
	return true
}

// hasContent reports whether an event has content, of events that cannot be
// errors.
func hasContent(event []byte) bool {
	// Most events have one of these. Inside a string the quotes would be escaped.
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

// endsInObject reports whether an event ends as those with JSON do, but [DONE] does
// not.
func endsInObject(event []byte) bool {
	for _, c := range slices.Backward(event) {
		if c != '\n' && c != '\r' {
			return c == '}'
		}
	}
	return true
}

// checkEvent takes note of an error, or of the end of the stream, in an event that
// was already passed to the caller. truncated means that its end is missing.
func (b *responseBody) checkEvent(event []byte, truncated bool) {
	name, data := wire.ParseEvent(event)
	t, problem := wire.ClassifyEvent(name, data)
	if t == wire.Failure && b.events.stored {
		t = wire.End // the response failed when it was created
	}
	if !truncated {
		b.events.ends.Add(t, data, len(event) >= wire.MaxEvent)
	}
	b.readContent = b.readContent || t != wire.Preamble
	if t != wire.Failure || b.failed {
		return
	}
	// Whether the caller reads on does not matter: the stream has ended with this.
	b.failed = true
	b.attempt.bodyEnd.Store(endInterrupted)
	if b.countsFailure {
		b.attempt.failedInStream(problem)
	}
}

// learnUsage records the usage that the response reports.
func (b *responseBody) learnUsage(value []byte) {
	u, ok := wire.ParseUsage(value)
	if !ok {
		return
	}
	// The first event of Anthropic's messages has the input, and the last one the output alone.
	u.Input, u.Output = cmp.Or(u.Input, b.usage.Input), cmp.Or(u.Output, b.usage.Output)
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
