package statuspage

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/spillover-go/spillover"
)

const (
	maxSamples = 180 // of the last 15 minutes
	maxSeries  = 500 // deployments with a history
)

// A history is what happened between the samples of the last minutes. Deployments and
// tiers that have left the Status have no history.
type history struct {
	since       time.Time   // of the sample before the first of times
	times       []time.Time // of the samples
	last        map[string]counters
	pool        series
	tiers       map[int]*series // by priority
	deployments map[string]*series
}

// A series has one point for each of the last samples, as many as it has been there.
type series struct {
	points []point
	seen   bool // in the sample that is being added
}

// A point is what happened between two samples, and what was at the second.
type point struct {
	served, throttled, failed, spilled, input, output uint32

	inFlight    uint32
	utilization float32 // negative if it is unknown
}

// counters are those of a deployment in a Status.
type counters struct {
	served, throttled, failed uint64
	input, output             int64
}

func countersOf(d *spillover.DeploymentStatus) counters {
	return counters{d.Served, d.Throttled, d.Failed, d.InputTokens, d.OutputTokens}
}

// since returns what was counted since earlier counters. Smaller counters than these
// are those of a new deployment of the same name.
func (c counters) since(earlier counters) counters {
	if c.served < earlier.served || c.throttled < earlier.throttled || c.failed < earlier.failed || c.input < earlier.input || c.output < earlier.output {
		return c
	}
	return counters{c.served - earlier.served, c.throttled - earlier.throttled, c.failed - earlier.failed, c.input - earlier.input, c.output - earlier.output}
}

// clamp converts n, which a chart shows, to a smaller type.
func clamp[N uint64 | int64 | int](n N) uint32 { return uint32(min(uint64(max(n, 0)), math.MaxUint32)) }

// add adds a sample. The first one is only what the next one is compared with.
func (h *history) add(now time.Time, s spillover.Status) {
	first, last := h.last == nil, h.last
	h.last = map[string]counters{}
	if first {
		h.since, h.tiers, h.deployments = now, map[int]*series{}, map[string]*series{}
	}
	firstTier := firstTiers(s)
	pool := point{utilization: -1}
	for _, t := range s.Tiers {
		tier := point{utilization: -1}
		for i := range t.Backends {
			b := &t.Backends[i]
			for j := range b.Deployments {
				d := &b.Deployments[j]
				id := idOf(b, d)
				h.last[id] = countersOf(d)
				if first {
					continue
				}
				c := countersOf(d).since(last[id])
				p := point{
					served: clamp(c.served), throttled: clamp(c.throttled), failed: clamp(c.failed), input: clamp(c.input), output: clamp(c.output),
					inFlight: clamp(d.InFlight), utilization: -1,
				}
				if t.Priority > firstTier[d.Model] {
					p.spilled = p.served
				}
				tier.add(p)
				if utilization, ok := utilizationOf(d, now); ok {
					p.utilization = float32(utilization)
				}
				extend(h.deployments, id, p, maxSeries)
			}
		}
		pool.add(tier)
		if !first {
			extend(h.tiers, t.Priority, tier, math.MaxInt)
		}
	}
	if first {
		return
	}
	h.pool.extend(pool)
	if h.times = append(h.times, now); len(h.times) > maxSamples {
		h.since = h.times[0]
		h.times = append(h.times[:0], h.times[1:]...)
	}
	removeUnseen(h.deployments)
	removeUnseen(h.tiers)
}

func (p *point) add(q point) {
	p.served += q.served
	p.throttled += q.throttled
	p.failed += q.failed
	p.spilled += q.spilled
	p.input += q.input
	p.output += q.output
	p.inFlight += q.inFlight
}

// extend adds a point to a series, and begins one if there are fewer than most.
func extend[K comparable](all map[K]*series, key K, p point, most int) {
	s := all[key]
	if s == nil {
		if len(all) >= most {
			return
		}
		s = &series{}
		all[key] = s
	}
	s.extend(p)
}

func (s *series) extend(p point) {
	if s.points = append(s.points, p); len(s.points) > maxSamples {
		s.points = append(s.points[:0], s.points[1:]...)
	}
	s.seen = true
}

func removeUnseen[K comparable](all map[K]*series) {
	for key, s := range all {
		if !s.seen {
			delete(all, key)
		}
		s.seen = false
	}
}

// sum adds up the points of the last samples, and returns how long they took.
func (h *history) sum(of *series, samples int) (p point, took time.Duration) {
	if of == nil || len(of.points) == 0 {
		return p, 0
	}
	n := min(samples, len(of.points))
	for _, q := range of.points[len(of.points)-n:] {
		p.add(q)
	}
	from := h.since
	if n < len(h.times) {
		from = h.times[len(h.times)-n-1]
	}
	return p, h.times[len(h.times)-1].Sub(from)
}

// mostInFlight returns how many requests were in flight at most in a sample.
func (h *history) mostInFlight() (most int) {
	for _, p := range h.pool.points {
		most = max(most, int(p.inFlight))
	}
	return most
}

// firstTiers returns the priority of the first tier of each model. What a lower one
// serves has spilled.
func firstTiers(s spillover.Status) map[string]int {
	first := map[string]int{}
	for _, t := range s.Tiers {
		for _, b := range t.Backends {
			for _, d := range b.Deployments {
				if p, ok := first[d.Model]; !ok || t.Priority < p {
					first[d.Model] = t.Priority
				}
			}
		}
	}
	return first
}

// utilizationMaxAge is for how long a utilization that a PTU reported is shown.
const utilizationMaxAge = time.Minute

func utilizationOf(d *spillover.DeploymentStatus, now time.Time) (float64, bool) {
	return d.Utilization, !d.UtilizationAt.IsZero() && now.Sub(d.UtilizationAt) <= utilizationMaxAge
}

// idOf identifies a deployment across configurations. Another URL is another
// deployment, another priority is not.
func idOf(b *spillover.BackendStatus, d *spillover.DeploymentStatus) string {
	h := sha256.New()
	for _, s := range []string{b.Name, b.URL, d.Model, d.Name} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return "d-" + hex.EncodeToString(h.Sum(nil)[:8])
}

// A historyJSON has the counts between samples: the last n of them are at the last n of
// the times.
type historyJSON struct {
	Interval    float64      `json:"interval_seconds"`
	Since       int64        `json:"since"` // Unix milliseconds: when the first count began
	Times       []int64      `json:"times"` // Unix milliseconds
	Pool        *seriesJSON  `json:"pool"`
	Tiers       []seriesJSON `json:"tiers"`
	Deployments []seriesJSON `json:"deployments"`
}

type seriesJSON struct {
	ID          string     `json:"id,omitempty"`
	Priority    int        `json:"priority,omitempty"`
	Backend     string     `json:"backend,omitempty"`
	Model       string     `json:"model,omitempty"`
	Name        string     `json:"name,omitempty"`
	InFlight    []uint32   `json:"in_flight"`
	Served      []uint32   `json:"served"`
	Throttled   []uint32   `json:"throttled"`
	Failed      []uint32   `json:"failed"`
	Spilled     []uint32   `json:"spilled,omitempty"` // served by a lower tier than the first of the model
	Input       []uint32   `json:"input_tokens,omitempty"`
	Output      []uint32   `json:"output_tokens,omitempty"`
	Utilization []*float32 `json:"utilization,omitempty"` // null if it was unknown
}

// export returns the samples after that of a time in Unix milliseconds, or those of later
// times if there is no such sample. They are in the order in which they were taken, which
// is not that of their times after the wall clock was set back.
func (h *history) export(s spillover.Status, after int64) historyJSON {
	old := len(h.times)
	for old > 0 && h.times[old-1].UnixMilli() != after {
		old--
	}
	if old == 0 {
		old, _ = slices.BinarySearchFunc(h.times, after, func(t time.Time, after int64) int { return cmp.Compare(t.UnixMilli(), after+1) })
	}
	times := h.times[old:]
	j := historyJSON{Interval: sampleInterval.Seconds(), Since: h.since.UnixMilli(), Times: make([]int64, len(times)), Tiers: []seriesJSON{}, Deployments: []seriesJSON{}}
	if old > 0 {
		j.Since = h.times[old-1].UnixMilli()
	}
	for i, t := range times {
		j.Times[i] = t.UnixMilli()
	}
	export := func(s *series) seriesJSON { return s.export(len(times)) }
	pool := export(&h.pool)
	pool.Spilled, pool.Input, pool.Output = column(&h.pool, len(times), func(p *point) uint32 { return p.spilled }),
		column(&h.pool, len(times), func(p *point) uint32 { return p.input }), column(&h.pool, len(times), func(p *point) uint32 { return p.output })
	j.Pool = &pool
	for i := range s.Tiers {
		t := &s.Tiers[i]
		if own := h.tiers[t.Priority]; own != nil {
			e := export(own)
			e.ID, e.Priority = "tier-"+strconv.Itoa(t.Priority), t.Priority
			j.Tiers = append(j.Tiers, e)
		}
		for d, b := range deploymentsOf(t) {
			id := idOf(b, d)
			if own := h.deployments[id]; own != nil {
				e := export(own)
				e.ID, e.Backend, e.Model, e.Name = id, b.Name, d.Model, d.Name
				j.Deployments = append(j.Deployments, e)
			}
		}
	}
	return j
}

// export returns the last points, at most so many.
func (s *series) export(most int) seriesJSON {
	j := seriesJSON{
		InFlight:  column(s, most, func(p *point) uint32 { return p.inFlight }),
		Served:    column(s, most, func(p *point) uint32 { return p.served }),
		Throttled: column(s, most, func(p *point) uint32 { return p.throttled }),
		Failed:    column(s, most, func(p *point) uint32 { return p.failed }),
	}
	known := false
	utilization := column(s, most, func(p *point) *float32 {
		if p.utilization < 0 {
			return nil
		}
		known = true
		return &p.utilization
	})
	if known {
		j.Utilization = utilization
	}
	return j
}

func column[V any](s *series, most int, value func(*point) V) []V {
	points := s.points[len(s.points)-min(most, len(s.points)):]
	all := make([]V, len(points))
	for i := range points {
		all[i] = value(&points[i])
	}
	return all
}
