package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spillover-go/spillover"
)

// A screen shows what happens: notable events line by line, and below them a
// table that is drawn anew, or, where that cannot be, a line each second.
type screen struct {
	w      io.Writer
	live   bool
	drawn  int // lines of the table that is on the terminal
	before view
	second view // as of the last whole second
	news
}

// A view is everything to show at one moment.
type view struct {
	at   time.Duration
	now  time.Time
	rows []row
	counts
	wait string
}

type row struct {
	tier int
	name string
	spillover.DeploymentStatus
}

func newScreen(w io.Writer, live bool) *screen { return &screen{w: w, live: live} }

// isTerminal reports whether w is a terminal that can be redrawn.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (s *screen) open(l load, z size) {
	fmt.Fprintf(s.w, `spillover puts several Azure OpenAI deployments behind your OpenAI SDK, as its
http.RoundTripper. Requests go to the provisioned deployment (PTU) while it has
capacity. They fail over to pay-as-you-go deployments when it has none. A caller
gets a 429 only when every deployment is rate-limited.

Simulated here: %s.
%s

`, l.about, z.about)
}

// A table line that a narrow terminal broke in two would spoil the count of
// the lines to draw over.
const noWrap, wrap = "\x1b[?7l", "\x1b[?7h"

// watch shows what happens until stop is closed, and how it ended.
func (p *pool) watch(start time.Time, l load, s *screen, stop <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.show(p.view(start), l)
		case <-stop:
			s.show(p.view(start), l)
			s.close()
			return
		}
	}
}

func (p *pool) view(start time.Time) view {
	v := view{now: time.Now()}
	v.at = v.now.Sub(start)
	for _, t := range p.balancer.Status().Tiers {
		for _, b := range t.Backends {
			v.rows = append(v.rows, row{t.Priority, b.Name, b.Deployments[0]})
		}
	}
	v.counts, v.wait = p.tally.now()
	return v
}

func (s *screen) show(v view, l load) {
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", s.drawn) // up, and clear all below
	}
	for _, event := range s.news.of(v, l) {
		fmt.Fprintf(&b, "%5.1fs  %s\n", v.at.Seconds(), event)
	}
	switch {
	case s.live:
		table := v.table()
		s.drawn = strings.Count(table, "\n")
		b.WriteString(noWrap + table + wrap)
	case v.at.Truncate(time.Second) > s.second.at.Truncate(time.Second):
		b.WriteString(v.line(s.second))
		s.second = v
	}
	s.before = v
	io.WriteString(s.w, b.String())
}

// close leaves the last table on the screen.
func (s *screen) close() {
	if !s.live {
		io.WriteString(s.w, s.before.table())
	}
	fmt.Fprintln(s.w)
}

// line says who answered since an earlier view.
func (v view) line(since view) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%5.1fs  ", v.at.Seconds())
	for i, r := range v.rows {
		served := r.Served
		if since.rows != nil {
			served -= since.rows[i].Served
		}
		fmt.Fprintf(&b, "%s %3d   ", r.name, served)
	}
	fmt.Fprintf(&b, "got a 429 %3d\n", v.told-since.told)
	return b.String()
}

// table shows the deployments.
func (v view) table() string {
	var b strings.Builder
	b.WriteString("\n  tier  deployment   state            in flight   served  throttled  share\n")
	for _, r := range v.rows {
		share := 0.0
		if v.served() > 0 {
			share = 100 * float64(r.Served) / float64(v.served())
		}
		fmt.Fprintf(&b, "  %4d  %-11s  %-15s  %9d  %7d  %9d  %3.0f %%\n",
			r.tier, r.name, r.state(v.now), r.InFlight, r.Served, r.Throttled, share)
	}
	fmt.Fprintf(&b, "  %.1f s: %d chats, %d answered, %d 429s to the caller, %d absorbed\n",
		v.at.Seconds(), v.chats, v.answered, v.told, v.absorbed)
	return b.String()
}

// served is how many answers came from deployments.
func (v view) served() (n uint64) {
	for _, r := range v.rows {
		n += r.Served
	}
	return n
}

// state says whether the deployment is available, and if not, why and how long.
func (r row) state(now time.Time) string {
	if r.Available {
		return "ready"
	}
	why := "out"
	if strings.HasPrefix(r.Reason, "429") {
		why = "full"
	}
	left := r.Until.Sub(now)
	if left < time.Second {
		return fmt.Sprintf("%s, %d ms left", why, max(0, left.Milliseconds()))
	}
	return fmt.Sprintf("%s, %.1f s left", why, left.Seconds())
}

// thousands writes 1250000 as 1,250,000.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
