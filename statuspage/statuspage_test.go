package statuspage_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/statuspage"
)

// A fakeSource has the Status that a test gives it.
type fakeSource struct {
	mu     sync.Mutex
	status spillover.Status
	calls  int
}

func (s *fakeSource) Status() spillover.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	return s.status
}

func (s *fakeSource) set(tiers ...spillover.TierStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Tiers = tiers
}

func tier(priority int, backends ...spillover.BackendStatus) spillover.TierStatus {
	return spillover.TierStatus{Priority: priority, Backends: backends}
}

func backend(name string, deployments ...spillover.DeploymentStatus) spillover.BackendStatus {
	return spillover.BackendStatus{Name: name, URL: "https://" + name + ".example/base", Weight: 1, Available: true, Deployments: deployments}
}

func deployment(model string, served uint64) spillover.DeploymentStatus {
	return spillover.DeploymentStatus{Model: model, Name: model, Available: true, Served: served}
}

// get requests a path of a handler.
func get(h http.Handler, path string) *httptest.ResponseRecorder { return do(h, http.MethodGet, path) }

func do(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// state is what status.json has.
type state struct {
	Time    time.Time        `json:"time"`
	Status  spillover.Status `json:"status"`
	History history          `json:"history"`
}

type history struct {
	Since       int64    `json:"since"`
	Times       []int64  `json:"times"`
	Pool        series   `json:"pool"`
	Tiers       []series `json:"tiers"`
	Deployments []series `json:"deployments"`
}

type series struct {
	ID          string     `json:"id"`
	Priority    int        `json:"priority"`
	Backend     string     `json:"backend"`
	Model       string     `json:"model"`
	Served      []int      `json:"served"`
	Throttled   []int      `json:"throttled"`
	Failed      []int      `json:"failed"`
	InFlight    []int      `json:"in_flight"`
	Spilled     []int      `json:"spilled"`
	Input       []int      `json:"input_tokens"`
	Utilization []*float64 `json:"utilization"`
}

func read(t *testing.T, h http.Handler) (s state) {
	w := get(h, "/status.json")
	require.Equal(t, 200, w.Code)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &s))
	return s
}

// inTime runs a test of a Page in virtual time.
func inTime(t *testing.T, f func(t *testing.T, s *fakeSource, p *statuspage.Page)) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSource{}
		s.set(tier(1, backend("a", deployment("m", 0))))
		p := statuspage.New(s)
		defer p.Close()
		f(t, s, p)
	})
}

func TestPageIsServedUnderAnyPrefix(t *testing.T) {
	inTime(t, func(t *testing.T, _ *fakeSource, p *statuspage.Page) {
		plain, stripped, exact := http.NewServeMux(), http.NewServeMux(), http.NewServeMux()
		plain.Handle("/a/b/", p)
		stripped.Handle("/a/b/", http.StripPrefix("/a/b", p))
		exact.Handle("GET /a/b", p)
		exact.Handle("/a/b/{rest...}", p)
		for name, mux := range map[string]http.Handler{"plain": plain, "stripped": stripped, "exact": exact} {
			redirect := get(mux, "/a/b")
			require.GreaterOrEqual(t, redirect.Code, 300, name)
			to, err := (&url.URL{Path: "/a/b"}).Parse(redirect.Header().Get("Location"))
			require.NoError(t, err, name)
			require.Equal(t, "/a/b/", to.Path, name)

			w := get(mux, "/a/b/")
			require.Equal(t, 200, w.Code, name)
			require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
			for _, m := range regexp.MustCompile(`(?:href|src)="([^#"][^"]*)"`).FindAllStringSubmatch(w.Body.String(), -1) {
				require.NotRegexp(t, `^/|:`, m[1], "links are relative")
				linked := get(mux, "/a/b/"+m[1])
				require.Equal(t, 200, linked.Code, m[1])
			}
			require.Equal(t, 200, get(mux, "/a/b/status.json").Code, name)
			require.Equal(t, 200, get(mux, "/a/b/update.json").Code, name)
		}
	})
}

// A proxy in front may have removed a part of the path, and with StripPrefix nothing is
// left of it.
func TestRedirectToSlashIsRelative(t *testing.T) {
	inTime(t, func(t *testing.T, _ *fakeSource, p *statuspage.Page) {
		for path, want := range map[string]string{
			"/a/status":                  "./status/",
			"/javascript:alert(1)":       "./javascript:alert%281%29/",
			"/a/%2F%2Fevil.example":      "./evil.example/",
			"/%5Cevil.example?x=https:/": "./%5Cevil.example/",
		} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.URL.Path, r.URL.RawPath = "", ""
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			require.Equal(t, http.StatusTemporaryRedirect, w.Code)
			require.Equal(t, want, strings.ReplaceAll(w.Header().Get("Location"), "(1)", "%281%29"), path)
		}
	})
}

func TestOtherPathsAndMethodsAreRefused(t *testing.T) {
	inTime(t, func(t *testing.T, _ *fakeSource, p *statuspage.Page) {
		for _, path := range []string{"/x", "/status/x", "/assets/", "/assets/page.js", "/assets/page.html", "/assets/../page.go", "/status.json/x", "/assets/x/status.jso"} {
			require.Equal(t, 404, get(p, path).Code, path)
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"} {
			w := do(p, method, "/")
			require.Equal(t, 405, w.Code)
			require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
		}
		for _, path := range []string{"/", "/status.json", "/update.json"} {
			w := do(p, http.MethodHead, path)
			require.Equal(t, 200, w.Code)
			require.Empty(t, w.Body.Bytes())
			require.Equal(t, fmt.Sprint(get(p, path).Body.Len()), w.Header().Get("Content-Length"))
		}
	})
}

func TestEveryResponseHasSecurityHeaders(t *testing.T) {
	inTime(t, func(t *testing.T, _ *fakeSource, p *statuspage.Page) {
		asset := regexp.MustCompile(`assets/page-[0-9a-f]+\.js`).FindString(get(p, "/").Body.String())
		require.NotEmpty(t, asset)
		for _, path := range []string{"/", "/status.json", "/update.json", "/nothing", "/" + asset} {
			h := get(p, path).Header()
			require.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "+
				"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", h.Get("Content-Security-Policy"), path)
			require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
			require.Equal(t, "no-referrer", h.Get("Referrer-Policy"))
			if path == "/"+asset {
				require.Contains(t, h.Get("Cache-Control"), "immutable")
				require.Equal(t, "text/javascript; charset=utf-8", h.Get("Content-Type"))
			} else {
				require.Equal(t, "no-store", h.Get("Cache-Control"), path)
			}
		}
		html := get(p, "/").Body.String()
		require.NotRegexp(t, `(?i)<script(?:>| [^>]*>[^<])|<style|\sstyle=|\son[a-z]+=`, html, "nothing that the policy forbids")
	})
}

func TestTextsOfServicesAreEscaped(t *testing.T) {
	inTime(t, func(t *testing.T, s *fakeSource, p *statuspage.Page) {
		const evil = `"><img src=x onerror=alert(1)>`
		d := deployment(evil, 0)
		d.Name, d.Available, d.Reason = evil, false, evil
		d.LastFailure = spillover.Failure{Time: time.Now(), Status: 500, Reason: evil, Cause: evil}
		d.Operations = []spillover.OperationStatus{{Name: evil, Reason: evil}}
		b := backend(evil, d)
		b.URL = "https://" + evil
		s.set(tier(1, b))
		s.mu.Lock()
		s.status.Fleet = &spillover.FleetStatus{Name: evil, Replicas: []spillover.ReplicaStatus{{Name: evil}}}
		s.mu.Unlock()
		time.Sleep(time.Second)
		html := get(p, "/").Body.String()
		require.NotContains(t, html, "<img")
		require.Contains(t, html, "&lt;img src=x onerror=alert(1)&gt;")
	})
}

// The page has what matters without a script.
func TestPageShowsEachState(t *testing.T) {
	inTime(t, func(t *testing.T, s *fakeSource, p *statuspage.Page) {
		time.Sleep(10 * time.Second)
		now := time.Now()
		change := func(model string, f func(*spillover.DeploymentStatus)) spillover.DeploymentStatus {
			d := deployment(model, 0)
			f(&d)
			return d
		}
		closed := func(reason string, limited bool, wait time.Duration) func(*spillover.DeploymentStatus) {
			return func(d *spillover.DeploymentStatus) {
				d.Available, d.Reason, d.RateLimited, d.Until = false, reason, limited, now.Add(wait+time.Second)
			}
		}
		drained := backend("by-hand", change("drained", closed("drained", false, 0)))
		drained.Available, drained.Drained = false, true
		down := backend("down")
		down.Available, down.Reason, down.Until = false, "no connection", now.Add(3*time.Second)
		s.set(
			tier(1, backend("a",
				deployment("well", 1234567),
				change("limited", closed("429 rate_limit_reached", true, 75*time.Second)),
				change("ramp", closed("one at a time", true, time.Second)),
				change("broken", func(d *spillover.DeploymentStatus) {
					closed("500", false, 7*time.Second)(d)
					d.LastFailure = spillover.Failure{Time: now.Add(-4 * time.Second), Status: 500, Reason: "500 server_error", Cause: "The server had an error."}
				}),
				change("avoided", func(d *spillover.DeploymentStatus) { d.AvoidedUntil = now.Add(9 * time.Second) }),
				change("part", func(d *spillover.DeploymentStatus) {
					d.Operations = []spillover.OperationStatus{{Name: "responses", Until: now.Add(31 * time.Second), Reason: "404 NotFound"}}
				}),
				change("ptu", func(d *spillover.DeploymentStatus) { d.Utilization, d.UtilizationAt = 0.815, now }),
			)),
			tier(5, drained, down),
		)
		time.Sleep(time.Second)
		text := plainText(get(p, "/").Body.String())
		for _, want := range []string{
			"No deployment available for broken, drained, limited and 1 more The first one is due in 1 s 2 available, 1 partly available, 1 avoided, 1 rate-limited, 1 ramping up, 2 ejected, 1 drained",
			"well a a.example/base Available",
			"Rate-limited asked again in 1 min 15 s 429 rate_limit_reached",
			"Ramping up next request in 1 s Requests are admitted one by one",
			"Ejected probed in 7 s 500 Last failure 5 s ago The server had an error. 500 server_error · 2000-01-01 00:00:06 UTC",
			"Avoided for 8 s Another replica reports a problem",
			"Partly available asked again in 30 s not for responses (404 NotFound)",
			"Drained No requests until it is resumed",
			"any model down down.example/base Ejected probed in 2 s no connection",
			"82 %", "1,234,567", "priority 5",
		} {
			require.Contains(t, text, want)
		}
	})
}

// plainText is the visible text of a page.
func plainText(html string) string {
	html = regexp.MustCompile(`(?s)<template.*?</template>|<head>.*?</head>`).ReplaceAllString(html, "")
	html = regexp.MustCompile(`(?s)<[^>]+ hidden>[^<]*`).ReplaceAllString(html, "")
	html = regexp.MustCompile(`(?s)<[^>]+>`).ReplaceAllString(html, " ")
	return strings.Join(strings.Fields(html), " ")
}

func TestTitleNamesTheStateOfThePool(t *testing.T) {
	inTime(t, func(t *testing.T, s *fakeSource, p *statuspage.Page) {
		down := func(model string) spillover.DeploymentStatus {
			return spillover.DeploymentStatus{Model: model, Reason: "500", Until: time.Now().Add(time.Hour)}
		}
		limited := func(model, reason string) spillover.DeploymentStatus {
			return spillover.DeploymentStatus{Model: model, Reason: reason, RateLimited: true, Until: time.Now().Add(time.Hour)}
		}
		drained := backend("d", down("m"))
		drained.Drained = true
		idle, idleDrained := backend("idle"), backend("idle") // without a configured model, and not asked yet
		idleDrained.Drained, idleDrained.Available = true, false
		for _, c := range []struct {
			title, level string
			tiers        []spillover.TierStatus
		}{
			{"No deployments", "ok", nil},
			{"The deployment is available", "ok", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0)))}},
			{"All 2 deployments available", "ok", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0), deployment("n", 0)))}},
			{"1 of 2 deployments ejected", "degraded", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0)), backend("b", down("m")))}},
			{"1 of 2 deployments ejected", "degraded", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0)), backend("b", limited("m", "429 insufficient_quota")))}},
			{"1 of 2 deployments rate-limited", "ok", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0)), backend("b", limited("m", "429 rate_limit_reached")))}},
			{"No deployment available for n", "down", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0), down("n")))}},
			{"No deployment available for n", "down", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0), limited("n", "429")))}},
			{"1 of 3 deployments ejected", "degraded", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0), down("n")), idle)}},
			{"1 of 2 deployments drained", "ok", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0)), idleDrained)}},
			{"No deployment available", "down", []spillover.TierStatus{tier(1, idleDrained)}},
			{"No deployment available", "down", []spillover.TierStatus{tier(1, backend("a", down("m")))}},
			{"1 of 2 deployments drained", "ok", []spillover.TierStatus{tier(1, backend("a", deployment("m", 0)), drained)}},
			{"No deployment available", "down", []spillover.TierStatus{tier(1, drained)}},
		} {
			s.set(c.tiers...)
			time.Sleep(time.Second)
			html := get(p, "/").Body.String()
			require.Contains(t, html, "<title>"+c.title+" – spillover</title>")
			require.Contains(t, html, `data-level="`+c.level+`"`, c.title)
		}
	})
}

// The headline has the time at which the first deployment of those models is due for
// which none is available.
func TestHeadlineCountsDownToTheFirstDeployment(t *testing.T) {
	inTime(t, func(t *testing.T, s *fakeSource, p *statuspage.Page) {
		due := func(model string, wait time.Duration) spillover.BackendStatus {
			return backend("b"+wait.String(), spillover.DeploymentStatus{Model: model, Reason: "429", RateLimited: true, Until: time.Now().Add(wait)})
		}
		drained := due("m", 0)
		drained.Drained = true
		for _, c := range []struct { // a second each
			want     string
			backends []spillover.BackendStatus
		}{
			{"No deployment available The first one is due in 18 s 2 rate-limited, 1 drained", []spillover.BackendStatus{drained, due("m", 30*time.Second), due("m", 19*time.Second)}},
			{"available for m The first one is due in 29 s 1 available", []spillover.BackendStatus{due("m", 31*time.Second), due("n", 5*time.Second), backend("c", deployment("n", 0))}},
			{"No deployment available due now 1 rate-limited", []spillover.BackendStatus{due("m", 0)}},
			{"No deployment available 1 drained", []spillover.BackendStatus{drained}},
		} {
			s.set(tier(1, c.backends...))
			time.Sleep(time.Second)
			require.Contains(t, plainText(get(p, "/").Body.String()), c.want)
		}
	})
}

func TestHistoryHasWhatHappenedBetweenSamples(t *testing.T) {
	inTime(t, func(t *testing.T, s *fakeSource, p *statuspage.Page) {
		d := deployment("m", 0)
		for i := range 3 {
			d.Served, d.Throttled, d.Failed, d.InFlight, d.InputTokens = d.Served+uint64(10*i), d.Throttled+1, d.Failed+2, i, d.InputTokens+100
			d.Utilization, d.UtilizationAt = 0.5, time.Now()
			s.set(tier(1, backend("a", d)), tier(2, backend("b", deployment("m", uint64(i)), deployment("only-here", uint64(7*i)))))
			time.Sleep(5 * time.Second)
			synctest.Wait()
		}
		h := read(t, p).History
		require.Len(t, h.Times, 3)
		require.EqualValues(t, 5000, h.Times[1]-h.Times[0])
		require.EqualValues(t, 5000, h.Times[0]-h.Since)
		require.Len(t, h.Deployments, 3)
		a := h.Deployments[0]
		require.Equal(t, []int{0, 10, 20}, a.Served)
		require.Equal(t, []int{1, 1, 1}, a.Throttled)
		require.Equal(t, []int{2, 2, 2}, a.Failed)
		require.Equal(t, []int{0, 1, 2}, a.InFlight)
		require.Equal(t, 0.5, *a.Utilization[2])
		require.Nil(t, h.Deployments[1].Utilization)
		require.Equal(t, []int{0, 8, 8}, h.Tiers[1].Served)
		require.Equal(t, []int{0, 18, 28}, h.Pool.Served)
		require.Equal(t, []int{0, 1, 1}, h.Pool.Spilled, "a model that only the second tier has does not spill")
		require.Equal(t, []int{100, 100, 100}, h.Pool.Input)
		text := plainText(get(p, "/").Body.String())
		require.Contains(t, text, "Spilled to lower tiers 4 % 2 of 46 in 15 min")
		require.Contains(t, text, "Served 3.1 per second")
	})
}

func TestHistoryIsBounded(t *testing.T) {
	inTime(t, func(t *testing.T, s *fakeSource, p *statuspage.Page) {
		var many []spillover.DeploymentStatus
		for i := range 2000 {
			many = append(many, deployment(fmt.Sprint("m", i), 0))
		}
		broken := deployment("broken", 0)
		broken.Available, broken.Reason = false, "500"
		s.set(tier(1, backend("a", append(many, broken)...)))
		time.Sleep(16 * time.Minute)
		synctest.Wait()
		h := read(t, p).History
		require.Len(t, h.Times, 180)
		require.Len(t, h.Deployments, 500)
		require.Len(t, h.Pool.Served, 180)
		for _, d := range h.Deployments {
			require.Len(t, d.Served, 180)
		}
		html := get(p, "/").Body.String()
		require.Equal(t, 500, strings.Count(html, `<tr role="row" id="d-`), "with a bound")
		require.Contains(t, html, "broken", "problems are listed first")
		require.Contains(t, plainText(html), "1,501 more available deployments are not listed here")
	})
}

// After a Reconfigure, deployments that left are gone, new ones begin, and one with the
// name of another does not get its counts.
func TestHistoryAfterReconfigure(t *testing.T) {
	inTime(t, func(t *testing.T, s *fakeSource, p *statuspage.Page) {
		sample := func(tiers ...spillover.TierStatus) {
			s.set(tiers...)
			time.Sleep(5 * time.Second)
			synctest.Wait()
		}
		sample(tier(1, backend("a", deployment("m", 10)), backend("b", deployment("m", 100))))
		sample(tier(1, backend("a", deployment("m", 20)), backend("b", deployment("m", 200))))
		moved := backend("b", deployment("m", 3))
		moved.URL = "https://elsewhere.example"
		sample(tier(1, backend("c", deployment("m", 1)), moved), tier(2, backend("a", deployment("m", 25))))
		h := read(t, p).History
		served := map[string][]int{}
		for _, d := range h.Deployments {
			served[d.Backend] = d.Served
		}
		require.Equal(t, map[string][]int{"a": {10, 10, 5}, "b": {3}, "c": {1}}, served)
		html := get(p, "/").Body.String()
		require.NotContains(t, html, "b.example")
		require.Contains(t, html, "elsewhere.example")

		// A deployment whose counts begin again is a new one.
		sample(tier(1, backend("a", deployment("m", 2))))
		h = read(t, p).History
		require.Len(t, h.Deployments, 1)
		require.Equal(t, []int{10, 10, 5, 2}, h.Deployments[0].Served)
		require.Len(t, h.Tiers, 1)
	})
}

func TestUpdateHasOnlyNewerSamples(t *testing.T) {
	inTime(t, func(t *testing.T, _ *fakeSource, p *statuspage.Page) {
		time.Sleep(time.Minute)
		synctest.Wait()
		all := read(t, p).History
		require.Len(t, all.Times, 12)
		for after, want := range map[string]int{
			"": 12, "x": 12, "0": 12, fmt.Sprint(all.Times[0] - 1): 12, fmt.Sprint(all.Times[0]): 11, fmt.Sprint(all.Times[10]): 1, fmt.Sprint(all.Times[11]): 0, "99999999999999": 0,
		} {
			var s struct {
				History history `json:"history"`
			}
			require.NoError(t, json.Unmarshal(get(p, "/update.json?after="+after).Body.Bytes(), &s))
			require.Len(t, s.History.Times, want, after)
			require.Len(t, s.History.Deployments[0].Served, want, after)
			require.Len(t, s.History.Pool.Spilled, want, after)
		}
	})
}

func TestViewersShareASnapshot(t *testing.T) {
	inTime(t, func(t *testing.T, s *fakeSource, p *statuspage.Page) {
		time.Sleep(2 * time.Second)
		before := s.calls
		for range 100 {
			for _, path := range []string{"/", "/status.json", "/update.json?after=1"} {
				require.Equal(t, 200, get(p, path).Code)
			}
		}
		require.Equal(t, before+1, s.calls)
		time.Sleep(time.Second)
		get(p, "/")
		require.Equal(t, before+2, s.calls)
	})
}

func TestCloseEndsTheSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSource{}
		p := statuspage.New(s)
		time.Sleep(time.Minute)
		require.NoError(t, p.Close())
		require.NoError(t, p.Close())
		calls := s.calls
		time.Sleep(time.Minute)
		require.Equal(t, calls, s.calls)
		require.Equal(t, 200, get(p, "/").Code, "it shows the present state")
		require.Equal(t, calls+1, s.calls)
	}) // fails if a goroutine is left
}

func TestConcurrentUse(t *testing.T) {
	inTime(t, func(t *testing.T, s *fakeSource, p *statuspage.Page) {
		var viewers sync.WaitGroup
		for i := range 8 {
			viewers.Go(func() {
				for j := range 50 {
					s.set(tier(1, backend(fmt.Sprint("b", j), deployment("m", uint64(i*j)))))
					for _, path := range []string{"/", "/status.json", fmt.Sprint("/update.json?after=", j)} {
						if w := get(p, path); w.Code != 200 {
							t.Error(path, w.Code)
						}
					}
					time.Sleep(time.Duration(i) * 300 * time.Millisecond)
				}
			})
		}
		viewers.Wait()
	})
}

// status.json is what the documentation of spillover.Status promises, and a Transport is
// a Source.
func TestStatusAsJSON(t *testing.T) {
	tr, err := spillover.New(spillover.Config{Backends: []spillover.Backend{{URL: "https://ptu.openai.azure.com", APIKey: "a-secret", Models: []spillover.Model{{Name: "m"}}}}})
	require.NoError(t, err)
	defer tr.Close()
	p := statuspage.New(tr)
	defer p.Close()
	require.Equal(t, tr.Status(), read(t, p).Status)
	for _, path := range []string{"/", "/status.json", "/update.json"} {
		require.NotContains(t, get(p, path).Body.String(), "a-secret")
	}
}
