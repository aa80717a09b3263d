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
	clients := newClients(c, p, pool, tally)
	var all sync.WaitGroup
	if c.Fault.Kind != "" {
		all.Go(func() { c.Fault.play(pool, tally) })
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
// the deployments tell makes no difference to who knows.
func (c Cell) forOracle() Cell {
	c.M, c.free = 1, true
	c.CountRefused, c.Utilization, c.Silent, c.Stale = false, false, false, 0
	return c
}

func newClients(c Cell, p Policy, pool []*site, t *tally) []http.RoundTripper {
	setup := Setup{Patience: c.Patience}
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
	clients := make([]http.RoundTripper, c.M)
	for i := range clients {
		setup.Seed = c.Seed<<16 + uint64(i)
		clients[i] = p.New(setup)
	}
	return clients
}

// play makes the fault happen.
func (f Fault) play(pool []*site, t *tally) {
	var bad *site
	for _, s := range pool {
		if s.bad {
			bad = s
		}
	}
	time.Sleep(time.Until(t.start.Add(f.From)))
	bad.down.Store(f.Kind != "slow")
	switch f.Kind {
	case "500":
		bad.server.Set(spillovertest.Fault{Status: 500, Delay: refusalTime, Body: `{"error":{"code":"InternalServerError","message":"Internal server error"}}`})
	case "401":
		bad.server.Set(spillovertest.Fault{Status: 401, Delay: refusalTime, Body: `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}`})
	case "slow":
		bad.server.Set(spillovertest.Fault{Slower: 5})
	case "black hole":
		bad.dark.Store(true)
	default:
		panic(fmt.Sprintf("lab: no fault %q", f.Kind))
	}
	time.Sleep(time.Until(t.start.Add(f.To)))
	bad.server.Heal()
	bad.dark.Store(false)
	bad.down.Store(false)
}

// call is a caller with one request, who may be patient.
func call(c Cell, p Policy, client http.RoundTripper, j job, t *tally) {
	trip := &trip{job: j, began: time.Now()}
	ctx := withTrip(context.Background(), trip)
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
	r, err := http.NewRequestWithContext(ctx, "POST", callerURL, strings.NewReader(j.body()))
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
