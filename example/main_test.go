package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/spillover-go/spillover/spillovertest"
)

// atOnce shows everything without waiting for real time.
func atOnce(time.Duration) {}

// plain is a screen that prints to a buffer.
func plain() (*screen, *bytes.Buffer) {
	out := new(bytes.Buffer)
	return newScreen(out, false), out
}

// output runs the program and returns what it prints.
func output(t *testing.T, args ...string) string {
	var out, errs bytes.Buffer
	require.Zero(t, run(t.Context(), append(args, "-speed", "1000"), &out, &errs), "%s", &errs)
	require.Empty(t, errs.String())
	return out.String()
}

// The README quotes this file.
func TestOutputInDocs(t *testing.T) {
	printed := output(t)
	doctest.File(t, "testdata/output.txt", printed)
	require.NotContains(t, printed, "\x1b")
	require.Equal(t, printed, fitted(t, printed, standardWidth))
}

func TestSameSeedPrintsTheSame(t *testing.T) {
	second := output(t, "-seed", "2")
	require.Equal(t, second, output(t, "-seed", "2"))
	require.NotEqual(t, output(t, "-seed", "2", "-seconds", "5"), output(t, "-seed", "3", "-seconds", "5"))
}

func TestOtherSeedsShowFailoverAndReturnToo(t *testing.T) {
	for _, seed := range []uint64{2, 3} {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := newComparison(standardLoad(seed), standardSize, seed)
				require.NoError(t, err)
				s, out := plain()
				sum := c.play(t.Context(), s, atOnce)
				requireConsistent(t, c)
				require.Greater(t, sum.rateLimitedAlone, sum.chats/3)
				require.Positive(t, sum.rateLimited)
				require.Less(t, sum.rateLimited, sum.chats/8)
				require.InDelta(t, sum.usedAlone, sum.used, 0.05, "the PTU loses little work")
				requireOrder(t, out.String(),
					" calm: ", " busy: ", "> the PTU is nearly full: failing over to PAYG",
					" burst: ", "> every deployment is rate-limited: 429 to the caller",
					" calm again\n", "> back on the PTU only\n",
					"ptu-sweden ", "Summary\n", "would have received a 429\n", "other errors:      0\n",
				)
			})
		})
	}
}

// requireConsistent compares what callers, the transport and the simulated
// deployments have counted.
func requireConsistent(t *testing.T, c *comparison) {
	n := c.counts
	require.Equal(t, len(c.load.chats), n.chats)
	require.Equal(t, n.chats, n.answered+n.rateLimited)
	require.Zero(t, n.failed+n.failedAlone)
	rows, shares := c.view().rows, 0
	require.Len(t, rows, len(deployments))
	for i, row := range rows {
		s := c.servers[i].Stats()
		require.Equal(t, deployments[i].name, row.name)
		require.Equal(t, s.Served, row.served)
		require.Equal(t, s.Throttled, row.throttled)
		require.Zero(t, s.Failed+s.Canceled+s.InFlight+row.inFlight)
		shares += row.share
	}
	require.Equal(t, 100, shares)
	require.Equal(t, n.answered-n.spilled, rows[0].served)
	require.Equal(t, n.spilled, rows[1].served+rows[2].served)
	alone := c.alonePTU.Stats()
	require.Equal(t, n.rateLimitedAlone, alone.Throttled)
	require.Equal(t, n.chats-n.rateLimitedAlone, alone.Served)
}

func requireOrder(t *testing.T, printed string, parts ...string) {
	rest := printed
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		require.True(t, found, "%q is missing or too early in\n%s", part, printed)
		rest = after
	}
}

func TestSharesAddUpTo100(t *testing.T) {
	for _, served := range [][]int{{173, 129, 126}, {1, 1, 1}, {2, 2, 2}, {0, 0, 7}, {1, 0, 999}, {1, 5, 994}} {
		v := view{}
		for _, n := range served {
			v.rows = append(v.rows, row{served: n})
		}
		v.share()
		total, sum := 0, 0
		for i, r := range v.rows {
			total += r.share
			sum += served[i]
		}
		require.Equal(t, 100, total)
		for i, r := range v.rows {
			require.InDelta(t, 100*float64(served[i])/float64(sum), float64(r.share), 1)
		}
	}
	v := view{rows: []row{{}, {}}}
	v.share()
	require.Zero(t, v.rows[0].share, "nothing was served")
}

// fitted requires that no line is longer than width, and returns the text as a
// terminal without automatic line breaks shows it in the end.
func fitted(t *testing.T, printed string, width int) string {
	var shown []string
	up := regexp.MustCompile(`^\x1b\[(\d+)A\x1b\[J`)
	style := regexp.MustCompile(`\x1b\[(0|3[123])m|\x1b\[\?7[lh]`)
	for line := range strings.Lines(printed) {
		line = strings.TrimPrefix(line, autoWrap)
		if m := up.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			require.NoError(t, err)
			shown, line = shown[:len(shown)-n], line[len(m[0]):]
		}
		line = style.ReplaceAllString(line, "")
		require.NotContains(t, line, "\x1b")
		require.LessOrEqual(t, utf8.RuneCountInString(line)-1, width, "%s", line)
		shown = append(shown, line)
	}
	return strings.Join(shown, "")
}

func TestTerminalShowsTheSameInTheEnd(t *testing.T) {
	l := standardLoad(1).first(time.Minute)
	var views []view
	var sum summary
	synctest.Test(t, func(t *testing.T) {
		c, err := newComparison(l, standardSize, 1)
		require.NoError(t, err)
		s, _ := plain()
		sum = c.play(t.Context(), s, func(time.Duration) { views = append(views, c.view()) })
	})
	require.Greater(t, len(views), 100, "two frames a second")
	for _, width := range []int{40, 60, 80, 120, 200} {
		printed, redrawn := new(bytes.Buffer), new(bytes.Buffer)
		for _, s := range []*screen{
			{w: printed, width: width},
			{w: redrawn, width: width, live: true, colour: true},
		} {
			s.open(l, standardSize)
			for _, v := range views {
				s.show(v, l)
			}
			s.close(views[len(views)-1], l, sum)
		}
		require.Equal(t, printed.String(), fitted(t, redrawn.String(), width))
		require.Equal(t, len(views), strings.Count(redrawn.String(), "deployment   state ")-1, "a table for each frame, and one at the end")
	}
}

// The columns of the table start at the same place in each line, whatever the
// state is.
func TestTableAligns(t *testing.T) {
	v := view{rows: []row{
		{tier: 1, name: "ptu-sweden", state: state{"cooling", 59999 * time.Millisecond}, inFlight: 123, served: 12602, throttled: 1234, share: 100, use: 1.01},
		{tier: 2, name: "payg-sweden", state: state{name: "ready"}, use: 0.5},
		{tier: 2, name: "payg-france", state: state{"out", 5 * time.Minute}, served: 7, use: 0.004},
	}}
	for width, want := range map[int]string{
		40: `
  deployment   state           answers
  ptu-sweden   cooling 60.0 s    12602
  payg-sweden  ready                 0
  payg-france  out 300.0 s           7
`,
		60: `
  tier  deployment   state           429s  answers  share
     1  ptu-sweden   cooling 60.0 s  1234    12602  100 %
     2  payg-sweden  ready              0        0    0 %
     2  payg-france  out 300.0 s        0        7    0 %
`,
		80: `
  tier  deployment   state           in flight  429s  answers  share  in use
     1  ptu-sweden   cooling 60.0 s        123  1234    12602  100 %   101 %
     2  payg-sweden  ready                   0     0        0    0 %    50 %
     2  payg-france  out 300.0 s             0     0        7    0 %     0 %
`,
		120: `
  tier  deployment   state           in flight  429s  answers  share  in use
     1  ptu-sweden   cooling 60.0 s        123  1234    12602  100 %   101 %  ████████████████████████████████████████
     2  payg-sweden  ready                   0     0        0    0 %    50 %  ████████████████████░░░░░░░░░░░░░░░░░░░░
     2  payg-france  out 300.0 s             0     0        7    0 %     0 %  ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░
`,
	} {
		require.Equal(t, want, "\n"+v.table(width, false))
		require.Equal(t, want, "\n"+fitted(t, v.table(width, true), width))
		require.Equal(t, v.table(width, false), fitted(t, v.table(width, false), width))
	}
	require.Equal(t, v.table(120, false), v.table(200, false))
	coloured := v.table(40, true)
	for state, colour := range map[string]string{"cooling": "\x1b[33m", "ready": "\x1b[32m", "out": "\x1b[31m"} {
		require.Contains(t, coloured, colour+"  "+state)
	}
}

func TestWrap(t *testing.T) {
	require.Equal(t, "short\n", wrap("short", 10, 2))
	require.Equal(t, "a line\n  longer\n  than ten\n", wrap("a line longer than ten", 10, 2))
	require.Equal(t, "unbreakable\n", wrap("unbreakable", 10, 2))
	require.Equal(t, "an\n  unbreakable word\n", wrap("an unbreakable word", 10, 2))
}

// /dev/null is a character device, as terminals are.
func TestColourOnlyWhereItIsWanted(t *testing.T) {
	device, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer device.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	require.Equal(t, &screen{w: device, live: true, colour: true, width: standardWidth}, newScreen(device, false))
	require.Equal(t, &screen{w: device, width: standardWidth}, newScreen(device, true), "-plain")
	t.Setenv("NO_COLOR", "1")
	require.Equal(t, &screen{w: device, live: true, width: standardWidth}, newScreen(device, false))
	t.Setenv("TERM", "dumb")
	require.Equal(t, &screen{w: device, width: standardWidth}, newScreen(device, false))
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer file.Close()
	t.Setenv("TERM", "xterm")
	require.False(t, isTerminal(file))
	require.False(t, newScreen(new(bytes.Buffer), false).live)
}

func TestOtherErrorsAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := newComparison(standardLoad(1).first(2*time.Second), standardSize, 1)
		require.NoError(t, err)
		c.servers[0].Set(spillovertest.Fault{Status: http.StatusBadRequest, Body: `{"error":{"message":"no"}}`, Times: 1})
		s, out := plain()
		sum := c.play(t.Context(), s, atOnce)
		require.Equal(t, 1, sum.failed)
		requireOrder(t, out.String(), "> errors other than 429: 1", "other errors:      1\n", "for example error, status code: 400")
	})
}

func TestInterruptEndsWithSummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := newComparison(standardLoad(1), standardSize, 1)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s, out := plain()
		sum := c.play(ctx, s, atOnce)
		require.Contains(t, out.String(), fmt.Sprintf("0 of %d chats", sum.chats))
		require.Less(t, sum.chats, 200)
		require.Zero(t, sum.failed)
	})
}

func TestNothingSent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	require.Zero(t, run(ctx, []string{"-speed", "0.001"}, &out, &errs))
	require.Contains(t, out.String(), "0 of 0 chats (0.0 %)")
	require.Contains(t, out.String(), "0 % of its capacity")
}

func TestPacerIsSlowerThanVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		pace, stop := newPacer(ctx, 10)
		defer stop()
		start := time.Now()
		pace(20 * time.Second)
		require.Equal(t, 2*time.Second, time.Since(start))
		pace(10 * time.Second)
		require.Equal(t, 2*time.Second, time.Since(start), "that time is over")
		cancel()
		pace(time.Hour)
		require.Equal(t, 2*time.Second, time.Since(start), "an interrupt ends the waiting")
	})
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
		{[]string{"-seconds", "0"}, 2, "-seconds must be positive"},
		{[]string{"-speed", "NaN"}, 2, "-speed must be above 0"},
		{[]string{"-trace", missing, "-speed", "0"}, 2, "-speed must be above 0"},
		{[]string{"-trace", missing}, 1, missing},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, c.status, run(t.Context(), c.args, &out, &errs), "%v", c.args)
		require.Contains(t, errs.String(), c.says)
		require.Empty(t, out.String())
	}
}

func TestSecondsEndsTheLoadEarly(t *testing.T) {
	require.Contains(t, output(t, "-seconds", "10"), "10 s of chats")
}
