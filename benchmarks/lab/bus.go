package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/spillover-go/spillover"
)

// A Bus carries the notices of a cell's clients, if their policy has a Fleet. Each
// client has its own delivery of a notice, which may be lost or late by itself.
type Bus struct {
	Delay    time.Duration // one way
	Lost     float64       // share of the deliveries that do not arrive
	Twice    float64       // share of the deliveries that arrive twice
	Disorder time.Duration // by up to this much a delivery is late, at random
	Liars    Liars
}

// Liars are senders of wrong notices, from lyingFrom on.
type Liars struct {
	Senders int    // that all say the same; 0: none
	Kind    string // of the notices: "throttled", "ejected" or "utilization"
	All     bool   // about all deployments, or else about the PTU
}

// about is what the liars speak of.
func (l Liars) about() string {
	if l.All {
		return "all"
	}
	return "the PTU"
}

const (
	// A liar says each second that a deployment is unavailable for an hour.
	lyingFrom = 45 * time.Second
	lyingEach = time.Second
	lyingLeft = time.Hour
	// fullPTU is the utilization that a liar tells, in thousandths.
	fullPTU = 2000
)

// bus is a Bus in virtual time. All clients of a cell share it.
type bus struct {
	Bus
	tally *tally

	mu          sync.Mutex
	subscribers []*func([]byte)
}

// Publish sends a notice to all subscribers, each after its own delay.
func (b *bus) Publish(notice []byte) {
	notice = bytes.Clone(notice)
	b.tally.published(notice)
	b.carry(notice)
}

func (b *bus) carry(notice []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.subscribers {
		times := 1
		if rand.Float64() < b.Twice {
			times = 2
		}
		for range times {
			if rand.Float64() < b.Lost {
				continue
			}
			delay := b.Delay
			if b.Disorder > 0 {
				delay += time.Duration(rand.Int64N(int64(b.Disorder)))
			}
			time.AfterFunc(delay, func() { (*f)(notice) })
		}
	}
}

// Subscribe adds a subscriber.
func (b *bus) Subscribe(f func([]byte)) (cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subscribers = append(b.subscribers, &f)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.subscribers = slices.DeleteFunc(b.subscribers, func(other *func([]byte)) bool { return other == &f })
	}
}

// Recall returns nothing: all clients join at the beginning.
func (*bus) Recall(context.Context, []string) ([][]byte, error) { return nil, nil }

// lie publishes the notices of the liars until the end.
func (b *bus) lie(pool []*site, end time.Time) {
	l := b.Liars
	if !l.All {
		pool = pool[:1]
	}
	var lies [][]byte
	for _, s := range pool {
		for _, place := range placesOf(s.Backend) {
			for sender := range l.Senders {
				lies = append(lies, fmt.Appendf(nil, `{"v":1,"k":%q,"p":%q,"f":"%08x","l":%d,"s":10,"u":%d}`,
					l.Kind, place, 0xbad0000+sender, lyingLeft.Milliseconds(), fullPTU))
			}
		}
	}
	for time.Sleep(lyingFrom); time.Now().Before(end); time.Sleep(lyingEach) {
		for _, lie := range lies {
			b.carry(lie)
		}
	}
}

// placesOf are what notices call a backend and its deployments. Who knows the
// configuration can find them out, as a liar has: by joining a Fleet.
func placesOf(b Backend) []string {
	f := make(recaller, 1)
	t, err := spillover.New(configFor(Setup{Pool: []Backend{b}, Net: http.DefaultTransport, Fleet: f}))
	if err != nil {
		panic(err)
	}
	defer t.Close()
	return <-f
}

// A recaller is a Fleet that gets the places that a replica asks for.
type recaller chan []string

func (recaller) Publish([]byte)                         {}
func (recaller) Subscribe(func([]byte)) (cancel func()) { return func() {} }
func (r recaller) Recall(_ context.Context, keys []string) ([][]byte, error) {
	r <- keys
	return nil, nil
}

// kindOf is what a notice is about.
func kindOf(notice []byte) string {
	var n struct {
		K string `json:"k"`
	}
	if err := json.Unmarshal(notice, &n); err != nil {
		panic(err)
	}
	return n.K
}
