package spillover_test

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// trip is the round trip of the refusals here.
const trip = 100 * time.Millisecond

// A thousand that come at the end of a cool-down are let in one by one; the
// others go where there is headroom.
func TestHerdIsLetInOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var mu sync.Mutex
		var at []time.Time // sends to a
		noted := func(f roundTripFunc) roundTripFunc {
			return func(req *http.Request) (*http.Response, error) {
				mu.Lock()
				at = append(at, time.Now())
				mu.Unlock()
				return slow(trip, f)(req)
			}
		}
		n.On(host("a"), noted(status(429, "{}", "Retry-After: 3")), noted(status(200, "{}")))
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		end := time.Now().Add(3 * time.Second)
		time.Sleep(time.Until(end))
		at = nil

		var all sync.WaitGroup
		herd := func(requests int) {
			for range requests {
				all.Go(func() {
					resp, _ := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode)
				})
			}
			synctest.Wait()
		}
		herd(1000)
		require.Equal(t, []time.Time{end}, at, "one at the moment it ends")
		for range 10 {
			time.Sleep(trip / 2)
			herd(20)
		}
		all.Wait()
		require.Less(t, len(at), 20)
		require.Greater(t, len(at), 3)

		// It served all of them: before long nothing is held against it.
		for range 400 {
			time.Sleep(trip / 2)
			herd(2)
		}
		at = nil
		herd(100)
		all.Wait()
		require.Len(t, at, 100)
	})
}

// A refusal that says that the region is short, or that comes while a PTU reports
// to be far from full, is believed to the letter and teaches nothing; others do.
func TestRefusalsThatTeachNothing(t *testing.T) {
	for name, c := range map[string]struct {
		body, utilization string
		teaches           bool
	}{
		"no_capacity":           {`{"error":{"code":"no_capacity","message":"The system is currently experiencing high demand."}}`, "", false},
		"overloaded":            {`{"error":{"type":"server_is_overloaded","message":"Try again."}}`, "", false},
		"the limit":             {`{"error":{"code":"429","message":"Requests have exceeded token rate limit."}}`, "", true},
		"half full":             {`{"error":{"code":"429","message":"Requests have exceeded token rate limit."}}`, "50.0%", false},
		"no longer far from it": {`{"error":{"code":"429","message":"Requests have exceeded token rate limit."}}`, "85.0%", true},
		"no body":               {``, "", true},
		"no error in the body":  {`high demand`, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				header := []string{"Retry-After: 6"}
				if c.utilization != "" {
					header = append(header, "azure-openai-deployment-utilization: "+c.utilization)
				}
				n.On(host("a"), slow(trip, status(429, c.body, header...)))
				tr := balance(t, n, azure("a"), azure("b", priority(2)))
				for range 2 {
					ask(t, tr)
					require.InDelta(t, 6*time.Second, left(t, tr, "a"), float64(trip))
					time.Sleep(7 * time.Second)
				}
				require.Equal(t, 2, n.Sends(host("a")))
				require.Equal(t, c.teaches, testnet.RampsUp(&spillover.DeploymentOf(t, tr, "a").State))
			})
		})
	}
}
