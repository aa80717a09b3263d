package spillover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/wire"
)

// Explain reports how a request would be routed now, without sending it: the same
// as [WithTrail] after the first decision. It changes no state. Where the policy
// draws lots, another call may choose another deployment.
//
// The body is read through GetBody. A body without GetBody is read, up to 32 MiB,
// and in.Body is replaced by one that begins with the same bytes, so that the
// request can still be sent. The error is that of RoundTrip for a request that
// cannot be read.
func (t *Transport) Explain(in *http.Request) (Trail, error) {
	if t.closed.Load() {
		return Trail{}, errClosed
	}
	copied, err := copyRequest(in)
	if err != nil {
		return Trail{}, err
	}
	c := t.newCall(copied)
	defer c.body.Close()
	if err := c.check(); err != nil {
		return Trail{}, err
	}
	o := *contextOptions(copied.Context()).withRules(&c.cfg, copied)
	trail := new(Trail)
	o.trail, o.explain = trail, true
	c.options = &o
	if err := c.read(); err != nil {
		return Trail{}, err
	}
	if reply := c.findDeployments(); reply != nil { //nolint:bodyclose // it is in memory
		trail.foreseeReply(reply)
		return *trail, nil
	}
	now := time.Now()
	q := c.selection(now)
	best, chosen := c.choose(&q)
	waits := chosen != nil && !q.minimumRate && c.prefersToWait(now, best)
	if waits {
		chosen = nil
	}
	c.consider(&q, chosen)
	step := trail.step(now, TrailSend)
	switch {
	case waits:
		step.Action, step.Why = TrailWait, waitsForTier
	case chosen == nil:
		chosen = c.foresee(&q, &step)
	}
	if chosen != nil {
		trail.Backend = chosen.backend.name
		step.markChosen(chosen)
	}
	trail.add(step)
	return *trail, nil
}

// foresee is what happens to the request when no deployment is open. It returns the
// deployment to which it is sent nevertheless, or nil.
func (c *call) foresee(q *selection, s *TrailStep) *deployment {
	o := c.scope.outlook(c.route, q.now, nil)
	if _, d, why := c.resort(q, o.temporary()); d != nil {
		s.Why = why.String()
		return d
	}
	reply := allDrained(c.Request) //nolint:bodyclose // it is in memory, like that below
	if s.Action = TrailReply; o.soonest != nil && o.temporary() {
		reply = unavailable(c.Request, c.model, o, q.now) //nolint:bodyclose // as above
		s.Why = fmt.Sprintf("no deployment is available; the soonest is %s in %.2fs", o.soonest.backend.name, o.at.Sub(q.now).Seconds())
		if c.canWait(q.now, o) {
			s.Action = TrailWait
			return nil
		}
	}
	c.options.trail.foreseeReply(reply)
	return nil
}

// foreseeReply is that a response is generated here.
func (t *Trail) foreseeReply(r *http.Response) {
	t.Outcome, t.Status, t.Error = outcomeSynthesized, r.StatusCode, replyMessage(r)
}

// copyRequest is a request with a body of its own.
func copyRequest(in *http.Request) (*http.Request, error) {
	out := in.WithContext(in.Context())
	switch {
	case in.Body == nil || in.Body == http.NoBody:
	case in.GetBody != nil:
		body, err := in.GetBody()
		if err != nil {
			return nil, fmt.Errorf("spillover: the request's GetBody: %w", err)
		}
		out.Body = body
		if again, ok := in.Body.(*bodyAgain); !ok || !again.unused() {
			in.Body = &bodyAgain{get: in.GetBody, before: in.Body} // GetBody may have returned the same reader, rewound
		}
	default:
		text, err := io.ReadAll(io.LimitReader(in.Body, replay.MaxBuffered))
		in.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(text), in.Body), in.Body}
		if err != nil {
			return nil, fmt.Errorf("spillover: reading the request's body: %w", err)
		}
		out.Body = io.NopCloser(bytes.NewReader(text))
	}
	return out, nil
}

// replyMessage is the message of a response that was generated here.
func replyMessage(r *http.Response) string {
	text, _ := io.ReadAll(r.Body) // it is in memory
	return string(wire.ParseError(text).Message)
}

// A bodyAgain is the body of a request that was explained: GetBody's, asked for when
// it is read. Close may be called during a Read.
type bodyAgain struct {
	get    func() (io.ReadCloser, error)
	before io.Closer // the body that it replaces

	mu   sync.Mutex // guards the following fields
	body io.ReadCloser
	err  error // of get, or that it is closed
}

func (b *bodyAgain) Read(p []byte) (int, error) {
	body, err := b.open()
	if err != nil {
		return 0, err
	}
	return body.Read(p)
}

func (b *bodyAgain) open() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.body == nil && b.err == nil {
		b.body, b.err = b.get()
	}
	return b.body, b.err
}

// unused reports whether it was neither read nor closed.
func (b *bodyAgain) unused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.body == nil && b.err == nil
}

func (b *bodyAgain) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = net.ErrClosed
	}
	err := b.before.Close()
	if b.body != nil {
		err = errors.Join(err, b.body.Close())
	}
	return err
}
