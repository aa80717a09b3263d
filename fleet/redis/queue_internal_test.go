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
	q.push("b")
	q.push("c")
	q.push("d")
	require.Equal(t, []string{"a", "b", "c"}, q.all("a"), "a batch is bounded, too")
}

func TestBreakerOpensAfterThreeFailures(t *testing.T) {
	failed, worked := result{published: errors.New("not published")}, result{}
	var b breaker
	for range 2 {
		require.Error(t, b.record(failed))
		require.False(t, b.open())
	}
	require.Error(t, b.record(failed))
	require.True(t, b.open())
	require.NoError(t, b.record(worked))
	require.False(t, b.open())
}

func TestPausesDoubleUntilEverythingWorks(t *testing.T) {
	var b breaker
	for range 2 {
		for _, longest := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			got := b.pause()
			require.LessOrEqual(t, got, longest*time.Second)
			require.Greater(t, got, longest*time.Second*3/4-1)
		}
		require.NoError(t, b.record(result{}))
	}
}

func TestFailureToStoreDoesNotStopPublishing(t *testing.T) {
	var b breaker
	unstored := errors.New("not stored")
	for range 10 {
		require.Equal(t, unstored, b.record(result{tried: true, stored: unstored}))
		require.Equal(t, unstored, b.record(result{}), "nothing was to be stored")
		require.False(t, b.open())
	}
	require.NoError(t, b.record(result{tried: true}))
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
