package telemetry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestFirstServedModelsHaveLabelsOfTheirOwn(t *testing.T) {
	l, r := listened(t)
	served := func(model string) {
		roundTrip(t, r, &Deployment{Backend: "first", Tier: 1, Model: model, Name: model}, model)
	}
	for i := range maxServedModels + 50 {
		served(fmt.Sprintf("served-%d", i))
	}
	served("m")
	served("served-0")
	requests := l.Metric("spillover.requests")
	require.Len(t, requests, maxServedModels+2, "with others, and the configured one")
	require.Equal(t, 2.0, requests["class=interactive model=served-0 outcome=served tier=1"])
	require.Equal(t, 50.0, requests["class=interactive model=other outcome=served tier=1"])
	require.Equal(t, 1.0, requests["class=interactive model=m outcome=served tier=1"])
	names := map[string]bool{}
	for _, s := range l.EndedSpans(t) {
		names[s.Name] = true
	}
	require.Equal(t, map[string]bool{"chat other": true, "chat m": true, "chat served-0": true, "POST": true}, names)
}

func TestLabelsOfADeploymentFollowItsModelOnceItIsServed(t *testing.T) {
	_, r := listened(t)
	d := &Deployment{Backend: "first", Tier: 1, Model: "new", Name: "new"}
	other := r.labels(d)
	require.Equal(t, otherModels, other.model)
	require.Same(t, other, r.labels(d))
	r.served.add("new")
	require.Equal(t, "new", r.labels(d).model)
	require.Same(t, r.labels(d), r.labels(d))
}

// A deployment that serves whatever model callers name has no model itself.
func TestModelsOfANamelessDeploymentHaveNoLabels(t *testing.T) {
	l, r := listened(t)
	roundTrip(t, r, &Deployment{Backend: "first", Tier: 1}, "made-up")
	require.Equal(t, map[string]float64{"class=interactive outcome=served tier=1": 1}, l.Metric("spillover.requests"))
	require.Equal(t, otherModels, r.modelLabel("made-up"))
}

func TestServedModelsAndWarningsOutliveTheConfiguration(t *testing.T) {
	l, earlier := listened(t)
	earlier.served.add("served")
	now := time.Now()
	failures := []Failure{{Backend: "first", Reason: "no connection"}}
	earlier.WarnOfFailures(t.Context(), now, "m", failures)
	require.Len(t, l.Log(), 1)

	r, err := New(Options{Logger: l.Logger(), Models: []string{"configured"}}, earlier)
	require.NoError(t, err)
	r.WarnOfFailures(t.Context(), now.Add(time.Second), "m", failures)
	require.Empty(t, l.Log())
	for model, label := range map[string]string{"configured": "configured", "served": "served", "m": otherModels, "": ""} {
		require.Equal(t, label, r.modelLabel(model))
	}
}

// Whatever models callers name and deployments serve, labels are printable and their
// number is bounded.
func TestModelLabelsAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := New(Options{Models: []string{"m"}}, nil)
		require.NoError(t, err)
		labels := map[string]bool{}
		for range rapid.IntRange(0, 3*maxServedModels).Draw(t, "requests") {
			model := rapid.OneOf(rapid.String(), rapid.StringN(300, 400, -1), rapid.SampledFrom([]string{"m", "", "n"})).Draw(t, "model")
			if rapid.Bool().Draw(t, "served") {
				r.served.add(model)
			}
			label := r.modelLabel(model)
			labels[label] = true
			require.LessOrEqual(t, len(label), 128)
			require.False(t, strings.ContainsAny(label, "\n\r\x1b"))
		}
		require.LessOrEqual(t, len(labels), maxServedModels+3, "with m, other and none")
	})
}
