package spillover_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/telemetry"
	"github.com/spillover-go/spillover/internal/testnet"
)

const usageAnswer = `{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":11}}`

const (
	contentEvent = `{"choices":[{"delta":{"content":"hi"}}]}`
	usageEvent   = `{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":11}}`
)

func TestSpansOfARequestThatMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		first := func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return status(429, "{}", "Retry-After: 9")(req)
		}
		n.On(host("first"), first)
		n.On(host("second"), broken(refused))
		n.On(host("third"), testnet.EventStream(2*time.Second, contentEvent, usageEvent, "[DONE]"))
		cfg := firstOf(n)
		cfg.Backends[0].URL += ":8443"
		n.On(host("first")+":8443", first)
		cfg.Backends = append(cfg.Backends, spillover.Backend{Name: "third", URL: "http://" + host("third"), Priority: 3, Dialect: spillover.OpenAI, APIKey: "k", Models: []spillover.Model{{Name: "m", Deployment: "deployed"}}})
		l, tr := listened(t, cfg)
		began := time.Now()
		ctx, outer := l.TracerProvider().Tracer(telemetry.Scope).Start(t.Context(), "the caller's")
		resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
		require.NoError(t, err)
		require.Contains(t, read(t, resp), contentEvent)
		outer.End()

		spans := l.EndedSpans(t)
		require.Len(t, spans, 5)
		request, attempts := spans[1], spans[2:]
		require.Equal(t, "chat m", request.Name)
		require.Equal(t, trace.SpanKindClient, request.Kind)
		require.Equal(t, spans[0], request.Parent)
		require.Equal(t, codes.Unset, request.Status)
		require.Equal(t, 7*time.Second, request.Ended[0].Sub(began), "with the answer's body")
		require.Equal(t, map[string]any{
			"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
			"gen_ai.request.stream": true, "gen_ai.response.time_to_first_chunk": 3.0,
			"gen_ai.usage.input_tokens": int64(7), "gen_ai.usage.output_tokens": int64(11),
			"server.address": host("third"), "server.port": int64(80), "http.response.status_code": int64(200),
			"spillover.attempts": int64(3), "spillover.backend": "third", "spillover.class": "interactive", "spillover.outcome": "served",
		}, request.Attributes())
		for _, key := range []string{"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"} {
			require.Contains(t, request.FirstAttributes(), key, "samplers see it")
		}

		for i, want := range []map[string]any{
			{"server.address": host("first"), "server.port": int64(8443), "http.response.status_code": int64(429), "error.type": "429",
				"url.full":          "https://" + host("first") + ":8443/openai/deployments/m/chat/completions",
				"spillover.backend": "first", "spillover.tier": int64(1), "spillover.deployment": "m"},
			{"server.address": host("second"), "server.port": int64(443), "error.type": "no_connection", "http.request.resend_count": int64(1),
				"url.full":          "https://" + host("second") + "/openai/deployments/m/chat/completions",
				"spillover.backend": "second", "spillover.tier": int64(2), "spillover.deployment": "m"},
			{"server.address": host("third"), "server.port": int64(80), "http.response.status_code": int64(200), "http.request.resend_count": int64(2),
				"url.full":          "http://" + host("third") + "/v1/chat/completions",
				"spillover.backend": "third", "spillover.tier": int64(3), "spillover.deployment": "deployed"},
		} {
			s := attempts[i]
			want["http.request.method"] = "POST"
			require.Equal(t, "POST", s.Name)
			require.Equal(t, trace.SpanKindClient, s.Kind)
			require.Equal(t, request, s.Parent)
			require.Equal(t, want, s.Attributes())
			require.Equal(t, i < 2, s.Status == codes.Error)
		}
		require.Equal(t, []time.Duration{time.Second, time.Second, 7 * time.Second},
			[]time.Duration{attempts[0].Ended[0].Sub(began), attempts[1].Ended[0].Sub(began), attempts[2].Ended[0].Sub(began)})
	})
}

// The base, and whoever gives the token, work beneath the spans.
func TestSpansArePassedOn(t *testing.T) {
	var base, token trace.Span
	l, tr := listened(t, spillover.Config{Backends: []spillover.Backend{azure("a", serves("m"), func(b *spillover.Backend) {
		b.APIKey = ""
		b.Token = func(ctx context.Context) (string, error) {
			token = trace.SpanFromContext(ctx)
			return "token", nil
		}
	})}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		base = trace.SpanFromContext(req.Context())
		require.Empty(t, req.Header["Traceparent"])
		return status(200, "{}")(req)
	})})
	ask(t, tr)
	spans := l.EndedSpans(t)
	require.Equal(t, spans[0], token)
	require.Equal(t, spans[1], base)
}

// However a request ends, all its spans do, once, and it is counted once.
func TestEveryRequestEndsOnce(t *testing.T) {
	served := status(200, usageAnswer)
	cut := withBody(200, func(*http.Request) io.ReadCloser {
		return io.NopCloser(io.MultiReader(strings.NewReader("{"), testnet.ReaderFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF })))
	})
	large := withBody(500, func(*http.Request) io.ReadCloser {
		return io.NopCloser(io.LimitReader(testnet.ReaderFunc(func(p []byte) (int, error) { clear(p); return len(p), nil }), 1<<20))
	})
	type ending struct {
		answers  []roundTripFunc // of first, and of second if there are two
		request  func(*http.Request) *http.Request
		config   func(*spillover.Config)
		caller   func(*testing.T, *http.Response)
		spans    int
		requests string
		attempts []string
	}
	whole := func(t *testing.T, resp *http.Response) { read(t, resp) }
	timeout := func(d time.Duration) func(*http.Request) *http.Request {
		return func(req *http.Request) *http.Request {
			ctx, cancel := context.WithTimeout(req.Context(), d)
			time.AfterFunc(time.Hour, cancel)
			return req.WithContext(ctx)
		}
	}
	to := func(path string) func(*http.Request) *http.Request {
		return func(req *http.Request) *http.Request {
			req.URL.Path = path
			return req
		}
	}
	for name, e := range map[string]ending{
		"read to the end": {answers: []roundTripFunc{served}, caller: whole, spans: 2,
			requests: "class=interactive model=m outcome=served tier=1", attempts: []string{"backend=first deployment=m model=m outcome=served tier=1"}},
		"closed unread": {answers: []roundTripFunc{served}, spans: 2,
			requests: "class=interactive model=m outcome=served tier=1", attempts: []string{"backend=first deployment=m model=m outcome=served tier=1"}},
		"closed twice": {answers: []roundTripFunc{served}, caller: func(t *testing.T, resp *http.Response) { resp.Body.Close(); resp.Body.Close() }, spans: 2,
			requests: "class=interactive model=m outcome=served tier=1", attempts: []string{"backend=first deployment=m model=m outcome=served tier=1"}},
		"forgotten, until the context ends": {answers: []roundTripFunc{served}, request: timeout(time.Second), spans: 2,
			caller:   func(*testing.T, *http.Response) { time.Sleep(2 * time.Second) },
			requests: "class=interactive model=m outcome=canceled tier=1 type=timeout", attempts: []string{"backend=first deployment=m model=m outcome=canceled tier=1 type=timeout"}},
		"the caller leaves": {answers: []roundTripFunc{hung}, spans: 2, request: func(req *http.Request) *http.Request {
			ctx, cancel := context.WithCancel(req.Context())
			time.AfterFunc(time.Second, cancel)
			return req.WithContext(ctx)
		}, requests: "class=interactive model=m outcome=canceled type=canceled", attempts: []string{"backend=first deployment=m model=m outcome=canceled tier=1 type=canceled"}},
		"the answer breaks off": {answers: []roundTripFunc{cut}, spans: 2,
			caller:   func(t *testing.T, resp *http.Response) { _, err := io.ReadAll(resp.Body); require.Error(t, err) },
			requests: "class=interactive model=m outcome=broken tier=1 type=answer_broke_off", attempts: []string{"backend=first deployment=m model=m outcome=broken tier=1 type=answer_broke_off"}},
		"a stream ends with an error": {answers: []roundTripFunc{testnet.EventStream(0, contentEvent, `{"error":{"code":"server_error"}}`)}, caller: whole, spans: 2,
			requests: "class=interactive model=m outcome=broken tier=1 type=answer_broke_off", attempts: []string{"backend=first deployment=m model=m outcome=broken tier=1 type=answer_broke_off"}},
		"a stream begins with an error": {answers: []roundTripFunc{testnet.EventStream(0, `{"error":{"code":"429"}}`), served}, caller: whole, spans: 3,
			requests: "class=interactive model=m outcome=served tier=2", attempts: []string{"backend=first deployment=m model=m outcome=throttled tier=1 type=429", "backend=second deployment=m model=m outcome=served tier=2"}},
		"the caller's own mistake": {answers: []roundTripFunc{status(400, "{}")}, caller: whole, spans: 2,
			requests: "class=interactive model=m outcome=rejected tier=1 type=400", attempts: []string{"backend=first deployment=m model=m outcome=rejected tier=1 type=400"}},
		"a large error that is the caller's": {answers: []roundTripFunc{large, large}, caller: whole, spans: 4,
			requests: "class=interactive model=m outcome=failed type=500", attempts: []string{"backend=first deployment=m model=m outcome=failed tier=1 type=500", "backend=first deployment=m model=m outcome=failed tier=1 type=500", "backend=second deployment=m model=m outcome=failed tier=2 type=500"}},
		"a creation that fails": {answers: []roundTripFunc{status(500, "{}")}, request: to("/openai/files"), caller: whole, spans: 2,
			requests: "class=interactive model=m outcome=failed tier=1 type=500", attempts: []string{"backend=first deployment=m model=m outcome=failed tier=1 type=500"}},
		"no answer": {answers: []roundTripFunc{broken(io.ErrUnexpectedEOF), broken(refused)}, spans: 4,
			requests: "class=interactive model=m outcome=failed type=no_answer", attempts: []string{"backend=first deployment=m model=m outcome=failed tier=1 type=answer_broke_off", "backend=first deployment=m model=m outcome=failed tier=1 type=answer_broke_off", "backend=second deployment=m model=m outcome=failed tier=2 type=no_connection"}},
		"no header in time": {answers: []roundTripFunc{hung, broken(errors.New("odd"))}, spans: 3, config: func(cfg *spillover.Config) { cfg.Backends[0].HeaderTimeout = time.Second },
			requests: "class=interactive model=m outcome=failed type=no_answer", attempts: []string{"backend=first deployment=m model=m outcome=failed tier=1 type=no_answer_in_time", "backend=second deployment=m model=m outcome=failed tier=2 type=no_answer"}},
		"no token": {answers: []roundTripFunc{served, served}, caller: whole, spans: 3,
			config: func(cfg *spillover.Config) {
				cfg.Backends[0].APIKey = ""
				cfg.Backends[0].Token = func(context.Context) (string, error) { return "", errors.New("no") }
			},
			requests: "class=interactive model=m outcome=served tier=2", attempts: []string{"backend=first deployment=m model=m outcome=failed tier=1 type=no_token", "backend=second deployment=m model=m outcome=served tier=2"}},
		"an unknown model": {request: to("/openai/deployments/unknown/chat/completions"), caller: whole, spans: 1, requests: "class=interactive model=other outcome=synthesized type=404"},
		"all are throttled": {answers: []roundTripFunc{status(429, "{}"), status(429, "{}")}, caller: whole, spans: 3,
			requests: "class=interactive model=m outcome=synthesized type=429", attempts: []string{"backend=first deployment=m model=m outcome=throttled tier=1 type=429", "backend=second deployment=m model=m outcome=throttled tier=2 type=429"}},
		"a body that cannot be read": {spans: 1, request: func(req *http.Request) *http.Request {
			req.Body, req.GetBody = io.NopCloser(testnet.ReaderFunc(func([]byte) (int, error) { return 0, errors.New("no") })), nil
			return req
		}, requests: "class=interactive model=m outcome=failed type=_OTHER"},
		"a body that cannot be had again": {answers: []roundTripFunc{status(429, "{}")}, spans: 2, request: func(req *http.Request) *http.Request {
			large := testnet.NewLargeChat(t, chatPath).WithContext(req.Context())
			large.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("no") }
			return large
		}, requests: "class=interactive model=m outcome=failed type=_OTHER", attempts: []string{"backend=first deployment=m model=m outcome=throttled tier=1 type=429"}},
		"an upgrade": {answers: []roundTripFunc{func(req *http.Request) (*http.Response, error) {
			resp, err := status(101, "")(req)
			resp.Body = &testnet.Upgraded{Reader: strings.NewReader("hi")}
			return resp, err
		}}, request: func(req *http.Request) *http.Request {
			req.Header.Set("Upgrade", "websocket")
			req.URL.RawQuery = "deployment=m"
			return req
		}, caller: whole, spans: 2, requests: "class=interactive model=m outcome=served tier=1", attempts: []string{"backend=first deployment=m model=m outcome=served tier=1"}},
		"a redirect elsewhere": {request: func(req *http.Request) *http.Request {
			req.Response = &http.Response{Request: &http.Request{URL: &url.URL{Host: "elsewhere.example.com"}}}
			return req
		}, caller: whole, spans: 1, requests: "class=interactive outcome=served"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				for i, answer := range e.answers {
					n.On(host([]string{"first", "second"}[i]), answer)
				}
				cfg := firstOf(n)
				if e.config != nil {
					e.config(&cfg)
				}
				l, tr := listened(t, cfg)
				req := newChat(t, chatPath)
				if e.request != nil {
					req = e.request(req)
				}
				if resp, err := tr.RoundTrip(req); err == nil {
					if e.caller != nil {
						e.caller(t, resp)
					}
					resp.Body.Close()
				}
				synctest.Wait()
				require.Len(t, l.EndedSpans(t), e.spans)
				require.Equal(t, map[string]float64{e.requests: 1}, l.Metric("spillover.requests"))
				attempts := map[string]float64{}
				for _, a := range e.attempts {
					attempts[a]++
				}
				require.Equal(t, attempts, l.Metric("spillover.attempts"))
				if root := l.Spans[0].Attributes(); strings.Contains(e.requests, "type=") {
					_, class, _ := strings.Cut(e.requests, "type=")
					require.Equal(t, class, root["error.type"])
					require.Equal(t, codes.Error, l.Spans[0].Status)
				} else {
					require.NotContains(t, root, "error.type")
				}
				for _, u := range tr.Status().Tiers {
					for _, b := range u.Backends {
						for _, d := range b.Deployments {
							require.Zero(t, d.InFlight)
						}
					}
				}
			})
		})
	}
}
