package lab

import (
	"context"
	"sync"
	"time"
)

// A trip is one request of the load on its way, with all of its attempts.
type trip struct {
	job
	began   time.Time
	sent    time.Time // of the latest attempt
	at      *site     // of the latest attempt
	refused int       // attempts answered with a 429
	touched bool      // an attempt went to the deployment with the fault
	ended   time.Time
	status  int // of the answer; 0: an error
}

type tripKey struct{}

func withTrip(ctx context.Context, t *trip) context.Context {
	return context.WithValue(ctx, tripKey{}, t)
}

func tripOf(ctx context.Context) *trip { return ctx.Value(tripKey{}).(*trip) }

// A tally is what a run has counted.
type tally struct {
	mu    sync.Mutex
	cell  Cell
	start time.Time
	trips []*trip // that are over
	// minutes are the tokens that deployments charged, by minute of the
	// measured time.
	minutes map[*site][]float64
	// ptu is the PTU at the beginning and at the end of the measured time.
	ptu [2]level
	// faultUse is the requests that the deployment with the fault has served,
	// by second of the run.
	faultUse []int
	// notices are those that clients have published in the measured time, and
	// ejections those of an ejection at any time.
	notices, ejections int
}

func newTally(c Cell) *tally {
	return &tally{cell: c, start: time.Now(), minutes: map[*site][]float64{}}
}

// sent counts an attempt.
func (t *tally) sent(trip *trip, s *site) {
	t.mu.Lock()
	defer t.mu.Unlock()
	trip.sent, trip.at = time.Now(), s
	trip.touched = trip.touched || s.bad
}

// answered counts what came of it.
func (t *tally) answered(trip *trip, s *site, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := trip.sent.Sub(t.start)
	switch {
	case status == 429 && t.cell.free:
	case status == 429:
		trip.refused++
	case status != 200:
	case s.bad:
		t.faultUse = grown(t.faultUse, int(at/time.Second))
		t.faultUse[at/time.Second]++
		fallthrough
	default:
		if s.Tier == 2 && t.cell.measured(at) {
			minute := int((at - t.cell.Warm) / time.Minute)
			used := grown(t.minutes[s], minute)
			used[minute] += trip.cost().payg
			t.minutes[s] = used
		}
	}
}

// published counts a notice of a client.
func (t *tally) published(notice []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cell.measured(time.Since(t.start)) {
		t.notices++
	}
	if kindOf(notice) == "ejected" {
		t.ejections++
	}
}

// over ends a trip.
func (t *tally) over(trip *trip, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	trip.ended, trip.status = time.Now(), status
	t.trips = append(t.trips, trip)
}

// A level is how far the accounts of a PTU are, in its tokens.
type level struct {
	charged float64 // for answers that have ended
	full    float64 // in the bucket
}

// watch takes the PTU's levels.
func (t *tally) watch(ptu *site) {
	for i, at := range []time.Duration{t.cell.Warm, t.cell.Warm + t.cell.Measure} {
		time.Sleep(time.Until(t.start.Add(at)))
		s := ptu.server.Stats()
		depth := float64(ptu.TPM) * t.cell.bucket().Minutes()
		t.ptu[i] = level{charged: s.Charged, full: s.Utilization * depth}
	}
}

// drained is what the PTU has worked off in the measured time: what was charged,
// less what is still in the bucket, and with what those under way have reserved.
// Unlike the cost of the requests that came it does not depend on which ones
// happened to be under way at the edges, so that a PTU in use all the time has
// the same figure under every policy.
func (t *tally) drained() float64 {
	begin, end := t.ptu[0], t.ptu[1]
	return end.charged - begin.charged - (end.full - begin.full) +
		t.reserved(t.cell.Warm+t.cell.Measure) - t.reserved(t.cell.Warm)
}

// ours is the cost of our own requests that the PTU served, where it has others.
func (t *tally) ours() (sum float64) {
	for _, trip := range t.trips {
		if trip.status == 200 && trip.at.Tier == 1 && t.cell.measured(trip.job.at) {
			sum += trip.cost().ptu
		}
	}
	return sum
}

// reserved is what the requests under way at the PTU at a time have reserved.
func (t *tally) reserved(at time.Duration) float64 {
	delay := oneWay
	if t.cell.free {
		delay = 0
	}
	now, sum := t.start.Add(at), 0.0
	for _, trip := range t.trips {
		if trip.status == 200 && trip.at.Tier == 1 && !trip.sent.Add(delay).After(now) && trip.ended.After(now) {
			sum += float64(trip.prompt + 3*trip.most)
		}
	}
	return sum
}

// grown is a list that has an index.
func grown[T any](list []T, index int) []T {
	for len(list) <= index {
		var zero T
		list = append(list, zero)
	}
	return list
}
