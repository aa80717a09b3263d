package spillovertest

import (
	"net/http"
	"time"
)

// A Limit decides which requests a deployment admits. Only [PAYG] and [PTU]
// implement it.
type Limit interface {
	check() error
	start() limiter
}

// A limiter is the state of a Limit at one deployment. It gets the time as an argument
// and is not safe for concurrent use: the server serializes its calls.
type limiter interface {
	// admit admits a request, or returns why it is refused and for how long.
	admit(now time.Time, d demand) (refusal, bool)
	// settle ends an admitted request and returns its total cost.
	settle(now time.Time, d demand, written int) float64
	// header sets the headers in which the service reports the limit.
	header(now time.Time, dialect Dialect, h http.Header)
	// utilization is the share of the limit in use, 1 for all of it.
	utilization(now time.Time) float64
}

// A demand is the size of a request, in tokens.
type demand struct {
	prompt int
	max    int // the maximum of output in the request; 0: none
}

// A refusal is why a request was not admitted.
type refusal struct {
	by   cause
	wait time.Duration // exact, until the next request is admitted

	limit, used, requested int // in the unit of the cause, for the message
}

type cause int

const (
	byTokens     cause = iota // PAYG, tokens per minute
	byRequests                // PAYG, requests per minute
	byThroughput              // PTU
)

// A bucket drains at a constant rate. It is stored as the time at which it will be
// empty, so that it need not be updated as time passes.
type bucket struct {
	perMinute int
	empty     time.Time
}

// depth returns the time that the bucket still needs to drain.
func (b *bucket) depth(now time.Time) time.Duration {
	return max(0, b.empty.Sub(now))
}

// add adds tokens, or removes them if the number is negative.
func (b *bucket) add(now time.Time, tokens int) {
	if b.perMinute == 0 {
		return
	}
	drain := float64(tokens) / float64(b.perMinute) * float64(time.Minute)
	b.empty = now.Add(b.depth(now) + time.Duration(drain))
}

// unlimited is the limiter of a deployment without a Limit.
type unlimited struct{}

func (unlimited) admit(time.Time, demand) (refusal, bool) { return refusal{}, true }

func (unlimited) settle(_ time.Time, d demand, written int) float64 {
	return float64(d.prompt + written)
}

func (unlimited) header(time.Time, Dialect, http.Header) {}

func (unlimited) utilization(time.Time) float64 { return 0 }

// ceil returns d in whole units, rounded up, and at least one.
func ceil(d, unit time.Duration) int64 {
	return max(1, int64((d+unit-1)/unit))
}
