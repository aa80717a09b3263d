package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// simulate plays a load in virtual time. It must be called in a bubble.
func simulate(t *testing.T, l load, s size, live bool) (p *pool, status int, printed string) {
	p, err := newPool(s, 1, memory)
	require.NoError(t, err)
	t.Cleanup(p.close)
	var out bytes.Buffer
	status = p.present(t.Context(), l, newScreen(&out, live))
	return p, status, out.String()
}

func TestDay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := day(8*time.Second, 1)
		p, printed := requireStory(t, l)
		require.Greater(t, p.sum(8*time.Second).used, 0.5)
		requirePlain(t, printed)
	})
}

// Any seed and length tells the same story.
func TestDays(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { requireStory(t, day(3*time.Second, seed)) })
		})
	}
}

// requireStory plays a day: the PTU is first and last, and callers are turned
// away only when everything is full.
func requireStory(t *testing.T, l load) (p *pool, printed string) {
	p, status, printed := simulate(t, l, daySize(l), false)
	require.Zero(t, status)
	requireConsistent(t, p, l)
	require.InDelta(t, 1, p.sum(l.length).possible, 0.25, "spilling a little early costs some of so short a day")
	busy, burst, after := l.phases[1].from, l.phases[2].from, l.phases[3].from
	for _, r := range p.tally.results {
		switch {
		case r.err != nil:
			require.GreaterOrEqual(t, r.at, burst)
			require.Less(t, r.at, after+2*time.Second)
			require.NotEmpty(t, r.wait)
		case r.at < busy, r.at > (after+l.length)/2:
			require.Equal(t, "ptu-sweden", r.backend, "at %v", r.at)
		}
	}
	c := p.tally.counts
	require.Greater(t, c.spilled, c.answered/10)
	require.Positive(t, c.absorbed)
	require.Positive(t, c.told)
	require.Less(t, c.told, c.chats/8, "only a few")
	return p, printed
}

// requireConsistent compares what callers, the transport and the deployments
// have counted.
func requireConsistent(t *testing.T, p *pool, l load) {
	v, _ := p.tally.now()
	require.Equal(t, len(l.chats), v.chats)
	require.Equal(t, v.chats, v.answered+v.told+v.failed)
	require.Zero(t, v.failed)
	answers, refusals, cost := map[string]int{}, 0, 0
	for _, r := range p.tally.results {
		answers[r.backend]++
		refusals += r.refusals
		if r.backend == deployments[0].name {
			cost += r.cost()
		}
	}
	require.Equal(t, v.told, answers[""])
	require.Equal(t, v.answered-v.spilled, answers[deployments[0].name])
	throttled := 0
	for i, row := range p.view(time.Now()).rows {
		s := p.servers[i].Stats()
		require.Equal(t, deployments[i].name, row.name)
		require.EqualValues(t, answers[row.name], row.Served)
		require.EqualValues(t, s.Served, row.Served)
		require.EqualValues(t, s.Throttled, row.Throttled)
		require.Zero(t, row.Failed+uint64(s.Failed+s.Canceled+s.InFlight+row.InFlight))
		throttled += s.Throttled
	}
	require.Equal(t, throttled, refusals)
	require.InDelta(t, cost, p.servers[0].Stats().Charged, 0.5)
}

func requirePlain(t *testing.T, printed string) {
	require.NotContains(t, printed, "\x1b")
	requireNarrow(t, printed)
	require.Len(t, regexp.MustCompile(`(?m)^ +\d\.0s  ptu-sweden +\d+ .* got a 429 +\d+$`).FindAllString(printed, -1), 8)
	requireOrder(t, printed,
		"spillover puts several Azure OpenAI deployments behind your OpenAI SDK",
		"== calm: ", "== busy: ", "the PTU is full: failing over",
		"== burst: ", "every deployment is rate-limited: 429 to the caller, Retry-After ",
		"back on the PTU only",
		"tier  deployment ", "ptu-sweden   ready ",
		"PTU used ", " of what it could have served\n", "spilled ", "429s absorbed ", "429s to the caller ",
		"other errors        0\n", "added latency       p50 0.00 ms, p99 ",
	)
	require.Equal(t, 1, strings.Count(printed, "tier  deployment "))
}

func TestLive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := day(2*time.Second, 1)
		_, _, printed := simulate(t, l, daySize(l), true)
		frames := strings.Split(printed, "\x1b[6A\x1b[J")
		require.Greater(t, len(frames), 20, "ten tables a second")
		requireNarrow(t, strings.NewReplacer(noWrap, "", wrap, "").Replace(strings.Join(frames, "")))
		require.Contains(t, printed, " full, ")
		require.Contains(t, frames[len(frames)-1], "Summary")
		require.NotRegexp(t, `(?m)^ +\d\.0s  ptu-sweden`, printed, "the table says it all")
	})
}

func requireNarrow(t *testing.T, printed string) {
	for line := range strings.Lines(printed) {
		require.LessOrEqual(t, len([]rune(line)), 81, "%s", line)
	}
}

func requireOrder(t *testing.T, printed string, parts ...string) {
	rest := printed
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		require.True(t, found, "%q is not there, or too early, in\n%s", part, printed)
		rest = after
	}
}

// An error that is no 429 is what the example must never show.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := day(2*time.Second, 1)
		p, err := newPool(daySize(l), 1, memory)
		require.NoError(t, err)
		defer p.close()
		p.servers[0].Set(spillovertest.Fault{Status: http.StatusBadRequest, Body: `{"error":{"message":"no"}}`, Times: 1})
		var out bytes.Buffer
		require.Equal(t, 1, p.present(t.Context(), l, newScreen(&out, false)))
		requireOrder(t, out.String(), "1 failed with an error other than 429", "other errors        1\n", "for example error, status code: 400")
	})
}

// An interrupt ends the load, not the report.
func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := day(8*time.Second, 1)
		p, err := newPool(daySize(l), 1, memory)
		require.NoError(t, err)
		defer p.close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var out bytes.Buffer
		require.Zero(t, p.present(ctx, l, newScreen(&out, false)))
		require.Contains(t, out.String(), "Summary")
		require.Less(t, p.tally.counts.chats, 40)
		require.Zero(t, p.tally.counts.failed)
	})
}

func TestNothing(t *testing.T) {
	p, err := newPool(daySize(load{}), 1, memory)
	require.NoError(t, err)
	require.Contains(t, p.sum(0).String(), "0 of 0 answers (0.0 %)")
}

// The other tests have no connections; this one has.
func TestLoopback(t *testing.T) {
	p, err := newPool(size{}, 1, loopback)
	require.NoError(t, err)
	defer p.close()
	p.ask(chat{prompt: 10, output: 5})
	p.ask(chat{prompt: 10, output: 5, stream: true})
	require.Equal(t, counts{chats: 2, answered: 2}, p.tally.counts)
}

func TestFlags(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.csv")
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-h"}, 0, "-seconds"},
		{[]string{"-nope"}, 2, "-nope"},
		{[]string{"more"}, 2, `unexpected argument "more"`},
		{[]string{"-seconds", "-1"}, 2, "-seconds must be positive"},
		{[]string{"-trace", missing, "-speed", "0"}, 2, "-speed must be above 0"},
		{[]string{"-trace", missing}, 1, missing},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, c.status, run(t.Context(), c.args, &out, &errs), "%v", c.args)
		require.Contains(t, errs.String(), c.says)
		require.Empty(t, out.String())
	}
}

func TestIsTerminal(t *testing.T) {
	require.False(t, isTerminal(&bytes.Buffer{}))
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer f.Close()
	require.False(t, isTerminal(f))
}
