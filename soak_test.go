package spillover_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert" //nolint:depguard // the goroutines are shown after a failure
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// The soak tests let callers, services, operators and other replicas do what they like,
// and check what must hold whatever they do (soakcheck_test.go). What they do follows
// from a seed, which is printed; a replica's own random choices do not.
//
//	SPILLOVER_SOAK_VIRTUAL  virtual time of TestSoakInVirtualTime, such as 72h
//	SPILLOVER_SOAK          real time of TestSoakOverRealConnections, such as 2m
//	SPILLOVER_SEED          the seed of both

func TestSoakInVirtualTime(t *testing.T) {
	t.Parallel()
	length := durationFrom(t, "SPILLOVER_SOAK_VIRTUAL", 10*time.Minute)
	for _, seed := range soakSeeds(t, 1, 2, 3) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSoak(t, seed, soakSize{servers: 5, pace: time.Second, unit: time.Second, settle: 10 * time.Minute})
				w.run(length)
			})
		})
	}
}

func TestSoakOverRealConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("real time passes")
	}
	length := durationFrom(t, "SPILLOVER_SOAK", 3*time.Second)
	before := runtime.NumGoroutine()
	for _, seed := range soakSeeds(t, rand.Uint64()) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			w := newSoak(t, seed, soakSize{servers: 4, pace: 10 * time.Millisecond, unit: 20 * time.Millisecond, real: true})
			w.run(length)
		})
	}
	// The condition has a goroutine of its own.
	if !assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, 20*time.Second, 50*time.Millisecond, "goroutines are left") {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	}
}

// jumpWallClock sets the wall clock forward or back, and not the monotonic one. It is nil
// but in a build for this (walljump_test.go).
var jumpWallClock func(time.Duration)

func durationFrom(t *testing.T, variable string, otherwise time.Duration) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(cmp.Or(os.Getenv(variable), otherwise.String()))
	require.NoError(t, err, variable)
	return d
}

func soakSeeds(t *testing.T, seeds ...uint64) []uint64 {
	t.Helper()
	if v := os.Getenv("SPILLOVER_SEED"); v != "" {
		seed, err := strconv.ParseUint(v, 10, 64)
		require.NoError(t, err, "SPILLOVER_SEED")
		seeds = []uint64{seed}
	}
	t.Logf("seeds %d", seeds)
	return seeds
}

// What a soak is like.
type soakSize struct {
	servers int
	pace    time.Duration // between two requests, on average
	unit    time.Duration // of latencies, timeouts and pauses: a second of a real service
	settle  time.Duration // after which everything is served, once nothing fails any more
	real    bool          // connections and time are real
}

// A soak has two replicas of a program in front of a few services.
type soak struct {
	t        *testing.T
	size     soakSize
	random   *rand.Rand // what services and operators do; used by one goroutine
	seed     uint64
	servers  []*spillovertest.Server
	cfg      spillover.Config
	fleet    *spillover.LocalFleet
	replicas []*spillover.Transport
	checks   *soakChecks
	started  int           // requests
	awake    time.Duration // that has passed, without that of a machine asleep
}

func newSoak(t *testing.T, seed uint64, size soakSize) *soak {
	w := &soak{t: t, size: size, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), fleet: new(spillover.LocalFleet)}
	w.checks = newSoakChecks(t)
	w.checks.concurrent = size.real
	dialects := []spillovertest.Dialect{spillovertest.Azure, spillovertest.AzureV1, spillovertest.OpenAI}
	for i := range size.servers {
		name := fmt.Sprintf("s%d", i)
		key := fmt.Sprintf("key-of-%s-%016x", name, w.random.Uint64())
		dialect := dialects[w.random.IntN(len(dialects))]
		start := spillovertest.New
		switch {
		case size.real && i%2 == 1:
			start = spillovertest.NewTLSServer
		case size.real:
			start = spillovertest.NewServer
		}
		server := start(spillovertest.Config{Name: name, Dialect: dialect, Keys: []string{key}, Seed: seed, Deployments: w.deployments(i)})
		t.Cleanup(server.Close)
		w.servers = append(w.servers, server)
		b := spillover.Backend{
			Name: name, URL: server.URL, APIKey: key, Dialect: spillover.Dialect(dialect), Priority: 1 + i*3/size.servers,
			HeaderTimeout: 10 * size.unit, IdleTimeout: 10 * size.unit,
			Models: []spillover.Model{{Name: "m"}, {Name: "n"}},
			Tags:   []string{"any", fmt.Sprint("half", i%2)},
		}
		if w.random.IntN(3) == 0 {
			b.Models[0].MaxInFlight = 1 + w.random.IntN(20)
		}
		w.cfg.Backends = append(w.cfg.Backends, b)
		w.checks.knows(server.URL, b)
	}
	if size.real {
		base := http.DefaultTransport.(*http.Transport).Clone()
		base.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		t.Cleanup(base.CloseIdleConnections)
		w.checks.base = base
	} else {
		w.checks.base = spillovertest.Network(w.servers...)
	}
	w.cfg.Base = w.checks
	w.cfg.Fleet = w.fleet
	w.cfg.Logger = w.checks.logger()
	w.cfg.Fallbacks = []spillover.Fallback{{Model: "m", To: []string{"n"}}}
	w.cfg.MaxAttempts = w.random.IntN(5)
	w.cfg.MaxWait = time.Duration(w.random.IntN(3)) * 2 * size.unit
	w.cfg.BackgroundWait = 5 * size.unit
	w.cfg.HoldStreams = w.random.IntN(3) == 0
	for range 2 {
		replica, err := spillover.New(w.cfg)
		require.NoError(t, err)
		w.replicas = append(w.replicas, replica)
	}
	w.fleet.Subscribe(w.checks.notice)
	return w
}

func (w *soak) deployments(i int) []spillovertest.Deployment {
	latency := spillovertest.Latency{FirstToken: w.size.unit / 2, PerToken: w.size.unit / 50, Jitter: 0.5, Refusal: w.size.unit / 50}
	if i == 0 {
		ptu := spillovertest.PTU{TPM: 20_000}
		return []spillovertest.Deployment{{Name: "m", Limit: ptu, Latency: latency}, {Name: "n", Limit: ptu, Latency: latency}}
	}
	payg := spillovertest.PAYG{TPM: 5_000 + w.random.IntN(20_000), HideLimits: w.random.IntN(2) == 0}
	return []spillovertest.Deployment{{Name: "m", Limit: payg, Latency: latency}, {Name: "n", Latency: latency}}
}

// run lets everything happen for that long, and then requires that all is well.
func (w *soak) run(length time.Duration) {
	var heap []uint64
	for part := range time.Duration(8) {
		for w.awake < length*(part+1)/8 {
			w.pause(w.size.pace)
			switch r := w.random.IntN(200); {
			case r < 160:
				w.call()
			case r < 164: // a burst
				for range 5 + w.random.IntN(40) {
					w.call()
				}
			case r < 168 || r < 172 && !w.size.real: // cool-downs and ejections are as long in real time
				w.disturb()
			case r < 180:
				w.server().Heal()
			case r < 184:
				w.operate()
			case r < 198:
				w.gossip()
			case r == 198 && !w.size.real: // the machine sleeps: all is due at once
				time.Sleep(time.Duration(w.random.IntN(12)) * time.Hour)
			case jumpWallClock != nil:
				jumpWallClock(time.Duration(w.random.IntN(24*60+1)-12*60) * time.Minute)
			}
			w.checks.status(w.replicas)
		}
		w.quiet()
		heap = append(heap, heapInUse())
	}
	// In a short run other tests use the same heap at the same time.
	if os.Getenv("SPILLOVER_SOAK_VIRTUAL") != "" || os.Getenv("SPILLOVER_SOAK") != "" {
		w.checks.flat(heap)
	}
	for _, s := range w.servers {
		s.Heal()
	}
	w.reconfigure(w.cfg)
	for _, replica := range w.replicas {
		for _, b := range w.cfg.Backends {
			require.NoError(w.t, replica.Resume(b.Name))
			require.NoError(w.t, replica.ResumeFleet(b.Name))
		}
	}
	if w.size.settle > 0 {
		time.Sleep(w.size.settle)
		for i := range 100 {
			p := w.plan()
			p.reads = readsAll
			require.Equal(w.t, http.StatusOK, w.checks.ask(w.replicas[i%2], p), "nothing fails any more")
			time.Sleep(10 * time.Second)
		}
	}
	for _, replica := range w.replicas {
		require.NoError(w.t, replica.Close())
	}
	w.checks.end(w.started)
}

// quiet waits until no request is under way, and requires that nothing is left of them.
func (w *soak) quiet() {
	w.checks.callers.Wait()
	if !w.size.real {
		synctest.Wait()
	}
	require.Eventually(w.t, func() bool { return w.inFlight() == 0 }, time.Minute, w.size.unit, "in flight, though every request has ended")
	w.checks.nothingOpen()
}

func (w *soak) inFlight() (n int) {
	for _, replica := range w.replicas {
		for _, tier := range replica.Status().Tiers {
			for _, b := range tier.Backends {
				for _, d := range b.Deployments {
					n += d.InFlight
				}
			}
		}
	}
	for _, s := range w.servers {
		n += s.Stats().InFlight
	}
	return n
}

// call starts a request.
func (w *soak) call() {
	w.started++
	p := w.plan()
	replica := w.replicas[w.random.IntN(len(w.replicas))]
	w.checks.callers.Go(func() { w.checks.ask(replica, p) })
}

func (w *soak) pause(mean time.Duration) {
	d := time.Duration(w.random.ExpFloat64() * float64(mean))
	time.Sleep(d)
	w.awake += d
}

func (w *soak) server() *spillovertest.Server { return w.servers[w.random.IntN(len(w.servers))] }

// plan draws what a caller asks and how it behaves.
func (w *soak) plan() soakPlan {
	p := soakPlan{
		id: fmt.Sprint(w.started, "-", w.random.Uint64()), seed: w.random.Uint64(), unit: w.size.unit,
		model: []string{"m", "m", "m", "n"}[w.random.IntN(4)],
		kind:  []string{"chat", "stream", "stream", "embeddings", "responses"}[w.random.IntN(5)],
		reads: soakReader(w.random.IntN(12)),
	}
	if w.random.IntN(3) == 0 {
		p.tags = []string{[]string{"any", "half0", "half1"}[w.random.IntN(3)]}
	}
	p.tokens = 1 + w.random.IntN(60)
	p.class = spillover.Class(w.random.IntN(2))
	if w.random.IntN(4) == 0 {
		p.session = fmt.Sprint("session", w.random.IntN(20))
	}
	p.withoutGetBody = w.random.IntN(3) == 0
	return p
}

// disturb has a service fail, in one of the documented ways.
func (w *soak) disturb() {
	answer := func(status int, body string, header ...string) spillovertest.Fault {
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return spillovertest.Fault{Status: status, Body: body, Header: h}
	}
	wait := strconv.Itoa(1 + w.random.IntN(60))
	faults := []spillovertest.Fault{
		answer(429, `{"error":{"code":"rate_limit_exceeded","message":"slow down"}}`, "Retry-After", wait),
		answer(429, `{"error":{"code":"rate_limit_exceeded","message":"slow down"}}`, "retry-after-ms", wait+"00"),
		answer(429, `{"error":{"code":"insufficient_quota","message":"no money"}}`),
		answer(429, `not JSON`, "Retry-After", "99999999"),
		answer(500, `{"error":{"message":"oops"}}`),
		answer(502, `<html>`),
		answer(503, `{"error":{"message":"overloaded"}}`, "Retry-After", wait),
		answer(401, `{"error":{"code":"401","message":"wrong key"}}`),
		answer(403, `{"error":{"code":"403","message":"not from here"}}`),
		answer(404, `{"error":{"code":"DeploymentNotFound","message":"no such deployment"}}`),
		answer(408, `{"error":{"message":"too slow"}}`),
		answer(400, `{"error":{"code":"content_filter","message":"filtered"}}`),
		answer(400, `{"error":{"code":"context_length_exceeded","message":"too long"}}`),
		answer(307, "", "Location", "https://elsewhere.test/"),
		answer(200, `{"error":{"code":"429","message":"in disguise"}}`, "Content-Type", "application/json"),
		answer(200, "data: nonsense\n\n\x00\xff", "Content-Type", "text/event-stream"),
		{Kind: spillovertest.KindRefuse},
		{Kind: spillovertest.KindReset},
		{Kind: spillovertest.KindSilent},
		{Kind: spillovertest.KindSlow, Slower: 20},
		{Kind: spillovertest.KindCut, After: w.random.IntN(10)},
		{Kind: spillovertest.KindStall, After: w.random.IntN(10)},
		{Kind: spillovertest.KindError, After: w.random.IntN(10)},
	}
	f := faults[w.random.IntN(len(faults))]
	f.Times = w.random.IntN(30) // 0: until it is healed
	f.Deployment = []string{"", "", "m", "n"}[w.random.IntN(4)]
	w.server().Set(f)
}

// operate is what an operator does.
func (w *soak) operate() {
	replica := w.replicas[w.random.IntN(len(w.replicas))]
	b := w.cfg.Backends[w.random.IntN(len(w.cfg.Backends))].Name
	var err error
	switch w.random.IntN(6) {
	case 0:
		err = replica.Drain(b)
	case 1, 2:
		err = replica.Resume(b)
	case 3:
		err = replica.DrainFleet(b, time.Duration(1+w.random.IntN(100))*w.size.unit)
	case 4:
		err = replica.ResumeFleet(b)
	default:
		cfg := w.cfg
		cfg.Backends = nil
		for i, b := range w.cfg.Backends {
			if i > 0 && w.random.IntN(5) == 0 {
				continue
			}
			b.Weight, b.Drained = w.random.IntN(3), w.random.IntN(10) == 0
			if w.random.IntN(5) == 0 {
				b.Priority = 1 + w.random.IntN(3)
			}
			cfg.Backends = append(cfg.Backends, b)
		}
		cfg.MaxAttempts = w.random.IntN(5)
		w.reconfigure(cfg)
		return
	}
	if err != nil { // it was removed meanwhile
		require.ErrorContains(w.t, err, b)
	}
}

func (w *soak) reconfigure(cfg spillover.Config) {
	for _, replica := range w.replicas {
		require.NoError(w.t, replica.Reconfigure(cfg))
	}
}

// gossip is what other replicas and strangers send to the fleet.
func (w *soak) gossip() {
	if heard := w.checks.lastNotices(); len(heard) > 0 && w.random.IntN(4) > 0 {
		notice := heard[w.random.IntN(len(heard))]
		switch w.random.IntN(4) {
		case 0: // damaged
			if len(notice) > 0 {
				notice[w.random.IntN(len(notice))] = byte(w.random.IntN(256))
			}
		case 1: // somebody else says the same, for an hour
			notice = lie(notice, w.random)
		}
		w.fleet.Publish(notice)
		return
	}
	notice := make([]byte, w.random.IntN(300))
	for i := range notice {
		notice[i] = byte(w.random.IntN(256))
	}
	w.fleet.Publish(notice)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// contextOf is the context of a request, with a deadline if the caller has one.
func (p *soakPlan) contextOf(trail *spillover.Trail, r *rand.Rand) (context.Context, context.CancelFunc) {
	ctx := spillover.WithTrail(context.Background(), trail)
	ctx = spillover.WithClass(ctx, p.class)
	if len(p.tags) > 0 {
		ctx = spillover.WithTags(ctx, p.tags...)
	}
	if p.session != "" {
		ctx = spillover.WithSession(ctx, p.session)
	}
	if p.reads == readsUntilDeadline {
		return context.WithTimeout(ctx, time.Duration(r.Int64N(int64(20*p.unit))))
	}
	return context.WithTimeout(ctx, 200*p.unit) // nobody waits forever
}
