package lab

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// playEvents plays all events and keeps the least of several times.
func playEvents(t *testing.T, policies []Policy) map[EventTrial]int {
	results := map[EventTrial]int{}
	for _, e := range Events() {
		for _, p := range policies {
			least := e.Requests
			for range eventTimes {
				synctest.Test(t, func(*testing.T) { least = min(least, e.Play(p)) })
			}
			results[EventTrial{e.Name, p.Name}] = least
		}
	}
	return results
}

// None of them refuses anybody.
func TestEvents(t *testing.T) {
	results := playEvents(t, []Policy{Ours(), Walk, Random, Shuffle})
	for _, e := range Events() {
		t.Logf("%-70s of %3d: %v", e.Name, e.Requests, []int{
			results[EventTrial{e.Name, "spillover"}], results[EventTrial{e.Name, "walk"}], results[EventTrial{e.Name, "random"}], results[EventTrial{e.Name, "shuffle"}]})
		require.Equal(t, e.Requests, results[EventTrial{e.Name, "walk"}], e.Name)
		require.Equal(t, e.Requests, results[EventTrial{e.Name, "spillover"}], e.Name)
	}
}
