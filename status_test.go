package spillover_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/doctest"
)

func TestStatusReportsEveryDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, `{"error":{"code":"rate_limit_reached"}}`, "Retry-After: 5"))
		n.On(host("b"), status(500, `{"error":{"code":"oh no, a sentence"}}`))
		n.On("10.0.0.1", broken(&net.OpError{Op: "dial", Err: errors.New("refused")}))
		tr := configured(t, spillover.Config{Base: n, MaxAttempts: 9, Backends: []spillover.Backend{
			azure("d", priority(7), weight(9), serves("m")), azure("a", serves("idle", "m")), azure("b", priority(2), serves("m")),
			{Name: "c", URL: "http://10.0.0.1/ai", Dialect: spillover.Azure, Priority: 3, APIKey: "k", Models: []spillover.Model{{Name: "m"}}}}})
		started := time.Now()
		for range 3 {
			resp, _ := ask(t, tr)
			require.Equal(t, "d", servedBy(resp))
		}
		d := func(model string, change func(*spillover.DeploymentStatus)) spillover.DeploymentStatus {
			s := spillover.DeploymentStatus{Model: model, Name: model, Available: true}
			change(&s)
			return s
		}
		got := tr.Status()
		backend := func(tier int) *spillover.BackendStatus { return &got.Tiers[tier].Backends[0] }

		// How long a failure takes one out is left to chance.
		for _, until := range []*time.Time{&backend(1).Deployments[0].Until, &backend(2).Until, &backend(2).Deployments[0].Until} {
			require.True(t, until.After(started))
			*until = time.Time{}
		}
		for i, want := range []spillover.Failure{{started, 429, "429 rate_limit_reached", ""}, {started, 500, "500", ""}, {started, 0, "no connection", "dial: refused"}} {
			b := backend(i)
			m := &b.Deployments[len(b.Deployments)-1]
			require.Equal(t, want, b.LastFailure)
			require.Equal(t, want, m.LastFailure)
			b.LastFailure, m.LastFailure = spillover.Failure{}, spillover.Failure{}
		}
		require.Equal(t, spillover.Status{Tiers: []spillover.TierStatus{
			{Priority: 1, Backends: []spillover.BackendStatus{{Name: "a", URL: "https://a.openai.azure.com", Weight: 1, Available: true, Deployments: []spillover.DeploymentStatus{
				d("idle", func(*spillover.DeploymentStatus) {}),
				d("m", func(s *spillover.DeploymentStatus) {
					s.Available, s.Until, s.Reason, s.Throttled, s.RateLimited = false, started.Add(5*time.Second), "429 rate_limit_reached", 1, true
				}),
			}}}},
			{Priority: 2, Backends: []spillover.BackendStatus{{Name: "b", URL: "https://b.openai.azure.com", Weight: 1, Available: true, Deployments: []spillover.DeploymentStatus{
				d("m", func(s *spillover.DeploymentStatus) {
					s.Available, s.Reason, s.Failed = false, "500", 3 // two of them for the first request
				}),
			}}}},
			{Priority: 3, Backends: []spillover.BackendStatus{{Name: "c", URL: "http://10.0.0.1/ai", Weight: 1, Available: false, Reason: "no connection", Deployments: []spillover.DeploymentStatus{
				d("m", func(s *spillover.DeploymentStatus) { s.Available, s.Reason, s.Failed = false, "no connection", 1 }),
			}}}},
			{Priority: 7, Backends: []spillover.BackendStatus{{Name: "d", URL: "https://d.openai.azure.com", Weight: 9, Available: true, Deployments: []spillover.DeploymentStatus{
				d("m", func(s *spillover.DeploymentStatus) { s.Served = 3 }),
			}}}},
		}}, got)

		// It is a copy.
		got.Tiers[0].Backends[0].Deployments[0].Available = false
		got.Tiers[0].Backends[0].Name = "changed"
		require.Equal(t, "a", tr.Status().Tiers[0].Backends[0].Name)
		require.True(t, tr.Status().Tiers[0].Backends[0].Deployments[0].Available)

		time.Sleep(time.Minute)
		require.True(t, statusOf(t, tr, "a").Available)
		require.Zero(t, statusOf(t, tr, "a").Until)
		require.Empty(t, statusOf(t, tr, "a").Reason)
	})
}

// What the JSON of a Status looks like; dashboards read it.
func TestStatusAsJSON(t *testing.T) {
	at := time.Date(2026, 11, 26, 3, 4, 5, 678e6, time.UTC)
	failure := spillover.Failure{Time: at, Status: 401, Reason: "401 invalid_api_key", Cause: "Incorrect API key provided: ***"}
	status := spillover.Status{Tiers: []spillover.TierStatus{{Priority: 1, Backends: []spillover.BackendStatus{
		{Name: "ptu", URL: "https://ptu.openai.azure.com", Weight: 1, Available: true, LastFailure: failure, Deployments: []spillover.DeploymentStatus{
			{Model: "gpt-4o", Name: "chat", Until: at, Reason: "401 invalid_api_key", InFlight: 1, Served: 2, Throttled: 3, Failed: 4, LastFailure: failure, InputTokens: 5, OutputTokens: 6},
			{Model: "gpt-5", Name: "gpt-5", Until: at, Reason: "429", RateLimited: true, Utilization: 1.015, UtilizationAt: at},
			{Model: "o3", Name: "o3", Available: true, Operations: []spillover.OperationStatus{{Name: "responses", Until: at, Reason: "404 NotFound"}, {Until: at, Reason: "500"}}},
			{Available: true},
		}},
		{Name: "down", URL: "https://down.example/base", Weight: 2, Until: at, Reason: "no connection", LastFailure: spillover.Failure{Time: at, Reason: "no connection"}},
		{Name: "by hand", URL: "https://hand.example", Weight: 1, Drained: true, Reason: "drained"},
	}}}}
	text, err := json.MarshalIndent(status, "", "  ")
	require.NoError(t, err)
	doctest.File(t, "testdata/status.json", string(text)+"\n")
	var read spillover.Status
	require.NoError(t, json.Unmarshal(text, &read))
	require.Equal(t, status, read)
}

// The JSON of a Transport that nobody has asked has what a dashboard counts, and
// nothing that did not happen.
func TestStatusAsJSONLeavesOutWhatDidNotHappen(t *testing.T) {
	text, err := json.Marshal(balance(t, newNet(), azure("a", serves("m"))).Status())
	require.NoError(t, err)
	require.Equal(t, `{"tiers":[{"priority":1,"backends":[{"name":"a","url":"https://a.openai.azure.com","weight":1,"available":true,"deployments":[`+
		`{"model":"m","name":"m","available":true,"in_flight":0,"served":0,"throttled":0,"failed":0,"input_tokens":0,"output_tokens":0}]}]}]}`, string(text))
}

// Every field has a name in snake_case.
func TestStatusFieldsAreNamedInJSON(t *testing.T) {
	var check func(reflect.Type)
	check = func(of reflect.Type) {
		for _, f := range reflect.VisibleFields(of) {
			want := strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(f.Name, "${1}_$2"))
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			require.Equal(t, want, name, "%s.%s", of, f.Name)
			inner := f.Type
			if inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
				check(inner)
			}
		}
	}
	check(reflect.TypeFor[spillover.Status]())
}

func TestStatusInFlight(t *testing.T) {
	tr := balance(t, newNet(), azure("a"))
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.NoError(t, err)
	require.Equal(t, 1, statusOf(t, tr, "a").InFlight)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.Zero(t, statusOf(t, tr, "a").InFlight)
	require.NoError(t, resp.Body.Close())
	require.Zero(t, statusOf(t, tr, "a").InFlight, "given back once")
}

// Requests that name no model show once there were any.
func TestStatusOfNameless(t *testing.T) {
	tr := balance(t, newNet(), azure("a", serves("m")))
	require.Len(t, tr.Status().Tiers[0].Backends[0].Deployments, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://foo.example/v1/files", nil)
	require.NoError(t, err)
	send(t, tr, req)
	require.Equal(t, spillover.DeploymentStatus{Available: true, Served: 1}, tr.Status().Tiers[0].Backends[0].Deployments[0])
}

func TestStatusReportsEveryThrottledDeployment(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		for _, name := range []string{"a", "b", "c"} {
			n.On(host(name), status(429, "{}"))
		}
		ask(t, tr)
		for _, name := range []string{"a", "b", "c"} {
			b := backendStatus(t, tr, name)
			require.Len(t, b.Deployments, 1)
			require.False(t, b.Deployments[0].Available)
			require.EqualValues(t, 1, b.Deployments[0].Throttled)
			require.NotEmpty(t, b.Deployments[0].Reason)
		}
	})
}

// A deployment that the service refuses is told apart from one that fails.
func TestStatusTellsRateLimitedFromEjected(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		n.On(host("a"), status(503, "{}", "Retry-After: 5"))
		n.On(host("b"), broken(&net.OpError{Op: "dial", Err: errors.New("refused")}))
		ask(t, tr)
		ask(t, tr)
		a, b, c := statusOf(t, tr, "a"), statusOf(t, tr, "b"), statusOf(t, tr, "c")
		require.False(t, a.Available)
		require.True(t, a.RateLimited)
		require.False(t, b.Available)
		require.False(t, b.RateLimited)
		require.True(t, c.Available)
		require.False(t, c.RateLimited)
		require.NoError(t, tr.Drain("a"))
		require.False(t, statusOf(t, tr, "a").RateLimited, "drained")
	})
}

func TestStatusHasUtilizationOfPTU(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		n.On(host("a"), status(200, "{}", "azure-openai-deployment-utilization: 73.5%"))
		ask(t, tr)
		a := statusOf(t, tr, "a")
		require.Equal(t, 0.735, a.Utilization)
		require.True(t, a.UtilizationAt.Equal(time.Now()))

		require.NoError(t, tr.Drain("a"))
		ask(t, tr)
		require.Zero(t, statusOf(t, tr, "b").Utilization)
		require.Zero(t, statusOf(t, tr, "b").UtilizationAt)
	})
}
