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

// An export is the values of each label of each metric.
type export map[string]map[string][]string

// exported is what Prometheus has scraped when all has happened, twice, that
// there are metrics for.
func exported(t *testing.T) (found export, all history, at time.Time) {
	found = export{}
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, func(c *spillover.Config) { c.MaxWait = 3 * time.Second })
		for range 2 {
			everything(t, s)
			s.scrape(t, time.Now())
		}
		all, at = s.history, time.Now()
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

// everything has a scene go through something of everything that metrics tell of.
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
	set(spillovertest.Fault{Status: 500}, all...)
	s.ask(t.Context(), t, "gpt-4o")
}

// check holds a query to what is exported: its metrics exist, and so do all the
// labels that it names and the values that it asks for.
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

// closed are values that labels have in situations which exported has not.
var closed = map[string][]string{"error_type": {"403", "no_token", "404"}}

func TestAlertQueries(t *testing.T) {
	metrics, _, _ := exported(t)
	for _, r := range rules(t) {
		metrics.check(t, r.Alert, r.Expr)
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
		require.NoError(t, err)
		// What its texts show must be in its result.
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

type dashboard struct {
	Title         string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ H, W, X, Y int }
		Targets []struct{ Expr, LegendFormat, RefID string }
	}
}

func TestDashboard(t *testing.T) {
	metrics, all, at := exported(t)
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	require.NotZero(t, d.SchemaVersion)

	variables := map[string]bool{}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if v.Type == "query" {
			of := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Query.(map[string]any)["query"].(string))
			require.NotNil(t, of, v.Name)
			require.Contains(t, metrics[of[1]], of[2])
		}
	}
	require.Equal(t, map[string]bool{"datasource": true, "model": true, "backend": true}, variables)

	shown, ids, taken := map[string]bool{}, map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], "%s: its id is another's", p.Title)
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
		for _, target := range p.Targets {
			query := strings.NewReplacer("$__rate_interval", "1h", "$model", ".*", "$backend", ".*").Replace(target.Expr)
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
	// All metrics are on it.
	for name := range maps.Keys(metrics) {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
		if strings.HasPrefix(name, "spillover_") {
			require.True(t, shown[base] || shown[base+"_count"], "no panel shows %s", base)
		}
	}
}
