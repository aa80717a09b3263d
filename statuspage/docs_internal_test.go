package statuspage

import (
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The documentation has the states of the page, in its order, and its bounds.
func TestDocsHaveStatesAndBounds(t *testing.T) {
	text, err := os.ReadFile("../docs/statuspage.md")
	require.NoError(t, err)
	at := 0
	for _, s := range states {
		found := regexp.MustCompile(`(?m)^\| ` + s.Word + ` \|`).FindIndex(text)
		require.NotNil(t, found, s.Word)
		require.Greater(t, found[0], at, s.Word)
		at = found[0]
	}
	require.Contains(t, string(text), fmt.Sprintf("%d samples of at most %d deployments", maxSamples, maxSeries))
	require.Regexp(t, fmt.Sprintf(`lists at\s+most %d deployments`, maxRows), string(text))
	require.Contains(t, string(text), fmt.Sprintf("every %.0f s", sampleInterval.Seconds()))
}

func TestNumbersAreShort(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 1: "1", 999: "999", 999.6: "1 k", 1234: "1.2 k", 99_960: "100 k", 1_000_000: "1 M", 2.5e9: "2.5 G", 7e12: "7 T", 5e15: "5,000 T"} {
		require.Equal(t, want, compact(x), x)
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		require.Equal(t, want, number(n))
	}
	for x, want := range map[float64]string{0: "0 %", 0.001: "< 1 %", 0.5: "50 %", 0.996: "> 99 %", 1: "100 %"} {
		require.Equal(t, want, percent(x))
	}
	for s, want := range map[float64]string{-1: "0 s", 0: "0 s", 0.2: "1 s", 59: "59 s", 60: "1 min 00 s", 3599: "59 min 59 s", 3600: "1 h 00 min", 86400: "1 d 00 h", 180000: "2 d 02 h"} {
		require.Equal(t, want, duration(time.Duration(s*float64(time.Second))))
	}
}
