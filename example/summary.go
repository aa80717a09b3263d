package main

import (
	"fmt"
	"strings"
)

// A summary compares a load with spillover and without it.
type summary struct {
	counts
	used, usedAlone float64 // shares of the PTU's capacity
}

// sum sums up what has happened until the last view.
func (c *comparison) sum(v view) summary {
	capacity := max(1, float64(c.size.ptu.TPM)*v.at.Minutes())
	return summary{v.counts, c.servers[0].Stats().Charged / capacity, c.alonePTU.Stats().Charged / capacity}
}

// summaryColumn is where the values of a summary begin.
const summaryColumn = 21

func (s summary) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-*s%s\n", summaryColumn-2, name, fmt.Sprintf(format, args...))
	}
	b.WriteString("Summary\n")
	line("without spillover:", "%s would have received a 429", s.of(s.rateLimitedAlone))
	line("with spillover:", "%s received a 429", s.of(s.rateLimited))
	line("answered by PAYG:", "%s, while the PTU was nearly full", s.of(s.spilled))
	line("PTU used:", "%.0f %% of its capacity; without spillover %.0f %%", 100*s.used, 100*s.usedAlone)
	line("other errors:", "%d", s.failed+s.failedAlone)
	if s.failure != nil {
		line("", "for example %v", s.failure)
	}
	b.WriteString("Without spillover, a plain go-openai client sends the same chats at the same times to the same PTU. It does not retry.\n")
	return b.String()
}

// of is a number of chats, and its share of all.
func (s summary) of(n int) string {
	return fmt.Sprintf("%*d of %d chats (%.1f %%)", len(fmt.Sprint(s.chats)), n, s.chats, 100*float64(n)/float64(max(1, s.chats)))
}
