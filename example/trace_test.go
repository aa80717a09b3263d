package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const firstLine = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"

func TestTraceIsReadInFull(t *testing.T) {
	const lines = firstLine +
		"2023-11-16 18:15:46.6805900,374,44\r\n" +
		"2023-11-16 18:15:46.6805900,1,1\r\n" +
		"2023-11-16 18:15:46.6805900,2,2\r\n" +
		"2023-11-16 18:15:48.6805900,14050,0\r\n" +
		"2023-11-16 18:15:58.6805900,0,3"
	l, err := readTrace(strings.NewReader(lines))
	require.NoError(t, err)
	require.Equal(t, []chat{
		{at: 0, prompt: 374, output: 44, stream: true},
		{at: 1, prompt: 1, output: 1},
		{at: 2, prompt: 2, output: 2},
		{at: 2 * time.Second, prompt: maxPrompt, output: 1},
		{at: 12 * time.Second, prompt: 1, output: 3, stream: true},
	}, l.chats)
	require.Equal(t, 12*time.Second, l.length)
	require.GreaterOrEqual(t, len(filler), 4*maxPrompt)

	l = l.first(5 * time.Second)
	require.Len(t, l.chats, 4)
	require.Equal(t, 5*time.Second, l.length)
}

func TestWrongTraceIsExplained(t *testing.T) {
	const good = "2023-11-16 18:15:46.6805900,374,44\n"
	for lines, says := range map[string]string{
		"":                             "the file is empty",
		good:                           "line 1: the header must be TIMESTAMP,ContextTokens,GeneratedTokens",
		"module example\n":             "line 1: the header must be TIMESTAMP,ContextTokens,GeneratedTokens",
		firstLine:                      "a trace needs requests at two different times at least",
		firstLine + good:               "a trace needs requests at two different times at least",
		firstLine + good + "x,1,1\n":   `line 3: TIMESTAMP "x" is not like 2023-11-16 18:15:46.6805900`,
		firstLine + good + "\n\nx,1,1": `line 5: TIMESTAMP "x"`,
		firstLine + good + "2023-11-16 18:15:47,-1,1": `line 3: ContextTokens "-1" is not a number of tokens`,
		firstLine + "2023-11-16 18:15:47,1,1.5":       `line 2: GeneratedTokens "1.5" is not a number of tokens`,
		firstLine + good + "2023-11-16 18:15:47,1":    "line 3: wrong number of fields",
		firstLine + good + "2023-11-16 18:15:46,1,1":  "line 3: its time is before that of the previous line",
	} {
		_, err := readTrace(strings.NewReader(lines))
		require.ErrorContains(t, err, says, "%q", lines)
	}
}

// testdata/trace.csv is the first two minutes of AzureLLMInferenceTrace_conv.csv, by P. Patel et al. ("Splitwise",
// ISCA 2024), from github.com/Azure/AzurePublicDataset, which has the licence CC BY.
func TestTraceNeedsPAYG(t *testing.T) {
	t.Parallel()
	l, err := openTrace("testdata/trace.csv")
	require.NoError(t, err)
	l = l.first(2 * time.Minute)
	synctest.Test(t, func(t *testing.T) {
		c, err := newComparison(l, traceSize(l), 1)
		require.NoError(t, err)
		s, out := plain()
		sum := c.play(t.Context(), s, atOnce)
		requireConsistent(t, c)
		fitted(t, out.String(), standardWidth)
		require.Contains(t, out.String(), "trace.csv")
		require.Zero(t, sum.rateLimited, "PAYG takes all that the PTU cannot")
		require.Greater(t, sum.rateLimitedAlone, sum.chats/20)
		require.Greater(t, sum.spilled, sum.chats/20)
	})
}
