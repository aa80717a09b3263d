package telemetry_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// rules are the alert rules as Prometheus reads them.
func rules(t *testing.T) []rulefmt.Rule {
	groups, errs := rulefmt.ParseFile("alerts.yaml", false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	require.Empty(t, errs)
	require.Len(t, groups.Groups, 1)
	return groups.Groups[0].Rules
}

// firing returns the alerts of a rule that fire at a time: its expression has had them as a
// result at each evaluation for as long as the rule asks for.
func firing(t *testing.T, r rulefmt.Rule, h history, at time.Time) promql.Vector {
	lasts := time.Duration(r.For)
	alerts := h.query(t, r.Expr, at)
	for from := at.Add(-lasts); from.Before(at) && len(alerts) > 0; from = from.Add(15 * time.Second) {
		then := h.query(t, r.Expr, from)
		alerts = slices.DeleteFunc(alerts, func(a promql.Sample) bool {
			return !slices.ContainsFunc(then, func(b promql.Sample) bool { return labels.Equal(a.Metric, b.Metric) })
		})
	}
	return alerts
}

// A situation is something that happens to a scene, and the alerts that fire then.
type situation struct {
	config func(*spillover.Config)
	begins func(*testing.T, *scene)
	models []string // requested in addition to gpt-4o
	alerts []string
	may    []string // may fire as well, depending on random choices
	log    string   // the message of the record that has the cause
}

func situations() map[string]situation {
	throttled := spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"20"}}}
	all := func(s *scene, f ...spillovertest.Fault) {
		for _, server := range []*spillovertest.Server{s.ptu, s.east, s.west} {
			server.Set(f...)
		}
	}
	return map[string]situation{
		"all is well": {},
		"spilling for a moment": {begins: func(_ *testing.T, s *scene) {
			s.ptu.Set(spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"30"}}, Times: 1})
		}},
		"one request fails everywhere": {begins: func(t *testing.T, s *scene) {
			for _, server := range []*spillovertest.Server{s.ptu, s.east, s.west} {
				server.Set(spillovertest.Fault{Status: 504, Times: 1}) // not sent to the PTU once more
			}
		}},
		"all throttled": {begins: func(_ *testing.T, s *scene) { all(s, throttled) },
			alerts: []string{"SpilloverNothingServed", "SpilloverAllDeploymentsDown", "SpilloverSynthesized429"}, may: []string{"SpilloverDeploymentOut"}, log: "deployment cooling"},
		"no connection anywhere": {begins: func(_ *testing.T, s *scene) { all(s, spillovertest.Fault{Kind: spillovertest.KindRefuse}) },
			alerts: []string{"SpilloverNothingServed", "SpilloverDeploymentFails", "SpilloverRequestsFail"}, log: "requests fail"},
		"the PTU has no connection": {begins: func(_ *testing.T, s *scene) { s.ptu.Set(spillovertest.Fault{Kind: spillovertest.KindRefuse}) },
			alerts: []string{"SpilloverDeploymentOut", "SpilloverDeploymentFails", "SpilloverFirstTierIdle"}, log: "backend out"},
		"the PTU's key is revoked": {begins: func(_ *testing.T, s *scene) { s.ptu.Set(spillovertest.Fault{Status: 401}) },
			alerts: []string{"SpilloverDeploymentOut", "SpilloverDeploymentFails", "SpilloverCredentialRefused", "SpilloverFirstTierIdle"}, log: "deployment out"},
		"the PTU is drained": {begins: func(t *testing.T, s *scene) { require.NoError(t, s.Drain("ptu")) },
			alerts: []string{"SpilloverDeploymentOut", "SpilloverFirstTierIdle"}, log: "backend drained"},
		"a region's account is empty": {begins: func(_ *testing.T, s *scene) {
			all(s, throttled)
			s.east.Heal()
			s.west.Set(spillovertest.Fault{Status: 429, Body: `{"error":{"code":"insufficient_quota"}}`})
		}, alerts: []string{"SpilloverDeploymentOut", "SpilloverDeploymentFails", "SpilloverOutOfQuota", "SpilloverFirstTierIdle"}, log: "deployment out"},
		"streams are cut": {begins: func(_ *testing.T, s *scene) { all(s, spillovertest.Fault{Kind: spillovertest.KindCut, After: 3}) },
			alerts: []string{"SpilloverNothingServed", "SpilloverAllDeploymentsDown", "SpilloverDeploymentFails", "SpilloverRequestsFail"}, may: []string{"SpilloverDeploymentOut"}, log: "deployment out"},
		"the fleet's engine is down": {begins: func(_ *testing.T, s *scene) { s.redis.stop() },
			alerts: []string{"SpilloverFleetEngineDown"}, log: "fleet down"},
		"an unknown model": {models: []string{"gpt-5o"}, alerts: []string{"SpilloverUnknownModel"}},
		"a PTU held back by a limit": {config: func(c *spillover.Config) { c.Backends[0].Models = []spillover.Model{{Name: "gpt-4o", RPM: 3}} },
			alerts: []string{"SpilloverPTUUnderused"}},
		"bodies are never closed": {begins: func(t *testing.T, s *scene) {
			s.ptu.Set(spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"20"}}, Times: 1})
			for _, server := range []*spillovertest.Server{s.east, s.west} {
				server.Set(spillovertest.Fault{Kind: spillovertest.KindStall, After: 3})
			}
			for range 8 {
				s.leak(t, "gpt-4o")
			}
			s.east.Heal()
			s.west.Heal()
		}, alerts: []string{"SpilloverRequestsNeverEnd"}},
	}
}

// happens plays a situation. It returns what Prometheus has scraped, and when it ended. The
// cause is in the log, and in Status if it is a failure.
func (happening situation) happens(t *testing.T) (scraped history, end time.Time) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, func(c *spillover.Config) {
			if happening.config != nil {
				happening.config(c)
			}
		})
		s.play(t, 5*time.Minute, "gpt-4o")
		s.log.Reset()
		if happening.begins != nil {
			happening.begins(t, s)
		}
		s.play(t, 22*time.Minute, append(happening.models, "gpt-4o")...)
		scraped, end = s.history, time.Now()
		if happening.log != "" {
			requireCause(t, s, happening.log)
		}
	})
	return scraped, end
}

// requireCause requires that the log has a record with this message and, if that is a
// failure, its reason, which Status shows as the last failure of a backend.
func requireCause(t *testing.T, s *scene, message string) {
	var failures []string
	for _, tier := range s.Status().Tiers {
		for _, b := range tier.Backends {
			failures = append(failures, b.LastFailure.Reason)
		}
	}
	for line := range bytes.Lines(s.log.Bytes()) {
		var record struct{ Level, Msg, Reason, Group, Error string }
		require.NoError(t, json.Unmarshal(line, &record))
		if record.Msg != message {
			continue
		}
		if record.Group != "" { // of the engine: Status does not know it
			require.NotEmpty(t, record.Error)
		} else if record.Level == "WARN" {
			require.NotEmpty(t, record.Reason)
			require.Contains(t, failures, record.Reason)
		}
		return
	}
	require.Fail(t, "the log has no record "+message)
}

// unasked is the series that a release may export for models that nobody has asked for.
func unasked(at time.Time) history {
	series := &stored{labels: labels.FromStrings("__name__", "spillover_deployment_available", "gen_ai_request_model", "other",
		"spillover_backend", "west", "spillover_deployment", "other", "spillover_tier", "2")}
	for from := at.Add(-27 * time.Minute); !from.After(at); from = from.Add(14 * time.Second) {
		series.add(from.UnixMilli(), 1)
	}
	return history{series.labels.Hash(): series}
}

// Each alert fires in the situation that it is for and no other alert does, and only for the
// service that is in that situation: another one that works hides nothing and is not
// named. It is one alert however many processes the service has.
func TestAlerts(t *testing.T) {
	healthy, _ := situation{}.happens(t)
	type target = map[string]string
	targets := map[string]struct {
		service, other target // scraped from the service in the situation, and from a healthy one
	}{
		"alone":           {target{"job": "gateway", "namespace": "production"}, nil},
		"two namespaces":  {target{"job": "gateway", "namespace": "production"}, target{"job": "gateway", "namespace": "staging"}},
		"two jobs":        {target{"job": "gateway", "namespace": "apps"}, target{"job": "batch", "namespace": "apps"}},
		"no namespace":    {target{"job": "gateway"}, target{"job": "batch"}},
		"no target label": {},
	}
	for name, situation := range situations() {
		t.Run(name, func(t *testing.T) {
			scraped, end := situation.happens(t)
			for name, target := range targets {
				t.Run(name, func(t *testing.T) {
					service := scraped.with(target.service)
					stored := merge(service, unasked(end).with(target.service))
					if target.other != nil {
						// Two processes are in the situation.
						stored = merge(stored.with(map[string]string{"instance": "10.0.0.1:2112"}), stored.with(map[string]string{"instance": "10.0.0.2:2112"}),
							merge(healthy, unasked(end)).with(target.other).with(map[string]string{"instance": "10.0.0.3:2112"}))
					}
					var names []string
					for _, r := range rules(t) {
						alerts := firing(t, r, stored, end)
						if len(alerts) > 0 && !slices.Contains(situation.may, r.Alert) {
							names = append(names, r.Alert)
						}
						for _, a := range alerts {
							require.Equal(t, target.service["job"], a.Metric.Get("job"), r.Alert)
							require.Equal(t, target.service["namespace"], a.Metric.Get("namespace"), r.Alert)
							require.Empty(t, a.Metric.Get("instance"), r.Alert)
							require.NotEqual(t, "other", a.Metric.Get("gen_ai_request_model"), r.Alert)
							for text := range maps.Values(r.Annotations) {
								requireReadable(t, a, text)
							}
							require.True(t, strings.HasPrefix(expand(t, a, r.Annotations["summary"]), where(target.service)+": "), r.Annotations["summary"])
						}
					}
					require.Equal(t, situation.alerts, names)
				})
			}
		})
	}
}

// where is how a summary begins.
func where(target map[string]string) string {
	if target["namespace"] == "" {
		return target["job"]
	}
	return target["job"] + " in " + target["namespace"]
}

// expand is an annotation as Prometheus expands it.
func expand(t *testing.T, alert promql.Sample, text string) string {
	data := template.AlertTemplateData(alert.Metric.Map(), nil, "", alert)
	const variables = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}"
	expanded, err := template.NewTemplateExpander(t.Context(), variables+text, "annotation", data, model.Now(), nil, &url.URL{}, nil).Expand()
	require.NoError(t, err, text)
	return expanded
}

func requireReadable(t *testing.T, alert promql.Sample, text string) {
	expanded := expand(t, alert, text)
	require.NotContains(t, expanded, "<no value>")
	require.NotContains(t, expanded, "  ", expanded)
	require.NotContains(t, expanded, "()", expanded)
}

// Each rule has what a person who is woken by it needs, and names nothing that does not exist.
func TestAlertTexts(t *testing.T) {
	fires, causes := map[string]bool{}, map[string][]string{}
	for _, situation := range situations() {
		for _, a := range slices.Concat(situation.alerts, situation.may) {
			fires[a] = true
			if situation.log != "" {
				causes[a] = append(causes[a], situation.log)
			}
		}
	}
	documents := map[string]string{}
	for _, name := range []string{"operating.md", "telemetry.md", "fleet.md"} {
		text, err := os.ReadFile("../docs/" + name)
		require.NoError(t, err)
		documents[name] = string(text)
	}
	seen := map[string]bool{}
	for _, r := range rules(t) {
		require.False(t, seen[r.Alert], "%s is there twice", r.Alert)
		seen[r.Alert] = true
		require.True(t, fires[r.Alert], "%s fires in no situation", r.Alert)
		require.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"], r.Alert)
		require.Len(t, r.Annotations, 3, r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)

		for _, quoted := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(r.Annotations["description"], -1) {
			require.Contains(t, documents["telemetry.md"]+documents["operating.md"], "`"+quoted[1]+"`", "%s names it", r.Alert)
		}
		for _, message := range causes[r.Alert] {
			require.Contains(t, r.Annotations["description"], `"`+message+`"`, "%s does not name the record that has the cause", r.Alert)
		}
		page, found := strings.CutPrefix(r.Annotations["runbook_url"], "https://github.com/spillover-go/spillover/blob/main/docs/")
		require.True(t, found, "%s: %q", r.Alert, r.Annotations["runbook_url"])
		name, anchor, _ := strings.Cut(page, "#")
		require.Contains(t, anchors(documents[name]), anchor, r.Alert)
	}
}

// anchors are those that GitHub gives to the headings of a document.
func anchors(document string) (all []string) {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(document, -1) {
		plain := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all = append(all, strings.ReplaceAll(plain, " ", "-"))
	}
	return all
}

func TestAnchors(t *testing.T) {
	require.Equal(t, []string{"a", "why-did-it-spill", "x-y-z"}, anchors("# A\n\n## Why did it spill?\ntext # no\n### `X-Y` z"))
}
