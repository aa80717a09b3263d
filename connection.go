package spillover

import (
	"context"
	"net/http/httptrace"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// How far a base got with an attempt. With one that does not tell, or is not
// asked to, that is not known.
const (
	connWanted int32 = iota + 1 // it has asked for a connection and has none yet
	connMade                    // it had one, so that something may have been sent
)

// How long a probe may take to connect: an ordinary request has the base's own
// time for that, but a probe's caller waits for what is likely dead. Each probe
// that is lost to it doubles the time of the next, up to about the half minute
// that net/http gives itself; from then on it is the base's own. And how long a
// connection may be pending before others are spared it.
const (
	probeConnect   = time.Second
	probeDoublings = 4
	pendingConnect = 500 * time.Millisecond
)

// traced watches the attempt connect, with a base that tells when it does. That
// costs something: it is done for probes, where no answer has come of late, and
// for what may be sent again only if nothing was sent.
func (a *attempt) traceConnection(ctx context.Context) context.Context {
	b := a.deployment.backend
	probe := a.isProbe()
	if !probe && b.Answered.Age(a.sentAt) < pendingConnect && a.call.repeatable() {
		return ctx
	}
	limit := time.Duration(0)
	if lost := b.LostProbes.Load(); probe && lost <= probeDoublings {
		limit = probeConnect << lost
		a.connect = time.AfterFunc(time.Hour, func() {
			b.LostProbes.CompareAndSwap(lost, lost+1)
			a.cancel(errConnectTimeout)
		})
		a.connect.Stop()
	}
	var wanted health.Timestamp
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			now := time.Now()
			b.Connecting.SetIfZero(now.Add(pendingConnect))
			a.conn.CompareAndSwap(0, connWanted)
			wanted.Set(now)
			if a.connect != nil {
				a.connect.Reset(limit)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			a.call.connected(b)
			a.conn.Store(connMade)
			if a.connect != nil {
				a.connect.Stop()
			}
			if !info.Reused && wanted.Age(time.Now()) <= probeConnect {
				b.LostProbes.Store(0)
			}
		},
	})
}

// connected ends what speaks against a backend with a connection pending.
func (c *call) connected(b *backend) {
	if b.Connecting.IsZero() {
		return
	}
	stuck := b.Stuck(time.Now())
	if b.Connecting.Set(time.Time{}); stuck {
		c.pool.opened.notify()
	}
}
