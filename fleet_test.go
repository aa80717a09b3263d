package spillover_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/random"
)

// A recordedFleet is a LocalFleet that keeps what was published.
type recordedFleet struct {
	spillover.LocalFleet
	mu      sync.Mutex
	notices []notice
	kept    [][]byte // what Recall returns
	keys    []string // that Recall was asked for
}

type notice struct {
	K, P, F, C, O string
	L, A, S, U    int64
}

func (f *recordedFleet) Publish(text []byte) {
	var n notice
	if json.Unmarshal(text, &n) == nil {
		f.mu.Lock()
		f.notices = append(f.notices, n)
		f.mu.Unlock()
	}
	f.LocalFleet.Publish(text)
}

func (f *recordedFleet) Recall(_ context.Context, keys []string) ([][]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys = keys
	return f.kept, nil
}

func (f *recordedFleet) kinds() (kinds []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.notices {
		kinds = append(kinds, n.K)
	}
	return kinds
}

// lie publishes a notice as another replica would.
func (f *recordedFleet) lie(from string, n notice) {
	f.LocalFleet.Publish(fmt.Appendf(nil, `{"v":1,"k":%q,"p":%q,"f":%q,"l":%d,"a":%d,"s":%d,"u":%d}`, n.K, n.P, from, n.L, n.A, n.S, n.U))
}

// member is a Transport of a fleet over a net of its own.
func member(t testing.TB, f spillover.Fleet, n http.RoundTripper, backends ...spillover.Backend) *spillover.Transport {
	tr := configured(t, spillover.Config{Base: n, Backends: backends, Fleet: f})
	t.Cleanup(func() { tr.Close() })
	return tr
}

// undoubting makes every request heed what other replicas report, where a few would ignore
// it by chance.
func undoubting(t testing.TB) {
	before, count := random.Uint64, new(atomic.Uint64)
	random.Uint64 = func() uint64 { return 1<<63 | count.Add(1) }
	t.Cleanup(func() { random.Uint64 = before })
}

// replicasOf are ten of them.
func replicasOf(t testing.TB, f spillover.Fleet, n http.RoundTripper) (all []*spillover.Transport) {
	for range 10 {
		all = append(all, member(t, f, n, ptuAndPayg()...))
	}
	return all
}

func ptuAndPayg() []spillover.Backend {
	return []spillover.Backend{azure("ptu"), azure("payg", priority(2))}
}

func TestReplicasLearnOfARateLimit(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After: 7"))
		a, b := member(t, f, n, ptuAndPayg()...), member(t, f, n, ptuAndPayg()...)
		ask(t, a)
		require.Equal(t, []string{"throttled"}, f.kinds())
		require.EqualValues(t, 7000, f.notices[0].L, "what the service asked for, as a duration")
		others := []*spillover.Transport{b}
		for range 20 {
			others = append(others, member(t, f, n, ptuAndPayg()...))
		}
		f.lie("0000beef", f.notices[0])
		for _, tr := range others {
			resp, _ := ask(t, tr)
			require.Equal(t, "payg", servedBy(resp))
			require.NotZero(t, statusOf(t, tr, "ptu").AvoidedUntil)
		}
		require.Equal(t, 1, n.Sends(host("ptu")), "it was not asked in vain")
		n.On(host("ptu"), ok200)
		time.Sleep(15 * time.Second)
		resp, _ := ask(t, b)
		require.Equal(t, "ptu", servedBy(resp))
	})
}

// A request that only other replicas' reports speak against is sent, however many they are.
func TestReportsNeverRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, liars := range []int{1, 2, 8, 20} {
			f := new(recordedFleet)
			n := newNet()
			n.On(host("a"), status(429, "{}", "Retry-After: 1"), ok200)
			n.On(host("b"), status(429, "{}", "Retry-After: 1"), ok200)
			tr := member(t, f, n, azure("a"), azure("b"))
			ask(t, tr)
			places := map[string]bool{}
			for _, x := range f.notices {
				places[x.P] = true
			}
			require.Len(t, places, 2)
			time.Sleep(2 * time.Second)
			for range 50 {
				for i := range liars {
					for p := range places {
						for _, kind := range []string{"throttled", "ejected", "drained"} {
							f.lie(fmt.Sprintf("%08x", i), notice{K: kind, P: p, L: 3_600_000, S: 30})
						}
					}
				}
				resp, _ := ask(t, tr)
				require.Equal(t, 200, resp.StatusCode, "%d liars", liars)
				require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
			}
		}
	})
}

func TestOwnSuccessContradictsAReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After: 1"), ok200)
		tr := member(t, f, n, ptuAndPayg()...)
		ask(t, tr)
		place := f.notices[0].P
		time.Sleep(2 * time.Second)
		ignored := 0
		for range 3000 {
			f.lie("0000beef", notice{K: "throttled", P: place, L: 60_000})
			time.Sleep(100 * time.Millisecond)
			resp, _ := ask(t, tr)
			if servedBy(resp) == "ptu" {
				ignored++
			}
		}
		require.Greater(t, ignored, 500, "a few requests ignore the report, which shows that it is wrong; the liar is ignored then")
		s := tr.Status().Fleet
		require.Len(t, s.Replicas, 1)
		require.Equal(t, "0000beef", s.Replicas[0].Name)
		require.NotZero(t, s.Ignored)
		require.Contains(t, f.kinds(), "recovered")
	})
}

func TestReplicasLearnOfAWrongKeyIfTheyUseIt(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(401, wrongKey))
		a, replicas := member(t, f, n, ptuAndPayg()...), replicasOf(t, f, n)
		other := ptuAndPayg()
		other[0].APIKey = "another-key"
		c := member(t, f, n, other...)
		ask(t, a)
		require.Equal(t, []string{"ejected"}, f.kinds())
		require.Equal(t, "credential", f.notices[0].C)
		for _, x := range f.notices {
			text, err := json.Marshal(x)
			require.NoError(t, err)
			require.NotContains(t, string(text), "key-ptu")
		}
		for _, tr := range replicas {
			ask(t, tr)
		}
		asked := n.Sends(host("ptu"))
		require.Equal(t, 1, asked)
		ask(t, c)
		require.Equal(t, asked+1, n.Sends(host("ptu")), "its own key may be right")
	})
}

// Failures that the request may have caused are told once another deployment has
// answered it.
func TestPoisonedRequestIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(500, "{}"))
		n.On(host("payg"), status(500, "{}"))
		tr := member(t, f, n, ptuAndPayg()...)
		for range 20 {
			ask(t, tr)
			time.Sleep(time.Second)
		}
		require.Empty(t, f.kinds())
		n.On(host("payg"), ok200)
		for range 3 {
			ask(t, tr)
		}
		require.Contains(t, f.kinds(), "ejected")
	})
}

// A request that fails everywhere is the cause, although one of its attempts was a probe.
func TestPoisonedProbeIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(500, "{}"))
		tr := member(t, f, n, ptuAndPayg()...)
		for range 3 {
			ask(t, tr)
		}
		told := f.kinds()
		require.Contains(t, told, "ejected")
		n.On(host("payg"), status(500, "{}"))
		time.Sleep(time.Until(statusOf(t, tr, "ptu").Until))
		sends := n.Sends(host("ptu"))
		ask(t, tr)
		require.Greater(t, n.Sends(host("ptu")), sends, "the probe")
		require.Equal(t, told, f.kinds())
	})
}

func TestReplicasLearnThatABackendCannotBeReached(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), broken(errRefused))
		a, replicas := member(t, f, n, ptuAndPayg()...), replicasOf(t, f, n)
		ask(t, a)
		for _, tr := range replicas {
			ask(t, tr)
		}
		require.Equal(t, 1, n.Sends(host("ptu")))
		n.On(host("ptu"), ok200)
		time.Sleep(4 * time.Second)
		inTurn(t, a, 7, 0) // the probe waits for them
		resp, _ := ask(t, a)
		require.Equal(t, "ptu", servedBy(resp))
		require.Contains(t, f.kinds(), "recovered")
		require.Zero(t, statusOf(t, replicas[0], "ptu").AvoidedUntil)
	})
}

func TestReplicasLearnOfAFullPTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(200, "{}", "Azure-Openai-Deployment-Utilization: 99.0%"))
		a, b := member(t, f, n, ptuAndPayg()...), member(t, f, n, ptuAndPayg()...)
		ask(t, a)
		require.Equal(t, []string{"utilization"}, f.kinds())
		served := map[string]int{}
		for range 20 {
			resp, _ := ask(t, b)
			served[servedBy(resp)]++
		}
		require.Greater(t, served["payg"], 10, "most requests go to the next tier early")
		require.LessOrEqual(t, len(f.kinds()), 2, "one notice each half second, of all replicas")
	})
}

func TestReplicaThatJoinsLaterRecallsWhatHolds(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(401, wrongKey))
		pool := []spillover.Backend{azure("ptu", serves("m")), azure("payg", serves("m"), priority(2))}
		ask(t, member(t, f, n, pool...))
		first := f.notices[0]
		f.mu.Lock()
		f.kept = [][]byte{[]byte("garbage"), fmt.Appendf(nil, `{"v":1,"k":"ejected","p":%q,"f":"0000beef","l":60000,"s":3}`, first.P)}
		f.mu.Unlock()
		for range 10 {
			b := member(t, f, n, pool...)
			synctest.Wait()
			require.Contains(t, f.keys, first.P)
			ask(t, b)
		}
		require.Equal(t, 1, n.Sends(host("ptu")))
	})
}

func TestDrainOfTheWholeFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		a, b := member(t, f, n, ptuAndPayg()...), member(t, f, n, ptuAndPayg()...)
		require.NoError(t, a.DrainFleet("ptu", time.Minute))
		for _, tr := range []*spillover.Transport{a, b} {
			resp, _ := ask(t, tr)
			require.Equal(t, "payg", servedBy(resp))
		}
		n.On(host("payg"), status(429, "{}", "Retry-After: 1"))
		ask(t, b)
		resp, _ := ask(t, b)
		require.Equal(t, "ptu", servedBy(resp), "a replica that is told so does not refuse requests because of it")
		n.On(host("payg"), ok200)
		time.Sleep(2 * time.Second)
		require.NoError(t, a.ResumeFleet("ptu"))
		for _, tr := range []*spillover.Transport{a, b} {
			resp, _ := ask(t, tr)
			require.Equal(t, "ptu", servedBy(resp))
		}
		require.Error(t, a.DrainFleet("unknown", time.Minute))
		require.Error(t, a.DrainFleet("ptu", 0))
		require.Error(t, a.DrainFleet("ptu", 2*time.Hour))
		require.Error(t, balance(t, n, azure("a")).DrainFleet("a", time.Minute), "there is no fleet")
	})
}

func TestNamespacesDoNotHearEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After: 7"))
		a := configured(t, spillover.Config{Base: n, Backends: ptuAndPayg(), Fleet: f, FleetNamespace: "a"})
		b := configured(t, spillover.Config{Base: n, Backends: ptuAndPayg(), Fleet: f, FleetNamespace: "b"})
		defer a.Close()
		defer b.Close()
		ask(t, a)
		resp, _ := ask(t, b)
		require.Equal(t, 2, n.Sends(host("ptu")))
		require.Equal(t, "payg", servedBy(resp))
	})
}

func TestReplicaDoesNotHearItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After: 7"))
		tr := member(t, f, n, ptuAndPayg()...)
		ask(t, tr)
		require.Len(t, f.kinds(), 1)
		require.Zero(t, tr.Status().Fleet.Received)
		require.Zero(t, tr.Status().Fleet.Ignored)
		require.Zero(t, statusOf(t, tr, "ptu").AvoidedUntil)
	})
}

// Whoever floods a fleet with notices does not keep its replicas busy.
func TestNoticesOfASecondAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		tr := member(t, f, newNet(), ptuAndPayg()...)
		for second := uint64(1); second <= 2; second++ {
			for range 1500 {
				f.lie("0000beef", notice{K: "recovered", P: "0123456789abcdef"})
			}
			require.Equal(t, second*1000, tr.Status().Fleet.Received)
			require.Equal(t, second*500, tr.Status().Fleet.Ignored)
			time.Sleep(time.Second)
		}
	})
}

func TestAnotherNamespaceIsAnotherFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After: 7"))
		a, b := member(t, f, n, ptuAndPayg()...), member(t, f, n, ptuAndPayg()...)
		name := b.Status().Fleet.Name
		require.NoError(t, b.Reconfigure(spillover.Config{Base: n, Backends: ptuAndPayg(), Fleet: f, FleetNamespace: "other"}))
		require.NotEqual(t, name, b.Status().Fleet.Name)
		ask(t, a)
		ask(t, b)
		require.Equal(t, 2, n.Sends(host("ptu")), "it has not heard of it")
	})
}

func TestReplicaLeavesItsFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After: 7"))
		a, b := member(t, f, n, ptuAndPayg()...), member(t, f, n, ptuAndPayg()...)
		require.NoError(t, b.Reconfigure(spillover.Config{Base: n, Backends: ptuAndPayg(), Fleet: f}))
		name := b.Status().Fleet.Name
		require.NoError(t, b.Reconfigure(spillover.Config{Base: n, Backends: ptuAndPayg(), Fleet: f}))
		require.Equal(t, name, b.Status().Fleet.Name, "the same fleet")
		require.NoError(t, b.Reconfigure(spillover.Config{Base: n, Backends: ptuAndPayg()}))
		require.Nil(t, b.Status().Fleet)
		ask(t, a)
		ask(t, b)
		require.Equal(t, 2, n.Sends(host("ptu")), "it has not heard of it")
	})
}

// Whatever arrives as a notice, requests are served as without it.
func TestNoticeProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 0.001"), ok200)
		tr, err := spillover.New(spillover.Config{Base: n, Fleet: f, Backends: []spillover.Backend{azure("a")}})
		require.NoError(rt, err)
		defer tr.Close()
		_, _ = tr.RoundTrip(newChat(t, chatPath))
		place := f.notices[0].P
		for range rapid.IntRange(0, 30).Draw(rt, "notices") {
			switch rapid.IntRange(0, 2).Draw(rt, "form") {
			case 0:
				f.LocalFleet.Publish(rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(rt, "bytes"))
			case 1:
				text := fmt.Appendf(nil, `{"v":1,"k":"throttled","p":%q,"f":"00000001","l":60000}`, place)
				text[rapid.IntRange(0, len(text)-1).Draw(rt, "at")] = rapid.Byte().Draw(rt, "byte")
				f.LocalFleet.Publish(text)
			default:
				f.lie(fmt.Sprintf("%08x", rapid.Uint32Max(9).Draw(rt, "from")), notice{
					K: rapid.SampledFrom([]string{"throttled", "ejected", "recovered", "utilization", "drained", "resumed", "new"}).Draw(rt, "kind"),
					P: place, L: rapid.Int64().Draw(rt, "left"), A: rapid.Int64().Draw(rt, "age"), S: rapid.Int64().Draw(rt, "streak"), U: rapid.Int64().Draw(rt, "utilization"),
				})
			}
		}
		time.Sleep(2 * time.Millisecond)
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(rt, err)
		require.Equal(rt, 200, resp.StatusCode)
		resp.Body.Close()
	})
}

// A notice holds no key, host or name.
func TestNoticesHoldNothingSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all bytes.Buffer
		f := new(spillover.LocalFleet)
		f.Subscribe(func(n []byte) { require.LessOrEqual(t, len(n), 256); all.Write(n) })
		n := newNet()
		for _, answer := range []roundTripFunc{status(401, wrongKey), status(429, "{}"), broken(errRefused), status(500, "{}"), status(500, "{}"), ok200} {
			n.On(host("ptu"), answer)
			tr := member(t, f, n, ptuAndPayg()...)
			ask(t, tr)
			ask(t, tr)
		}
		require.NotEmpty(t, all.String())
		for _, secret := range []string{"key-", "ptu", "payg", "openai", "azure", "chat"} {
			require.NotContains(t, strings.ToLower(all.String()), secret)
		}
	})
}

// Durations are sent, so what a replica hears does not depend on the sender's clock.
func TestClocksOfReplicasMayDiffer(t *testing.T) {
	f := new(recordedFleet)
	var texts [][]byte
	var want time.Duration
	for hours := range 3 { // by how much the clock of the receiver is fast
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Duration(hours) * time.Hour)
			n := newNet()
			if texts == nil { // the sender
				f.Subscribe(func(text []byte) { texts = append(texts, bytes.Clone(text)) })
				n.On(host("ptu"), status(429, "{}", "Retry-After: 7"))
				ask(t, member(t, f, n, ptuAndPayg()...))
				require.Len(t, texts, 1)
				f.LocalFleet = spillover.LocalFleet{}
			}
			hears := new(spillover.LocalFleet)
			b := member(t, hears, n, ptuAndPayg()...)
			ask(t, b)
			time.Sleep(8 * time.Second)
			hears.Publish(texts[0])
			left := time.Until(statusOf(t, b, "ptu").AvoidedUntil).Round(time.Second)
			if want == 0 {
				want = left
			}
			require.Equal(t, want, left, "%d h", hours)
			require.GreaterOrEqual(t, left, 7*time.Second)
		})
	}
}

// What one replica has told is not told again by others that find it out.
func TestReportIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After: 7"))
		n.On(host("payg"), status(429, "{}", "Retry-After: 7"))
		a, b := member(t, f, n, ptuAndPayg()...), member(t, f, n, ptuAndPayg()...)
		ask(t, a)
		require.Equal(t, []string{"throttled", "throttled"}, f.kinds())
		time.Sleep(time.Second)
		n.On(host("ptu"), status(429, "{}", "Retry-After: 5"))
		n.On(host("payg"), status(429, "{}", "Retry-After: 5"))
		ask(t, b)
		require.Greater(t, n.Sends(host("ptu"))+n.Sends(host("payg")), 2, "a report refuses nothing")
		require.Len(t, f.kinds(), 2)
	})
}

// The replica that has ejected a deployment probes it before the others do.
func TestOtherReplicasWaitForTheProbe(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(401, wrongKey))
		a, b := member(t, f, n, ptuAndPayg()...), member(t, f, n, ptuAndPayg()...)
		ask(t, a)
		left := time.Duration(f.notices[0].L) * time.Millisecond
		time.Sleep(left + 10*time.Millisecond)
		for range 20 {
			resp, _ := ask(t, b)
			require.Equal(t, "payg", servedBy(resp))
		}
		inTurn(t, a, 7, 0) // the probe waits for them
		require.Equal(t, 1, n.Sends(host("ptu")))
		n.On(host("ptu"), ok200)
		resp, _ := ask(t, a)
		require.Equal(t, "ptu", servedBy(resp))
		resp, _ = ask(t, b)
		require.Equal(t, "ptu", servedBy(resp), "it has recovered")
	})
}

// A replica that reports a higher utilization than the service does, three times in a row,
// is ignored.
func TestReplicaThatExaggeratesUtilizationIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(200, "{}", "Azure-Openai-Deployment-Utilization: 75.0%"))
		tr := member(t, f, n, azure("ptu"))
		ask(t, tr)
		require.Equal(t, []string{"utilization"}, f.kinds())
		n.On(host("ptu"), status(200, "{}", "Azure-Openai-Deployment-Utilization: 10.0%"))
		exaggerate := func() {
			time.Sleep(10 * time.Second)
			f.lie("0000beef", notice{K: "utilization", P: f.notices[0].P, U: 990})
			time.Sleep(time.Millisecond)
			ask(t, tr)
		}
		for range 3 {
			exaggerate()
			require.Zero(t, tr.Status().Fleet.Ignored)
		}
		exaggerate()
		require.EqualValues(t, 1, tr.Status().Fleet.Ignored)
	})
}

// unavailableFleet cannot recall anything.
type unavailableFleet struct{ spillover.LocalFleet }

func (*unavailableFleet) Recall(context.Context, []string) ([][]byte, error) {
	return [][]byte{[]byte(`{"v":1}`)}, io.ErrUnexpectedEOF
}

func TestRequestsAreServedIfNothingCanBeRecalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := member(t, new(unavailableFleet), newNet(), azure("a"))
		synctest.Wait()
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
		require.Zero(t, tr.Status().Fleet.Ignored, "what comes with an error is not read")
	})
}

func TestResumeFleetNamesWhatIsMissing(t *testing.T) {
	tr := member(t, new(spillover.LocalFleet), newNet(), azure("a"))
	require.ErrorContains(t, tr.ResumeFleet("unknown"), "unknown")
	require.ErrorContains(t, balance(t, newNet(), azure("a")).ResumeFleet("a"), "no Fleet")
}

// What is heard of deployments without requests is kept within limits; what no longer holds
// makes room.
func TestNoticesOfUnknownPlacesDoNotCrowdOutLaterOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(429, "{}", "Retry-After: 7"))
		ask(t, member(t, f, n, ptuAndPayg()...))
		place := f.notices[0].P
		tr := member(t, f, n, ptuAndPayg()...)
		for i := range 1024 {
			if i%500 == 0 {
				time.Sleep(time.Second)
			}
			f.lie("0000beef", notice{K: "throttled", P: fmt.Sprintf("%016x", i), L: 5000})
		}
		time.Sleep(6 * time.Second)
		f.lie("0000beef", notice{K: "drained", P: place, L: 60_000})
		ask(t, tr)
		require.NotZero(t, statusOf(t, tr, "ptu").AvoidedUntil)
	})
}

// What is kept already is replaced by what holds for longer, however much else is kept.
func TestKeptNoticeIsExtendedWhileManyAreKept(t *testing.T) {
	undoubting(t)
	synctest.Test(t, func(t *testing.T) {
		place := placesOf(t, azure("ptu"))[0]
		f := new(recordedFleet)
		tr := member(t, f, newNet(), ptuAndPayg()...)
		f.lie("0000beef", notice{K: "throttled", P: place, L: 5000})
		for i := range 1100 {
			if i%500 == 499 {
				time.Sleep(time.Second)
			}
			f.lie("0000beef", notice{K: "throttled", P: fmt.Sprintf("%016x", i), L: 60_000})
		}
		f.lie("0000beef", notice{K: "throttled", P: place, L: 60_000})
		time.Sleep(10 * time.Second)
		ask(t, tr)
		require.NotZero(t, statusOf(t, tr, "ptu").AvoidedUntil)
	})
}

func TestReplicasWithTokensLearnOfARefusedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(recordedFleet)
		n := newNet()
		n.On(host("ptu"), status(401, wrongKey))
		pool := func() []spillover.Backend {
			all := ptuAndPayg()
			all[0].APIKey, all[0].Token = "", func(context.Context) (string, error) { return "token", nil }
			return all
		}
		a, b := member(t, f, n, pool()...), member(t, f, n, pool()...)
		ask(t, a)
		require.Equal(t, []string{"ejected"}, f.kinds())
		ask(t, b)
		require.NotZero(t, statusOf(t, b, "ptu").AvoidedUntil)
	})
}

func TestResumeFleetLeavesABackendThatIsConfiguredAsDrained(t *testing.T) {
	f := new(recordedFleet)
	tr := member(t, f, newNet(), azure("a"), azure("b", func(b *spillover.Backend) { b.Drained = true }))
	require.Error(t, tr.ResumeFleet("b"))
	require.Empty(t, f.kinds(), "the others are not told")
}
