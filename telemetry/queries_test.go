package telemetry_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// An export has the values of each label of each metric.
type export map[string]map[string][]string

// exported returns what Prometheus has scraped of a pod after everything that there are
// metrics for has happened twice.
func exported(t *testing.T) (found export, all history, at time.Time) {
	found = export{}
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, func(c *spillover.Config) { c.MaxWait = 3 * time.Second })
		for range 2 {
			everything(t, s)
			s.scrape(t, time.Now())
		}
		all, at = s.history.with(pod), time.Now()
	})
	for _, series := range all {
		series.labels.Range(func(l labels.Label) {
			name := series.labels.Get("__name__")
			if found[name] == nil {
				found[name] = map[string][]string{}
			}
			if !slices.Contains(found[name][l.Name], l.Value) {
				found[name][l.Name] = append(found[name][l.Name], l.Value)
			}
		})
	}
	return found, all, at
}

// pod has the labels that a scrape of a pod adds.
var pod = map[string]string{"namespace": "production", "job": "gateway", "pod": "gateway-7d9f", "instance": "10.0.0.1:2112"}

// everything makes each kind of event happen that metrics record.
func everything(t *testing.T, s *scene) {
	all := []*spillovertest.Server{s.ptu, s.east, s.west}
	set := func(f spillovertest.Fault, servers ...*spillovertest.Server) {
		for _, server := range servers {
			f.Times = 1
			server.Set(f)
		}
		s.ask(t.Context(), t, "gpt-4o")
	}
	s.ask(t.Context(), t, "gpt-4o")
	s.ask(t.Context(), t, "gpt-5o")
	set(spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"2"}}}, all...)
	set(spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"9"}}}, all...)
	time.Sleep(time.Minute)
	set(spillovertest.Fault{Status: 401}, s.ptu)
	time.Sleep(time.Minute)
	set(spillovertest.Fault{Kind: spillovertest.KindRefuse}, s.ptu)
	time.Sleep(time.Minute)
	set(spillovertest.Fault{Kind: spillovertest.KindCut, After: 2}, s.ptu)
	time.Sleep(time.Minute)
	set(spillovertest.Fault{Status: 400}, s.ptu)
	set(spillovertest.Fault{Status: 504}, all...) // not sent to the PTU once more
	s.ask(t.Context(), t, "gpt-4o")
	s.engine.Publish(nil) // dropped
}

// check requires that a query uses only what is exported: its metrics exist, and so do
// the labels that it names and the values that it selects.
func (exported export) check(t *testing.T, where, query string) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	require.NoError(t, err, "%s: %s", where, query)
	metrics := 0
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		metrics++
		have := exported[s.Name]
		require.NotNil(t, have, "%s: there is no %s", where, s.Name)
		for _, m := range s.LabelMatchers {
			values := have[m.Name]
			require.NotEmpty(t, values, "%s: %s has no %s", where, s.Name, m.Name)
			if m.Name == "__name__" || m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp {
				continue
			}
			for value := range strings.SplitSeq(m.Value, "|") {
				one, err := labels.NewMatcher(m.Type, m.Name, value)
				require.NoError(t, err)
				possible := slices.Concat(values, closed[m.Name])
				require.True(t, slices.ContainsFunc(possible, one.Matches), "%s: no %s of %s is %s, but %v", where, m.Name, s.Name, value, possible)
			}
		}
		for _, n := range path {
			if a, ok := n.(*parser.AggregateExpr); ok {
				for _, l := range a.Grouping {
					require.Contains(t, have, l, "%s: %s has no %s", where, s.Name, l)
				}
			}
		}
		return nil
	})
	require.NotZero(t, metrics, where)
}

// closed has values of labels that do not occur in exported.
var closed = map[string][]string{"error_type": {"403", "no_token", "404"}}

func TestAlertQueries(t *testing.T) {
	metrics, _, _ := exported(t)
	for _, r := range rules(t) {
		metrics.check(t, r.Alert, r.Expr)
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
		require.NoError(t, err)
		requireEachService(t, r.Alert, expr)
		// The labels that its texts show must be in its result.
		for _, text := range r.Annotations {
			for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(text, -1) {
				grouped := false
				parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
					if a, ok := n.(*parser.AggregateExpr); ok && slices.Contains(a.Grouping, m[1]) {
						grouped = true
					}
					return nil
				})
				require.True(t, grouped, "%s has no %s", r.Alert, m[1])
			}
		}
	}
}

// requireEachService requires that a query keeps services apart: each aggregation and each
// comparison of two vectors keeps namespace and job.
func requireEachService(t *testing.T, where string, expr parser.Expr) {
	service := []string{"namespace", "job"}
	aggregations := 0
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.AggregateExpr:
			aggregations++
			require.False(t, n.Without, "%s: without keeps unknown labels", where)
			require.Subset(t, n.Grouping, service, where)
		case *parser.BinaryExpr:
			if n.VectorMatching == nil {
				return nil
			}
			if n.VectorMatching.On {
				require.Subset(t, n.VectorMatching.MatchingLabels, service, where)
				return nil
			}
			require.NotSubset(t, n.VectorMatching.MatchingLabels, service[:1], where)
			require.NotSubset(t, n.VectorMatching.MatchingLabels, service[1:], where)
		}
		return nil
	})
	require.NotZero(t, aggregations, where)
}

type dashboard struct {
	Title         string
	SchemaVersion int
	Templating    struct {
		List []variable
	}
	Panels []struct {
		ID          int
		Type        string
		Title       string
		Description string
		GridPos     struct{ H, W, X, Y int }
		Targets     []struct{ Expr, LegendFormat, RefID string }
	}
}

type variable struct {
	Name, Type        string
	Query             any
	Multi, IncludeAll bool
	AllValue          string
}

// choose replaces the variables of a query, each by a pattern of values.
func choose(query string, values map[string]string) string {
	for name, value := range values {
		query = strings.ReplaceAll(query, "$"+name, value)
	}
	return query
}

var everythingChosen = map[string]string{"__rate_interval": "1h", "namespace": ".*", "job": ".*", "model": ".*", "backend": ".*"}

func readDashboard(t *testing.T) (d dashboard) {
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	require.NotZero(t, d.SchemaVersion)
	return d
}

// Every panel shows the chosen namespaces and jobs only, and all of them if none is chosen,
// even if scrapes set no such label.
func TestDashboardShowsTheChosenServices(t *testing.T) {
	_, all, at := exported(t)
	without := func(name string) history {
		h := history{}
		for _, series := range all {
			l := labels.NewBuilder(series.labels).Del(name).Labels()
			h[l.Hash()] = &stored{labels: l, samples: series.samples}
		}
		return h
	}
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			query := choose(target.Expr, everythingChosen)
			require.NotEmpty(t, without("namespace").query(t, query, at), "%s shows nothing without namespaces", p.Title)
			require.NotEmpty(t, without("job").query(t, query, at), "%s shows nothing without jobs", p.Title)
			for _, name := range []string{"namespace", "job"} {
				chosen := maps.Clone(everythingChosen)
				chosen[name] = pod[name] + "|another"
				require.NotEmpty(t, all.query(t, choose(target.Expr, chosen), at), "%s by %s", p.Title, name)

				chosen[name] = "another"
				expr, err := parser.NewParser(parser.Options{}).ParseExpr(choose(target.Expr, chosen))
				require.NoError(t, err, p.Title)
				parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
					if s, ok := n.(*parser.VectorSelector); ok {
						require.Empty(t, all.query(t, s.String(), at), "%s shows other services: %s", p.Title, s)
					}
					return nil
				})
			}
		}
	}
}

func TestDashboard(t *testing.T) {
	metrics, all, at := exported(t)
	d := readDashboard(t)

	var variables []string
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			require.True(t, v.Multi && v.IncludeAll && v.AllValue == ".*", v.Name)
			of := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(v.Query.(map[string]any)["query"].(string))
			require.NotNil(t, of, v.Name)
			values := all.query(t, choose(of[1], everythingChosen), at)
			require.NotEmpty(t, values, v.Name)
			require.NotEmpty(t, values[0].Metric.Get(of[2]), v.Name)
			for _, used := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(of[1], -1) {
				require.Contains(t, variables, used[1], "%s uses a later variable", v.Name)
			}
		}
		variables = append(variables, v.Name)
	}
	require.Equal(t, []string{"datasource", "namespace", "job", "model", "backend"}, variables)

	shown, ids, taken := map[string]bool{}, map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], "%s: another panel has its id", p.Title)
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				require.Empty(t, taken[at], "%s covers it", p.Title)
				require.Less(t, at[0], 24, p.Title)
				taken[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Targets, p.Title)
		require.NotEmpty(t, p.Description, p.Title)
		for _, target := range p.Targets {
			query := choose(target.Expr, everythingChosen)
			metrics.check(t, p.Title, query)
			require.NotEmpty(t, all.query(t, query, at), "%s is empty: %s", p.Title, query)
			for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				require.Regexp(t, `by \([^)]*\b`+m[1]+`\b`, target.Expr, "%s: its legend", p.Title)
			}
			for _, m := range regexp.MustCompile(`spillover_\w+?(_bucket|_count|_total|_ratio)?\b[{\[]`).FindAllString(target.Expr, -1) {
				shown[strings.TrimSuffix(m[:len(m)-1], "_bucket")] = true
			}
		}
	}
	// Every metric is on it.
	for name := range maps.Keys(metrics) {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
		if strings.HasPrefix(name, "spillover_") {
			require.True(t, shown[base] || shown[base+"_count"], "no panel shows %s", base)
		}
	}
}
