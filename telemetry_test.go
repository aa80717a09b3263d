package spillover_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/telemetry"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
	"github.com/spillover-go/spillover/internal/testnet"
)

// eventful has a Transport live through something of everything that metrics
// tell of.
func eventful(t *testing.T) (*telemetrytest.Listener, *spillover.Transport) {
	n := newNet()
	n.On(host("first"), status(429, "{}", "Retry-After: 9"))
	n.On(host("second"), status(200, usageAnswer, "Azure-Openai-Deployment-Utilization: 87.5%"), status(429, "{}", "Retry-After: 1"), status(200, "{}"))
	cfg := firstOf(n)
	cfg.MaxWait, cfg.Fleet = 2*time.Second, new(spillover.LocalFleet)
	l, tr := listened(t, cfg)
	ask(t, tr)
	ask(t, tr)
	send(t, tr, newChat(t, "/openai/deployments/unknown/chat/completions"))
	return l, tr
}

// Whatever is declared is recorded, with the attributes that are declared.
func TestEveryInstrumentIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := eventful(t)
		for _, i := range telemetry.Table {
			found := l.Metric(i.Name)
			require.NotEmpty(t, found, i.Name)
			for attributes := range found {
				for pair := range strings.FieldsSeq(attributes) {
					key, _, _ := strings.Cut(pair, "=")
					require.True(t, slices.ContainsFunc(i.Attributes, func(k attribute.Key) bool { return telemetrytest.ShortKey(k) == key }), "%s has %s", i.Name, pair)
				}
			}
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, tr := eventful(t)
		for name, want := range map[string]map[string]float64{
			"spillover.requests": {"class=interactive model=m outcome=served tier=2": 2, "class=interactive model=other outcome=synthesized type=404": 1},
			"spillover.attempts": {
				"backend=first deployment=m model=m outcome=throttled tier=1 type=429":  1,
				"backend=second deployment=m model=m outcome=throttled tier=2 type=429": 1,
				"backend=second deployment=m model=m outcome=served tier=2":             2,
			},
			"spillover.tokens":                        {"backend=second deployment=m model=m tier=2 type=input": 7, "backend=second deployment=m model=m tier=2 type=output": 11},
			"spillover.cooldown.duration":             {"backend=first deployment=m model=m state=cooling tier=1 type=429": 9, "backend=second deployment=m model=m state=cooling tier=2 type=429": 1},
			"spillover.synthesized_answers":           {"model=other status_code=404": 1},
			"spillover.request.wait_time":             {"class=interactive model=m": 1.1},
			"spillover.request.duration":              {"class=interactive model=m outcome=served tier=2": 1.1, "class=interactive model=other outcome=synthesized": 0},
			"spillover.request.time_to_first_content": {"backend=second deployment=m model=m tier=2": 1.1},
			"spillover.deployment.available":          {"backend=first deployment=m model=m tier=1": 0, "backend=second deployment=m model=m tier=2": 1},
			"spillover.deployment.in_flight":          {"backend=first deployment=m model=m tier=1": 0, "backend=second deployment=m model=m tier=2": 0},
			"spillover.deployment.utilization":        {"backend=second deployment=m model=m tier=2": 0.875},
		} {
			require.Equal(t, want, l.Metric(name), name)
		}
		require.Positive(t, l.Metric("spillover.fleet.notices")["notice=sent"])
		require.Equal(t, 2, l.Counts["spillover.request.duration{class=interactive model=m outcome=served tier=2}"])

		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, 1.0, l.Metric("spillover.deployment.in_flight")["backend=second deployment=m model=m tier=2"])
		resp.Body.Close()
		time.Sleep(time.Minute)
		require.Empty(t, l.Metric("spillover.deployment.utilization"), "what is that old is not told any more")
	})
}

// The sum is 0 when all are down, whether throttled, failing or out of reach.
func TestAvailability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), status(429, "{}"), status(200, "{}"))
		n.On(host("second"), broken(refused), status(200, "{}"))
		n.On(host("third"), status(401, "{}"), status(200, "{}"))
		n.On(host("fourth"), status(200, "{}"), status(429, "{}", "Retry-After: 1"))
		cfg := firstOf(n)
		cfg.Backends = append(cfg.Backends, azure("third", serves("m"), priority(3)), azure("fourth", serves("m", "k"), priority(4)))
		l, tr := listened(t, cfg)
		available := func(model string) (of []float64) {
			states := l.Metric("spillover.deployment.available")
			for tier, name := range []string{"first", "second", "third", "fourth"} {
				if v, ok := states[fmt.Sprintf("backend=%s deployment=%s model=%[2]s tier=%d", name, model, tier+1)]; ok {
					of = append(of, v)
				}
			}
			return of
		}
		require.Equal(t, []float64{1, 1, 1, 1}, available("m"), "before anything was asked")
		ask(t, tr)
		require.Equal(t, []float64{0, 0, 0, 1}, available("m"))
		resp, _ := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, []float64{0, 0, 0, 0}, available("m"))
		require.Equal(t, []float64{1}, available("k"), "another model is another deployment")
		time.Sleep(probeWait)
		require.Equal(t, []float64{1, 1, 1, 1}, available("m"), "due to be probed is available, as in Status")
	})
}

// A deployment of a configured model has its series from the start. Others have one
// once they were asked: what nobody asked for may not exist.
func TestOnlyDeploymentsThatExistAreObserved(t *testing.T) {
	n := newNet()
	n.On(host("all"), status(200, "{}", "Azure-Openai-Deployment-Utilization: 50%"))
	l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("all"), azure("named", serves("m"), priority(2)), azure("spare", priority(3))}})
	observed := func(want ...string) {
		t.Helper()
		for _, name := range []string{"spillover.deployment.available", "spillover.deployment.in_flight"} {
			var found []string
			for series := range l.Metric(name) {
				found = append(found, series)
			}
			require.ElementsMatch(t, want, found, name)
		}
	}
	configured := []string{"backend=all deployment=m model=m tier=1", "backend=named deployment=m model=m tier=2", "backend=spare deployment=m model=m tier=3"}
	observed(configured...)
	require.Empty(t, l.Metric("spillover.deployment.utilization"))

	send(t, tr, newChat(t, "/openai/deployments/unconfigured/chat/completions"))
	send(t, tr, newChat(t, "/openai/deployments/"+strings.Repeat("x", 300)+"/chat/completions"))
	send(t, tr, with(t, "GET /openai/models"))
	observed(append(configured, "backend=all deployment=unconfigured model=unconfigured tier=1", "backend=all deployment=other model=other tier=1", "backend=all tier=1")...)
	require.Len(t, l.Metric("spillover.deployment.utilization"), 3)
}

// What is out by hand is not available, and what no other backend takes is
// answered here.
func TestMetricsOfDrainedBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, tr := listened(t, firstOf(newNet()))
		require.NoError(t, tr.Drain("first"))
		require.Equal(t, map[string]float64{"backend=first deployment=m model=m tier=1": 0, "backend=second deployment=m model=m tier=2": 1}, l.Metric("spillover.deployment.available"))
		require.NoError(t, tr.Drain("second"))
		ask(t, tr)
		require.Equal(t, map[string]float64{"model=m status_code=503": 1}, l.Metric("spillover.synthesized_answers"))
		require.Equal(t, map[string]float64{"class=interactive model=m outcome=synthesized type=503": 1}, l.Metric("spillover.requests"))
		require.NoError(t, tr.Resume("first"))
		require.Equal(t, []string{"INFO,backend drained,backend:first", "INFO,backend drained,backend:second", "INFO,backend resumed,backend:first"}, l.Log())
		l.EndedSpans(t)
	})
}

// Metrics are read until Close, and of a Transport that nobody closed for as
// long as there is one.
func TestObservationEnds(t *testing.T) {
	l := telemetrytest.New()
	tr := configured(t, withListener(l, firstOf(newNet())))
	require.Len(t, l.Callbacks, 1)
	require.NoError(t, tr.Close())
	require.Empty(t, l.Callbacks)
	require.NoError(t, tr.Close())

	configured(t, withListener(l, firstOf(newNet())))
	require.Len(t, l.Callbacks, 1)
	runtime.GC()
	require.Empty(t, l.Metric("spillover.deployment.available"), "it is forgotten")
}

func TestMeterProviderThatRefuses(t *testing.T) {
	for _, i := range append([]telemetry.Instrument{{Name: "callback"}}, telemetry.Table...) {
		l := telemetrytest.New()
		l.Refuses = i.Name
		_, err := spillover.New(withListener(l, firstOf(newNet())))
		require.ErrorContains(t, err, "spillover: MeterProvider: no "+i.Name)
		require.Empty(t, l.Callbacks)
	}
}

// Models that no configuration names are told apart once they were served, the
// first hundred of them. What callers make up is not.
func TestModelsOfMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "made-up") {
				return status(404, `{"error":{"code":"DeploymentNotFound"}}`)(req)
			}
			return status(200, "{}")(req)
		})
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("first")}})
		to := func(model string) {
			send(t, tr, newChat(t, "/openai/deployments/"+model+"/chat/completions"))
		}
		for i := range spillover.MaxRoutes + 10 {
			to(fmt.Sprintf("made-up-%d", i))
		}
		require.Equal(t, map[string]float64{"class=interactive model=other outcome=rejected type=404": spillover.MaxRoutes + 10}, l.Metric("spillover.requests"))
		require.Len(t, l.Metric("spillover.attempts"), 1)
		require.Len(t, l.Metric("spillover.request.duration"), 1)
		require.Equal(t, map[string]float64{"backend=first deployment=other model=other tier=1": 1}, l.Metric("spillover.deployment.available"))
		to("gpt-4o")
		require.Contains(t, l.Metric("spillover.requests"), "class=interactive model=other outcome=served tier=1", "the routes are full of what was made up")

		l, tr = listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("first"), azure("second", serves("configured"), priority(2))}})
		for i := range 200 {
			to(fmt.Sprintf("served-%d", i))
		}
		to("configured")
		to("served-0")
		send(t, tr, with(t, "GET /openai/models"))
		requests := l.Metric("spillover.requests")
		require.Len(t, requests, 103, "a hundred, others, the configured one, and that of no model")
		require.Equal(t, 2.0, requests["class=interactive model=served-0 outcome=served tier=1"], "from the first on")
		require.Equal(t, 100.0, requests["class=interactive model=other outcome=served tier=1"])
		require.Equal(t, 1.0, requests["class=interactive model=configured outcome=served tier=1"])
		require.Equal(t, 1.0, requests["class=interactive outcome=served tier=1"])
		require.Len(t, l.Metric("spillover.deployment.in_flight"), 104)
		names := map[string]bool{}
		for _, s := range l.EndedSpans(t) {
			names[s.Name] = true
		}
		require.Equal(t, map[string]bool{"chat other": true, "chat served-0": true, "chat configured": true, "models": true, "POST": true, "GET": true}, names)
	})
}

// What a caller or a service sends can put nothing into names, logs or metrics
// but printable text of bounded length.
func TestHostileValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		evil := "evil\x00\x1b[31m\r\nLEVEL=ERROR msg=forged \xff\u202e" + strings.Repeat("x", 10_000)
		n := newNet()
		var calls int
		n.On(host("first"), func(req *http.Request) (*http.Response, error) {
			h := http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {evil}, "Apim-Request-Id": {"id\n2"}, "Retry-After": {"1"}, "Azure-Openai-Deployment-Utilization": {evil + "%"}}
			code := []int{429, 500, 599, 200}[calls%4]
			calls++
			return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(`{"error":{"code":"a\u000ab","message":"` + strings.Repeat("y", 5000) + `"},"usage":{"prompt_tokens":-5,"completion_tokens":-1}}`)), Request: req}, nil
		})
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("first"), {Name: "second", URL: "https://" + host("second"), APIKey: "k", Dialect: spillover.AzureV1, Priority: 2, Models: []spillover.Model{{Name: evil, Deployment: evil}}}}})
		for i := range 20 {
			req := newChat(t, "/openai/v1/chat/completions")
			body := fmt.Sprintf(`{"model":%q}`, "m")
			if i%2 == 0 {
				body = `{"model":"evil\u0000\u001b[31m\r\nLEVEL=ERROR msg=forged \u202e` + strings.Repeat("x", 10_000) + `"}`
			}
			req.Body, req.GetBody, req.ContentLength = io.NopCloser(strings.NewReader(body)), nil, int64(len(body))
			req.Header.Set("X-Request-Id", evil)
			req.Method = []string{"POST", "PO ST\n"}[i%3%2]
			req.URL.RawQuery = "api-key=sesame&" + strings.Repeat("z", 5000)
			resp, err := tr.RoundTrip(req)
			require.NoError(t, err)
			read(t, resp)
			time.Sleep(time.Minute)
		}
		tell := func(what, s string) {
			require.True(t, utf8.ValidString(s), "%s: %q", what, s)
			require.NotContains(t, s, "sesame")
			require.Less(t, len(s), 3000, what)
			for _, r := range s {
				require.True(t, unicode.IsPrint(r), "%s: %q", what, s)
			}
		}
		records := l.Log()
		require.NotEmpty(t, records)
		for _, r := range records {
			tell("log", r)
			require.NotContains(t, r, `\`, "nothing had to be escaped")
		}
		l.Collect()
		for key := range l.Measured {
			tell("metric", key)
			require.NotContains(t, key, "a\nb")
		}
		for _, s := range l.EndedSpans(t) {
			tell("name", s.Name)
			for k, v := range s.Attributes() {
				tell(k, fmt.Sprint(v))
			}
		}
	})
}

// Requests, answers and reads of the metrics at once.
func TestTelemetryConcurrently(t *testing.T) {
	n := newNet()
	n.On(host("first"), status(200, usageAnswer), status(429, "{}", "retry-after-ms: 1"), status(500, "{}"), status(200, usageAnswer))
	l := telemetrytest.New()
	tr := configured(t, withListener(l, spillover.Config{Base: n, Backends: []spillover.Backend{azure("first"), azure("second", priority(2))}}))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				send(t, tr, newChat(t, fmt.Sprintf("/openai/deployments/m%d/chat/completions", (i+j)%10)))
			}
		})
	}
	all.Go(func() {
		for range 20 {
			l.Collect()
		}
	})
	all.Wait()
	l.EndedSpans(t)
	var sum float64
	for _, v := range l.Metric("spillover.requests") {
		sum += v
	}
	require.Equal(t, 400.0, sum)
}

// With a no-op provider all that telemetry allocates is the context of a span that
// records nothing. At the global provider, before one is set, it does not start any.
func TestAllocationsOfNoTelemetry(t *testing.T) {
	count := func(rt http.RoundTripper) float64 {
		request := testnet.BenchRequest(classicURL, 1<<10)
		return testing.AllocsPerRun(200, func() {
			resp, err := rt.RoundTrip(request())
			require.NoError(t, err)
			resp.Body.Close()
		})
	}
	cfg := spillover.Config{Base: testnet.Nop{}, Backends: []spillover.Backend{azure("a", serves("gpt-4o")), azure("b", serves("gpt-4o"))}}
	global := count(configured(t, cfg))
	cfg.MeterProvider, cfg.TracerProvider = metricnoop.NewMeterProvider(), tracenoop.NewTracerProvider()
	noop := count(configured(t, cfg))
	require.LessOrEqual(t, noop-count(testnet.Nop{}), 14.0+spillover.PoolsForget)
	require.LessOrEqual(t, global, noop-1+spillover.PoolsForget)
}
