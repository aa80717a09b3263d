package lab

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillover-go/spillover"
)

// A Chatting is an experiment with prompt caches: sessions of unequal zeal, and
// equal deployments without limits, each of which remembers who asked it of late.
type Chatting struct {
	Backends int
	Replicas int  // processes that know nothing of each other
	Told     bool // the transport is told the session of each request
}

// Warmth is what came of it.
type Warmth struct {
	Hits   float64 // share of requests that found their session's prompt cached
	Uneven float64 // 99th percentile of the most requests in flight over the mean
}

// SessionGoals are the goals of sessions, with four processes.
func SessionGoals() []Goal {
	pools := []int{4, 10}
	chats := func(r *Results, backends int, told bool) Warmth {
		return r.Chats[Chatting{Backends: backends, Replicas: 4, Told: told}]
	}
	of := func(best func(...float64) float64, value func(with, without Warmth) float64) func(*Results, string) float64 {
		return func(r *Results, _ string) float64 {
			var values []float64
			for _, backends := range pools {
				values = append(values, value(chats(r, backends, true), chats(r, backends, false)))
			}
			return best(values...)
		}
	}
	lowest := func(v ...float64) float64 { return slices.Min(v) }
	highest := func(v ...float64) float64 { return slices.Max(v) }
	return []Goal{
		{"hit rate with sessions, 4 processes, least of 2 pools", atLeast(0.9), "%.3f", of(lowest, func(with, _ Warmth) float64 { return with.Hits })},
		{"… more than without", atLeast(0.1), "%.3f", of(lowest, func(with, without Warmth) float64 { return with.Hits - without.Hits })},
		{"max/mean in flight with sessions, p99, 4 processes, most of 2 pools", atMost(1.4), "%.2f", of(highest, func(with, _ Warmth) float64 { return with.Uneven })},
		{"… without", atMost(1.2), "%.2f", of(highest, func(_, without Warmth) float64 { return without.Uneven })},
	}
}

const (
	cacheLasts     = 5 * time.Minute // unused, as providers say
	chatsInFlight  = 48              // for each backend, on average
	chatTakes      = 6 * time.Second
	chatSessions   = 2000
	chatZipf       = 0.9
	chattingWarm   = cacheLasts + time.Minute
	chattingLength = 6 * time.Minute
)

// Run plays it in a testing/synctest bubble, whose time it takes.
func (c Chatting) Run() Warmth {
	rng := rand.New(rand.NewPCG(uint64(c.Backends), 1))
	base := &remembering{load: map[string]int{}, used: map[use]time.Time{}}
	replicas := c.replicas(base)
	draw := zipf(chatSessions, chatZipf)
	rate := chatsInFlight * float64(c.Backends) / chatTakes.Seconds()

	var all sync.WaitGroup
	var uneven []float64
	for began := time.Now(); time.Since(began) < chattingWarm+chattingLength; {
		time.Sleep(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
		if time.Since(began) > chattingWarm {
			base.count()
			uneven = append(uneven, base.uneven(c.Backends))
		}
		replica, session := replicas[rng.IntN(c.Replicas)], fmt.Sprint("session ", draw(rng))
		takes := time.Duration(float64(chatTakes) * math.Exp(0.5*rng.NormFloat64()-0.125)) // chatTakes on average
		all.Go(func() { c.chat(replica, session, takes) })
	}
	all.Wait()
	slices.Sort(uneven)
	return Warmth{
		Hits:   float64(base.hits) / float64(base.asked),
		Uneven: uneven[len(uneven)*99/100],
	}
}

func (c Chatting) replicas(base http.RoundTripper) []*spillover.Transport {
	cfg := spillover.Config{Base: base}
	for i := range c.Backends {
		name := fmt.Sprintf("backend-%d", i)
		cfg.Backends = append(cfg.Backends, spillover.Backend{Name: name, URL: "https://" + name + ".openai.azure.com", Dialect: spillover.Azure})
	}
	replicas := make([]*spillover.Transport, c.Replicas)
	for i := range replicas {
		t, err := spillover.New(cfg)
		if err != nil {
			panic(err)
		}
		replicas[i] = t
	}
	return replicas
}

// A chatRequest is what the deployments know of a request, told or not.
type chatRequest struct {
	session string
	takes   time.Duration
}

type chatKey struct{}

func (c Chatting) chat(t http.RoundTripper, session string, takes time.Duration) {
	ctx := context.WithValue(context.Background(), chatKey{}, chatRequest{session, takes})
	if c.Told {
		ctx = spillover.WithSession(ctx, session)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, callerURL, strings.NewReader(`{"messages":[]}`))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Api-Key", "key")
	resp, err := t.RoundTrip(r)
	if err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// remembering is all deployments, each with a cache of its own.
type remembering struct {
	mu          sync.Mutex
	counts      bool
	asked, hits int
	load        map[string]int // in flight, by host
	used        map[use]time.Time
}

type use struct{ host, session string }

func (b *remembering) RoundTrip(r *http.Request) (*http.Response, error) {
	chat := r.Context().Value(chatKey{}).(chatRequest)
	b.begin(r.URL.Host, chat.session)
	time.Sleep(chat.takes)
	b.end(r.URL.Host)
	r.Body.Close()
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{}`)), ContentLength: 2,
	}, nil
}

func (b *remembering) begin(host, session string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := use{host, session}
	last, known := b.used[key]
	if b.counts {
		b.asked++
		if known && time.Since(last) < cacheLasts {
			b.hits++
		}
	}
	b.used[key] = time.Now()
	b.load[host]++
}

func (b *remembering) end(host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.load[host]--
}

// count has requests counted from now on.
func (b *remembering) count() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts = true
}

// uneven is the most requests in flight at one of so many over the mean.
func (b *remembering) uneven(backends int) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	most, sum := 0, 0
	for _, n := range b.load {
		most, sum = max(most, n), sum+n
	}
	return float64(most) * float64(backends) / float64(sum)
}

// zipf draws numbers below n, the first ones more often. That of math/rand/v2
// has no exponents below 1.
func zipf(n int, s float64) func(*rand.Rand) int {
	sums, sum := make([]float64, n), 0.
	for i := range sums {
		sum += math.Pow(float64(i+1), -s)
		sums[i] = sum
	}
	return func(rng *rand.Rand) int {
		i, _ := slices.BinarySearch(sums, rng.Float64()*sum)
		return i
	}
}
