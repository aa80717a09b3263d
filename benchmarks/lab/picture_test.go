package lab

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
)

// The picture of the README shows the figures of the report.
func TestPictureInDocs(t *testing.T) {
	report, err := os.ReadFile("REPORT.md")
	require.NoError(t, err)
	svg, err := Picture(string(report))
	require.NoError(t, err)
	doctest.File(t, "../../docs/ptu-use.svg", svg)
}

// A report without the figures is no picture.
func TestPictureOfAnotherReport(t *testing.T) {
	const used, refused = "### PTU used over the oracle's, B = 10\n\n", "### Wasted attempts, B = 10\n\n"
	const row = "|  | spillover |\n| --- | ---: |\n| M=8 ρ=0.9 | 1.000 |\n\n"
	for _, report := range []string{"", used + row, used + row + refused + "|  | spillover |\n\n", used + "| | spillover |\n| M=8 ρ=0.9 | – |\n\n"} {
		_, err := Picture(report)
		require.Error(t, err, report)
	}
	_, err := Picture(used + row + refused + row)
	require.NoError(t, err)
}
