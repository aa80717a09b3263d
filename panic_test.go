package spillover_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

// A panic passes as it is, and gives back what was reserved.
func TestPanicPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := balance(t, roundTripFunc(func(*http.Request) (*http.Response, error) { panic(http.ErrAbortHandler) }),
			azure("a", func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: "m", TPM: 1000}} }))
		req := newChat(t, chatPath)
		req.Cancel = make(chan struct{}) // whose goroutine ends
		require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { tr.RoundTrip(req) })
		require.Zero(t, statusOf(t, tr, "a").InFlight)
		require.Equal(t, [2]int64{1, 0}, counted(t, tr, "a"))
	})
}

// A panicking handler panics at one record.
type panicking struct {
	slog.Handler
	at *string
}

func (p panicking) Enabled(context.Context, slog.Level) bool { return *p.at != "" }
func (p panicking) Handle(_ context.Context, r slog.Record) error {
	if r.Message == *p.at {
		panic("boom")
	}
	return nil
}

// A panic of what the program supplies, which net/http's server recovers from,
// leaves nothing behind: nothing in flight, no probe under way, no connection
// pending, no body open.
func TestPanicLeavesNothingBehind(t *testing.T) {
	for name, test := range map[string]struct {
		base   func(*http.Request)
		token  bool
		record string
		body   bool
		large  bool
		out    bool // the deployment is, and the request probes
		answer roundTripFunc
	}{
		"of Base":                      {base: func(*http.Request) {}},
		"of Base, probing":             {base: func(*http.Request) {}, out: true},
		"of Base, while it connects":   {base: func(req *http.Request) { httptrace.ContextClientTrace(req.Context()).GetConn("a") }},
		"of Base, having read":         {base: func(req *http.Request) { io.Copy(io.Discard, req.Body) }},
		"of Base, with a large body":   {base: func(*http.Request) {}, large: true},
		"of the body":                  {body: true},
		"of Token":                     {token: true},
		"of Token, probing":            {token: true, out: true},
		"of the log of an attempt":     {record: "attempt"},
		"of the log of a failure":      {record: "attempt", answer: status(500, "{}")},
		"of the log of a refusal":      {record: "deployment cooling", answer: status(429, "{}", "Retry-After: 1")},
		"of the log of a probe":        {record: "deployment probing", out: true},
		"of the log of a return":       {record: "deployment back", out: true},
		"of the log, of a large error": {record: "attempt", answer: status(400, strings.Repeat("x", 2*spillover.ErrorBodyLimit))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var requests, answers atomic.Int64 // bodies that were closed
				at, panics := "", true
				base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if test.base != nil && panics {
						test.base(req)
						panic("boom")
					}
					io.Copy(io.Discard, req.Body)
					req.Body.Close()
					answer := ok200
					if test.answer != nil && panics {
						answer = test.answer
					}
					resp, err := answer(req)
					resp.Body = &testnet.Tracked{Reader: resp.Body, Closed: &answers}
					return resp, err
				})
				a := azure("a", func(b *spillover.Backend) {
					if test.token {
						b.APIKey, b.Token = "", func(context.Context) (string, error) {
							if panics {
								panic("boom")
							}
							return "t", nil
						}
					}
				})
				tr := configured(t, spillover.Config{Base: base, Backends: []spillover.Backend{a}, Logger: slog.New(panicking{at: &at})})
				d := spillover.DeploymentOf(t, tr, "a")
				if test.out {
					testnet.FailAt(&d.State, time.Now(), health.Unreachable, "no answer", 0.5)
					time.Sleep(time.Minute)
				}
				at = test.record
				chat := newChat
				if test.large {
					chat = testnet.NewLargeChat
				}
				req := closing(chat(t, chatPath), &requests)
				if test.body {
					req.Body = countedBody{io.NopCloser(testnet.ReaderFunc(func([]byte) (int, error) { panic("boom") })), &requests}
				}
				require.PanicsWithValue(t, "boom", func() { tr.RoundTrip(req) })
				require.Zero(t, d.InFlight.Load())
				require.EqualValues(t, 1, requests.Load(), "the request's body is closed")
				if test.record != "" && test.record != "deployment probing" {
					require.EqualValues(t, 1, answers.Load(), "the answer's body is closed")
				}
				require.True(t, d.BackendState().Connecting.IsZero())
				require.NotEqual(t, health.Probing, testnet.TransitionOf(&d.State).Phase, "no probe is under way")

				at, panics = "", false
				time.Sleep(2 * time.Second)
				resp, _ := ask(t, tr)
				require.Equal(t, "a", servedBy(resp))
				require.Equal(t, 200, resp.StatusCode)
				require.Zero(t, d.InFlight.Load())
			})
		})
	}
}
