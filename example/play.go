package main

import (
	"context"
	"sync"
	"time"

	"github.com/sashabaranov/go-openai"

	"github.com/spillover-go/spillover/spillovertest"
)

// A comparison plays a load twice at the same time: with spillover, and against
// the same PTU without it.
type comparison struct {
	load
	size
	*pool
	alone    *openai.Client
	alonePTU *spillovertest.Server
	start    time.Time

	mu sync.Mutex // guards what follows
	counts
}

// counts are numbers of chats.
type counts struct {
	chats            int
	answered         int
	spilled          int // of the answered: not answered by the PTU
	rateLimited      int // 429s that callers received
	failed           int // other errors that callers received
	rateLimitedAlone int // 429s that callers received without spillover
	failedAlone      int
	failure          error // one of them
}

// newComparison must be called in virtual time.
func newComparison(l load, s size, seed uint64) (*comparison, error) {
	p, err := newPool(s, seed)
	if err != nil {
		return nil, err
	}
	c := &comparison{load: l, size: s, pool: p}
	c.alone, c.alonePTU = ptuAlone(s, seed)
	return c, nil
}

// play plays the load, shows it and sums it up, once. pace returns when it is
// time to show what happened until then. When ctx ends, no more chats are sent.
func (c *comparison) play(ctx context.Context, screen *screen, pace func(at time.Duration)) summary {
	defer c.balancer.Close()
	c.start = time.Now()
	screen.open(c.load, c.size)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		c.watch(screen, pace, stop)
	}()
	c.send(ctx)
	close(stop)
	<-stopped
	v := c.view()
	sum := c.sum(v)
	screen.close(v, c.load, sum)
	return sum
}

// send sends each chat at its time and waits for all answers. Nobody asks again
// after a 429.
func (c *comparison) send(ctx context.Context) {
	var callers sync.WaitGroup
	defer callers.Wait()
	for _, chat := range c.load.chats {
		time.Sleep(time.Until(c.start.Add(chat.at)))
		if ctx.Err() != nil {
			return
		}
		c.count(func(n *counts) { n.chats++ })
		callers.Go(func() { c.ended(ask(c.client, chat)) })
		callers.Go(func() { c.endedAlone(ask(c.alone, chat)) })
	}
}

// watch shows what happens until stop is closed.
func (c *comparison) watch(screen *screen, pace func(at time.Duration), stop <-chan struct{}) {
	screen.show(c.view(), c.load)
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			pace(time.Since(c.start))
			screen.show(c.view(), c.load)
		case <-stop:
			return
		}
	}
}

// frame is how often the screen is redrawn, in virtual time.
const frame = 500 * time.Millisecond

func (c *comparison) ended(r result) {
	c.count(func(n *counts) {
		switch {
		case r.err == nil:
			n.answered++
			if r.backend != deployments[0].name {
				n.spilled++
			}
		case r.rateLimited():
			n.rateLimited++
		default:
			n.failed++
			n.failure = r.err
		}
	})
}

func (c *comparison) endedAlone(r result) {
	c.count(func(n *counts) {
		switch {
		case r.rateLimited():
			n.rateLimitedAlone++
		case r.err != nil:
			n.failedAlone++
			n.failure = r.err
		}
	})
}

func (c *comparison) count(change func(*counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.counts)
}

// view is what the screen shows now.
func (c *comparison) view() view {
	c.mu.Lock()
	v := view{at: time.Since(c.start), counts: c.counts}
	c.mu.Unlock()
	now := time.Now()
	for _, t := range c.balancer.Status().Tiers {
		for _, b := range t.Backends {
			d := b.Deployments[0]
			v.rows = append(v.rows, row{
				tier: t.Priority, name: b.Name, inFlight: d.InFlight, served: int(d.Served), throttled: int(d.Throttled),
				state: stateOf(d, now), use: c.servers[len(v.rows)].Stats().Utilization,
			})
		}
	}
	v.share()
	return v
}
