package spillover

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spillover-go/spillover/internal/doctest"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// eventful has a Transport live through something of everything that metrics
// tell of.
func eventful(t *testing.T) (*listener, *Transport) {
	n := newNet()
	n.on(host("first"), status(429, "{}", "Retry-After: 9"))
	n.on(host("second"), status(200, usageAnswer, "Azure-Openai-Deployment-Utilization: 87.5%"), status(429, "{}", "Retry-After: 1"), status(200, "{}"))
	cfg := firstOf(n)
	cfg.MaxWait = 2 * time.Second
	l, tr := overheard(t, cfg)
	ask(t, tr)
	ask(t, tr)
	send(t, tr, newChat(t, "/openai/deployments/unknown/chat/completions"))
	return l, tr
}

// Whatever is declared is recorded, with the attributes that are declared.
func TestEveryInstrumentIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := eventful(t)
		require.Len(t, l.declared, len(declared))
		units := regexp.MustCompile(`^(s|1|\{[a-z]+\}) [A-Z0-9].*\.$`)
		for _, d := range declared {
			require.Regexp(t, units, l.declared[d.name])
			found := l.heard(d.name)
			require.NotEmpty(t, found, d.name)
			for attributes := range found {
				for pair := range strings.FieldsSeq(attributes) {
					key, _, _ := strings.Cut(pair, "=")
					require.True(t, func() bool {
						for _, k := range d.attributes {
							if short(k) == key {
								return true
							}
						}
						return false
					}(), "%s has %s", d.name, pair)
				}
			}
		}
		// And whatever is recorded is declared: each instrument is in the table once.
		fields := map[any]bool{}
		var i instruments
		for _, d := range declared {
			fields[d.in(&i)] = true
		}
		require.Len(t, fields, reflect.TypeFor[instruments]().NumField()-1, "all but the meter")
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, tr := eventful(t)
		for name, want := range map[string]map[string]float64{
			"spillover.requests": {"model=m outcome=served tier=2": 2, "model=other outcome=synthesized type=404": 1},
			"spillover.attempts": {
				"backend=first deployment=m model=m outcome=throttled tier=1 type=429":  1,
				"backend=second deployment=m model=m outcome=throttled tier=2 type=429": 1,
				"backend=second deployment=m model=m outcome=served tier=2":             2,
			},
			"spillover.tokens":                        {"backend=second deployment=m model=m tier=2 type=input": 7, "backend=second deployment=m model=m tier=2 type=output": 11},
			"spillover.cooldown.duration":             {"backend=first deployment=m model=m state=cooling tier=1 type=429": 9, "backend=second deployment=m model=m state=cooling tier=2 type=429": 1},
			"spillover.synthesized_answers":           {"model=other status_code=404": 1},
			"spillover.request.wait_time":             {"model=m": 1.1},
			"spillover.request.duration":              {"model=m outcome=served tier=2": 1.1, "model=other outcome=synthesized": 0},
			"spillover.request.time_to_first_content": {"backend=second deployment=m model=m tier=2": 1.1},
			"spillover.deployment.available":          {"backend=first deployment=m model=m tier=1": 0, "backend=second deployment=m model=m tier=2": 1},
			"spillover.deployment.in_flight":          {"backend=first deployment=m model=m tier=1": 0, "backend=second deployment=m model=m tier=2": 0},
			"spillover.deployment.utilization":        {"backend=second deployment=m model=m tier=2": 0.875},
		} {
			require.Equal(t, want, l.heard(name), name)
		}
		require.Equal(t, 2, l.counts["spillover.request.duration{model=m outcome=served tier=2}"])

		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, 1.0, l.heard("spillover.deployment.in_flight")["backend=second deployment=m model=m tier=2"])
		resp.Body.Close()
		time.Sleep(time.Minute)
		require.Empty(t, l.heard("spillover.deployment.utilization"), "what is that old is not told any more")
	})
}

// The sum is 0 when all are down, whether throttled, failing or out of reach.
func TestAvailability(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("first"), status(429, "{}"), status(200, "{}"))
		n.on(host("second"), broken(refused), status(200, "{}"))
		n.on(host("third"), status(401, "{}"), status(200, "{}"))
		n.on(host("fourth"), status(200, "{}"), status(429, "{}", "Retry-After: 1"))
		cfg := firstOf(n)
		cfg.Backends = append(cfg.Backends, azure("third", serves("m"), priority(3)), azure("fourth", serves("m", "k"), priority(4)))
		l, tr := overheard(t, cfg)
		available := func(model string) (of []float64) {
			states := l.heard("spillover.deployment.available")
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
		time.Sleep(10 * time.Second)
		require.Equal(t, []float64{1, 1, 1, 1}, available("m"), "due to be probed is available, as in Status")
	})
}

// What is out by hand is not available, and what no other backend takes is
// answered here.
func TestMetricsOfDrainedBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, tr := overheard(t, firstOf(newNet()))
		require.NoError(t, tr.Drain("first"))
		require.Equal(t, map[string]float64{"backend=first deployment=m model=m tier=1": 0, "backend=second deployment=m model=m tier=2": 1}, l.heard("spillover.deployment.available"))
		require.NoError(t, tr.Drain("second"))
		ask(t, tr)
		require.Equal(t, map[string]float64{"model=m status_code=503": 1}, l.heard("spillover.synthesized_answers"))
		require.Equal(t, map[string]float64{"model=m outcome=synthesized type=503": 1}, l.heard("spillover.requests"))
		require.NoError(t, tr.Resume("first"))
		require.Equal(t, []string{"INFO,backend drained,backend:first", "INFO,backend drained,backend:second", "INFO,backend resumed,backend:first"}, l.log())
		l.traced(t)
	})
}

// Metrics are read until Close, and of a Transport that nobody closed for as
// long as there is one.
func TestObservationEnds(t *testing.T) {
	l := listen()
	tr := configured(t, l.to(firstOf(newNet())))
	require.Len(t, l.callbacks, 1)
	require.NoError(t, tr.Close())
	require.Empty(t, l.callbacks)
	require.NoError(t, tr.Close())

	configured(t, l.to(firstOf(newNet())))
	require.Len(t, l.callbacks, 1)
	runtime.GC()
	require.Empty(t, l.heard("spillover.deployment.available"), "it is forgotten")
}

func TestMeterProviderThatRefuses(t *testing.T) {
	for _, d := range append([]instrument{{name: "callback"}}, declared...) {
		l := listen()
		l.refuses = d.name
		_, err := New(l.to(firstOf(newNet())))
		require.ErrorContains(t, err, "spillover: MeterProvider: no "+d.name)
		require.Empty(t, l.callbacks)
	}
}

// Models that no configuration names are told apart once they were served, the
// first hundred of them. What callers make up is not.
func TestModelsOfMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("first"), func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "made-up") {
				return status(404, `{"error":{"code":"DeploymentNotFound"}}`)(req)
			}
			return status(200, "{}")(req)
		})
		l, tr := overheard(t, Config{Base: n, Backends: []Backend{azure("first")}})
		to := func(model string) {
			send(t, tr, newChat(t, "/openai/deployments/"+model+"/chat/completions"))
		}
		for i := range maxRoutes + 10 {
			to(fmt.Sprintf("made-up-%d", i))
		}
		require.Equal(t, map[string]float64{"model=other outcome=rejected type=404": maxRoutes + 10}, l.heard("spillover.requests"))
		require.Len(t, l.heard("spillover.attempts"), 1)
		require.Len(t, l.heard("spillover.request.duration"), 1)
		require.Equal(t, map[string]float64{"backend=first deployment=other model=other tier=1": 1}, l.heard("spillover.deployment.available"))
		to("gpt-4o")
		require.Contains(t, l.heard("spillover.requests"), "model=other outcome=served tier=1", "the routes are full of what was made up")

		l, tr = overheard(t, Config{Base: n, Backends: []Backend{azure("first"), azure("second", serves("configured"), priority(2))}})
		for i := range 200 {
			to(fmt.Sprintf("served-%d", i))
		}
		to("configured")
		to("served-0")
		send(t, tr, with(t, "GET /openai/models"))
		requests := l.heard("spillover.requests")
		require.Len(t, requests, 103, "a hundred, others, the configured one, and that of no model")
		require.Equal(t, 2.0, requests["model=served-0 outcome=served tier=1"], "from the first on")
		require.Equal(t, 100.0, requests["model=other outcome=served tier=1"])
		require.Equal(t, 1.0, requests["model=configured outcome=served tier=1"])
		require.Equal(t, 1.0, requests["outcome=served tier=1"])
		require.Len(t, l.heard("spillover.deployment.in_flight"), 104)
		names := map[string]bool{}
		for _, s := range l.traced(t) {
			names[s.name] = true
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
		n.on(host("first"), func(req *http.Request) (*http.Response, error) {
			h := http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {evil}, "Apim-Request-Id": {"id\n2"}, "Retry-After": {"1"}, "Azure-Openai-Deployment-Utilization": {evil + "%"}}
			code := []int{429, 500, 599, 200}[calls%4]
			calls++
			return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(`{"error":{"code":"a\u000ab","message":"` + strings.Repeat("y", 5000) + `"},"usage":{"prompt_tokens":-5,"completion_tokens":-1}}`)), Request: req}, nil
		})
		l, tr := overheard(t, Config{Base: n, Backends: []Backend{azure("first"), {Name: "second", URL: "https://" + host("second"), APIKey: "k", Dialect: AzureV1, Priority: 2, Models: []Model{{Name: evil, Deployment: evil}}}}})
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
		records := l.log()
		require.NotEmpty(t, records)
		for _, r := range records {
			tell("log", r)
			require.NotContains(t, r, `\`, "nothing had to be escaped")
		}
		l.collect()
		for key := range l.measured {
			tell("metric", key)
			require.NotContains(t, key, "a\nb")
		}
		for _, s := range l.traced(t) {
			tell("name", s.name)
			for k, v := range s.attributes() {
				tell(k, fmt.Sprint(v))
			}
		}
	})
}

func TestErrorTypes(t *testing.T) {
	for want, got := range map[string]attribute.KeyValue{
		"429": errorType(429, "429 whatever the service says"), "_OTHER": errorType(999, ""), "no_answer_in_time": errorType(0, "no answer in time"),
	} {
		require.Equal(t, keyErrorType.String(want), got)
	}
	require.Equal(t, "_OTHER", errorType(0, "").Value.AsString())
}

// Requests, answers and reads of the metrics at once.
func TestTelemetryConcurrently(t *testing.T) {
	n := newNet()
	n.on(host("first"), status(200, usageAnswer), status(429, "{}", "retry-after-ms: 1"), status(500, "{}"), status(200, usageAnswer))
	l := listen()
	tr := configured(t, l.to(Config{Base: n, Backends: []Backend{azure("first"), azure("second", priority(2))}}))
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
			l.collect()
		}
	})
	all.Wait()
	l.traced(t)
	var sum float64
	for _, v := range l.heard("spillover.requests") {
		sum += v
	}
	require.Equal(t, 400.0, sum)
}

// With no-op providers all that telemetry allocates is the context of a span
// that is none. Before a global provider is set, OpenTelemetry takes two more.
func TestAllocationsOfNoTelemetry(t *testing.T) {
	count := func(rt http.RoundTripper) float64 {
		request := benchRequest(classicURL, 1<<10)
		return testing.AllocsPerRun(200, func() {
			resp, err := rt.RoundTrip(request())
			require.NoError(t, err)
			resp.Body.Close()
		})
	}
	cfg := Config{Base: nop{}, Backends: []Backend{azure("a", serves("gpt-4o")), azure("b", serves("gpt-4o"))}}
	global := count(configured(t, cfg))
	cfg.MeterProvider, cfg.TracerProvider = metricnoop.NewMeterProvider(), tracenoop.NewTracerProvider()
	noop := count(configured(t, cfg))
	require.LessOrEqual(t, noop-count(nop{}), 14.0+poolsForget)
	require.LessOrEqual(t, global-noop, 2.0+poolsForget)
}

// advice is what to do about what a metric shows.
var advice = map[string]string{
	"spillover.requests":                      "Watch the share of `outcome` other than `served`; `broken` and `failed` are for whoever runs the deployments, `rejected` for the callers. Over `spillover.tier` it is the share that spilled.",
	"spillover.request.duration":              "Compare tiers; a tail that only one of them has is that tier's.",
	"spillover.request.time_to_first_content": "The time that people wait for. If it grows while attempts serve as ever, the deployments are full.",
	"spillover.request.wait_time":             "Its count is of the requests that had to wait. Much of it: there is too little quota, or `MaxWait` is too long for your callers.",
	"spillover.synthesized_answers":           "429: all were throttled; add deployments or quota, or set `MaxWait`. 404: a caller or a configuration names a model that is not there.",
	"spillover.attempts":                      "Attempts for each request are what moving on costs. `throttled` at the first tier is spilling at work, at the last it is a lack of quota.",
	"spillover.tokens":                        "What is used of each quota, and of a PTU.",
	"spillover.cooldown.duration":             "Its count is of cool-downs. `cooling` is the service's own word, `out` is a failure: look at the log.",
	"spillover.deployment.available":          "0 over all of a model: every request is refused or waits. 0 for minutes: look at the log for why.",
	"spillover.deployment.in_flight":          "What grows without end is an answer that somebody never closes.",
	"spillover.deployment.utilization":        "Above 0.85 requests are passed on a little early. Well below that while requests spill, something keeps them away.",
}

// docs/telemetry.md has the instruments as they are declared.
func TestTelemetryTable(t *testing.T) {
	var table strings.Builder
	table.WriteString("| metric | type | unit | attributes | what it is | what to do about it |\n|---|---|---|---|---|---|\n")
	for _, d := range declared {
		require.NotEmpty(t, advice[d.name], d.name)
		kind := map[string]string{"Int64Counter": "counter", "Float64Histogram": "histogram", "Int64ObservableUpDownCounter": "up-down counter", "Float64ObservableGauge": "gauge"}
		var attributes []string
		for _, a := range d.attributes {
			attributes = append(attributes, "`"+string(a)+"`")
		}
		fmt.Fprintf(&table, "| `%s` | %s | `%s` | %s | %s | %s |\n", d.name, kind[reflect.TypeOf(d.in(new(instruments))).Elem().Name()], d.unit,
			strings.Join(attributes, ", "), d.meaning, advice[d.name])
	}
	doctest.Section(t, "docs/telemetry.md", "metrics", table.String())
}

// The log records that docs/telemetry.md tells of are those that there are.
func TestTelemetryRecords(t *testing.T) {
	text, err := os.ReadFile("docs/telemetry.md")
	require.NoError(t, err)
	for _, r := range records {
		for _, message := range []string{r.deployment, r.backend} {
			require.True(t, message == "" || strings.Contains(string(text), fmt.Sprintf("| `%s` | %s |", message, r.level)), message)
		}
	}
}
