package lab

import (
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What the models of other load balancers share. Each model is what the source
// of that system does with a request, and nothing else of it. They are given
// every benefit of the doubt that does not change the outcome: no process start,
// no parsing, no SDK that retries below.

// send is a request sent to a backend: the same path at another host.
func (b Backend) send(net http.RoundTripper, r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Host, out.Host = b.host, ""
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	out.Body = body
	return net.RoundTrip(out)
}

// drop closes an answer that is not handed over.
func drop(resp *http.Response) {
	if resp != nil {
		resp.Body.Close()
	}
}

// refuse is a 429 of the policy's own.
func refuse(r *http.Request, seconds int) *http.Response {
	return &http.Response{
		StatusCode: http.StatusTooManyRequests, Request: r, Body: io.NopCloser(strings.NewReader("")),
		Header: http.Header{"Retry-After": {strconv.Itoa(max(0, seconds))}},
	}
}

// marks are until when backends are left alone, and chance.
type marks struct {
	mu    sync.Mutex
	until []time.Time
	rng   *rand.Rand
}

func newMarks(s Setup) *marks {
	return &marks{until: make([]time.Time, len(s.Pool)), rng: rand.New(rand.NewPCG(s.Seed, 0))}
}

func (m *marks) mark(i int, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.until[i] = time.Now().Add(d)
}

// open are the backends that are not left alone. The caller holds mu.
func (m *marks) open() []int {
	var open []int
	now := time.Now()
	for i, until := range m.until {
		if !now.Before(until) {
			open = append(open, i)
		}
	}
	return open
}

// soonest is when the first mark ends. The caller holds mu.
func (m *marks) soonest() time.Duration {
	soonest := time.Until(m.until[0])
	for _, until := range m.until {
		soonest = min(soonest, time.Until(until))
	}
	return soonest
}
