package lab

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A wire is the network between clients and deployments. It takes time both
// ways, some deployments cannot be reached through it, and it is where attempts
// are counted. It shortens what it carries: a prompt is a number of tokens to
// the deployment, and the real text only to the policy.
type wire struct {
	sites map[string]*site
	delay time.Duration // one way, in the median; 0: none
	tally *tally
}

const (
	oneWay = 15 * time.Millisecond
	// connectTimeout is a dialer's. In the dark a connect takes that long.
	connectTimeout = 5 * time.Second
)

func newWire(pool []*site, delay time.Duration, t *tally) *wire {
	w := &wire{sites: map[string]*site{}, delay: delay, tally: t}
	for _, s := range pool {
		w.sites[s.host] = s
	}
	return w
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	s := w.sites[r.URL.Host]
	if s == nil {
		return nil, fmt.Errorf("lab: no deployment at %q", r.URL.Host)
	}
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	ctx := r.Context()
	t := tripOf(ctx)
	w.tally.sent(t, s)
	trace := connecting(ctx, r.URL.Host)
	if s.dark.Load() {
		return nil, dial(ctx)
	}
	connected(trace)
	if err := w.travel(ctx); err != nil {
		return nil, err
	}
	if err := t.misfortune(ctx, w.delay == 0); err != nil {
		return nil, err
	}
	resp, err := s.server.RoundTrip(t.short(r))
	if err != nil {
		return nil, err
	}
	if err := w.travel(ctx); err != nil {
		resp.Body.Close()
		return nil, err
	}
	w.tally.answered(t, s, resp.StatusCode)
	resp.Request = r
	return resp, nil
}

// misfortune is what happens to a request wherever it is sent.
func (t *trip) misfortune(ctx context.Context, free bool) error {
	switch {
	case free:
	case t.late:
		return sleep(ctx, lateBy)
	case t.poison:
		if err := sleep(ctx, resetAfter); err != nil {
			return err
		}
		return &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	return nil
}

// dial waits for a connection that does not come.
func dial(ctx context.Context) error {
	if err := sleep(ctx, connectTimeout); err != nil {
		return err
	}
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
}

// connecting and connected say so to who watches, as net/http's Transport does.
func connecting(ctx context.Context, host string) *httptrace.ClientTrace {
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.GetConn != nil {
		trace.GetConn(host)
	}
	return trace
}

func connected(trace *httptrace.ClientTrace) {
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Reused: true})
	}
}

func (w *wire) travel(ctx context.Context) error {
	if w.delay == 0 {
		return ctx.Err()
	}
	return sleep(ctx, time.Duration(float64(w.delay)*math.Exp(0.3*rand.NormFloat64())))
}

func sleep(ctx context.Context, d time.Duration) error {
	if ctx.Done() == nil {
		time.Sleep(d)
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// short is the request as the deployment gets it.
func (t *trip) short(r *http.Request) *http.Request {
	body := fmt.Sprintf(`{"max_tokens":%d,"stream":%t}`, t.most, t.stream)
	out := &http.Request{
		Method: r.Method, URL: r.URL, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{
			"X-Spillovertest-Prompt": {strconv.Itoa(t.prompt)},
			"X-Spillovertest-Output": {strconv.Itoa(t.output)},
		},
	}
	return out.WithContext(r.Context())
}
