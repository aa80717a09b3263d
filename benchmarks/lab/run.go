package lab

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// Run plays a cell with a policy. It must be called in a testing/synctest
// bubble, whose time it takes.
func Run(c Cell, p Policy) (Figures, error) {
	if p.Omniscient {
		c = c.forOracle()
	}
	jobs, err := c.load()
	if err != nil {
		return Figures{}, err
	}
	pool := newPool(c, jobs)
	tally := newTally(c)
	bus := &bus{Bus: c.Bus, tally: tally}
	clients := newClients(c, p, pool, tally, bus)
	var all sync.WaitGroup
	if p.Fleet && c.Bus.Liars.Senders > 0 {
		all.Go(func() { bus.lie(pool, tally.start.Add(c.end())) })
	}
	if c.Fault.Kind != "" {
		all.Go(func() { c.Fault.play(pool, tally) })
	}
	for i, s := range pool {
		if c.Resets && s.Tier == 1 {
			all.Go(func() { c.reset(s, tally.start) })
		}
		if c.Neighbour.Share > 0 {
			all.Go(func() { c.neighbour(s, rand.New(rand.NewPCG(c.Seed, 100+uint64(i))), tally.start) })
		}
	}
	all.Go(func() { tally.watch(pool[0]) })
	for _, j := range jobs {
		time.Sleep(time.Until(tally.start.Add(j.at)))
		all.Go(func() { call(c, p, clients[j.client], j, tally) })
	}
	all.Wait()
	for _, client := range clients {
		if closer, ok := client.(io.Closer); ok {
			closer.Close()
		}
	}
	return tally.figures(pool), nil
}

// forOracle is the cell in a world where asking is free, which is as good as
// knowing the answer: one client, no network, refusals that count nowhere. What
// the deployments tell makes no difference to who knows. Refusals by chance and
// what goes wrong by itself are no part of what could be reached.
func (c Cell) forOracle() Cell {
	c.M, c.free = 1, true
	c.CountRefused, c.Utilization, c.Silent, c.Stale = false, false, false, 0
	c.Refusal, c.Chance, c.Odd, c.Bus = 0, Chance{}, Odd{}, Bus{}
	return c
}

func newClients(c Cell, p Policy, pool []*site, t *tally, b *bus) []http.RoundTripper {
	setup := Setup{Patience: c.Patience}
	if c.Classes {
		setup.BackgroundWait = c.Wait
	}
	if c.Late > 0 {
		setup.HeaderTimeout = lateTimeout
	}
	for _, s := range pool {
		setup.Pool = append(setup.Pool, s.Backend)
	}
	delay := oneWay
	if c.free {
		delay = 0
	}
	setup.Net = newWire(pool, delay, t)
	if p.Omniscient {
		setup.sites = pool
	}
	n := c.M
	if c.Apart {
		n++
	}
	if p.Fleet {
		setup.Fleet = b
	}
	clients := make([]http.RoundTripper, n)
	for i := range clients {
		setup.Seed = c.Seed<<16 + uint64(i)
		clients[i] = p.New(setup)
	}
	return clients
}

// play makes the fault happen.
func (f Fault) play(pool []*site, t *tally) {
	time.Sleep(time.Until(t.start.Add(f.From)))
	for _, s := range pool {
		if s.bad {
			f.begin(s)
		}
	}
	time.Sleep(time.Until(t.start.Add(f.To)))
	for _, s := range pool {
		if s.bad {
			s.server.Set(s.usual...)
			s.dark.Store(false)
			s.down.Store(false)
		}
	}
}

func (f Fault) begin(s *site) {
	s.down.Store(f.Kind != "slow")
	switch f.Kind {
	case "500":
		s.server.Set(spillovertest.Fault{Status: 500, Delay: refusalTime, Body: `{"error":{"code":"InternalServerError","message":"Internal server error"}}`})
	case "401":
		s.server.Set(spillovertest.Fault{Status: 401, Delay: refusalTime, Body: `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}`})
	case "slow":
		s.server.Set(spillovertest.Fault{Slower: 5})
	case "silent":
		s.server.Set(spillovertest.Fault{Kind: spillovertest.KindSilent})
	case "reset":
		s.server.Set(spillovertest.Fault{Kind: spillovertest.KindReset, Delay: resetAfter})
	case "black hole":
		s.dark.Store(true)
	default:
		panic(fmt.Sprintf("lab: no fault %q", f.Kind))
	}
}

// end is when the measured time ends, since the start.
func (c Cell) end() time.Duration { return c.Warm + c.Measure }

// reset breaks the connection of one request a minute.
func (c Cell) reset(s *site, start time.Time) {
	for time.Since(start) < c.end() {
		time.Sleep(time.Minute)
		s.server.Set(append([]spillovertest.Fault{{Kind: spillovertest.KindReset, Delay: time.Second, Times: 1}}, s.usual...)...)
	}
}

// neighbour is somebody else at a deployment, whose requests are like ours.
func (c Cell) neighbour(s *site, rng *rand.Rand, start time.Time) {
	rate := c.Neighbour.Share * s.sustains(c.shape())
	var all sync.WaitGroup
	defer all.Wait()
	some := func() time.Duration { return time.Duration((0.8 + 0.4*rng.Float64()) * float64(time.Minute)) }
	for at := -time.Duration(rng.Float64() * float64(2*time.Minute)); at < c.end(); at += some() {
		for end := at + some(); at < min(end, c.end()); at += time.Duration(rng.ExpFloat64() / rate * float64(time.Second)) {
			if j := c.shape().draw(rng); at >= 0 {
				time.Sleep(time.Until(start.Add(at)))
				all.Go(func() { c.visit(s, j, start) })
			}
		}
	}
}

// visit is a request of a neighbour, which is not seen by the tally.
func (c Cell) visit(s *site, j job, start time.Time) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, callerURL, nil)
	if err != nil {
		panic(err)
	}
	for range 1 + neighbourRetries {
		resp, err := s.server.RoundTrip((&trip{job: j}).short(r))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests || !c.Neighbour.Greedy || time.Since(start) > c.end() {
			return
		}
		time.Sleep(retryAfter(resp.Header))
	}
}

const (
	resetAfter       = 100 * time.Millisecond
	neighbourRetries = 20
	// What is late takes longer than the timeout that is configured.
	lateTimeout = 60 * time.Second
	lateBy      = lateTimeout + 30*time.Second
)

// call is a caller with one request, who may be patient.
func call(c Cell, p Policy, client http.RoundTripper, j job, t *tally) {
	trip := &trip{job: j, began: time.Now()}
	ctx := withTrip(context.Background(), trip)
	if c.Classes && j.background {
		ctx = spillover.WithClass(ctx, spillover.Background)
	}
	if c.Leave > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Leave)
		defer cancel()
	}
	for {
		status, wait := ask(ctx, client, j)
		if status == 429 && !p.Waits && c.Patience > 0 {
			wait += time.Duration(rand.Int64N(int64(200 * time.Millisecond)))
			if time.Since(trip.began)+wait <= c.Patience {
				time.Sleep(wait)
				continue
			}
		}
		t.over(trip, status)
		return
	}
}

// ask sends a request and reads the answer. The status is 0 when there was
// none, or it broke off.
func ask(ctx context.Context, client http.RoundTripper, j job) (status int, wait time.Duration) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, callerURL, strings.NewReader(j.body()))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Api-Key", "key")
	resp, err := client.RoundTrip(r)
	if err != nil {
		return 0, 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, 0
	}
	return resp.StatusCode, retryAfter(resp.Header)
}

const callerURL = "https://pool.openai.azure.com/openai/deployments/" + model + "/chat/completions?api-version=2024-10-21"

// prose is as long as the longest prompt, at four characters a token.
var prose = strings.Repeat("four", longest)

// body is the request as an SDK would send it, with all of its prompt.
func (j job) body() string {
	return `{"messages":[{"role":"user","content":"` + prose[:4*j.prompt] + `"}],"max_tokens":` +
		strconv.Itoa(j.most) + `,"stream":` + strconv.FormatBool(j.stream) + `}`
}

// retryAfter is the time that a 429 names, at its most exact; 0: none.
func retryAfter(h http.Header) time.Duration {
	if ms, err := strconv.Atoi(h.Get("Retry-After-Ms")); err == nil && ms >= 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return retryAfterSeconds(h, 0)
}

// retryAfterSeconds is the header that everybody reads.
func retryAfterSeconds(h http.Header, otherwise time.Duration) time.Duration {
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil && s >= 0 {
		return time.Duration(s) * time.Second
	}
	return otherwise
}
