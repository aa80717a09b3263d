package telemetry_test

import (
	"net/http"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A rule is an alert rule as Prometheus reads it.
type rule struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

func rules(t *testing.T) []rule {
	text, err := os.Open("alerts.yaml")
	require.NoError(t, err)
	defer text.Close()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	decoder := yaml.NewDecoder(text)
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&file))
	require.Len(t, file.Groups, 1)
	return file.Groups[0].Rules
}

// fires tells whether an alert fires at a time: its expression has a result, and
// had one at each evaluation for as long as it says.
func (r rule) fires(t *testing.T, h history, at time.Time) bool {
	var lasts time.Duration
	if r.For != "" {
		var err error
		lasts, err = time.ParseDuration(r.For)
		require.NoError(t, err, r.Alert)
	}
	for from := at.Add(-lasts); !from.After(at); from = from.Add(15 * time.Second) {
		if len(h.query(t, r.Expr, from)) == 0 {
			return false
		}
	}
	return true
}

// Each alert fires in the situation that it is for, and no other one does that
// is not named there.
func TestAlerts(t *testing.T) {
	throttled := spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"20"}}}
	all := func(s *scene, f ...spillovertest.Fault) {
		for _, server := range []*spillovertest.Server{s.ptu, s.east, s.west} {
			server.Set(f...)
		}
	}
	seen := map[string]bool{}
	for name, situation := range map[string]struct {
		config func(*spillover.Config)
		begins func(*testing.T, *scene)
		models []string // that are asked for beside gpt-4o
		alerts []string
		may    []string // fire as well, as chance has it
	}{
		"all is well": {},
		"spilling for a moment": {begins: func(_ *testing.T, s *scene) {
			s.ptu.Set(spillovertest.Fault{Status: 429, Header: http.Header{"Retry-After": {"30"}}, Times: 1})
		}},
		"all throttled": {begins: func(_ *testing.T, s *scene) { all(s, throttled) },
			alerts: []string{"SpilloverNothingServed", "SpilloverAllDeploymentsDown", "SpilloverSynthesized429"}, may: []string{"SpilloverDeploymentOut"}},
		"no connection anywhere": {begins: func(_ *testing.T, s *scene) { all(s, spillovertest.Fault{Kind: spillovertest.KindRefuse}) },
			alerts: []string{"SpilloverNothingServed", "SpilloverDeploymentFails", "SpilloverRequestsFail"}},
		"the PTU has no connection": {begins: func(_ *testing.T, s *scene) { s.ptu.Set(spillovertest.Fault{Kind: spillovertest.KindRefuse}) },
			alerts: []string{"SpilloverDeploymentOut", "SpilloverDeploymentFails", "SpilloverFirstTierIdle"}},
		"the PTU's key is revoked": {begins: func(_ *testing.T, s *scene) { s.ptu.Set(spillovertest.Fault{Status: 401}) },
			alerts: []string{"SpilloverDeploymentOut", "SpilloverDeploymentFails", "SpilloverCredentialRefused", "SpilloverFirstTierIdle"}},
		"a region's account is empty": {begins: func(_ *testing.T, s *scene) {
			all(s, throttled)
			s.east.Heal()
			s.west.Set(spillovertest.Fault{Status: 429, Body: `{"error":{"code":"insufficient_quota"}}`})
		}, alerts: []string{"SpilloverDeploymentOut", "SpilloverDeploymentFails", "SpilloverOutOfQuota", "SpilloverFirstTierIdle"}},
		"streams are cut": {begins: func(_ *testing.T, s *scene) { all(s, spillovertest.Fault{Kind: spillovertest.KindCut, After: 3}) },
			alerts: []string{"SpilloverNothingServed", "SpilloverAllDeploymentsDown", "SpilloverDeploymentFails", "SpilloverRequestsFail"}, may: []string{"SpilloverDeploymentOut"}},
		"an unknown model": {models: []string{"gpt-5o"}, alerts: []string{"SpilloverUnknownModel"}},
		"a PTU held back by a limit": {config: func(c *spillover.Config) { c.Backends[0].Models = []spillover.Model{{Name: "gpt-4o", RPM: 3}} },
			alerts: []string{"SpilloverPTUUnderused"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s *scene
			var end time.Time
			synctest.Test(t, func(t *testing.T) {
				s = newScene(t, func(c *spillover.Config) {
					if situation.config != nil {
						situation.config(c)
					}
				})
				s.play(t, 5*time.Minute, "gpt-4o")
				if situation.begins != nil {
					situation.begins(t, s)
				}
				s.play(t, 17*time.Minute, append(situation.models, "gpt-4o")...)
				end = time.Now()
			})
			var firing []string
			for _, r := range rules(t) {
				if r.fires(t, s.history, end) && !slices.Contains(situation.may, r.Alert) {
					firing = append(firing, r.Alert)
				}
			}
			require.Equal(t, situation.alerts, firing)
		})
		for _, a := range slices.Concat(situation.alerts, situation.may) {
			seen[a] = true
		}
	}
	for _, r := range rules(t) {
		require.True(t, seen[r.Alert], "%s fires nowhere", r.Alert)
		require.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)
	}
}
