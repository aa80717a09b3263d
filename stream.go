package spillover

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// An answerBody is the body of an answer on its way to the caller, which is
// learnt from as it passes. The attempt ends with it: at its end, at an error,
// when it is closed, or with the context of a caller who forgets to, whichever
// is first.
type answerBody struct {
	io.ReadCloser
	held   []byte // of a stream, what was read before its commit
	send   *sending
	unhook func() bool // from the caller's context; nil if that cannot end

	usage watcher
	ids   *idReader     // nil when there are none to learn
	used  usage         // as the answer said last
	tail  []byte        // the end of a stream so far, where an error event would be
	idle  time.Duration // the longest silence; 0 when there is no limit

	blames bool        // the deployment, when the answer breaks off
	closed atomic.Bool // by the caller, whose doing an error is then
}

// An upgradedBody is that of a 101, which net/http lets be written to as well.
type upgradedBody struct {
	*answerBody
	io.Writer
}

// hand puts the end of an attempt behind the body of its answer.
func (b *answerBody) hand(ctx context.Context, resp *http.Response, s *sending) {
	b.ReadCloser, b.send = resp.Body, s
	if ctx.Done() != nil {
		b.unhook = context.AfterFunc(ctx, s.end)
	}
	resp.Body = b
	if w, ok := b.ReadCloser.(io.Writer); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = upgradedBody{b, w}
	}
}

// learnFrom makes the body tell its usage, and the ids of what it stores.
func (b *answerBody) learnFrom(resp *http.Response, r *request) {
	if !readable(resp.Header) {
		return
	}
	if r.stateless() {
		b.usage = watcher{key: `"usage":`, limit: 1 << 10}
	}
	if r.tellsIDs() {
		b.ids = newIDReader(r, isStream(resp.Header))
	}
}

// readable tells whether a body is JSON, or events of it, and not compressed.
func readable(h http.Header) bool {
	return field(h, "Content-Encoding") == "" && (strings.HasPrefix(get(h, "Content-Type"), "application/json") || isStream(h))
}

func isStream(h http.Header) bool {
	return strings.HasPrefix(get(h, "Content-Type"), "text/event-stream")
}

func (b *answerBody) Read(p []byte) (int, error) {
	if len(b.held) > 0 {
		n := copy(p, b.held)
		if b.held = b.held[n:]; len(b.held) == 0 {
			b.held = nil
		}
		b.watch(p[:n])
		return n, nil
	}
	// A caller who does not read is no silence.
	b.send.limit(b.idle, errIdleTimeout)
	n, err := b.ReadCloser.Read(p)
	b.send.relax()
	b.watch(p[:n])
	if err != nil {
		err = b.conclude(err)
		b.finish()
	}
	return n, err
}

// conclude is what the end of an answer says of its deployment.
func (b *answerBody) conclude(err error) error {
	switch {
	case !b.blames || b.closed.Load():
	case err != io.EOF:
		err = b.send.explain(err)
		b.send.brokeOff()
	default:
		b.send.fate.Store(endedWhole)
		if b.tail != nil {
			b.send.endedWith(lastEvent(b.tail))
		}
	}
	return err
}

// maxTail is how much of the end of a stream is kept: an error event is short.
const maxTail = 2 << 10

// keepTail adds to the tail what has passed.
func (b *answerBody) keepTail(p []byte) {
	if len(p) >= maxTail {
		b.tail = append(b.tail[:0], p[len(p)-maxTail:]...)
		return
	}
	if over := len(b.tail) + len(p) - maxTail; over > 0 {
		b.tail = b.tail[:copy(b.tail, b.tail[over:])]
	}
	b.tail = append(b.tail, p...)
}

func (b *answerBody) watch(p []byte) {
	d := b.send.d
	if b.tail != nil {
		b.keepTail(p)
	}
	if b.usage.key != "" {
		for value := range b.usage.values(p) {
			if u, ok := readUsage(value); ok {
				d.input.Add(u.input - b.used.input)
				d.output.Add(u.output - b.used.output)
				b.used = u
				b.send.cost.Store(u.input + u.output)
				if b.send.took > 0 {
					d.whole.observe(time.Now(), float64(b.send.took)/float64(firstToken+u.output))
					b.send.took = 0
				}
				b.send.input.Store(u.input)
				b.send.output.Store(u.output)
			}
		}
	}
	if b.ids != nil {
		b.ids.read(p, func(id objectID) { b.send.call.transport.stored.learn(time.Now(), id, d.backend.home) })
	}
}

func (b *answerBody) Close() error {
	b.closed.Store(true)
	err := b.ReadCloser.Close()
	b.finish()
	return err
}

func (b *answerBody) finish() {
	if b.unhook != nil {
		b.unhook()
	}
	b.send.end()
}

// errIdleTimeout is what a stream ends with that was silent for IdleTimeout.
var errIdleTimeout net.Error = timeoutError("spillover: the stream was silent for IdleTimeout")

type timeoutError string

func (e timeoutError) Error() string { return string(e) }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
