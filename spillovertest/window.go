package spillovertest

import (
	"fmt"
	"time"
)

// A Window is how a [PAYG] limit forgets what was used. The services do not document
// it. All three ways have been seen or described.
type Window int

// The windows.
const (
	// Refilling is a token bucket, and for requests a fixed window of ten seconds, as
	// described at [PAYG].
	Refilling Window = iota
	// Sliding counts the tokens of the last minute and the requests of the last ten
	// seconds. A request is admitted if it fits. Retry-After is the time until it
	// fits.
	Sliding
	// Fixed counts the tokens of one minute and the requests of ten seconds. Such a
	// window begins with the first request after the previous window. A request is
	// admitted if it fits.
	Fixed
)

func (w Window) check() error {
	if w < Refilling || w > Fixed {
		return fmt.Errorf("PAYG.Window %d is unknown", w)
	}
	return nil
}

// windows returns the windows of tokens and of requests, nil for a limit of 0.
func (w Window) windows(tokens, requests int) (t, r window) {
	if tokens > 0 {
		switch w {
		case Refilling:
			t = &refilling{bucket{perMinute: tokens}}
		case Sliding:
			t = &sliding{size: tokens, span: time.Minute}
		case Fixed:
			t = &fixed{size: tokens, span: time.Minute}
		}
	}
	if requests > 0 {
		r = &fixed{size: requests, span: requestWindow}
		if w == Sliding {
			r = &sliding{size: requests, span: requestWindow}
		}
	}
	return t, r
}

// A window holds what counts against a limit, in tokens or requests.
type window interface {
	// wait returns the time until n more are admitted, 0 if they are now.
	wait(now time.Time, n int) time.Duration
	add(now time.Time, n int)
	// used returns the share of the limit that is used, 1 for all of it.
	used(now time.Time) float64
	// reset returns the time until nothing counts, if nothing is added.
	reset(now time.Time) time.Duration
}

// refilling is a bucket of the tokens of a minute. It may go below zero.
type refilling struct{ bucket }

func (w *refilling) wait(now time.Time, _ int) time.Duration {
	if debt := w.depth(now) - time.Minute; debt >= 0 {
		return debt + 1 // an empty bucket admits no request
	}
	return 0
}

func (w *refilling) used(now time.Time) float64 {
	return float64(w.depth(now)) / float64(time.Minute)
}

func (w *refilling) reset(now time.Time) time.Duration { return w.depth(now) }

// fixed counts from its first use to its end.
type fixed struct {
	size  int
	span  time.Duration
	count int
	ends  time.Time
}

func (w *fixed) roll(now time.Time) {
	if !now.Before(w.ends) {
		w.ends, w.count = now.Add(w.span), 0
	}
}

func (w *fixed) wait(now time.Time, n int) time.Duration {
	w.roll(now)
	if w.count == 0 || w.count+n <= w.size {
		return 0 // a request larger than a window uses a whole one
	}
	return w.ends.Sub(now)
}

func (w *fixed) add(now time.Time, n int) {
	w.roll(now)
	w.count += n
}

func (w *fixed) used(now time.Time) float64 {
	if !now.Before(w.ends) {
		return 0
	}
	return float64(w.count) / float64(w.size)
}

func (w *fixed) reset(now time.Time) time.Duration { return max(0, w.ends.Sub(now)) }

// sliding counts what was used during the last span.
type sliding struct {
	size  int
	span  time.Duration
	count int
	uses  []use // that still count, oldest first
}

type use struct {
	ends time.Time
	n    int
}

func (w *sliding) forget(now time.Time) {
	for len(w.uses) > 0 && !now.Before(w.uses[0].ends) {
		w.count -= w.uses[0].n
		w.uses = w.uses[1:]
	}
}

func (w *sliding) wait(now time.Time, n int) time.Duration {
	w.forget(now)
	left := w.count
	if left == 0 || left+n <= w.size {
		return 0
	}
	for _, u := range w.uses {
		if left -= u.n; left == 0 || left+n <= w.size {
			return u.ends.Sub(now)
		}
	}
	return 0
}

func (w *sliding) add(now time.Time, n int) {
	w.forget(now)
	if n != 0 {
		w.uses = append(w.uses, use{now.Add(w.span), n})
		w.count += n
	}
}

func (w *sliding) used(now time.Time) float64 {
	w.forget(now)
	return float64(w.count) / float64(w.size)
}

func (w *sliding) reset(now time.Time) time.Duration {
	w.forget(now)
	if len(w.uses) == 0 {
		return 0
	}
	return w.uses[len(w.uses)-1].ends.Sub(now)
}
