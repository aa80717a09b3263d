package spillover_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
)

// placesOf are the names of the deployments of some backends in notices, in order.
func placesOf(t testing.TB, backends ...spillover.Backend) (places []string) {
	for _, b := range backends {
		f, n := new(recordedFleet), newNet()
		n.On(host(b.Name), status(429, "{}", "Retry-After: 1"))
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
				n.On(host("ptu"), failure)
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
			n.On(host(b.Name), broken(errRefused))
			_, err := member(t, f, n, b).RoundTrip(newChat(t, chatPath))
			require.Error(t, err)
			places = append(places, f.notices[0].P)
		}
		for _, holder := range all {
			f, n := new(recordedFleet), newNet()
			for _, b := range all {
				n.On(host(b.Name), status(404, `{"error":{"code":"not_found","message":"Response with id 'resp_1234567890' not found."}}`))
			}
			n.On(host(holder.Name), ok200)
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

// What was reported in one fleet does not hold in another one, or without one.
func TestReportsEndWithTheFleet(t *testing.T) {
	undoubting(t)
	for name, change := range map[string]func(*spillover.Config){
		"another fleet":     func(c *spillover.Config) { c.Fleet = new(recordedFleet) },
		"another namespace": func(c *spillover.Config) { c.FleetNamespace = "other" },
		"no fleet":          func(c *spillover.Config) { c.Fleet = nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, n := new(recordedFleet), newNet()
				cfg := spillover.Config{Base: n, Backends: ptuAndPayg(), Fleet: f}
				a, b := member(t, f, n, ptuAndPayg()...), configured(t, cfg)
				defer b.Close()
				ask(t, b)
				require.NoError(t, a.DrainFleet("ptu", time.Hour))
				require.NotZero(t, statusOf(t, b, "ptu").AvoidedUntil)
				require.NoError(t, b.Reconfigure(cfg))
				require.NotZero(t, statusOf(t, b, "ptu").AvoidedUntil, "the same fleet")
				change(&cfg)
				require.NoError(t, b.Reconfigure(cfg))
				require.Zero(t, statusOf(t, b, "ptu").AvoidedUntil)
				resp, _ := ask(t, b)
				require.Equal(t, "ptu", servedBy(resp))
			})
		})
	}
}

// A stubbornFleet calls subscribers that have cancelled.
type stubbornFleet struct{ recordedFleet }

func (f *stubbornFleet) Subscribe(g func([]byte)) func() {
	f.recordedFleet.Subscribe(g)
	return func() {}
}

func TestReplicaThatHasLeftHearsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := placesOf(t, azure("ptu"))
		f, n := new(stubbornFleet), newNet()
		cfg := spillover.Config{Base: n, Backends: ptuAndPayg(), Fleet: f}
		tr := configured(t, cfg)
		defer tr.Close()
		ask(t, tr)
		cfg.Fleet = new(recordedFleet)
		require.NoError(t, tr.Reconfigure(cfg))
		f.lie("0000beef", notice{K: "throttled", P: places[0], L: 60_000})
		require.Zero(t, statusOf(t, tr, "ptu").AvoidedUntil)
	})
}

// A backend that is added later learns what holds of it.
func TestReconfigureRecallsWhatHoldsOfNewBackends(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		pool := func(names ...string) (all []spillover.Backend) {
			for i, name := range names {
				all = append(all, azure(name, serves("m"), priority(i+1)))
			}
			return all
		}
		places := placesOf(t, pool("new")...)
		f, n := new(recordedFleet), newNet()
		cfg := spillover.Config{Base: n, Backends: pool("old"), Fleet: f}
		tr := configured(t, cfg)
		defer tr.Close()
		synctest.Wait()
		f.kept = [][]byte{fmt.Appendf(nil, `{"v":1,"k":"ejected","p":%q,"f":"0000beef","l":60000}`, places[0])}
		cfg.Backends = pool("new", "old")
		require.NoError(t, tr.Reconfigure(cfg))
		synctest.Wait()
		require.Contains(t, f.keys, places[0])
		require.NotZero(t, statusOf(t, tr, "new").AvoidedUntil)

		cfg.Fleet = &recordedFleet{kept: f.kept}
		cfg.Backends = pool("newest", "new")
		require.NoError(t, tr.Reconfigure(cfg))
		synctest.Wait()
		require.Contains(t, cfg.Fleet.(*recordedFleet).keys, placesOf(t, pool("newest")...)[0], "those of the new configuration")
	})
}

// What was heard of a deployment before its first request has its age.
func TestUtilizationOfADeploymentWithoutRequestsGetsOld(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		places := placesOf(t, azure("ptu"))
		f, n := new(recordedFleet), newNet()
		tr := member(t, f, n, ptuAndPayg()...)
		f.lie("0000beef", notice{K: "utilization", P: places[0], U: 1000})
		time.Sleep(time.Minute)
		resp, _ := ask(t, tr)
		require.Equal(t, "ptu", servedBy(resp))
	})
}

// Of a deployment that nobody has asked yet, all that was heard is kept: one kind of
// notice does not replace another one.
func TestKeptNoticesOfDifferentKindsHold(t *testing.T) {
	undoubting(t)
	for _, later := range []string{"utilization", "throttled", "resumed"} {
		t.Run(later, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				places := placesOf(t, azure("ptu"))
				f, n := new(recordedFleet), newNet()
				tr := member(t, f, n, ptuAndPayg()...)
				f.lie("0000beef", notice{K: "ejected", P: places[0], L: 60_000})
				f.lie("0000beef", notice{K: later, P: places[0], L: 1000, U: 700})
				time.Sleep(2 * time.Second)
				resp, _ := ask(t, tr)
				require.Equal(t, "payg", servedBy(resp))
			})
		})
	}
}

// A backend that is drained everywhere stays so when it turns out that it can be reached.
func TestRecoveryDoesNotEndADrainOfTheFleet(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		f, n := new(recordedFleet), newNet()
		a, b := member(t, f, n, ptuAndPayg()...), member(t, f, n, ptuAndPayg()...)
		c := member(t, f, n, ptuAndPayg()...) // nobody has asked it before the drain
		n.On(host("ptu"), broken(errRefused))
		ask(t, a)
		n.On(host("ptu"), ok200)
		require.NoError(t, b.DrainFleet("ptu", time.Hour))
		require.Equal(t, []string{"ejected", "drained"}, f.kinds())
		require.NotEqual(t, f.notices[0].P, f.notices[1].P, "an engine keeps one notice of each place")
		f.lie("0000beef", notice{K: "recovered", P: f.notices[0].P})
		for _, tr := range []*spillover.Transport{b, c} {
			resp, _ := ask(t, tr)
			require.Equal(t, "payg", servedBy(resp))
		}
	})
}

// A brokenFleet panics, and returns nothing.
type brokenFleet struct{ panicsIn string }

func (f *brokenFleet) in(method string) {
	if f.panicsIn == method {
		panic(method)
	}
}

func (f *brokenFleet) Publish([]byte) { f.in("Publish") }

func (f *brokenFleet) Subscribe(func([]byte)) func() { return nil }

func (f *brokenFleet) Recall(context.Context, []string) ([][]byte, error) {
	f.in("Recall")
	return nil, nil
}

// A panic where nobody could recover from it, and a subscription without an end, harm
// nobody. One in Publish is the caller's, as those of other functions of the program.
func TestRequestsAreServedWithABrokenFleet(t *testing.T) {
	for _, method := range []string{"Publish", "Recall"} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("ptu"), status(429, "{}"))
			tr := member(t, &brokenFleet{method}, n, ptuAndPayg()...)
			synctest.Wait()
			if method == "Publish" {
				require.PanicsWithValue(t, method, func() { _, _ = tr.RoundTrip(newChat(t, chatPath)) })
			}
			resp, _ := ask(t, tr)
			require.Equal(t, "payg", servedBy(resp))
			nothingInFlight(t, tr)
			require.NoError(t, tr.Close())
		})
	}
}

// A hangingFleet hangs in Recall, whatever its context says.
type hangingFleet struct {
	recordedFleet
	until chan struct{}
}

func (f *hangingFleet) Recall(context.Context, []string) ([][]byte, error) {
	<-f.until
	return f.kept, nil
}

func TestNothingWaitsForAFleetThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := placesOf(t, azure("ptu"))
		f, n := &hangingFleet{until: make(chan struct{})}, newNet()
		f.kept = [][]byte{fmt.Appendf(nil, `{"v":1,"k":"throttled","p":%q,"f":"0000beef","l":60000}`, places[0])}
		began := time.Now()
		cfg := spillover.Config{Base: n, Backends: ptuAndPayg(), Fleet: f}
		tr := configured(t, cfg)
		ask(t, tr)
		require.NoError(t, tr.Reconfigure(cfg))
		require.NoError(t, tr.Close())
		require.Zero(t, time.Since(began))
		close(f.until)
		synctest.Wait()
		require.Zero(t, statusOf(t, tr, "ptu").AvoidedUntil, "it comes too late")
	})
}

// A gossipingFleet has its metrics read, and notices delivered, while a Transport joins.
type gossipingFleet struct {
	spillover.LocalFleet
	during func()
}

func (f *gossipingFleet) Subscribe(g func([]byte)) func() {
	for range 2 {
		go g([]byte(`{"v":1,"k":"throttled","p":"0123456789abcdef","f":"0000beef","l":60000}`))
		go f.during()
	}
	return f.LocalFleet.Subscribe(g)
}

// Run with the race detector.
func TestFleetIsReadWhileATransportJoins(t *testing.T) {
	l := telemetrytest.New()
	f := &gossipingFleet{during: l.Collect}
	cfg := spillover.Config{Base: newNet(), Backends: ptuAndPayg(), Fleet: f, MeterProvider: l.MeterProvider()}
	for range 20 {
		tr := configured(t, cfg)
		require.NoError(t, tr.Reconfigure(cfg))
		require.NoError(t, tr.Close())
	}
}

// A replica that repeats a wrong report faster than the service answers is found out, too.
func TestReportThatIsRepeatedIsContradicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := placesOf(t, azure("ptu"))
		f, n := new(recordedFleet), newNet()
		n.On(host("ptu"), slow(2*time.Second, ok200))
		n.On(host("payg"), slow(2*time.Second, ok200))
		tr := member(t, f, n, ptuAndPayg()...)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for ctx.Err() == nil {
				f.lie("0000beef", notice{K: "throttled", P: places[0], L: 60_000})
				time.Sleep(100 * time.Millisecond)
			}
		}()
		for range 1000 {
			ask(t, tr)
		}
		require.NotZero(t, tr.Status().Fleet.Ignored)
		cancel()
		time.Sleep(time.Second)
	})
}
