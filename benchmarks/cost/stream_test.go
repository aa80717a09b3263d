package cost

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillover-go/spillover"
)

// Events of a stream as Azure sends them; those of content are about 200 bytes.
var (
	firstEvents = []string{
		`data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}` + "\n\n",
		`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n",
	}
	contentEvent = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"` +
		strings.Repeat("token ", 8) + `"},"finish_reason":null}]}` + "\n\n"
	lastEvents = []string{
		`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n",
		"data: [DONE]\n\n",
	}
)

// pacedBase sends events over a connection of HTTP/1.1, each of them when it is
// read: a model is slower than its readers, so every event wakes one up.
type pacedBase struct {
	host  string
	first int                           // bytes up to the end of the first content
	due   atomic.Pointer[chan struct{}] // of the request in progress
}

func newPacedBase(tb testing.TB, events int) *pacedBase {
	all := append([]string{}, firstEvents...)
	for range events {
		all = append(all, contentEvent)
	}
	all = append(all, lastEvents...)
	p := &pacedBase{first: len(strings.Join(all[:3], ""))}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		due := *p.due.Load()
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for _, event := range all {
			<-due
			_, _ = io.WriteString(w, event)
			w.(http.Flusher).Flush()
		}
	}))
	tb.Cleanup(server.Close)
	p.host = server.Listener.Addr().String()
	return p
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

// A streamCost has what streams took, from the bare base and balanced in turn.
type streamCost struct {
	base         *pacedBase
	bare, ours   http.RoundTripper
	request      func() *http.Request
	firsts, ends [2][]time.Duration
}

func newStreamCost(tb testing.TB, events int) *streamCost {
	p := newPacedBase(tb, events)
	return &streamCost{base: p, bare: p, ours: balanced(tb, p, 3, spillover.Azure), request: requests(tb.Context(), classic, 1<<10)}
}

func (s *streamCost) round() {
	turn := len(s.ends[0])
	for i := range 2 {
		i = (turn + i) % 2
		rt := [...]http.RoundTripper{s.bare, s.ours}[i]
		buffer := make([]byte, 4<<10)
		begun := time.Now()
		resp, err := rt.RoundTrip(s.request())
		if err != nil {
			panic(err)
		}
		first := time.Duration(0)
		for read := 0; err == nil; {
			var n int
			n, err = resp.Body.Read(buffer)
			if read += n; first == 0 && read >= s.base.first {
				first = time.Since(begun)
			}
		}
		if err != io.EOF {
			panic(err)
		}
		s.firsts[i], s.ends[i] = append(s.firsts[i], first), append(s.ends[i], time.Since(begun))
		resp.Body.Close()
	}
}

// later is how much later the first content comes.
func (s *streamCost) later() time.Duration { return median(s.firsts[1]) - median(s.firsts[0]) }

// ratio is what whole streams take, in terms of the bare base's.
func (s *streamCost) ratio() float64 {
	return ratio(s.ends[1], s.ends[0])
}

// One iteration is one stream from the bare base and one through the transport.
func BenchmarkStreams(b *testing.B) {
	for _, k := range streams {
		b.Run(k.name, func(b *testing.B) {
			s := newStreamCost(b, k.events)
			for b.Loop() {
				s.round()
			}
			b.ReportMetric(s.ratio(), "ratio")
			b.ReportMetric(micros(s.later()), "first-later-µs")
			b.ReportMetric(micros(median(s.firsts[0])), "first-bare-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

var streams = []struct {
	name   string
	events int
	rounds int     // of the guard
	most   float64 // its bound
}{
	{"1 event", 1, 400, 2.0}, {"250 events", 250, 40, 1.3}, {"2000 events", 2000, 9, 1.25},
}

func TestStreamCost(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector costs more than what is measured")
	}
	const tries = 5
	for _, k := range streams {
		t.Run(k.name, func(t *testing.T) {
			for try := 1; ; try++ {
				s := newStreamCost(t, k.events)
				for range k.rounds {
					s.round()
				}
				t.Logf("whole %.2f times the bare base's %v; first content %v later than the bare base's %v",
					s.ratio(), median(s.ends[0]), s.later(), median(s.firsts[0]))
				if s.ratio() <= k.most {
					return
				}
				if try == tries {
					t.Fatalf("a stream takes %.2f times as long as from the bare base, at most %.2f was expected", s.ratio(), k.most)
				}
			}
		})
	}
}
