package spillover

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
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
		return Trail{}, fmt.Errorf("spillover: the transport is closed: %w", net.ErrClosed)
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
	o.trail = trail
	c.options = &o
	if err := c.read(); err != nil {
		return Trail{}, err
	}
	if reply := c.findDeployments(); reply != nil {
		trail.Outcome, trail.Status, trail.Error = outcomeSynthesized, reply.StatusCode, replyMessage(reply)
		return *trail, nil
	}
	now := time.Now()
	q := c.selection(now)
	_, chosen := c.route.choose(&q)
	q.includeSilent = q.includeSilent || chosen == nil
	if chosen == nil {
		_, chosen = c.route.choose(&q)
	}
	q.ignoreHeadroom = false
	c.consider(&q, chosen)
	step := trail.step(now, TrailSend)
	if chosen == nil {
		step.Action, step.Why = TrailReply, "no deployment is available"
		if at := c.scope.outlook(c.route, now, nil); at.soonest != nil {
			step.Why = fmt.Sprintf("no deployment is available; the soonest is %s in %.2fs", at.soonest.backend.name, at.at.Sub(now).Seconds())
		}
	} else {
		trail.Backend = chosen.backend.name
	}
	trail.add(step)
	return *trail, nil
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
