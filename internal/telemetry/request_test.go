package telemetry

import (
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
)

func TestRequestThatFailsOverIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r := listened(t)
		first := deployment()
		second := &Deployment{Backend: "second", Tier: 2, Provider: "openai", Model: "m", Name: "m"}
		q := Request{Begun: time.Now()}
		require.False(t, q.Started())
		ctx := q.Start(t.Context(), r, "chat", "m")
		require.True(t, q.Started())
		require.True(t, q.Enabled())

		var a Attempt
		_, ok := q.StartAttempt(ctx, &a, AttemptStart{Deployment: first, Method: "POST", URL: endpoint})
		require.True(t, ok)
		time.Sleep(time.Second)
		q.EndAttempt(ctx, &a, AttemptEnd{Deployment: first, Outcome: "throttled", ErrorType: "429", Status: 429})
		u := &url.URL{Scheme: "http", Host: "second.example", Path: "/v1/chat/completions"}
		_, ok = q.StartAttempt(ctx, &a, AttemptStart{Deployment: second, Method: "POST", URL: u, Resend: 1})
		require.True(t, ok)
		time.Sleep(time.Second)
		q.Return(ctx, Response{Outcome: "served", Status: 200, Streams: true, Deployment: second, Waited: time.Second})
		time.Sleep(time.Second)
		q.EndAttempt(ctx, &a, AttemptEnd{Deployment: second, Outcome: "served", Status: 200, Input: 7, Output: 11})
		q.End(ctx, RequestEnd{Outcome: "served", Attempts: 2, Waited: time.Second, Deployment: second, URL: u, Status: 200, Input: 7, Output: 11})

		const ofSecond = "backend=second deployment=m model=m tier=2"
		for name, want := range map[string]map[string]float64{
			"spillover.requests":                      {"class=interactive model=m outcome=served tier=2": 1},
			"spillover.request.duration":              {"class=interactive model=m outcome=served tier=2": 3},
			"spillover.request.time_to_first_content": {ofSecond: 2},
			"spillover.request.wait_time":             {"class=interactive model=m": 1},
			"spillover.synthesized_answers":           {},
			"spillover.attempts": {
				"backend=first deployment=deployed model=m outcome=throttled tier=1 type=429": 1,
				"backend=second deployment=m model=m outcome=served tier=2":                   1,
			},
			"spillover.tokens": {ofSecond + " type=input": 7, ofSecond + " type=output": 11},
		} {
			require.Equal(t, want, l.Metric(name), name)
		}

		spans := l.EndedSpans(t)
		require.Len(t, spans, 3)
		require.Equal(t, "chat m", spans[0].Name)
		require.Equal(t, map[string]any{"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m"}, spans[0].FirstAttributes())
		require.Equal(t, map[string]any{
			"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
			"gen_ai.request.stream": true, "gen_ai.response.time_to_first_chunk": 2.0,
			"gen_ai.usage.input_tokens": int64(7), "gen_ai.usage.output_tokens": int64(11),
			"server.address": "second.example", "server.port": int64(80), "http.response.status_code": int64(200),
			"spillover.attempts": int64(2), "spillover.backend": "second", "spillover.class": "interactive", "spillover.outcome": "served", "spillover.wait_time": 1.0,
		}, spans[0].Attributes())
		require.Equal(t, codes.Unset, spans[0].Status)
		require.Equal(t, map[string]any{
			"server.address": "first.example", "server.port": int64(443), "url.full": "https://first.example/openai/v1/chat/completions",
			"http.request.method": "POST", "http.response.status_code": int64(429), "error.type": "429",
			"spillover.backend": "first", "spillover.tier": int64(1), "spillover.deployment": "deployed",
		}, spans[1].Attributes())
		require.Equal(t, codes.Error, spans[1].Status)
		require.Equal(t, int64(1), spans[2].Attributes()["http.request.resend_count"])
		for _, s := range spans {
			require.Equal(t, trace.SpanKindClient, s.Kind)
		}
		require.Equal(t, spans[0], spans[1].Parent)
	})
}

func TestSynthesizedResponseHasNoDeployment(t *testing.T) {
	l, r := listened(t)
	q := Request{Begun: time.Now()}
	ctx := q.Start(t.Context(), r, "chat", "made-up")
	q.Return(ctx, Response{Outcome: "synthesized", Synthesized: true, Status: 404})
	q.End(ctx, RequestEnd{Outcome: "synthesized", ErrorType: "404"})
	require.Equal(t, map[string]float64{"model=other status_code=404": 1}, l.Metric("spillover.synthesized_answers"))
	require.Equal(t, map[string]float64{"class=interactive model=other outcome=synthesized type=404": 1}, l.Metric("spillover.requests"))
	s := l.EndedSpans(t)[0]
	require.Equal(t, "chat other", s.Name)
	require.NotContains(t, s.FirstAttributes(), "gen_ai.request.model")
	require.Equal(t, "made-up", s.Attributes()["gen_ai.request.model"])
	require.Equal(t, "404", s.Attributes()["error.type"])
}

func TestBrokenResponseCountsForItsTier(t *testing.T) {
	l, r := listened(t)
	d := deployment()
	q := Request{Begun: time.Now()}
	ctx := q.Start(t.Context(), r, "chat", "m")
	q.End(ctx, RequestEnd{Outcome: "broken", ErrorType: "answer_broke_off", Deployment: d, URL: endpoint, Status: 200})
	require.Equal(t, map[string]float64{"class=interactive model=m outcome=broken tier=1 type=answer_broke_off": 1}, l.Metric("spillover.requests"))
	require.Contains(t, l.Metric("spillover.request.duration"), "class=interactive model=m outcome=broken tier=1")
}

func TestAbortedAttemptIsNotCounted(t *testing.T) {
	l, r := listened(t)
	q := Request{Begun: time.Now()}
	ctx := q.Start(t.Context(), r, "chat", "m")
	var a Attempt
	a.Abort(0, "panic") // none has begun
	q.StartAttempt(ctx, &a, AttemptStart{Deployment: deployment(), Method: "POST", URL: endpoint})
	a.Abort(0, "panic")
	a.Abort(200, "panic")
	q.End(ctx, RequestEnd{Outcome: "failed", ErrorType: "panic"})
	require.Empty(t, l.Metric("spillover.attempts"))
	attempt := l.EndedSpans(t)[1]
	require.Equal(t, "panic", attempt.Attributes()["error.type"])
	require.NotContains(t, attempt.Attributes(), "http.response.status_code")
}

func TestUnrecordedRequestHasNoSpansOfAttempts(t *testing.T) {
	l := telemetrytest.New()
	_, r := listened(t, func(o *Options) { o.TracerProvider = l.DroppingTracerProvider() })
	q := Request{Begun: time.Now()}
	ctx := q.Start(t.Context(), r, "chat", "made-up")
	var a Attempt
	_, ok := q.StartAttempt(ctx, &a, AttemptStart{Deployment: deployment(), Method: "POST", URL: endpoint})
	require.False(t, ok)
	q.End(ctx, RequestEnd{Outcome: "failed", ErrorType: "_OTHER"})
	require.Len(t, l.EndedSpans(t), 1)
	require.NotContains(t, l.Spans[0].Attributes(), "spillover.outcome")
}

func TestDeploymentWithoutNameIsCalledAsTheModelInSpans(t *testing.T) {
	l, r := listened(t)
	q := Request{Begun: time.Now()}
	ctx := q.Start(t.Context(), r, "chat", "m")
	var a Attempt
	q.StartAttempt(ctx, &a, AttemptStart{Deployment: &Deployment{Backend: "first", Tier: 1}, URL: endpoint})
	require.Equal(t, "m", l.Spans[1].Attributes()["spillover.deployment"])
}

func TestSpanMethod(t *testing.T) {
	for method, want := range map[string][2]string{
		"": {"GET", "GET"}, "DELETE": {"DELETE", "DELETE"}, "MADE-UP": {"HTTP", "_OTHER"},
	} {
		name, attribute := spanMethod(method)
		require.Equal(t, want, [2]string{name, attribute}, method)
	}
}

func TestFullURLHasNoQueryAndIsBounded(t *testing.T) {
	require.Equal(t, "https://first.example/openai/v1/chat/completions", fullURL(endpoint))
	require.Len(t, fullURL(&url.URL{Scheme: "https", Host: "h", Path: strings.Repeat("x", 5000)}), maxURL)
}

func TestServerAddress(t *testing.T) {
	for address, want := range map[string]int64{"https://h/": 443, "http://h/": 80, "http://h:8443/": 8443} {
		u, err := url.Parse(address)
		require.NoError(t, err)
		found := serverAddress(u)
		require.Equal(t, "h", found[0].Value.AsString())
		require.Equal(t, want, found[1].Value.AsInt64())
	}
}

// With no-op providers a request allocates nothing but the context of the no-op span.
func TestUnlistenedRequestAllocatesAlmostNothing(t *testing.T) {
	r := globally(t)
	r.tracing.init(tracenoop.NewTracerProvider(), "openai")
	d, ctx := deployment(), t.Context()
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		q := Request{Begun: time.Now()}
		ctx := q.Start(ctx, r, "chat", "m")
		require.False(t, q.Enabled())
		var a Attempt
		q.StartAttempt(ctx, &a, AttemptStart{Deployment: d, Method: "POST", URL: endpoint})
		q.Return(ctx, Response{Outcome: "served", Status: 200, Deployment: d})
		q.EndAttempt(ctx, &a, AttemptEnd{Deployment: d, Outcome: "served", Status: 200})
		q.End(ctx, RequestEnd{Outcome: "served", Deployment: d, URL: endpoint, Status: 200})
	}), 1.0)
}
