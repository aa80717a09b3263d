package spillover_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// placesOf are the names of the deployments of some backends in notices, in order.
func placesOf(t testing.TB, backends ...spillover.Backend) (places []string) {
	for _, b := range backends {
		f, n := new(recordedFleet), newNet()
		n.on(host(b.Name), status(429, "{}", "Retry-After: 1"))
		ask(t, member(t, f, n, b))
		require.Len(t, f.notices, 1)
		places = append(places, f.notices[0].P)
	}
	return places
}

// One replica alone cannot keep a request from the deployment that would have served it
// after a failure elsewhere.
func TestReportOfOneReplicaDoesNotEndFailover(t *testing.T) {
	undoubting(t)
	for name, failure := range map[string]roundTripFunc{
		"500":           status(500, "{}"),
		"401":           status(401, wrongKey),
		"no connection": broken(errRefused),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				places := placesOf(t, azure("payg"))
				f, n := new(recordedFleet), newNet()
				n.on(host("ptu"), failure)
				tr := member(t, f, n, ptuAndPayg()...)
				for _, kind := range []string{"throttled", "ejected", "drained"} {
					f.lie("0000beef", notice{K: kind, P: places[0], L: 3_600_000, S: 30})
				}
				resp, _ := ask(t, tr)
				require.Equal(t, "payg", servedBy(resp))
				require.Equal(t, 200, resp.StatusCode)
			})
		})
	}
}

// A stored object is found where it is, whatever is reported of the backend.
func TestStoredObjectIsSoughtAtReportedBackends(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		all := []spillover.Backend{azure("a"), azure("b"), azure("c")}
		var places []string
		for _, b := range all {
			f, n := new(recordedFleet), newNet()
			n.on(host(b.Name), broken(errRefused))
			_, err := member(t, f, n, b).RoundTrip(newChat(t, chatPath))
			require.Error(t, err)
			places = append(places, f.notices[0].P)
		}
		for _, holder := range all {
			f, n := new(recordedFleet), newNet()
			for _, b := range all {
				n.on(host(b.Name), status(404, `{"error":{"code":"not_found","message":"Response with id 'resp_1234567890' not found."}}`))
			}
			n.on(host(holder.Name), ok200)
			tr := member(t, f, n, all...)
			for _, liar := range []string{"0000beef", "0000cafe", "0000f00d"} {
				for _, p := range places {
					f.lie(liar, notice{K: "ejected", P: p, L: 3_600_000, S: 30})
				}
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://x.openai.azure.com/openai/v1/responses/resp_1234567890", nil)
			require.NoError(t, err)
			resp, _ := send(t, tr, req)
			require.Equal(t, holder.Name, servedBy(resp))
			require.Equal(t, 200, resp.StatusCode)
		}
	})
}

// What a background request may take of a deployment does not depend on what other
// replicas report, if there is no other.
func TestReportDoesNotHoldBackBackgroundRequestsWithoutAnotherDeployment(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		places := placesOf(t, azure("a"))
		f, n := new(recordedFleet), newNet()
		tr := member(t, f, n, azure("a"))
		for range 20 {
			f.lie("0000beef", notice{K: "throttled", P: places[0], L: 60_000})
			resp, _ := send(t, tr, backgroundChat(t))
			require.Equal(t, 200, resp.StatusCode)
			time.Sleep(time.Second)
		}
	})
}
