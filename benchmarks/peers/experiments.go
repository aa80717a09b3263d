package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover"
)

// settings are how much is measured.
type settings struct {
	turn     time.Duration // of a candidate in a round
	rounds   int
	backends int // unless the number of backends is what is varied

	sizes    []int // bytes of a request's body, the first of which is the usual one
	wire     []int // the same, over loopback
	events   []int
	pools    []int // numbers of backends
	inFlight []int
	burst    int // requests of azure-switchboard's benchmark
	bursts   int // and how often they are sent
	idle     int // deployments whose memory is measured
}

var (
	thorough = settings{
		turn: 10 * time.Millisecond, rounds: 40, backends: 10,
		sizes: []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10}, wire: []int{1 << 10, 64 << 10, 256 << 10},
		events: []int{10, 250, 2000}, pools: []int{1, 3, 10, 100, 1000}, inFlight: []int{1, 10, 100, 1000, 10000},
		burst: 1000, bursts: 41, idle: 1000,
	}
	quick = settings{
		turn: time.Millisecond, rounds: 3, backends: 10,
		sizes: []int{1 << 10, 64 << 10, 256 << 10}, wire: []int{1 << 10},
		events: []int{10, 250}, pools: []int{1, 10, 100}, inFlight: []int{1, 10, 100},
		burst: 1000, bursts: 3, idle: 100,
	}
)

// mounts are peers in front of pools.
type mounts []func()

// add builds a peer, and what makes its requests.
func (m *mounts) add(ctx context.Context, k peer, p pool, size int) (http.RoundTripper, func() *http.Request, error) {
	rt, end, err := k.build(p)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", k.name, err)
	}
	*m = append(*m, end)
	return rt, requests(ctx, p.scheme+strings.TrimPrefix(k.target, "https"), size), nil
}

// warmUp is how many requests reach each backend.
func warmUp(backends int) int { return 10 * (10 + backends) }

func warm(rt http.RoundTripper, request func() *http.Request, backends int) error {
	for range warmUp(backends) {
		if err := send(rt, request()); err != nil {
			return err
		}
	}
	return nil
}

func (m *mounts) end() {
	for _, end := range *m {
		end()
	}
}

func peerNamed(name string) peer {
	all := peers()
	return all[slices.IndexFunc(all, func(k peer) bool { return k.name == name })]
}

func names(of []peer) []string {
	var all []string
	for _, k := range of {
		all = append(all, k.name)
	}
	return all
}

// A series has a comparison for each value of what is varied.
type series struct {
	values      []int
	comparisons []*comparison
}

func vary(values []int, of func(value int) (*comparison, error)) (series, error) {
	s := series{values: values}
	for _, v := range values {
		c, err := of(v)
		if err != nil {
			return s, fmt.Errorf("%d: %w", v, err)
		}
		s.comparisons = append(s.comparisons, c)
	}
	return s, nil
}

// inMemory compares requests to a base in memory.
func inMemory(ctx context.Context, s settings, size, backends int, all ...peer) (*comparison, error) {
	var m mounts
	defer m.end()
	var candidates []candidate
	for _, k := range all {
		rt, request, err := m.add(ctx, k, pool{roundTripper(memory), "https", backends}, size)
		if err != nil {
			return nil, err
		}
		if err := warm(rt, request, backends); err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		candidates = append(candidates, each(k.name, func() error { return send(rt, request()) }))
	}
	return compare(s, candidates...)
}

// inSession is a request of a session. Its deployment is found by a hash of all of them.
const inSession = "spillover, in a session"

// growingPool compares what chooses among deployments, in front of so many of them.
func growingPool(ctx context.Context, s settings, backends int) (*comparison, error) {
	session := peerNamed(ours)
	session.name = inSession
	build := session.build
	session.build = func(p pool) (http.RoundTripper, func(), error) {
		rt, end, err := build(p)
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			return rt.RoundTrip(req.WithContext(spillover.WithSession(req.Context(), "session")))
		}), end, err
	}
	return inMemory(ctx, s, s.sizes[0], backends, peerNamed(cloned), peerNamed(roundRob), twoChoices(), peerNamed(ours), session)
}

// A holder is a base that keeps some requests in flight.
type holder struct {
	arrived atomic.Int64
	held    sync.WaitGroup
	release chan struct{}
}

type heldKey struct{}

func (h *holder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := memory(req)
	if req.Context().Value(heldKey{}) != nil {
		h.arrived.Add(1)
		<-h.release
	}
	return resp, err
}

// hold starts requests and returns when all are in flight.
func (h *holder) hold(n int, rt http.RoundTripper, request func() *http.Request) error {
	h.release = make(chan struct{})
	h.arrived.Store(0)
	failed := make(chan error, n)
	for range n {
		h.held.Go(func() {
			if err := send(rt, request()); err != nil {
				failed <- err
			}
		})
	}
	for h.arrived.Load() < int64(n) {
		select {
		case err := <-failed:
			return err
		default:
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func (h *holder) free() {
	close(h.release)
	h.held.Wait()
}

// inFlight compares requests that are sent while so many others are in flight.
func inFlight(ctx context.Context, s settings, n int) (*comparison, error) {
	s.rounds = min(s.rounds, 15) // to start thousands of requests takes longer than a turn
	return whileHeld(ctx, s, n, func(batch int, rt http.RoundTripper, request func() *http.Request, hold func() error) (usage, error) {
		if err := hold(); err != nil {
			return usage{}, err
		}
		return measure(batch, func() error { return send(rt, request()) })
	})
}

// heldMemory measures the memory of requests in flight.
func heldMemory(ctx context.Context, s settings, n int) (*comparison, error) {
	s.turn, s.rounds = 0, min(s.rounds, 5) // a collection takes longer than a turn
	return whileHeld(ctx, s, n, func(_ int, _ http.RoundTripper, _ func() *http.Request, hold func() error) (usage, error) {
		before := memoryInUse()
		err := hold()
		return usage{Held: (memoryInUse() - before) / float64(n)}, err
	})
}

// whileHeld compares what each peer does while requests are held by the base.
func whileHeld(
	ctx context.Context, s settings, n int, do func(batch int, rt http.RoundTripper, request func() *http.Request, hold func() error) (usage, error),
) (*comparison, error) {
	var m mounts
	defer m.end()
	var candidates []candidate
	for _, k := range peers() {
		h := new(holder)
		rt, request, err := m.add(ctx, k, pool{h, "https", s.backends}, s.sizes[0])
		if err != nil {
			return nil, err
		}
		waiting := requests(context.WithValue(ctx, heldKey{}, true), k.target, s.sizes[0])
		candidates = append(candidates, candidate{k.name, func(batch int) (usage, error) {
			u, err := do(batch, rt, request, func() error { return h.hold(n, rt, waiting) })
			h.free()
			return u, err
		}})
	}
	return compare(s, candidates...)
}

// memoryInUse is the memory of live objects and stacks, in bytes.
func memoryInUse() float64 {
	// The second collection frees what the first one has moved out of pools.
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) + float64(m.StackInuse)
}

// An idleMemory is the memory of one deployment, in bytes.
type idleMemory struct {
	name             string
	configured, used float64 // before the first request, and when each has served some
}

// idleDeployments measures the memory of deployments that do nothing.
func idleDeployments(ctx context.Context, s settings) ([]idleMemory, error) {
	const served = 20 // requests of each
	var all []idleMemory
	for _, name := range []string{roundRob, ours} {
		k := peerNamed(name)
		memoryOf := func(backends int) (configured, used float64, err error) {
			before := memoryInUse()
			var m mounts
			rt, request, err := m.add(ctx, k, pool{roundTripper(memory), "https", backends}, s.sizes[0])
			if err != nil {
				return 0, 0, err
			}
			defer m.end()
			configured = memoryInUse() - before
			for range served * backends {
				if err := send(rt, request()); err != nil {
					return 0, 0, err
				}
			}
			return configured, memoryInUse() - before, nil
		}
		few, fewUsed, err := memoryOf(1)
		if err != nil {
			return nil, err
		}
		many, manyUsed, err := memoryOf(1 + s.idle)
		if err != nil {
			return nil, err
		}
		all = append(all, idleMemory{name, max(0, many-few) / float64(s.idle), max(0, manyUsed-fewUsed) / float64(s.idle)})
	}
	return all, nil
}

// loopback compares requests over a connection to the simulated service.
func loopback(ctx context.Context, s settings, at endpoint, size int, more ...candidate) (*comparison, error) {
	var m mounts
	defer m.end()
	var candidates []candidate
	add := func(k peer, sdk bool) error {
		var writes atomic.Int64
		base := at.transport(&writes)
		m = append(m, base.CloseIdleConnections)
		rt, request, err := m.add(ctx, k, pool{base, at.scheme, s.backends}, size)
		if err != nil {
			return err
		}
		do := func() error { return send(rt, request()) }
		if sdk {
			ask, text := askSDK(ctx, rt, at.scheme), words(size)
			do = func() error { return ask(text) }
		}
		candidates = append(candidates, candidate{k.name, func(n int) (usage, error) {
			before := writes.Load()
			u, err := measure(n, do)
			u.Writes = float64(writes.Load()-before) / float64(n)
			return u, err
		}})
		return nil
	}
	for _, k := range peers() {
		if err := add(k, false); err != nil {
			return nil, err
		}
	}
	underSDK := peerNamed(oursNamed)
	underSDK.name = oursUnderSDK
	if err := add(underSDK, true); err != nil {
		return nil, err
	}
	candidates = append(candidates, more...)
	for _, k := range candidates {
		if _, err := k.run(warmUp(s.backends)); err != nil { // with a connection to each host
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
	}
	return compare(s, candidates...)
}
