package testnet

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
)

// FailAt counts a failure against h that was sent and seen at a time. draw varies the length
// of an ejection: 0.5 makes it the nominal one.
func FailAt(h *health.State, at time.Time, cause health.Cause, reason string, draw float64) {
	h.Fail(at, health.FailedAttempt{Sent: at, Seen: at, Cause: cause, Reason: reason}, draw)
}

// Failures returns the number of failures in a row.
func Failures(h *health.State) int {
	n, _ := h.Failures()
	return n
}

// LastReason returns the reason of the last failure.
func LastReason(h *health.State) string {
	_, reason := h.Failures()
	return reason
}

// EjectedUntil returns when the ejection in force ends: the zero time if there is none.
func EjectedUntil(h *health.State, now time.Time) time.Time {
	var after time.Duration
	for end := time.Hour; after < end; {
		middle := after + (end-after)/2
		if _, ejected, _ := h.Ejected(now.Add(middle)); ejected {
			after = middle + 1
		} else {
			end = middle
		}
	}
	if after == 0 {
		return time.Time{}
	}
	return now.Add(after)
}

// RampUp starts a ramp-up with a gap of one second: sixteen 429 responses that name no time.
func RampUp(h *health.State) {
	now := time.Now()
	trip := time.Duration(2 * math.Exp(-0.2*15) * float64(time.Second)) // half of it is the first gap
	for i := range 16 {
		at := now.Add(time.Duration(i-60) * time.Second)
		h.Refuse(at, health.Refusal{Sent: at, RoundTrip: trip, Reason: "429"}, 0)
	}
}

// RampsUp reports whether requests are let in one by one. It ends any cool-down and
// ejection.
func RampsUp(h *health.State) bool {
	at := time.Now().Add(time.Hour)
	h.Succeed(at, at, false)
	return h.Troubled()
}

// FirstGap returns the time between the first two requests after a cool-down. It takes the
// place of the first.
func FirstGap(t testing.TB, h *health.State) time.Duration {
	until, _, _ := h.Closed(time.Now())
	ok, _ := h.Admit(until, false)
	require.True(t, ok)
	next, _, _ := h.Closed(until)
	return next.Sub(until)
}

// Spent returns what was spent of a retry budget.
func Spent(b *health.RetryBudget) (spent int64) {
	for !b.Has(10*health.AttemptCost - spent) {
		spent++
	}
	return spent
}

// TransitionOf returns the phase that h is in.
func TransitionOf(h *health.State) health.Transition {
	is, _ := h.Transition(time.Now())
	return is
}
