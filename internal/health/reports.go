package health

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Reports is what other replicas of the program say about a deployment. They may be
// late, wrong or lying, so a report orders and never refuses: a deployment that one
// replica reports is avoided while there is another one, and is skipped only for as
// long as a second replica says so too. A success of an own attempt ends all reports
// that were heard before it was sent. The zero value has none. Without a report in force,
// a request reads one atomic.
type Reports struct {
	until Timestamp // when the last report ends
	heard atomic.Pointer[reports]
}

// ReportKind is what a report is about.
type ReportKind int

const (
	ReportThrottled ReportKind = iota // rate-limited
	ReportEjected                     // it failed
	ReportDrained                     // taken out of use
	reportKinds
)

const (
	// maxReporters limits the replicas whose reports are kept for a deployment. A new
	// one replaces the one whose report ends first.
	maxReporters = 8
	// A few requests ignore reports, to find out whether they are true: requests cost
	// little where a deployment is rate-limited, and more where it fails. Nobody needs to
	// find out whether a deployment is drained.
	doubtThrottled = 0.02
	doubtEjected   = 0.002
)

// maxReport is the longest report of each kind.
var maxReport = [reportKinds]time.Duration{
	ReportThrottled: time.Minute, ReportEjected: 5 * time.Minute, ReportDrained: time.Hour,
}

type reports struct {
	// Until when one replica, and a second one, reports each kind: what requests read.
	first, second [reportKinds]Timestamp

	mu  sync.Mutex
	all [maxReporters]report
}

// report is what one replica says.
type report struct {
	from   string
	since  [reportKinds]time.Time // without a break, or since it was last contradicted
	heard  [reportKinds]time.Time // the last one; of an ejection the first one in force
	until  [reportKinds]time.Time
	streak int // failures in a row, of an ejection
}

func (r *report) ends() (latest time.Time) {
	for _, until := range r.until {
		latest = Latest(latest, until)
	}
	return latest
}

// Report records what another replica says, for a time. A shorter report does not
// shorten an earlier one of the same replica. streak is of an ejection.
func (s *Reports) Report(now time.Time, from string, kind ReportKind, left time.Duration, streak int) {
	if left <= 0 {
		return
	}
	r := s.heard.Load()
	if r == nil {
		s.heard.CompareAndSwap(nil, new(reports))
		r = s.heard.Load()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	place := &r.all[0]
	for i := range r.all {
		one := &r.all[i]
		if one.from == from {
			place = one
			break
		}
		if one.ends().Before(place.ends()) {
			place = one
		}
	}
	if place.from != from {
		*place = report{from: from}
	}
	begins := !place.until[kind].After(now)
	if begins {
		place.since[kind] = now
	}
	if begins || kind != ReportEjected {
		place.heard[kind] = now
	}
	if kind == ReportEjected {
		place.streak = streak
	}
	place.until[kind] = Latest(place.until[kind], now.Add(min(left, maxReport[kind])))
	s.publish(r)
}

// publish computes what requests read.
func (s *Reports) publish(r *reports) {
	var last time.Time
	for kind := range reportKinds {
		var first, second time.Time
		for _, one := range r.all {
			until := one.until[kind]
			if until.After(first) {
				first, second = until, first
			} else {
				second = Latest(second, until)
			}
		}
		r.first[kind].Set(first)
		r.second[kind].Set(second)
		last = Latest(last, first)
	}
	s.until.Set(last)
}

// inForce reports whether another replica says anything that still holds.
func (s *Reports) inForce(now time.Time) bool { return !s.until.Passed(now) }

// Avoided reports whether a request should go to another deployment if there is one.
// roll is random, from 0 to 1, drawn once for the request.
func (s *Reports) Avoided(now time.Time, roll float64) bool {
	return s.inForce(now) && closes(&s.heard.Load().first, now, roll)
}

// Skipped reports whether two replicas agree, so that even a request with no other
// choice should look for another model first.
func (s *Reports) Skipped(now time.Time, roll float64) bool {
	return s.inForce(now) && closes(&s.heard.Load().second, now, roll)
}

func closes(until *[reportKinds]Timestamp, now time.Time, roll float64) bool {
	return roll >= doubtThrottled && !until[ReportThrottled].Passed(now) ||
		roll >= doubtEjected && !until[ReportEjected].Passed(now) || !until[ReportDrained].Passed(now)
}

// Known reports whether a replica says something of a kind that holds beyond a time.
func (s *Reports) Known(kind ReportKind, until time.Time) bool {
	r := s.heard.Load()
	return r != nil && !r.first[kind].Passed(until)
}

// Until is when the last report ends; zero without one.
func (s *Reports) Until(now time.Time) (until time.Time) {
	if r := s.heard.Load(); r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i := range r.all {
			if at := r.all[i].ends(); at.After(now) {
				until = Latest(until, at)
			}
		}
	}
	return until
}

// Streak is the longest row of failures that a replica reports now. An own failure
// continues it, so that replicas do not each begin with the shortest ejection.
func (s *Reports) Streak(now time.Time) (longest int) {
	r := s.heard.Load()
	if r == nil || r.first[ReportEjected].Passed(now) {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.all {
		if one.until[ReportEjected].After(now) {
			longest = max(longest, one.streak)
		}
	}
	return longest
}

// Contradict ends the reports of a rate limit or a failure that were heard before a
// time, because an attempt that was sent then has succeeded. It returns the replicas
// whose reports were still in force, with those that have repeated theirs since: a report
// that is repeated faster than the service answers is contradicted, too, but does not end.
// Nil means that nothing was reported.
func (s *Reports) Contradict(now, sent time.Time) (replicas []string) {
	r := s.heard.Load()
	if r == nil || r.first[ReportThrottled].Passed(now) && r.first[ReportEjected].Passed(now) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.all {
		one := &r.all[i]
		wrong := false
		for _, kind := range [...]ReportKind{ReportThrottled, ReportEjected} {
			if one.since[kind].Before(sent) && one.until[kind].After(now) {
				wrong = true
				one.since[kind] = now // the next success that shows it was sent later
			}
			if one.heard[kind].Before(sent) {
				one.until[kind] = time.Time{}
			}
		}
		if wrong {
			replicas = append(replicas, one.from)
		}
	}
	s.publish(r)
	return replicas
}

// Confirm returns the replicas whose report of a kind is in force, because an own attempt
// has shown the same.
func (s *Reports) Confirm(now time.Time, kind ReportKind) (replicas []string) {
	r := s.heard.Load()
	if r == nil || r.first[kind].Passed(now) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.all {
		if one.until[kind].After(now) {
			replicas = append(replicas, one.from)
		}
	}
	return replicas
}

// Says reports whether a replica reports a kind now.
func (s *Reports) Says(now time.Time, from string, kind ReportKind) bool {
	return slices.Contains(s.Confirm(now, kind), from)
}

// End ends the reports of one kind, of all replicas.
func (s *Reports) End(kind ReportKind) {
	r := s.heard.Load()
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.all {
		r.all[i].until[kind] = time.Time{}
	}
	s.publish(r)
}

// Forget ends all reports.
func (s *Reports) Forget() {
	for kind := range reportKinds {
		s.End(kind)
	}
}
