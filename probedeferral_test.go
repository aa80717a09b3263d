package spillover_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// elsewhere is how many requests another deployment serves before a half-open probe.
const elsewhere = 7

// ejected is a Transport whose first deployment was ejected, and would serve again.
func ejected(t *testing.T, backends ...spillover.Backend) (*fakeNet, *spillover.Transport) {
	return ejectedBy(t, spillover.Interactive, backends...)
}

// ejectedBy is the same with the class of the request that failed.
func ejectedBy(t *testing.T, class spillover.Class, backends ...spillover.Backend) (*fakeNet, *spillover.Transport) {
	n := newNet()
	n.On(host("a"), broken(errRefused), ok200)
	tr := balance(t, n, append([]spillover.Backend{azure("a", func(b *spillover.Backend) { b.Tags = []string{"only=a"} })}, backends...)...)
	resp, _ := send(t, tr, newChat(t, chatPath).WithContext(spillover.WithClass(t.Context(), class)))
	require.NotEqual(t, "a", servedBy(resp))
	time.Sleep(2400 * time.Millisecond) // the ejection with its jitter
	return n, tr
}

func TestProbeWaitsUntilSevenRequestsWentElsewhere(t *testing.T) {
	for name, others := range map[string][]spillover.Backend{
		"a lower tier":           {azure("b", priority(2))},
		"two lower tiers":        {azure("b", priority(2)), azure("c", priority(3))},
		"another one that fails": {azure("broken", priority(2)), azure("b", priority(3))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, tr := ejected(t, others...)
				n.On(host("broken"), status(500, "{}"))
				for i := range elsewhere {
					resp, _ := ask(t, tr)
					require.Equal(t, "b", servedBy(resp), "request %d", i)
				}
				require.Equal(t, 1, n.Sends(host("a")))
				resp, _ := ask(t, tr)
				require.Equal(t, "a", servedBy(resp))
			})
		})
	}
}

func TestFailedProbeIsFollowedBySevenRequestsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tr := ejected(t, azure("b", priority(2)))
		n.On(host("a"), broken(errRefused))
		for range 3 {
			time.Sleep(20 * time.Second) // longer than the next ejection
			before := n.Sends(host("a"))
			for range elsewhere {
				ask(t, tr)
			}
			require.Equal(t, before, n.Sends(host("a")))
			ask(t, tr)
			require.Equal(t, before+1, n.Sends(host("a")))
		}
	})
}

func TestProbeWaitsNoLongerThanThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, tr := ejected(t, azure("b", priority(2)))
		time.Sleep(27*time.Second + 599*time.Millisecond)
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp), "30 s after the failure are not over")
		time.Sleep(time.Millisecond)
		resp, _ = ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	})
}

func TestProbeIsNotDeferredWithoutAnotherDeployment(t *testing.T) {
	for name, test := range map[string]struct {
		answer roundTripFunc // of the other one
		drain  bool          // the other one
		tags   []string      // that the other one lacks
	}{
		"it is drained":      {ok200, true, nil},
		"it lacks the tag":   {ok200, false, []string{"only=a"}},
		"it is rate-limited": {status(429, "{}", "Retry-After: 40"), false, nil},
		"it fails":           {status(401, wrongKey), false, nil},
	} {
		for _, class := range []spillover.Class{spillover.Interactive, spillover.Background} {
			t.Run(fmt.Sprintf("%s, class %v", name, class), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n, tr := ejectedBy(t, class, azure("b", priority(2)))
					n.On(host("b"), test.answer)
					if test.drain {
						require.NoError(t, tr.Drain("b"))
					}
					ctx := spillover.WithTags(spillover.WithClass(t.Context(), class), test.tags...)
					resp, _ := send(t, tr, newChat(t, chatPath).WithContext(ctx))
					require.Equal(t, "a", servedBy(resp))
				})
			})
		}
	}
}

// A caller pays for a probe only now and then, whatever the fault is.
func TestOutageCostsFewProbes(t *testing.T) {
	for name, fault := range map[string]roundTripFunc{
		"503":        status(503, "{}"),
		"500":        status(500, "{}"),
		"refused":    broken(errRefused),
		"reset":      broken(errReset),
		"no answer":  hung,
		"401":        status(401, wrongKey),
		"a firewall": status(403, "<html></html>", "Content-Type: text/html"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for range 20 { // the jitter differs
					n := newNet()
					n.On(host("a"), fault)
					tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.HeaderTimeout = time.Second }), azure("b", priority(2)))
					const period = 4 * time.Second
					for begun := time.Now(); time.Since(begun) < time.Minute; {
						next := time.Now().Add(period)
						resp, _ := ask(t, tr)
						require.Equal(t, "b", servedBy(resp))
						time.Sleep(time.Until(next))
					}
					require.LessOrEqual(t, n.Sends(host("a")), 4)
				}
			})
		})
	}
}

func TestExplainShowsADeferredProbeAndCountsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tr := ejected(t, azure("b", priority(2)))
		for range 2 * elsewhere {
			trail, err := tr.Explain(newChat(t, chatPath))
			require.NoError(t, err)
			require.Equal(t, "b", trail.Backend)
			require.Equal(t, map[string]string{"a": "probe deferred", "b": "chosen"}, skipped(trail.Steps[0]))
			require.WithinDuration(t, time.Now().Add(27600*time.Millisecond), trail.Steps[0].Candidates[0].Until, time.Millisecond)
		}
		for range elsewhere {
			ask(t, tr)
		}
		require.Equal(t, 1, n.Sends(host("a")))
		trail, err := tr.Explain(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, "a", trail.Backend)
	})
}

// A background request waits for a tier that is rate-limited or reserved, but not for one
// that has failed.
func TestBackgroundRequestDoesNotWaitForADeferredProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), broken(errRefused), ok200)
		tr := configured(t, spillover.Config{Base: n, BackgroundWait: time.Minute, Backends: []spillover.Backend{azure("a"), azure("b", priority(2))}})
		ask(t, tr)
		time.Sleep(2400 * time.Millisecond)
		for range elsewhere {
			begun := time.Now()
			resp, _ := send(t, tr, backgroundChat(t))
			require.Equal(t, "b", servedBy(resp))
			require.Zero(t, time.Since(begun))
		}
		resp, _ := send(t, tr, backgroundChat(t))
		require.Equal(t, "a", servedBy(resp))
	})
}

// A request that has failed goes to a deployment that serves before it pays for the
// probe of another one that has failed.
func TestRequestPaysForOneProbeAtMost(t *testing.T) {
	for name, priorities := range map[string][3]int{"in lower tiers": {1, 2, 3}, "in its tier": {1, 1, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				var backends []spillover.Backend
				for i, name := range []string{"a", "b", "c"} {
					n.On(host(name), broken(errRefused))
					backends = append(backends, azure(name, priority(priorities[i])))
				}
				tr := balance(t, n, append(backends, azure("d", priority(3)))...)
				for range 3 { // so that all three have failed
					if resp, err := tr.RoundTrip(newChat(t, chatPath)); err == nil {
						resp.Body.Close()
					}
				}
				time.Sleep(2400 * time.Millisecond)
				for range 100 {
					resp, _ := ask(t, tr)
					require.Equal(t, "d", servedBy(resp))
					require.Contains(t, []string{"1", "2"}, resp.Header.Get("X-Spillover-Attempts"))
					time.Sleep(time.Second)
				}
			})
		})
	}
}

// A probe that is deferred is due before a configured limit is exceeded, or a deployment
// is asked that has no headroom.
func TestProbeIsNotDeferredWithoutHeadroom(t *testing.T) {
	for name, primary := range map[string]struct {
		answer roundTripFunc
		model  spillover.Model
	}{
		"configured": {ok200, spillover.Model{Name: "m", RPM: 1}},
		"reported":   {status(200, "{}", "X-Ratelimit-Limit-Tokens: 1000", "X-Ratelimit-Remaining-Tokens: 0"), spillover.Model{Name: "m"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("primary"), primary.answer)
				n.On(host("a"), broken(errRefused), ok200)
				tr := balance(t, n, azure("primary", func(b *spillover.Backend) { b.Models = []spillover.Model{primary.model} }), azure("a", priority(2)))
				for range 2 {
					resp, _ := ask(t, tr)
					require.Equal(t, "primary", servedBy(resp))
				}
				require.Equal(t, 1, n.Sends(host("a")), "it has failed")
				time.Sleep(2400 * time.Millisecond)
				resp, _ := ask(t, tr)
				require.Equal(t, "a", servedBy(resp))
			})
		})
	}
}

// The probe of what is held against a caller's own credential waits as any other.
func TestProbeOfACallersCredentialIsDeferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(401, wrongKey), ok200)
		tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.APIKey = "" }), azure("b", priority(2)))
		by := func() string {
			req := newChat(t, chatPath)
			req.Header.Set("Api-Key", "own")
			resp, _ := send(t, tr, req)
			return servedBy(resp)
		}
		require.Equal(t, "b", by())
		time.Sleep(6 * time.Second)
		for range elsewhere {
			require.Equal(t, "b", by())
		}
		require.Equal(t, "a", by())
	})
}

// Under traffic a probe is not deferred beyond the end of the ejection.
func TestRequestsDuringTheEjectionCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), broken(errRefused), ok200)
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		for range 1 + elsewhere {
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
		}
		time.Sleep(2400 * time.Millisecond)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	})
}
