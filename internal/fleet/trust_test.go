package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReplicaIsIgnoredAfterThreeContradictions(t *testing.T) {
	var trust Trust
	now := time.Now()
	for n, length := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		for range 2 {
			trust.Contradicted(now, []string{"a"})
			require.True(t, trust.Hears(now, "a"), "repetition %d", n)
		}
		trust.Contradicted(now, []string{"a"})
		require.False(t, trust.Hears(now, "a"))
		require.True(t, trust.Hears(now, "b"))
		now = now.Add(length - time.Millisecond)
		require.False(t, trust.Hears(now, "a"))
		now = now.Add(time.Millisecond)
		require.True(t, trust.Hears(now, "a"))
	}
	for range 100 {
		trust.Contradicted(now, []string{"a"})
	}
	require.False(t, trust.Hears(now.Add(longestIgnored-1), "a"))
	require.True(t, trust.Hears(now.Add(longestIgnored), "a"), "never for longer than an hour")
}

func TestConfirmationClearsContradictions(t *testing.T) {
	var trust Trust
	now := time.Now()
	for range 10 {
		trust.Contradicted(now, []string{"a", "b"})
		trust.Contradicted(now, []string{"a", "b"})
		trust.Confirmed([]string{"a"})
		require.True(t, trust.Hears(now, "a"))
	}
	require.False(t, trust.Hears(now, "b"))
}

func TestReplicasAreBounded(t *testing.T) {
	var trust Trust
	now := time.Now()
	for range 3 {
		trust.Contradicted(now, []string{"first"})
	}
	require.False(t, trust.Hears(now, "first"))
	for i := range 10_000 {
		now = now.Add(time.Millisecond)
		trust.Hears(now, fmt.Sprint(i))
	}
	require.Len(t, trust.Known(now, time.Hour), maxReplicas)
	require.Len(t, trust.Known(now, 10*time.Millisecond), 11)
}
