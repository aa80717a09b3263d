package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A summary is what somebody who pays for a PTU wants to know.
type summary struct {
	counts
	used     float64 // share of the PTU's capacity in the time it ran
	possible float64 // share of what the PTU could have taken of this load
	p50, p99 time.Duration
	failure  error // one of the failed
}

// sum looks back at a run.
func (p *pool) sum(ran time.Duration) summary {
	p.tally.mu.Lock()
	defer p.tally.mu.Unlock()
	s := summary{counts: p.tally.counts}
	var chats []chat
	var added []time.Duration
	for _, r := range p.tally.results {
		chats = append(chats, r.chat)
		switch {
		case r.err == nil:
			added = append(added, r.sent.Sub(r.entered))
		case r.status != 429:
			s.failure = r.err
		}
	}
	slices.SortFunc(chats, func(a, b chat) int { return cmp.Compare(a.at, b.at) })
	slices.Sort(added)
	s.p50, s.p99 = quantile(added, 0.50), quantile(added, 0.99)

	charged := p.servers[0].Stats().Charged
	s.used = ratio(charged, float64(p.size.ptu.TPM)*ran.Minutes())
	taken, _ := p.size.ideal(chats)
	s.possible = ratio(charged, float64(taken))
	return s
}

func (s summary) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-20s%s\n", name, fmt.Sprintf(format, args...))
	}
	b.WriteString("Summary\n")
	// In what order chats arrived exactly may get a PTU a little more than its ideal.
	line("PTU used", "%.0f %% of its capacity, %.0f %% of what it could have served", 100*s.used, min(100, 100*s.possible))
	line("spilled", "%d of %d answers (%.1f %%) from the fallback tier", s.spilled, s.answered, percent(s.spilled, s.answered))
	line("429s absorbed", "%d: refused by one deployment, answered by another", s.absorbed)
	line("429s to the caller", "%d of %d chats (%.1f %%), each with a Retry-After", s.told, s.chats, percent(s.told, s.chats))
	line("other errors", "%d", s.failed)
	if s.failure != nil {
		line("", "for example %v", s.failure)
	}
	line("added latency", "p50 %s, p99 %s until the send that succeeded", milliseconds(s.p50), milliseconds(s.p99))
	return b.String()
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

func percent(n, of int) float64 { return 100 * ratio(float64(n), float64(of)) }

func ratio(n, of float64) float64 {
	if of == 0 {
		return 0
	}
	return n / of
}

// quantile of sorted durations.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}
