package spillover_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// drain reads an answer through one buffer and returns its length.
func drain(tb testing.TB, rt http.RoundTripper, req *http.Request, buffer []byte) (length int) {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		tb.Fatal(err)
	}
	for err == nil {
		var n int
		n, err = resp.Body.Read(buffer)
		length += n
	}
	if err != io.EOF {
		tb.Fatal(err)
	}
	resp.Body.Close()
	return length
}

// An eventBase answers with a stream of which each Read brings one event, as
// a connection does that is flushed after each.
type eventBase []string

func (events eventBase) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		req.Body.Close()
	}
	return &http.Response{
		Status: "200 OK", StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}, Body: &eventBody{events}, Request: req,
	}, nil
}

type eventBody struct{ events []string }

func (b *eventBody) Read(p []byte) (int, error) {
	if len(b.events) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.events[0])
	b.events = b.events[1:]
	return n, nil
}

func (b *eventBody) Close() error { return nil }

// longStream has events of 200 bytes behind Azure's first ones.
func longStream(events int, also string) eventBase {
	chunk := strings.Replace(testnet.TokenChunk("token"), `null}]`, `null}]`+also, 1)
	chunk = strings.Replace(chunk, "token", "token"+strings.Repeat("x", max(0, 200-len(chunk))), 1)
	base := eventBase{testnet.AzureFirst, testnet.RoleChunk}
	for range events {
		base = append(base, chunk)
	}
	return append(base, testnet.LastChunk, testnet.UsageChunk, testnet.DoneEvent)
}

func overEvents(tb testing.TB, base http.RoundTripper, idle time.Duration) *spillover.Transport {
	return configured(tb, spillover.Config{Base: base, Backends: []spillover.Backend{azure("one", func(b *spillover.Backend) { b.HeaderTimeout, b.IdleTimeout = idle, idle })}})
}

// median is not misled by whatever else the machine does.
func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// A pacedBase sends the events over a connection, each when it is read: a
// model is slower than its readers, so each event wakes one.
type pacedBase struct {
	host string
	due  atomic.Pointer[chan struct{}] // of the one request under way
}

func newPacedBase(b *testing.B, events eventBase) *pacedBase {
	base := new(pacedBase)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		due := *base.due.Load()
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for _, event := range events {
			<-due
			_, _ = io.WriteString(w, event)
			w.(http.Flusher).Flush()
		}
	}))
	b.Cleanup(server.Close)
	base.host = server.Listener.Addr().String()
	return base
}

func (p *pacedBase) RoundTrip(req *http.Request) (*http.Response, error) {
	due := make(chan struct{}, 1<<12)
	p.due.Store(&due)
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host = "http", p.host
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err == nil {
		resp.Body = pacedBody{resp.Body, due}
	}
	return resp, err
}

type pacedBody struct {
	io.ReadCloser
	due chan struct{}
}

func (b pacedBody) Read(p []byte) (int, error) {
	b.due <- struct{}{}
	return b.ReadCloser.Read(p)
}

// What a Transport takes of a long stream's throughput: it and the bare base
// in turn, so that both see the same machine. In memory the base does nothing
// but copy; over a connection it is what callers have at best.
func BenchmarkStream(b *testing.B) {
	const events = 2000
	memory := longStream(events, "")
	loopback := newPacedBase(b, memory)
	for name, with := range map[string]struct {
		base http.RoundTripper
		idle time.Duration
	}{"memory": {memory, 0}, "memory, IdleTimeout": {memory, time.Minute}, "loopback": {loopback, 0}, "loopback, IdleTimeout": {loopback, time.Minute}} {
		b.Run(name, func(b *testing.B) {
			base := with.base
			tr, request, buffer := overEvents(b, base, with.idle), testnet.BenchRequest(classicURL, 1<<10), make([]byte, 4<<10)
			var direct, balanced []time.Duration
			var length int
			for b.Loop() {
				begun := time.Now()
				length = drain(b, base, request(), buffer)
				between := time.Now()
				drain(b, tr, request(), buffer)
				direct, balanced = append(direct, between.Sub(begun)), append(balanced, time.Since(between))
			}
			bare, through := median(direct), median(balanced)
			b.ReportMetric(float64(bare.Nanoseconds())/events, "bare-ns/event")
			b.ReportMetric(float64((through-bare).Nanoseconds())/events, "added-ns/event")
			b.ReportMetric(float64(length)/1e6/through.Seconds(), "MB/s")
			b.ReportMetric(through.Seconds()/bare.Seconds(), "ratio")
		})
	}
}

// How much later than from the bare base the first content is in the caller's hands.
func BenchmarkFirstContent(b *testing.B) {
	base := longStream(1, "")
	tr, request, buffer := overEvents(b, base, time.Minute), testnet.BenchRequest(classicURL, 1<<10), make([]byte, 4<<10)
	first := func(rt http.RoundTripper) time.Duration {
		req := request()
		begun := time.Now()
		resp, err := rt.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		for read := 0; read < len(base[0])+len(base[1])+len(base[2]); {
			n, err := resp.Body.Read(buffer)
			if err != nil {
				b.Fatal(err)
			}
			read += n
		}
		took := time.Since(begun)
		resp.Body.Close()
		return took
	}
	var direct, balanced []time.Duration
	for b.Loop() {
		direct, balanced = append(direct, first(base)), append(balanced, first(tr))
	}
	b.ReportMetric(float64(median(direct).Nanoseconds()), "bare-ns")
	b.ReportMetric(float64((median(balanced) - median(direct)).Nanoseconds()), "added-ns")
}

// However long a committed stream is, it costs no more memory.
func TestStreamAllocations(t *testing.T) {
	request, buffer := testnet.BenchRequest(classicURL, 1<<10), make([]byte, 4<<10)
	for name, also := range map[string]string{
		"plain": "", "usage": `,"usage":null`, "JSON in the text": `,"text":"\"usage\":{}"`,
	} {
		for _, idle := range []time.Duration{0, time.Minute} {
			count := func(events int) float64 {
				tr := overEvents(t, longStream(events, also), idle)
				return testing.AllocsPerRun(5, func() { drain(t, tr, request(), buffer) })
			}
			require.LessOrEqual(t, count(1100)-count(100), float64(spillover.PoolsForget), "%s, with an IdleTimeout of %v", name, idle)
		}
	}
}
