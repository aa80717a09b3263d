package lab

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/doctest"
)

var updateFleet = flag.Bool("update-fleet", false, "TestFleet: measure everything, and write FLEET.md")

// TestFleet measures the effect of a Fleet.
func TestFleet(t *testing.T) {
	if !*updateFleet {
		t.Skip("only with -update-fleet")
	}
	began := time.Now()
	r := &Results{Seeds: *seeds, Figures: playAll(t, fleetTrials(*seeds))}
	require.False(t, t.Failed())
	about := About{Command: fmt.Sprintf("go test -run 'TestFleet$' -timeout 60m -update-fleet -seeds %d", *seeds), Took: time.Since(began)}
	require.NoError(t, os.WriteFile("FLEET.md", []byte(r.FleetMarkdown(about)), 0o644))
}

// docs/fleet.md quotes FLEET.md.
func TestFleetInDocs(t *testing.T) {
	report, err := os.ReadFile("FLEET.md")
	require.NoError(t, err)
	row := regexp.MustCompile(`(?m)^\| B=3 M=64 ρ=0\.9 \| (\d\.\d+) \| (\d\.\d+) \|`).FindStringSubmatch(string(report))
	require.NotNil(t, row)
	doctest.Section(t, "../../docs/fleet.md", "laboratory", fmt.Sprintf("[The laboratory](../benchmarks/lab/FLEET.md) has figures: with 64 processes and three backends, "+
		"%s\nrefused attempts per served request instead of %s.\n", row[1], row[2]))
}

// TestFleetGuard is the short form of the report, with margins.
func TestFleetGuard(t *testing.T) {
	c := on(usual(3, 64, 0.9), same)
	c.Measure = 120 * time.Second
	lied := lying(c, Liars{Senders: 1, Kind: "ejected"})
	without, with, deceived := play(t, c, Ours()), play(t, c, Replicas), play(t, lied, Replicas)
	oracle := play(t, c.forOracle(), Oracle)
	t.Logf("wasted %.3f, %.3f without; with a liar goodput %.3f, PTU %.3f; notices/s %.1f", with.Wasted, without.Wasted,
		deceived.Tokens/oracle.Tokens, deceived.PTU/oracle.PTU, with.Notices)
	require.LessOrEqual(t, with.Wasted, 0.25)
	require.Greater(t, without.Wasted, 0.4)
	require.GreaterOrEqual(t, with.Tokens/without.Tokens, 0.96)
	require.GreaterOrEqual(t, deceived.Tokens/oracle.Tokens, 0.7)
	require.Positive(t, with.Notices)
	require.LessOrEqual(t, with.Notices, 5.)
	require.Zero(t, with.Ejections)
}

// A bus loses and repeats deliveries, each after its delay.
func TestBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := usual(3, 1, 0.5)
		b := &bus{Bus: Bus{Delay: time.Second, Lost: 0.2, Twice: 0.3, Disorder: time.Second}, tally: newTally(c)}
		began, got := time.Now(), 0
		var mu sync.Mutex
		cancel := b.Subscribe(func([]byte) {
			mu.Lock()
			defer mu.Unlock()
			got++
			require.GreaterOrEqual(t, time.Since(began), time.Second)
		})
		for range 10_000 {
			b.Publish([]byte(`{"k":"ejected"}`))
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.InDelta(t, 10_000*1.3*0.8, got, 300)
		require.Equal(t, 10_000, b.tally.ejections)
		require.Zero(t, b.tally.notices, "of the warm-up")
		cancel()
		require.Empty(t, b.subscribers)
	})
}

// Liars know the places, and a fleet's figures can be written.
func TestLiarsAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lying(usual(3, 2, 0.5), Liars{Senders: 2, Kind: "ejected"})
		pool, tally := newPool(c, nil), newTally(c)
		b := &bus{Bus: c.Bus, tally: tally}
		clients := newClients(c, Replicas, pool, tally, b)
		synctest.Wait()
		go b.lie(pool, time.Now().Add(lyingFrom+2*lyingEach))
		time.Sleep(lyingFrom + lyingEach)
		synctest.Wait()
		for _, client := range clients {
			tr := client.(*spillover.Transport)
			avoided := map[string]bool{}
			for _, tier := range tr.Status().Tiers {
				for _, backend := range tier.Backends {
					for _, d := range backend.Deployments {
						if !d.AvoidedUntil.IsZero() {
							avoided[backend.Name] = true
						}
					}
				}
			}
			require.Equal(t, map[string]bool{"ptu": true}, avoided)
			tr.Close()
		}
		time.Sleep(2 * lyingEach)
	})
}

func TestFleetReportOfNothing(t *testing.T) {
	r := &Results{Seeds: 1}
	text := r.FleetMarkdown(About{Command: "go test"})
	require.Contains(t, text, "| requests that touch a PTU that answers 401, M = 64 | ≤ 40 | – | no | – |")
	trials := fleetTrials(1)
	require.NotEmpty(t, trials)
	for _, trial := range trials {
		require.True(t, trial.Policy == Replicas.Name || trial.Cell.Bus == Bus{}, "%v", trial)
	}
}
