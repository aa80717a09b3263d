package spillover_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// One that is four times as large may have four times as many.
func TestInFlightIsComparedByWeight(t *testing.T) {
	tr := balance(t, newNet(), azure("large", weight(4)), azure("small"))
	spillover.DeploymentOf(t, tr, "large").InFlight.Store(7)
	spillover.DeploymentOf(t, tr, "small").InFlight.Store(2)
	for range 100 {
		resp, _ := ask(t, tr)
		require.Equal(t, "large", servedBy(resp))
	}
	spillover.DeploymentOf(t, tr, "large").InFlight.Store(9)
	for range 100 {
		resp, _ := ask(t, tr)
		require.Equal(t, "small", servedBy(resp))
	}
}
