package lab

import (
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Sizes and rates are those of the model.
func TestLoad(t *testing.T) {
	require.InDelta(t, 800*math.Exp(0.5)+960, chats.mean.payg, 50)
	require.Less(t, shorts.mean.payg, 1000./6) // so that requests bind

	c := usual(10, 8, 0.9)
	c.Measure = 2 * time.Hour
	jobs, err := c.load()
	require.NoError(t, err)
	seconds := (c.Warm + c.Measure).Seconds()
	require.InDelta(t, 0.9*c.capacity(), float64(len(jobs))/seconds, 1)
	seen := map[int]int{}
	for i, j := range jobs {
		require.LessOrEqual(t, j.output, j.most)
		require.LessOrEqual(t, j.prompt, longest)
		if i > 0 {
			require.GreaterOrEqual(t, j.at, jobs[i-1].at)
		}
		seen[j.client]++
	}
	require.Len(t, seen, 8)

	again, err := c.load()
	require.NoError(t, err)
	require.Equal(t, jobs, again)
}

// A second in seven is of a burst, and has more load.
func TestBursts(t *testing.T) {
	jobs := poisson(rand.New(rand.NewPCG(1, 1)), chats, 50, time.Hour)
	perSecond := make([]float64, 3600)
	for _, j := range jobs {
		perSecond[j.at/time.Second]++
	}
	var sum, squares float64
	for _, n := range perSecond {
		sum += n
		squares += n * n
	}
	mean := sum / 3600
	require.InDelta(t, 50, mean, 1)
	// Poisson alone has a variance of its mean.
	require.Greater(t, squares/3600-mean*mean, 1.5*mean)
}

func TestTrace(t *testing.T) {
	jobs, err := parseTrace(strings.NewReader("TIMESTAMP,ContextTokens,GeneratedTokens\n" +
		"2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,1000\n"))
	require.NoError(t, err)
	require.Equal(t, []job{
		{prompt: 374, output: 44, most: 256, stream: true},
		{at: 4314579 * time.Microsecond, prompt: 396, output: 1000, most: 1024},
	}, jobs)
	require.Equal(t, 431457900*time.Nanosecond, faster(jobs, 10)[1].at)

	for _, bad := range []string{"", "a,b,c\nnoon,1,2\n", "a,b,c\n2023-11-16 18:15:46,x,2\n", "a,b,c\n2023-11-16 18:15:46,1,x\n", "a,b,c\n1\n"} {
		_, err := parseTrace(strings.NewReader(bad))
		require.Error(t, err, bad)
	}
	_, err = readTrace("no such file")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The PTU has its share, and the trace a pool that it overruns.
func TestPool(t *testing.T) {
	c := usual(10, 1, 1)
	ptu, payg := c.limits(nil)
	require.Equal(t, []int{150_000, 300_000, 600_000}, payg[:3])
	require.InDelta(t, ptuShare, float64(ptu)/60/c.shape().mean.ptu/c.capacity(), 0.001)

	jobs := even(rushed, 10, time.Minute)
	ptu, payg = replay("a.csv", 1).limits(jobs)
	require.InDelta(t, 0.4*700*600, ptu, 5000)
	sum := 0
	for _, tpm := range payg {
		sum += tpm
	}
	require.InDelta(t, 0.8*500*600, sum, 5000)
}

// What is in the dark takes a dialer's time, and what is not takes the way there
// and back.
func TestWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := usual(3, 1, 1)
		c.Fault = Fault{Kind: "black hole", PTU: true}
		tally := newTally(c)
		pool := newPool(c, nil)
		w := newWire(pool, oneWay, tally)
		trip := &trip{job: job{prompt: 100_000, most: 16, output: 1}}
		ctx := t.Context()
		ask := func(s *site) (*http.Response, error, time.Duration) {
			r, err := http.NewRequestWithContext(withTrip(ctx, trip), "POST", callerURL, nil)
			require.NoError(t, err)
			r.GetBody = func() (io.ReadCloser, error) { return http.NoBody, nil }
			began := time.Now()
			resp, err := s.send(w, r)
			return resp, err, time.Since(began)
		}
		resp, err, took := ask(pool[1])
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.Greater(t, took, 8*time.Second)
		resp, err, took = ask(pool[1])
		require.NoError(t, err)
		require.Equal(t, 429, resp.StatusCode)
		require.InDelta(t, 0.035, took.Seconds(), 0.03)
		require.Equal(t, 1, trip.refused)
		require.False(t, trip.touched)

		pool[0].dark.Store(true)
		_, err, took = ask(pool[0])
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, connectTimeout, took)
		require.True(t, trip.touched)
	})
}

// What the figures say of a run of four requests.
func TestFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := usual(3, 1, 0.5)
		c.Warm, c.Measure = 0, time.Minute
		pool := newPool(c, nil)
		tally := newTally(c)
		end := func(at, wait time.Duration, s *site, status int, refusals int) {
			trip := &trip{job: job{at: at, prompt: 75, output: 25, most: 75}, began: time.Now()}
			for range refusals {
				tally.sent(trip, pool[0])
				tally.answered(trip, pool[0], 429)
			}
			trip.sent, trip.at = trip.began.Add(wait), s
			tally.answered(trip, s, status)
			tally.over(trip, status)
		}
		end(0, 0, pool[0], 200, 0)
		end(time.Second, 40*time.Millisecond, pool[1], 200, 1)
		end(2*time.Second, 0, pool[1], 500, 0)
		end(3*time.Second, 0, pool[1], 429, 1)
		end(time.Hour, 0, pool[1], 500, 0) // later than what is measured
		tally.ptu = [2]level{{charged: 100, full: 50}, {charged: 240, full: 40}}
		f := tally.figures(pool)
		require.Equal(t, 4, f.Requests)
		require.Equal(t, 200., f.Tokens)
		require.Equal(t, 0.5, f.Goodput)
		require.Equal(t, 150., f.PTU)
		require.Equal(t, 1, f.Used)
		require.Equal(t, 3, f.Refused)
		require.Equal(t, 1.5, f.Wasted)
		require.Equal(t, 0.25, f.Visible)
		require.Equal(t, 0.25, f.Errors)
		require.Equal(t, 40*time.Millisecond, f.AddedP99)
		require.InDelta(t, 150./float64(pool[1].TPM)/2, f.Uneven, 1e-9)
	})
}

func TestRecovery(t *testing.T) {
	c := faulty("500", false)
	tally := &tally{cell: c}
	from, to := int(c.Fault.From.Seconds()), int(c.Fault.To.Seconds())
	serve := func(from, to int) {
		for s := from; s < to; s++ {
			tally.faultUse = grown(tally.faultUse, s)
			tally.faultUse[s] = 10
		}
	}
	serve(0, from)
	require.Equal(t, never, tally.recovery())
	serve(to+14, to+100)
	require.Equal(t, 10*time.Second, tally.recovery())
}
