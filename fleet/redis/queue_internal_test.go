package redis

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestQueueKeepsTheNewestNotices(t *testing.T) {
	q := make(queue, 3)
	dropped := 0
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		dropped += q.push(n)
	}
	require.Equal(t, 2, dropped)
	require.Equal(t, []string{"c", "d", "e"}, q.all())
	require.Empty(t, q.all())
}

func TestBreakerOpensAfterThreeFailuresForASecondThatDoubles(t *testing.T) {
	failure := errors.New("a failure")
	between := func(got, longest time.Duration) {
		t.Helper()
		require.LessOrEqual(t, got, longest)
		require.Greater(t, got, longest*3/4-1)
	}
	var b breaker
	for range 2 {
		between(b.record(failure, nil), time.Second)
		require.False(t, b.open())
	}
	for _, longest := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		between(b.record(failure, failure), longest*time.Second)
		require.True(t, b.open())
	}
	require.Zero(t, b.record(nil, nil))
	require.False(t, b.open())
	between(b.record(failure, nil), time.Second)

	// A failure to store is a reason to test again, but not to stop publishing.
	for range 10 {
		require.Positive(t, b.record(nil, failure))
		require.False(t, b.open())
	}
}

// The Engine has no goroutines that would allocate, and its buffer is full.
func TestPublishAllocatesTheNoticeOnly(t *testing.T) {
	e := &Engine{ctx: t.Context(), outbox: make(queue, outboxSize)}
	h, err := newHealth(Options{Group: "g", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	e.health = h
	notice := make([]byte, 100)
	for range outboxSize {
		e.Publish(notice)
	}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { e.Publish(notice) }), 2.0)
}
