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
		trust.Confirmed([]string{"a"})
	}
	for range 100 {
		trust.Contradicted(now, []string{"a"})
		for !trust.Hears(now, "a") {
			now = now.Add(time.Minute)
		}
	}
	trust.Contradicted(now, []string{"a"})
	require.False(t, trust.Hears(now.Add(longestIgnored-1), "a"))
	require.True(t, trust.Hears(now.Add(longestIgnored), "a"), "never for longer than an hour")
}

func TestIgnoredReplicaIsSuspectUntilItIsConfirmed(t *testing.T) {
	var trust Trust
	now := time.Now()
	for range 3 {
		trust.Contradicted(now, []string{"a"})
	}
	now = now.Add(time.Minute)
	require.True(t, trust.Hears(now, "a"))
	trust.Contradicted(now, []string{"a"})
	require.False(t, trust.Hears(now.Add(2*time.Minute-1), "a"), "one is enough, and it is ignored for longer")
	now = now.Add(2 * time.Minute)
	trust.Confirmed([]string{"a"})
	trust.Contradicted(now, []string{"a"})
	require.True(t, trust.Hears(now, "a"))
}

// A replica is ignored once for what it said before: its reports of many deployments may
// be contradicted one after the other.
func TestEachReplicaThatContradictsMeanwhileAddsAMinute(t *testing.T) {
	for others, minutes := range map[int]time.Duration{0: 1, 1: 2, 5: 6, 1000: 60} {
		var trust Trust
		now := time.Now()
		for range toleratedContradictions {
			trust.Contradicted(now, []string{"a"})
		}
		for i := range others {
			for range 10 {
				trust.Witness(now, fmt.Sprint(i), "a", true)
			}
		}
		require.False(t, trust.Hears(now.Add(minutes*time.Minute-1), "a"), others)
		require.True(t, trust.Hears(now.Add(minutes*time.Minute), "a"), others)
	}
}

func TestContradictionsAreForgotten(t *testing.T) {
	var trust Trust
	now := time.Now()
	for range 10 {
		trust.Contradicted(now, []string{"a"})
		trust.Contradicted(now, []string{"a"})
		require.True(t, trust.Hears(now, "a"))
		now = now.Add(contradictionKept + 1)
	}
}

// What others say of a replica counts once for each of them, so one cannot have another
// ignored.
func TestWitnessesCountOnce(t *testing.T) {
	for _, ejection := range []bool{true, false} {
		var trust Trust
		now := time.Now()
		enough := throttleWitnesses
		if ejection {
			enough = toleratedContradictions
		}
		for range 100 {
			for i := range enough - 1 {
				trust.Witness(now, fmt.Sprint(i), "a", ejection)
			}
			trust.Witness(now, "a", "a", ejection)
		}
		require.True(t, trust.Hears(now, "a"))
		trust.Witness(now, "another", "a", ejection)
		require.False(t, trust.Hears(now, "a"))
	}
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
