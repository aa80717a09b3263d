package spillover

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/health"
)

// A connectionState is how far a base got with connecting. It is unknown for a
// base that does not report it (net/http/httptrace), and where nobody asked.
type connectionState = int32

const (
	connectionUnknown   connectionState = iota
	connectionRequested                 // a connection was asked for and is not there yet
	connectionMade                      // there was one, so something may have been sent
)

const (
	// A probe has probeConnect to connect: its caller waits for something that is
	// probably dead. Each probe that exceeds it doubles the time of the next. After
	// probeDoublings the limit of the base holds, about half a minute in net/http.
	probeConnect   = time.Second
	probeDoublings = 4
	// A connection that is pending for so long keeps other requests away.
	pendingConnect = 500 * time.Millisecond
)

// A connectionTrace watches one attempt connect.
type connectionTrace struct {
	state atomic.Int32
	timer *time.Timer // of a probe; nil without a limit
}

// watch returns a context by which the base reports its connection. With probe it
// calls cancel if connecting takes too long. connected is called once there is a
// connection.
func (c *connectionTrace) watch(ctx context.Context, backend *health.Connection, probe bool, cancel context.CancelCauseFunc, connected func()) context.Context {
	limit := time.Duration(0)
	if lost := backend.LostProbes.Load(); probe && lost <= probeDoublings {
		limit = probeConnect << lost
		c.timer = time.AfterFunc(time.Hour, func() {
			backend.LostProbes.CompareAndSwap(lost, lost+1)
			cancel(errConnectTimeout)
		})
		c.timer.Stop() // until a connection is asked for
	}
	var requested health.Timestamp
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			now := time.Now()
			backend.Connecting.SetIfZero(now.Add(pendingConnect))
			c.state.CompareAndSwap(connectionUnknown, connectionRequested)
			requested.Set(now)
			if c.timer != nil {
				c.timer.Reset(limit)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			connected()
			c.state.Store(connectionMade)
			c.close()
			if !info.Reused && requested.Age(time.Now()) <= probeConnect {
				backend.LostProbes.Store(0)
			}
		},
	})
}

// close stops the timer.
func (c *connectionTrace) close() {
	if c.timer != nil {
		c.timer.Stop()
	}
}
