package lab

import (
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// attempt sends one request to a deployment and reads the answer.
func attempt(t *testing.T, w *wire, s *site, trip *trip) (resp *http.Response, text string, err error, took time.Duration) {
	t.Helper()
	r, err := http.NewRequestWithContext(withTrip(t.Context(), trip), "POST", callerURL, nil)
	require.NoError(t, err)
	r.GetBody = func() (io.ReadCloser, error) { return http.NoBody, nil }
	began := time.Now()
	if resp, err = s.send(w, r); err == nil {
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		text = string(body)
	}
	return resp, text, err, time.Since(began)
}

// A share of the attempts is refused whatever the load, and the deployment
// reports the room that it has all the same.
func TestRefusalsByChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chance(1, 0.3, 20*time.Millisecond)
		pool := newPool(c, nil)
		w := newWire(pool, oneWay, newTally(c))
		for _, s := range []*site{pool[0], pool[3]} {
			refused := 0
			for range 300 {
				resp, text, err, took := attempt(t, w, s, &trip{job: job{prompt: 10, most: 16, output: 1}})
				require.NoError(t, err)
				if resp.StatusCode == 200 {
					continue
				}
				refused++
				require.Equal(t, 429, resp.StatusCode)
				require.Equal(t, "20", resp.Header.Get("Retry-After-Ms"))
				require.Equal(t, "1", resp.Header.Get("Retry-After"))
				require.InDelta(t, 0.05, took.Seconds(), 0.045)
				require.NotContains(t, text, "no_capacity")
				require.Equal(t, s.Tier == 2, resp.Header.Get("X-Ratelimit-Remaining-Tokens") != "")
			}
			require.InDelta(t, 90, refused, 45)
		}
	})
}

func TestRefusalsByChanceOfThePTUAlone(t *testing.T) {
	pool := newPool(unlucky(0.2), nil)
	require.NotEmpty(t, pool[0].usual)
	require.Empty(t, pool[1].usual)
	c := unlucky(0.2)
	require.InDelta(t, c.Rho*c.capacity(), pool[0].sustains(c.shape()), 0.01)
}

func TestNoCapacityTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := noCapacity(1, 5*time.Second)
		pool := newPool(c, nil)
		resp, text, err, took := attempt(t, newWire(pool, oneWay, newTally(c)), pool[0], &trip{job: job{prompt: 10, most: 16}})
		require.NoError(t, err)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "6", resp.Header.Get("Retry-After"))
		require.Contains(t, text, `"no_capacity"`)
		require.InDelta(t, 5.05, took.Seconds(), 0.045)
	})
}

// Limits that take long to refuse take no longer to serve.
func TestSlowRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := slowly(1, 2*time.Second)
		pool := newPool(c, nil)
		w := newWire(pool, oneWay, newTally(c))
		large := &trip{job: job{prompt: longest, most: 16, output: 1}}
		for {
			resp, _, err, took := attempt(t, w, pool[1], large)
			require.NoError(t, err)
			if resp.StatusCode == 429 {
				require.InDelta(t, 2.05, took.Seconds(), 0.045)
				return
			}
		}
	})
}

// The neighbour uses his share of each quota for about half of the time, and
// what he uses is not ours.
func TestNeighbour(t *testing.T) {
	for _, greedy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := shared(1, 0.5)
			c.Neighbour.Greedy = greedy
			c.Warm, c.Measure = 0, 20*time.Minute
			pool := newPool(c, nil)
			began := time.Now()
			c.neighbour(pool[1], rand.New(rand.NewPCG(1, 1)), began)
			require.InDelta(t, c.end().Seconds(), time.Since(began).Seconds(), 60) // his last requests end
			stats := pool[1].server.Stats()
			require.InDelta(t, 0.25*float64(pool[1].TPM)*c.end().Minutes(), stats.Charged, 0.1*float64(pool[1].TPM)*c.end().Minutes())
		})
	}
}

// A greedy neighbour comes again when he was told to, and gives up in the end.
func TestGreedyNeighbourComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chance(1, 1, time.Second)
		c.Neighbour.Greedy = true
		pool := newPool(c, nil)
		began := time.Now()
		c.visit(pool[0], job{prompt: 10, most: 16}, began)
		require.Equal(t, 1+neighbourRetries, pool[0].server.Stats().Requests)
		require.InDelta(t, (1 + neighbourRetries), time.Since(began).Seconds(), 1)
		c.Neighbour.Greedy = false
		c.visit(pool[0], job{prompt: 10, most: 16}, began)
		require.Equal(t, 2+neighbourRetries, pool[0].server.Stats().Requests)
	})
}

// What goes wrong wherever it is sent does, and does not count.
func TestOddRequests(t *testing.T) {
	c := odd(1, Odd{Poison: 0.01, Late: 0.005})
	c.Measure = time.Hour
	jobs, err := c.load()
	require.NoError(t, err)
	var poison, late float64
	for _, j := range jobs {
		if j.poison {
			poison++
		}
		if j.late {
			late++
		}
	}
	require.InDelta(t, 0.01, poison/float64(len(jobs)), 0.003)
	require.InDelta(t, 0.005, late/float64(len(jobs)), 0.002)

	synctest.Test(t, func(t *testing.T) {
		pool, tally := newPool(c, nil), newTally(c)
		w := newWire(pool, oneWay, tally)
		bad := &trip{job: job{prompt: 10, most: 16, poison: true, at: c.Warm}, began: time.Now()}
		_, _, err, took := attempt(t, w, pool[1], bad)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.InDelta(t, 0.13, took.Seconds(), 0.03)
		tally.over(bad, 0)
		slow := &trip{job: job{prompt: 10, most: 16, output: 1, late: true, at: c.Warm}, began: time.Now()}
		resp, _, err, took := attempt(t, w, pool[1], slow)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.InDelta(t, lateBy.Seconds(), took.Seconds(), 2)
		tally.over(slow, 200)
		require.Zero(t, tally.figures(pool).Requests)
	})
}

// Once a minute the PTU breaks one connection, and is well before and after.
func TestResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := resetting(15)
		c.Warm, c.Measure = 0, 2*time.Minute
		pool := newPool(c, nil)
		go c.reset(pool[0], time.Now())
		w := newWire(pool, oneWay, newTally(c))
		broken := 0
		for range 100 {
			if _, _, err, took := attempt(t, w, pool[0], &trip{job: job{prompt: 10, most: 16, output: 10}}); err != nil {
				require.ErrorIs(t, err, syscall.ECONNRESET)
				require.InDelta(t, 1.03, took.Seconds(), 0.03)
				broken++
			} else {
				require.InDelta(t, 15*0.4, took.Seconds(), 4)
			}
		}
		require.Equal(t, 2, broken)
	})
}

// What is silent says nothing until the caller leaves, and afterwards is well.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := silent(1, true)
		pool, tally := newPool(c, nil), newTally(c)
		client := newClients(c, Walk, pool, tally, nil)[0]
		go c.Fault.play(pool, tally)
		one := job{prompt: 10, most: 16, output: 1}
		began := time.Now()
		time.Sleep(c.Fault.From + time.Second)
		one.at = time.Since(began)
		call(c, Walk, client, one, tally)
		require.Equal(t, c.Leave, time.Since(began.Add(one.at)))
		require.Zero(t, tally.trips[0].status)
		call(c, Walk, client, one, tally)
		require.Equal(t, 200, tally.trips[1].status)
	})
}

// All of them are bad, and all come back.
func TestOutage(t *testing.T) {
	for kind, status := range map[string]int{"500": 500, "reset": 0} {
		synctest.Test(t, func(t *testing.T) {
			c := outage(kind)
			pool, tally := newPool(c, nil), newTally(c)
			client := newClients(c, Walk, pool, tally, nil)[0]
			go c.Fault.play(pool, tally)
			for i, at := range []time.Duration{c.Fault.From - time.Second, c.Fault.From, c.Fault.To} {
				time.Sleep(time.Until(tally.start.Add(at + 100*time.Millisecond)))
				call(c, Walk, client, job{at: at, prompt: 10, most: 16, output: 1}, tally)
				require.Equal(t, []int{200, status, 200}[i], tally.trips[i].status)
			}
		})
	}
}

// Walk goes on, obeys the hint to the millisecond, and remembers nothing else.
func TestWalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[string]int{}
		var first reply
		client := stage(func(host string, _ bool) reply {
			asked[host]++
			if host == "1a" {
				return first
			}
			return well
		}).client(Walk, 1, 2)
		ask := func() (served bool, ptu int) {
			before := asked["1a"]
			return request(client, false), asked["1a"] - before
		}
		for _, fails := range []reply{{status: 500}, {}} {
			first = fails
			for range 3 {
				served, ptu := ask()
				require.True(t, served)
				require.Equal(t, 1, ptu)
			}
		}
		first = reply{status: 429, hint: 250 * time.Millisecond}
		served, ptu := ask()
		require.True(t, served)
		require.Equal(t, 1, ptu)
		time.Sleep(199 * time.Millisecond) // the answer itself took 50
		_, ptu = ask()
		require.Zero(t, ptu)
		_, ptu = ask()
		require.Equal(t, 1, ptu)
	})
}

// When all refuse, the caller is told the soonest time.
func TestWalkIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hints := map[string]time.Duration{"1a": 3 * time.Second, "1b": 1500 * time.Millisecond}
		client := stage(func(host string, _ bool) reply { return reply{status: 429, hint: hints[host]} }).client(Walk, 2)
		r, err := http.NewRequest("POST", callerURL, nil)
		require.NoError(t, err)
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }
		for range 2 {
			resp, err := client.RoundTrip(r)
			require.NoError(t, err)
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, "2", resp.Header.Get("Retry-After"))
			require.Equal(t, "1500", resp.Header.Get("Retry-After-Ms"))
		}
	})
}
