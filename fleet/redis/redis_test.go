//go:build unix

package redis_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/spillover-go/spillover/fleet/redis"
)

// No test leaves a goroutine behind.
func TestMain(m *testing.M) {
	goredis.SetLogger(silent{}) // what go-redis says of servers that are down
	goleak.VerifyTestMain(m)
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

const (
	place = "00112233aabbccdd"
	other = "ffeeddccbbaa9988"
)

// A replica is an Engine with what it has received, logged and measured.
type replica struct {
	*redis.Engine
	t      *testing.T
	reader *sdkmetric.ManualReader
	log    *lockedBuffer

	mu       sync.Mutex
	received []string
	seen     map[string]int
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newReplica makes an Engine by open and subscribes to it.
func newReplica(t *testing.T, open func(redis.Options) (*redis.Engine, error)) *replica {
	r := &replica{t: t, reader: sdkmetric.NewManualReader(), log: new(lockedBuffer), seen: map[string]int{}}
	e, err := open(redis.Options{
		Timeout:       3 * time.Second, // a busy machine may be slow
		Logger:        slog.New(slog.NewTextHandler(r.log, nil)),
		MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader)),
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, e.Close())
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	r.Engine = e
	e.Subscribe(func(n []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.received = append(r.received, string(n))
		r.seen[string(n)]++
	})
	return r
}

func at(url string) func(redis.Options) (*redis.Engine, error) {
	return func(o redis.Options) (*redis.Engine, error) { return redis.Open(url, o) }
}

// impatient makes an Engine with the default Timeout.
func impatient(url string) func(redis.Options) (*redis.Engine, error) {
	return func(o redis.Options) (*redis.Engine, error) {
		o.Timeout = 0
		return redis.Open(url, o)
	}
}

// join makes a replica and waits until it is connected.
func join(t *testing.T, open func(redis.Options) (*redis.Engine, error)) *replica {
	r := newReplica(t, open)
	r.waitUp(1)
	return r
}

// requireDown makes replicas until one logs that it is down for this reason: the first
// reason on a busy machine may be a timeout. It returns the log.
func requireDown(t *testing.T, open func(redis.Options) (*redis.Engine, error), reason string) (log string) {
	eventually(t, func() bool {
		r := newReplica(t, open)
		eventually(t, func() bool { return strings.Contains(r.log.String(), `msg="fleet down"`) }, "not logged")
		require.Zero(t, r.metric("spillover.fleet.engine.up"))
		log = r.log.String()
		return strings.Contains(log, reason)
	}, "the reason is not logged")
	return log
}

func (r *replica) count(notice []byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[string(notice)]
}

func (r *replica) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.received)
}

// metric returns the sum of the values of a metric that have all these attributes.
func (r *replica) metric(name string, attributes ...attribute.KeyValue) (sum int64) {
	var all metricdata.ResourceMetrics
	require.NoError(r.t, r.reader.Collect(context.Background(), &all))
	for _, s := range all.ScopeMetrics {
		require.Equal(r.t, "github.com/spillover-go/spillover/fleet/redis", s.Scope.Name)
		for _, m := range s.Metrics {
			if m.Name != name {
				continue
			}
			var points []metricdata.DataPoint[int64]
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				points = data.DataPoints
			case metricdata.Gauge[int64]:
				points = data.DataPoints
			}
			for _, p := range points {
				if !slices.ContainsFunc(attributes, func(a attribute.KeyValue) bool {
					v, _ := p.Attributes.Value(a.Key)
					return v != a.Value
				}) {
					sum += p.Value
				}
			}
		}
	}
	return sum
}

func (r *replica) notices(direction, reason string) int64 {
	attributes := []attribute.KeyValue{attribute.String("spillover.direction", direction)}
	if reason != "" {
		attributes = append(attributes, attribute.String("error.type", reason))
	}
	return r.metric("spillover.fleet.engine.notices", attributes...)
}

func (r *replica) waitUp(up int64) {
	r.t.Helper()
	eventually(r.t, func() bool { return r.metric("spillover.fleet.engine.up") == up }, fmt.Sprintf("spillover.fleet.engine.up does not become %d", up))
}

// exchange publishes notices until the others have received one: those that are
// published during a failure are lost.
func exchange(t *testing.T, from *replica, to ...*replica) {
	t.Helper()
	var sent [][]byte
	eventually(t, func() bool {
		n := fmt.Appendf(nil, `{"v":1,"k":"utilization","p":"%s","f":"0123abcd","u":%d,"n":%d}`, place, 700, unique.Add(1))
		sent = append(sent, n)
		from.Publish(n)
		time.Sleep(20 * time.Millisecond)
		return !slices.ContainsFunc(to, func(r *replica) bool {
			return !slices.ContainsFunc(sent, func(n []byte) bool { return r.count(n) > 0 })
		})
	}, "notices do not arrive")
}

var unique atomic.Int64

func TestReplicasExchangeNotices(t *testing.T) {
	s := started(t)
	a, b := join(t, at(s.url())), join(t, at(s.url()))
	throttled := notice("throttled", place, 1500*time.Millisecond)
	a.Publish(throttled)
	eventually(t, func() bool { return b.count(throttled) == 1 && a.count(throttled) == 1 }, "not received")
	recovered := notice("recovered", place, 0)
	b.Publish(recovered)
	eventually(t, func() bool { return a.count(recovered) == 1 }, "not received")
	require.Equal(t, []string{string(throttled), string(recovered)}, a.all(), "test messages are not passed on")
	require.EqualValues(t, 1, a.notices("sent", ""))
	require.EqualValues(t, 2, a.notices("received", ""))
	require.Zero(t, a.notices("dropped", ""))
	require.Regexp(t, `^time=\S+ level=INFO msg="fleet up" group=default lasted_ms=\d+\n$`, a.log.String())
}

func TestPublishDoesNotKeepTheSlice(t *testing.T) {
	s := started(t)
	a := join(t, at(s.url()))
	n := notice("throttled", place, time.Second)
	want := slices.Clone(n)
	a.Publish(n)
	clear(n)
	eventually(t, func() bool { return a.count(want) == 1 }, "not received")
}

func TestGroupsAreSeparate(t *testing.T) {
	s := started(t)
	group := func(name string) func(redis.Options) (*redis.Engine, error) {
		return func(o redis.Options) (*redis.Engine, error) {
			o.Group = name
			return redis.Open(s.url(), o)
		}
	}
	a, b, c := join(t, group("a")), join(t, group("b")), join(t, group("a"))
	kept := notice("ejected", place, time.Minute)
	a.Publish(kept)
	exchange(t, a, c)
	exchange(t, b, b)
	for _, n := range b.all() {
		require.Zero(t, a.count([]byte(n)))
		require.Zero(t, c.count([]byte(n)))
	}
	require.Zero(t, b.count(kept))
	notices, err := b.Recall(t.Context(), []string{place})
	require.NoError(t, err)
	require.Empty(t, notices)
	notices, err = c.Recall(t.Context(), []string{place})
	require.NoError(t, err)
	require.Len(t, notices, 1)
}

func TestNoticesAreStoredUntilTheyExpireOrAreRevoked(t *testing.T) {
	t.Parallel()
	s := started(t)
	a, b := join(t, at(s.url())), join(t, at(s.url()))
	publish := func(n []byte) {
		a.Publish(n)
		eventually(t, func() bool { return b.count(n) > 0 }, "not received")
	}
	recall := func(places ...string) (lefts []int64) {
		notices, err := b.Recall(t.Context(), places)
		require.NoError(t, err)
		for _, n := range notices {
			var fields map[string]any
			require.NoError(t, json.Unmarshal(n, &fields))
			require.Equal(t, "0123abcd", fields["f"])
			require.EqualValues(t, 3, fields["a"])
			lefts = append(lefts, int64(fields["l"].(float64)))
		}
		return lefts
	}
	for _, kind := range []string{"throttled", "ejected", "drained"} {
		publish(notice(kind, place, 20*time.Second+unused()))
		left := recall(other, place, place)
		require.Len(t, left, 1, kind)
		require.Positive(t, left[0])
		require.LessOrEqual(t, left[0], int64(30_000))
		revoked := map[string]string{"throttled": "recovered", "ejected": "recovered", "drained": "resumed"}[kind]
		publish(notice(revoked, other, unused()))
		require.Len(t, recall(place), 1, "another place")
		publish(notice(revoked, place, unused()))
		require.Empty(t, recall(place), kind)
	}
	for name, n := range map[string][]byte{
		"too short":         notice("throttled", place, 1900*time.Millisecond+unused()),
		"not of this kind":  notice("utilization", place, time.Minute),
		"without a place":   notice("throttled", "", time.Minute),
		"unknown kind":      notice("another", place, time.Minute),
		"l is not a number": []byte(`{"v":1,"k":"throttled","p":"` + place + `","l":"x"}`),
		"not JSON":          []byte("?"),
	} {
		publish(n)
		require.Empty(t, recall(place, ""), name)
	}
	publish(notice("throttled", place, 2*time.Second))
	publish(notice("ejected", other, 1<<60))
	require.Len(t, recall(other), 1, "longer than Redis accepts")
	eventually(t, func() bool { return len(recall(place)) == 0 }, "it does not expire")
	require.EqualValues(t, 1, a.metric("spillover.fleet.engine.up"))
}

// unused returns a few milliseconds, different with each call, so that notices differ.
func unused() time.Duration { return time.Duration(unique.Add(1)%50) * time.Millisecond }

func TestForeignValuesAreNotRecalled(t *testing.T) {
	s := started(t)
	a := join(t, at(s.url()))
	key := "spillover:{default}:"
	s.do("SET", key+"large", strings.Repeat("x", 1<<20), "PX", 60000)
	s.do("SET", key+"long", `{"l":1,"x":"`+strings.Repeat("x", 250)+`"}`, "PX", 60000)
	s.do("SET", key+"longer", `{"l":1,"x":"`+strings.Repeat("<", 200)+`"}`, "PX", 60000)
	s.do("SET", key+"number", "1", "PX", 60000)
	s.do("SET", key+"null", "null", "PX", 60000)
	s.do("SET", key+"empty", "", "PX", 60000)
	s.do("SET", key+"eternal", notice("ejected", "eternal", time.Hour))
	s.do("RPUSH", key+"list", "x")
	s.do("SET", key+"good", notice("ejected", "good", time.Hour), "PX", 60000)
	notices, err := a.Recall(t.Context(), []string{"large", "long", "longer", "number", "null", "empty", "eternal", "list", "missing", "good"})
	require.NoError(t, err)
	require.Len(t, notices, 1)
	require.Contains(t, string(notices[0]), `"p":"good"`)
	notices, err = a.Recall(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, notices)
}

func TestForeignMessagesDoNotHarm(t *testing.T) {
	s := started(t)
	a := join(t, at(s.url()))
	const channel = "spillover:{default}"
	for _, payload := range []string{"", strings.Repeat("x", 257), strings.Repeat("x", 1<<20)} {
		s.do("PUBLISH", channel, payload)
	}
	for _, payload := range []string{"\x00\xff\r\n", "{", strings.Repeat("x", 256)} {
		s.do("PUBLISH", channel, payload)
		eventually(t, func() bool { return a.count([]byte(payload)) == 1 }, "what the format means is up to the subscriber")
	}
	require.EqualValues(t, 2, a.notices("dropped", "size"))
	require.EqualValues(t, 3, a.notices("received", ""))
}

func TestOversizedAndEmptyNoticesAreNotPublished(t *testing.T) {
	s := started(t)
	a := join(t, at(s.url()))
	longest := []byte(strings.Repeat("x", 256))
	a.Publish(nil)
	a.Publish(append(longest, 'x'))
	a.Publish(longest)
	eventually(t, func() bool { return a.count(longest) == 1 }, "256 bytes are accepted")
	require.EqualValues(t, 2, a.notices("dropped", "size"))
	require.EqualValues(t, 1, a.notices("sent", ""))
	require.Len(t, a.all(), 1)
}

func TestServerIsKilledAndRestarted(t *testing.T) {
	t.Parallel()
	s := started(t)
	a, b := join(t, at(s.url())), join(t, at(s.url()))
	exchange(t, a, b)
	s.kill()
	a.waitUp(0)
	b.waitUp(0)
	lost := notice("throttled", place, time.Second)
	eventually(t, func() bool {
		a.Publish(lost)
		return a.notices("dropped", "failed") > 0 && a.notices("dropped", "unavailable") > 0
	}, "after some failures nothing is published")
	_, err := a.Recall(t.Context(), []string{place})
	require.ErrorContains(t, err, "fleet/redis: reading stored notices: ")
	s.start()
	exchange(t, a, b)
	exchange(t, b, a)
	a.waitUp(1)
	require.Zero(t, b.count(lost), "nothing is sent again")
	require.Regexp(t, `^.*msg="fleet up".*\n.*level=WARN msg="fleet down" group=default lasted_ms=\d+ error=.*\n.*msg="fleet up".*\n$`, a.log.String(), "one record for each change")
}

func TestStoredNoticesAreReadAgainAfterAReconnect(t *testing.T) {
	t.Parallel()
	s := started(t)
	a, b := join(t, at(s.url())), join(t, at(s.url()))
	notices, err := b.Recall(t.Context(), []string{place, other})
	require.NoError(t, err)
	require.Empty(t, notices)
	// While the connections are down, somebody else stores a notice.
	s.do("SET", "spillover:{default}:"+place, notice("drained", place, time.Hour), "PX", 60000)
	s.do("CLIENT", "KILL", "TYPE", "pubsub")
	eventually(t, func() bool { return len(b.all()) > 0 }, "not read again")
	require.Contains(t, b.all()[0], `"k":"drained"`)
	require.Empty(t, a.all(), "it did not ask for the place")
	exchange(t, a, b)
}

func TestServerStartsLater(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a, b := newReplica(t, at(s.url())), newReplica(t, at(s.url()))
	a.waitUp(0)
	a.Publish(notice("throttled", place, time.Minute))
	_, err := b.Recall(t.Context(), []string{place})
	require.Error(t, err)
	eventually(t, func() bool { return strings.Contains(a.log.String(), `msg="fleet down"`) }, "not logged")
	s.start()
	s.do("SET", "spillover:{default}:"+place, notice("ejected", place, time.Hour), "PX", 60000)
	a.waitUp(1)
	b.waitUp(1)
	exchange(t, a, b)
	eventually(t, func() bool { return strings.Contains(strings.Join(b.all(), ""), `"k":"ejected"`) }, "what Recall could not read is delivered")
}

func TestFrozenServer(t *testing.T) {
	t.Parallel()
	s := started(t)
	a, b := join(t, impatient(s.url())), join(t, impatient(s.url()))
	exchange(t, a, b)
	s.signal(syscall.SIGSTOP)
	began := time.Now()
	for range 1000 {
		a.Publish(notice("throttled", place, time.Minute))
	}
	require.Less(t, time.Since(began), 5*time.Second, "Publish does not wait: one attempt takes 200 ms")
	a.waitUp(0)
	eventually(t, func() bool { return a.notices("dropped", "") > 900 }, "notices are dropped")
	b.waitUp(0) // it publishes nothing, but its pings are not answered
	s.signal(syscall.SIGCONT)
	a.waitUp(1)
	b.waitUp(1)
	exchange(t, a, b)
	exchange(t, b, a)
}

func TestWipedServer(t *testing.T) {
	s := started(t)
	a, b := join(t, at(s.url())), join(t, at(s.url()))
	a.Publish(notice("ejected", place, time.Minute))
	exchange(t, a, b)
	s.do("FLUSHALL")
	notices, err := b.Recall(t.Context(), []string{place})
	require.NoError(t, err)
	require.Empty(t, notices)
	exchange(t, a, b)
	require.Equal(t, 1, strings.Count(a.log.String(), "\n"), "it is up all the time")
}

func TestFullServerStillPassesNotices(t *testing.T) {
	s := started(t, "--maxmemory-policy", "noeviction")
	a, b := join(t, at(s.url())), join(t, at(s.url()))
	s.do("CONFIG", "SET", "maxmemory", "1")
	eventually(t, func() bool {
		a.Publish(notice("ejected", place, time.Minute))
		return a.metric("spillover.fleet.engine.up") == 0
	}, "storing fails")
	// These are not stored, so they do not show whether storing works.
	for range 10 {
		exchange(t, a, b)
		require.Zero(t, a.metric("spillover.fleet.engine.up"))
	}
	require.Contains(t, a.log.String(), "OOM")
	s.do("CONFIG", "SET", "maxmemory", "0")
	a.waitUp(1)
	require.Zero(t, a.notices("dropped", ""))
	require.Equal(t, 3, strings.Count(a.log.String(), "\n"), a.log.String())
}

func TestSlowSubscriberLosesTheOldestNotices(t *testing.T) {
	t.Parallel()
	s := started(t)
	a := join(t, at(s.url()))
	block, blocked := make(chan struct{}), make(chan struct{}, 1)
	var mu sync.Mutex
	var slow []string
	a.Subscribe(func(n []byte) {
		select {
		case blocked <- struct{}{}:
		default:
		}
		<-block
		mu.Lock()
		defer mu.Unlock()
		slow = append(slow, string(n))
	})
	first := notice("utilization", place, 0)
	a.Publish(first)
	<-blocked
	const more = 300
	for i := range more {
		n := fmt.Appendf(nil, "%d", i)
		a.Publish(n)
		eventually(t, func() bool { return a.count(n) == 1 }, "a slow subscriber delays another one")
	}
	require.EqualValues(t, more-256, a.notices("dropped", "slow_subscriber"))
	close(block)
	eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(slow) == 1+256
	}, "the newest are kept")
	require.Equal(t, string(first), slow[0])
	require.Equal(t, fmt.Sprint(more-256), slow[1])
	require.Equal(t, fmt.Sprint(more-1), slow[256])
}

func TestPanicOfASubscriberIsLogged(t *testing.T) {
	s := started(t)
	a := join(t, at(s.url()))
	var calls atomic.Int64
	a.Subscribe(func([]byte) {
		calls.Add(1)
		panic("a mistake")
	})
	exchange(t, a, a)
	exchange(t, a, a)
	eventually(t, func() bool { return calls.Load() >= 2 }, "it is called again")
	require.Contains(t, a.log.String(), `level=ERROR msg="fleet subscriber panicked" group=default panic="a mistake"`)
}

func TestCanceledSubscriberHearsNothing(t *testing.T) {
	s := started(t)
	a := join(t, at(s.url()))
	var calls atomic.Int64
	cancel := a.Subscribe(func([]byte) { calls.Add(1) })
	exchange(t, a, a)
	eventually(t, func() bool { return calls.Load() > 0 }, "not called")
	cancel()
	cancel()
	eventually(t, func() bool { // what was under way
		before := calls.Load()
		exchange(t, a, a)
		return calls.Load() == before
	}, "still called")
	before := calls.Load()
	exchange(t, a, a)
	require.Equal(t, before, calls.Load())
}

func TestBufferIsBoundedWhileTheServerIsFrozen(t *testing.T) {
	t.Parallel()
	s := started(t)
	a := join(t, impatient(s.url()))
	s.signal(syscall.SIGSTOP)
	eventually(t, func() bool {
		for range 1000 {
			a.Publish([]byte("x"))
		}
		return a.notices("dropped", "buffer_full") > 0
	}, "the buffer is bounded")
	s.signal(syscall.SIGCONT)
	a.waitUp(1)
}

func TestAHundredEngines(t *testing.T) {
	s := started(t)
	engines := make([]*replica, 100)
	for i := range engines {
		engines[i] = newReplica(t, at(s.url()))
	}
	for _, e := range engines {
		e.waitUp(1)
	}
	exchange(t, engines[0], engines...)
	// What is lost on a busy machine is published again.
	unheard := func(n []byte) bool {
		return slices.ContainsFunc(engines, func(e *replica) bool { return e.count(n) == 0 })
	}
	eventually(t, func() bool {
		done := true
		for i, e := range engines {
			if n := fmt.Appendf(nil, "from %d", i); unheard(n) {
				e.Publish(n)
				done = false
			}
		}
		time.Sleep(50 * time.Millisecond)
		return done
	}, "each hears each")
	clients := s.do("CLIENT", "LIST").(string)
	require.LessOrEqual(t, strings.Count(clients, "\n"), 2*len(engines)+5, "two connections each")
}

func TestClosedEngineDoesNothing(t *testing.T) {
	s := started(t)
	a, b := join(t, at(s.url())), join(t, at(s.url()))
	exchange(t, a, b)
	last := notice("drained", place, time.Minute)
	a.Publish(last)
	require.NoError(t, a.Close())
	eventually(t, func() bool { return b.count(last) == 1 }, "what was published before Close is sent")
	require.NoError(t, a.Close())
	a.Publish(notice("throttled", place, time.Minute))
	a.Subscribe(func([]byte) { t.Error("called") })()
	notices, err := a.Recall(t.Context(), []string{place})
	require.NoError(t, err)
	require.Empty(t, notices)
	heard := len(a.all())
	exchange(t, b, b)
	require.Len(t, a.all(), heard)
	require.Zero(t, a.metric("spillover.fleet.engine.up"), "not measured any more")
	require.NotContains(t, a.log.String(), "down", "closing is no failure")
}

func TestCloseDoesNotWaitForASubscriberThatBlocks(t *testing.T) {
	t.Parallel()
	s := started(t)
	a := join(t, at(s.url()))
	block := make(chan struct{})
	defer close(block)
	called := make(chan struct{}, 100)
	a.Subscribe(func([]byte) {
		called <- struct{}{}
		<-block
	})
	a.Publish([]byte("x"))
	<-called
	began := time.Now()
	require.NoError(t, a.Close())
	require.Less(t, time.Since(began), deadline/2)
}

func TestCloseWhileNothingAnswers(t *testing.T) {
	t.Parallel()
	s := started(t)
	a := join(t, impatient(s.url()))
	s.signal(syscall.SIGSTOP)
	a.Publish([]byte("x"))
	began := time.Now()
	require.NoError(t, a.Close())
	require.Less(t, time.Since(began), deadline/2)

	b := newReplica(t, impatient(s.url())) // which never gets an answer
	require.NoError(t, b.Close())
	s.signal(syscall.SIGCONT)
}

// The user of a client closes it too early, or it was never right.
func TestClosedClient(t *testing.T) {
	s := started(t)
	client := goredis.NewClient(&goredis.Options{Addr: s.addr()})
	a := join(t, func(o redis.Options) (*redis.Engine, error) { return redis.New(client, o) })
	require.NoError(t, client.Close())
	a.Publish([]byte("x"))
	a.waitUp(0)
	eventually(t, func() bool { return a.notices("dropped", "failed") == 1 }, "not counted")
	require.NoError(t, a.Close())
}

func TestClientOfTheUserStaysOpen(t *testing.T) {
	s := started(t)
	client := goredis.NewClient(&goredis.Options{Addr: s.addr()})
	defer client.Close()
	a := join(t, func(o redis.Options) (*redis.Engine, error) { return redis.New(client, o) })
	exchange(t, a, a)
	require.NoError(t, a.Close())
	require.NoError(t, client.Ping(t.Context()).Err())
}

func TestPassword(t *testing.T) {
	s := started(t, "--requirepass", "secret/word")
	a := join(t, at("redis://:secret%2Fword@"+s.addr()))
	exchange(t, a, a)
	provided := join(t, func(o redis.Options) (*redis.Engine, error) {
		client := goredis.NewUniversalClient(redis.ClientOptions(goredis.UniversalOptions{
			Addrs: []string{s.addr()},
			CredentialsProviderContext: func(context.Context) (user, password string, err error) {
				return "default", "secret/word", nil
			},
		}))
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		return redis.New(client, o)
	})
	exchange(t, provided, a)
	wrong := requireDown(t, at("redis://:another-secret@"+s.addr()), "WRONGPASS")
	require.NotContains(t, wrong, "another-secret")
}

// The package comment names the rights of an ACL user, and so does the README.
func TestRightsOfThePackageComment(t *testing.T) {
	t.Parallel()
	s := started(t)
	comment, err := os.ReadFile("redis.go")
	require.NoError(t, err)
	_, line, found := strings.Cut(string(comment), "\tACL SETUSER ")
	require.True(t, found)
	line, _, _ = strings.Cut(line, "\n")
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), "\nACL SETUSER "+line+"\n")
	args := []any{"ACL", "SETUSER"}
	for word := range strings.FieldsSeq(line) {
		args = append(args, word)
	}
	s.do(args...)
	a, b := join(t, at("redis://spillover:password@"+s.addr())), join(t, at("redis://spillover:password@"+s.addr()))
	kept := notice("ejected", place, time.Minute)
	a.Publish(kept)
	exchange(t, a, b)
	notices, err := b.Recall(t.Context(), []string{place})
	require.NoError(t, err)
	require.Len(t, notices, 1)
	revoked := notice("recovered", place, 0)
	a.Publish(revoked)
	exchange(t, a, b)
	notices, err = b.Recall(t.Context(), []string{place})
	require.NoError(t, err)
	require.Empty(t, notices)
	client := s.client()
	statistics := func() string { return client.Info(t.Context(), "commandstats").Val() }
	eventually(t, func() bool { return strings.Contains(statistics(), "cmdstat_ping:") }, "an idle subscription is not pinged")
	require.NotRegexp(t, `rejected_calls=[1-9]`, statistics())
	require.EqualValues(t, 1, a.metric("spillover.fleet.engine.up"))
	s.do("ACL", "SETUSER", "spillover", "-getrange")
	_, err = b.Recall(t.Context(), []string{place})
	require.ErrorContains(t, err, "NOPERM")
}

func TestTLS(t *testing.T) {
	dir := certificates(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	s := newServer(t)
	s.run("--port", "0", "--tls-port", fmt.Sprint(s.port), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(),
		"--tls-cert-file", file("cert.pem"), "--tls-key-file", file("key.pem"), "--tls-ca-cert-file", file("ca.pem"), "--tls-auth-clients", "no")
	authority, err := os.ReadFile(file("ca.pem"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(authority))
	open := func(o redis.Options) (*redis.Engine, error) {
		client := goredis.NewUniversalClient(redis.ClientOptions(goredis.UniversalOptions{
			Addrs:     []string{s.addr()},
			TLSConfig: &tls.Config{RootCAs: roots},
		}))
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		return redis.New(client, o)
	}
	a, b := join(t, open), join(t, open)
	exchange(t, a, b)

	// The certificate is verified, unless the URL says otherwise.
	requireDown(t, at("rediss://"+s.addr()), "certificate")
	exchange(t, join(t, at("rediss://"+s.addr()+"?skip_verify=true")), a, b)
}

// One node is a cluster, too, with the same routing.
func TestCluster(t *testing.T) {
	t.Parallel()
	s := started(t, "--cluster-enabled", "yes")
	s.do("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
	eventually(t, func() bool { return strings.Contains(s.do("CLUSTER", "INFO").(string), "cluster_state:ok") }, "no cluster")
	s.do("ACL", "SETUSER", "spillover", "on", ">password", "resetchannels", "&spillover:*", "~spillover:*",
		"+publish", "+subscribe", "+ping", "+set", "+getrange", "+pttl", "+del", "+cluster|slots")
	open := func(o redis.Options) (*redis.Engine, error) {
		client := goredis.NewUniversalClient(redis.ClientOptions(goredis.UniversalOptions{
			Addrs:         []string{s.addr()},
			IsClusterMode: true,
			Username:      "spillover",
			Password:      "password",
		}))
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		require.IsType(t, (*goredis.ClusterClient)(nil), client)
		return redis.New(client, o)
	}
	a, b := join(t, open), join(t, open)
	exchange(t, a, b)
	recallAcross(t, a, b)
	require.NotRegexp(t, `rejected_calls=[1-9]`, s.client().Info(t.Context(), "commandstats").Val(), "the rights that the README names are enough")
}

func TestSentinel(t *testing.T) {
	s := started(t)
	sentinel := newServer(t)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, "port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor main 127.0.0.1 %d 1\n", sentinel.port, t.TempDir(), s.port), 0o600))
	sentinel.run(conf, "--sentinel")
	open := func(o redis.Options) (*redis.Engine, error) {
		client := goredis.NewUniversalClient(redis.ClientOptions(goredis.UniversalOptions{Addrs: []string{sentinel.addr()}, MasterName: "main"}))
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		return redis.New(client, o)
	}
	a, b := join(t, open), join(t, open)
	exchange(t, a, b)
	recallAcross(t, a, b)
}

func recallAcross(t *testing.T, a, b *replica) {
	a.Publish(notice("ejected", place, time.Minute))
	a.Publish(notice("throttled", other, time.Minute))
	exchange(t, a, b)
	notices, err := b.Recall(t.Context(), []string{place, other})
	require.NoError(t, err)
	require.Len(t, notices, 2)
}

func TestUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	started(t, "--unixsocket", socket)
	a := join(t, at("unix://"+socket))
	exchange(t, a, a)
}

func TestMistakesInOptions(t *testing.T) {
	for name, group := range map[string]string{"brace": "a}", "space": "a b", "long": strings.Repeat("x", 65), "line": "a\n"} {
		_, err := redis.Open("redis://127.0.0.1:1", redis.Options{Group: group})
		require.ErrorContains(t, err, "fleet/redis: Group ", name)
	}
	_, err := redis.New(nil, redis.Options{Group: "a b", Timeout: -time.Second})
	require.EqualError(t, err, "fleet/redis: the client is nil\n"+`fleet/redis: Group "a b" must have 1 to 64 letters, digits, ".", "_" and "-"`+
		"\nfleet/redis: Timeout -1s must not be negative")
}

func TestErrorOfAnInvalidURLHasNoSecret(t *testing.T) {
	for _, url := range []string{
		"", "secret", "http://:secret@host", "redis://:secret@host:port", "redis://:sec ret@host", "redis://user:secret/word@host",
		"redis://user:12/secret@host", "redis://:pass?secret@host", "redis://:secret@host/x", "redis://:secret%@host", "secret:6379",
	} {
		_, err := redis.Open(url, redis.Options{})
		require.ErrorContains(t, err, "fleet/redis: the URL is not valid; it must be like ", url)
		require.NotContains(t, err.Error(), "secret", url)
	}
}

func TestOptionsOfClientsAreForNotices(t *testing.T) {
	o := redis.ClientOptions(goredis.UniversalOptions{ReadTimeout: time.Second, Addrs: []string{"a:1"}})
	require.Equal(t, time.Second, o.ReadTimeout, "what is set stays")
	require.Equal(t, 2*time.Second, o.WriteTimeout)
	require.Equal(t, 1, o.DialerRetries)
	require.Equal(t, -1, o.MaxRetries)
	require.True(t, o.ContextTimeoutEnabled)
	require.Equal(t, []string{"a:1"}, o.Addrs)
}

// Load for a minute, with failures; a few seconds unless SPILLOVER_SOAK has a duration.
func TestSoak(t *testing.T) {
	t.Parallel()
	length := 3 * time.Second
	if v := os.Getenv("SPILLOVER_SOAK"); v != "" {
		var err error
		length, err = time.ParseDuration(v)
		require.NoError(t, err)
	}
	s := started(t)
	replicas := make([]*replica, 8)
	for i := range replicas {
		replicas[i] = join(t, impatient(s.url()))
	}
	var wg sync.WaitGroup
	end := time.Now().Add(length)
	for i, r := range replicas {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				switch n % 10 {
				case 0:
					_, _ = r.Recall(context.Background(), []string{place, other})
				case 1:
					r.Subscribe(func([]byte) {})()
				default:
					r.Publish(fmt.Appendf(nil, `{"v":1,"k":"throttled","p":"%016x","l":%d,"f":"%08x"}`, n%7, n%4000, i))
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Go(func() {
		for n := 0; time.Now().Before(end); n++ {
			switch n % 4 {
			case 0:
				s.do("CLIENT", "KILL", "TYPE", "pubsub")
			case 1:
				s.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			case 2:
				s.do("FLUSHALL")
			case 3:
				s.signal(syscall.SIGSTOP)
				time.Sleep(300 * time.Millisecond)
				s.signal(syscall.SIGCONT)
			}
			time.Sleep(300 * time.Millisecond)
		}
	})
	wg.Wait()
	for _, r := range replicas {
		r.waitUp(1)
	}
	exchange(t, replicas[0], replicas...)
}

type pair struct{ certificate, key []byte }

// newCertificates makes an authority and a certificate of 127.0.0.1 that it has signed.
func newCertificates(t *testing.T) (authority []byte, server pair) {
	now := time.Now()
	template := func(serial int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("test ", serial)}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return key
	}
	encode := func(kind string, der []byte, err error) []byte {
		require.NoError(t, err)
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	root, rootKey := template(1), newKey()
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	authority = encode("CERTIFICATE", der, err)
	leaf, leafKey := template(2), newKey()
	leaf.IPAddresses, leaf.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err = x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	server.certificate = encode("CERTIFICATE", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(leafKey)
	server.key = encode("PRIVATE KEY", der, err)
	return authority, server
}

var _ io.Closer = (*redis.Engine)(nil)
