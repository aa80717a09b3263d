package health

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestRetryBudgetSteps(t *testing.T) {
	for name, test := range map[string]struct{ do, got string }{
		"it starts full":                 {"ssssssssssss", "yyyyyyyyyynn"},
		"five successes earn one":        {"ssssssssss eeee s e s s", "yyyyyyyyyy n y n"},
		"no more than ten are kept":      {"eeeeeeeeeeeeee ssssssssss s", "yyyyyyyyyy n"},
		"a fifth more than full is none": {"e ssssssssss eeee s", "yyyyyyyyyy n"},
		"one spent, one earned":          {"s eeeee ssssssssss s", "y yyyyyyyyyy n"},
	} {
		var b RetryBudget
		var got strings.Builder
		for _, do := range test.do {
			switch do {
			case 's':
				got.WriteByte("ny"[map[bool]int{true: 1}[b.Spend(AttemptCost)]])
			case 'e':
				b.Earn(1)
			}
		}
		require.Equal(t, strings.ReplaceAll(test.got, " ", ""), got.String(), name)
	}
}

func TestRetryBudgetProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b RetryBudget
		left := 10.0
		for i, earns := range rapid.SliceOfN(rapid.Bool(), 0, 200).Draw(t, "earns") {
			if earns {
				b.Earn(1)
				left = min(10, left+0.2)
				continue
			}
			could := left > 1-1e-9
			if require.Equal(t, could, b.Spend(AttemptCost), "step %d, %.1f left", i, left); could {
				left--
			}
		}
	})
}

func TestBudgetHasWhatItCanSpend(t *testing.T) {
	var b RetryBudget
	require.True(t, b.Has(budgetFull))
	require.False(t, b.Has(budgetFull+1))
	require.True(t, b.Spend(LastResortCost))
	require.True(t, b.Has(budgetFull-LastResortCost))
	require.False(t, b.Has(budgetFull-LastResortCost+1))
}
