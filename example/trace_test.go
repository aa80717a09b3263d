package main

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const firstLine = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"

func TestReadTrace(t *testing.T) {
	const lines = firstLine +
		"2023-11-16 18:15:46.6805900,374,44\r\n" +
		"2023-11-16 18:15:48.6805900,14050,0\r\n" +
		"2023-11-16 18:15:58.6805900,0,3"
	l, err := readTrace(strings.NewReader(lines), 2, 0)
	require.NoError(t, err)
	require.Equal(t, []chat{
		{at: 0, prompt: 374, output: 44, stream: true},
		{at: time.Second, prompt: maxPrompt, output: 1},
		{at: 6 * time.Second, prompt: 1, output: 3},
	}, l.chats)
	require.Equal(t, 6*time.Second, l.length)
	require.GreaterOrEqual(t, len(filler), 4*maxPrompt)

	l, err = readTrace(strings.NewReader(lines), 2, 5*time.Second)
	require.NoError(t, err)
	require.Len(t, l.chats, 2)
	require.Equal(t, time.Second, l.length)
}

func TestReadTraceErrors(t *testing.T) {
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
		_, err := readTrace(strings.NewReader(lines), 1, 0)
		require.ErrorContains(t, err, says, "%q", lines)
	}
}

func TestTraceReplay(t *testing.T) {
	t.Parallel()
	const file = "../../shared/data/AzureLLMInferenceTrace_conv.csv"
	l, err := openTrace(file, 1, 2*time.Minute)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the trace is not part of the repository, and not at " + file)
	}
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		p, status, printed := simulate(t, l, traceSize(l, 1), false)
		require.Zero(t, status)
		requireConsistent(t, p, l)
		requireNarrow(t, printed)
		require.Contains(t, printed, "2 minutes, ")
		require.Contains(t, printed, "65 % of the average")
		c := p.tally.counts
		require.Zero(t, c.told, "pay-as-you-go takes all that the PTU cannot")
		require.Greater(t, c.spilled, c.chats/20)
		require.InDelta(t, 1, p.sum(2*time.Minute).possible, 0.2)
	})
}
