package telemetry

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDeploymentsWithTheSameLabelsAreObservedAsOne(t *testing.T) {
	l, r := listened(t)
	states := []Observation{
		{Deployment: deployment(), Available: true, InFlight: 2, Utilization: 0.875, Utilized: true},
		{Deployment: &Deployment{Backend: "second", Tier: 2, Model: "made-up", Name: "made-up"}, InFlight: 1, Utilization: 1},
		{Deployment: &Deployment{Backend: "second", Tier: 2, Model: "made-up-too", Name: "made-up-too"}, Available: true, InFlight: 3},
		{Deployment: &Deployment{Backend: "second", Tier: 2, Model: "m", Name: "m"}},
	}
	require.NoError(t, r.Observe(slices.Values(states), noNotices))
	for range 2 { // each time it is collected
		const other = "backend=second deployment=other model=other tier=2"
		require.Equal(t, map[string]float64{"backend=first deployment=deployed model=m tier=1": 1, other: 1, "backend=second deployment=m model=m tier=2": 0},
			l.Metric("spillover.deployment.available"))
		require.Equal(t, map[string]float64{"backend=first deployment=deployed model=m tier=1": 2, other: 4, "backend=second deployment=m model=m tier=2": 0},
			l.Metric("spillover.deployment.in_flight"))
		require.Equal(t, map[string]float64{"backend=first deployment=deployed model=m tier=1": 0.875}, l.Metric("spillover.deployment.utilization"))
	}
	r.Unobserve()
	require.Empty(t, l.Callbacks)
}
