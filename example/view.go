package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillover-go/spillover"
)

// A view is everything to show at one moment.
type view struct {
	at   time.Duration
	rows []row // one for each deployment
	counts
}

type row struct {
	tier                        int
	name                        string
	state                       state
	inFlight, served, throttled int
	share                       int     // of all answers, in percent
	use                         float64 // of the limit; 1 is all of it
}

// sentToPAYG is the number of chats that PAYG has answered or is answering.
func (v view) sentToPAYG() (n int) {
	for _, r := range v.rows {
		if r.tier > 1 {
			n += r.served + r.inFlight
		}
	}
	return n
}

// share computes the shares. They are rounded so that their sum is 100.
func (v view) share() {
	total := 0
	for _, r := range v.rows {
		total += r.served
	}
	if total == 0 {
		return
	}
	left := 100
	byRest := make([]int, len(v.rows))
	for i := range v.rows {
		byRest[i] = i
		v.rows[i].share = 100 * v.rows[i].served / total
		left -= v.rows[i].share
	}
	rest := func(i int) int { return 100 * v.rows[i].served % total }
	slices.SortStableFunc(byRest, func(i, j int) int { return cmp.Compare(rest(j), rest(i)) })
	for _, i := range byRest[:left] {
		v.rows[i].share++
	}
}

// A state is that of a deployment, with the time until it is asked again.
type state struct {
	name string // ready, cooling or out
	left time.Duration
}

func stateOf(d spillover.DeploymentStatus, now time.Time) state {
	switch {
	case d.Available:
		return state{name: "ready"}
	case strings.HasPrefix(d.Reason, "429"):
		return state{"cooling", d.Until.Sub(now)}
	}
	return state{"out", d.Until.Sub(now)}
}

func (s state) String() string {
	if s.name == "ready" {
		return s.name
	}
	return fmt.Sprintf("%s %.1f s", s.name, max(0, s.left).Seconds())
}

// The colours of states: escape sequences of terminals.
var colours = map[string]string{"ready": "\x1b[32m", "cooling": "\x1b[33m", "out": "\x1b[31m"}

const noColour = "\x1b[0m"

// A column of a table.
type column struct {
	from  int // the narrowest terminal that has room for it, in columns
	width int // negative: aligned to the left, as in fmt
	title string
	cell  func(row) string
}

var (
	tier       = column{60, 4, "tier", func(r row) string { return strconv.Itoa(r.tier) }}
	deployment = column{0, -11, "deployment", func(r row) string { return r.name }}
	states     = column{0, -14, "state", func(r row) string { return r.state.String() }}
	inFlight   = column{80, 9, "in flight", func(r row) string { return strconv.Itoa(r.inFlight) }}
	throttled  = column{60, 4, "429s", func(r row) string { return strconv.Itoa(r.throttled) }}
	answers    = column{0, 7, "answers", func(r row) string { return strconv.Itoa(r.served) }}
	share      = column{60, 5, "share", func(r row) string { return fmt.Sprintf("%d %%", r.share) }}
	use        = column{80, 6, "in use", func(r row) string { return fmt.Sprintf("%.0f %%", 100*r.use) }}
	bar        = column{120, -barWidth, "", func(r row) string {
		n := min(int(r.use*barWidth+0.5), barWidth)
		return strings.Repeat("█", n) + strings.Repeat("░", barWidth-n)
	}}
)

// minWidth is the width of the narrowest table.
const minWidth, barWidth = 40, 40

// table is the deployments at this moment, for a terminal of a width.
func (v view) table(width int, colour bool) string {
	columns := []column{tier, deployment, states, inFlight, throttled, answers, share, use, bar}
	columns = slices.DeleteFunc(columns, func(c column) bool { return c.from > width })
	return v.print(columns, colour)
}

// totals is what the deployments have done.
func (v view) totals() string { return v.print([]column{deployment, answers, share}, false) }

func (v view) print(columns []column, colour bool) string {
	var b strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&b, "  %*s", c.width, c.title)
	}
	lines := []string{b.String()}
	for _, r := range v.rows {
		b.Reset()
		for _, c := range columns {
			text := fmt.Sprintf("  %*s", c.width, c.cell(r))
			if colour && c.title == states.title {
				text = colours[r.state.name] + text + noColour
			}
			b.WriteString(text)
		}
		lines = append(lines, b.String())
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ") + "\n"
	}
	return strings.Join(lines, "")
}
