package lab

import (
	"math"
	"slices"
	"time"
)

// Figures are what a run is judged by. Those about a fault are of the time that
// it lasts, all others of the measured time. Requests belong to the time at
// which they came; those that are odd do not count.
type Figures struct {
	Requests int
	Tokens   float64 // prompt and output of the requests served
	Goodput  float64 // Tokens over those offered, or over what the pool sustains if that is less
	PTU      float64 // input-equivalent tokens that the PTU has worked off
	Used     int     // requests that the PTU served
	Refused  int     // 429s at deployments
	Wasted   float64 // these per request served
	Served   float64 // share of requests, or under a fault of those in it
	Visible  float64 // share of requests whose caller got a 429
	Errors   float64 // share of requests whose caller got another error, or under a fault of those in it
	AddedP50 time.Duration
	AddedP99 time.Duration // from the call to the send of the attempt that succeeded
	Uneven   float64       // standard deviation of the utilization of the PAYG deployments, by minute

	Spilled    float64 // share of requests that the PTU did not serve
	PTUUse     float64 // PTU over its capacity
	Background BackgroundFigures

	Notices   float64 // that clients have published to their Fleet, per second
	Ejections int     // those of an ejection

	Touches  int           // requests that the deployment with the fault has seen
	Touched  float64       // share of requests that the deployment with the fault has seen
	Recovery time.Duration // until it is back at 80 % of its load before; or never
	Time     time.Duration // of a request from call to end, on average
	Timeline []Second      // of a fault
}

// BackgroundFigures are of the background requests.
type BackgroundFigures struct {
	Requests           int
	Served, Spilled    float64 // shares of requests: served at all, and served but not by the PTU
	AddedP50, AddedP99 time.Duration
}

// A Second is what callers got of the requests of one second.
type Second struct{ Requests, Errors int }

func (t *tally) figures(pool []*site) Figures {
	t.mu.Lock()
	defer t.mu.Unlock()
	var f Figures
	var offered float64
	var served, failed int
	var added []time.Duration
	for _, trip := range t.trips {
		if trip.odd() || trip.background || !t.cell.measured(trip.job.at) {
			continue
		}
		f.Requests++
		f.Refused += trip.refused
		offered += trip.tokens()
		switch trip.status {
		case 200:
			served++
			f.Tokens += trip.tokens()
			added = append(added, trip.sent.Sub(trip.began))
			if trip.at.Tier == 1 {
				f.Used++
			}
		case 429:
			f.Visible++
		default:
			failed++
		}
	}
	n := float64(max(1, f.Requests))
	f.Visible /= n
	f.Errors = float64(failed) / n
	f.Served = float64(served) / n
	f.Wasted = float64(f.Refused) / float64(max(1, served))
	f.Goodput = f.Tokens / max(1, offered) * max(1, t.cell.Rho)
	slices.Sort(added)
	f.AddedP50, f.AddedP99 = quantile(added, 0.5), quantile(added, 0.99)
	f.Spilled = 1 - float64(f.Used)/n
	f.Background = t.background()
	f.Uneven = t.uneven(pool)
	if f.PTU = t.drained(); t.cell.Neighbour.Share > 0 {
		f.PTU = t.ours()
	}
	f.PTUUse = f.PTU / (float64(pool[0].TPM) * t.cell.Measure.Minutes())
	f.Notices = float64(t.notices) / t.cell.Measure.Seconds()
	f.Ejections = t.ejections
	if t.cell.Fault.Kind != "" {
		t.fault(&f)
	}
	return f
}

// background is what became of the background requests.
func (t *tally) background() (f BackgroundFigures) {
	var served, spilled int
	var added []time.Duration
	for _, trip := range t.trips {
		if !trip.background || !t.cell.measured(trip.job.at) {
			continue
		}
		if f.Requests++; trip.status != 200 {
			continue
		}
		served++
		added = append(added, trip.sent.Sub(trip.began))
		if trip.at.Tier == 2 {
			spilled++
		}
	}
	n := float64(max(1, f.Requests))
	f.Served, f.Spilled = float64(served)/n, float64(spilled)/n
	slices.Sort(added)
	f.AddedP50, f.AddedP99 = quantile(added, 0.5), quantile(added, 0.99)
	return f
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// uneven compares the deployments within each minute, and averages the minutes.
func (t *tally) uneven(pool []*site) float64 {
	minutes := int(t.cell.Measure / time.Minute)
	sum := 0.0
	for m := range minutes {
		var of []float64
		for _, s := range pool {
			if s.Tier == 2 {
				used := grown(t.minutes[s], m)
				of = append(of, used[m]/float64(s.TPM))
			}
		}
		sum += deviation(of)
	}
	return sum / float64(max(1, minutes))
}

func deviation(of []float64) float64 {
	var sum, squares float64
	for _, x := range of {
		sum += x
	}
	n := float64(len(of))
	for _, x := range of {
		squares += (x - sum/n) * (x - sum/n)
	}
	return math.Sqrt(squares / n)
}

// fault judges the time of the fault, and what came after.
func (t *tally) fault(f *Figures) {
	fault := t.cell.Fault
	var during, served, errors, touched int
	var took time.Duration
	for _, trip := range t.trips {
		second := int(trip.job.at / time.Second)
		f.Timeline = grown(f.Timeline, second)
		f.Timeline[second].Requests++
		failed := trip.status != 200 && trip.status != 429
		if failed {
			f.Timeline[second].Errors++
		}
		if trip.job.at < fault.From || trip.job.at >= fault.To {
			continue
		}
		during++
		took += trip.ended.Sub(trip.began)
		if failed {
			errors++
		}
		if trip.status == 200 {
			served++
		}
		if trip.touched {
			touched++
		}
	}
	f.Errors = float64(errors) / float64(max(1, during))
	f.Served = float64(served) / float64(max(1, during))
	f.Touches = touched
	f.Touched = float64(touched) / float64(max(1, during))
	f.Time = took / time.Duration(max(1, during))
	f.Recovery = t.recovery()
}

// settled is the time over which a rate is taken.
const settled = 20

// recovery is the time from the end of the fault to the first second from which
// on the deployment serves at 80 % of its rate before the fault.
func (t *tally) recovery() time.Duration {
	from, to := int(t.cell.Fault.From/time.Second), int(t.cell.Fault.To/time.Second)
	end := int((t.cell.Warm + t.cell.Measure) / time.Second)
	if to > end {
		return never // measured too shortly to tell
	}
	use := grown(t.faultUse, end)
	rate := func(from, to int) float64 {
		sum := 0
		for _, n := range use[from:to] {
			sum += n
		}
		return float64(sum) / float64(to-from)
	}
	before := rate(int(t.cell.Warm/time.Second), from)
	for at := to; at+settled <= end; at++ {
		if rate(at, at+settled) >= 0.8*before {
			return time.Duration(at-to) * time.Second
		}
	}
	return never
}

// never is the time after which it was not back at the end of the run.
const never = time.Duration(math.MaxInt64)
