package batch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Progress turns the counts of a batch into text. Rates are those of the last minute,
// so that neither the start nor an earlier run distorts them.
type Progress struct {
	samples []sample // the oldest is at least rateSpan old, if the batch is
}

type sample struct {
	at       time.Time
	answered int64
	tokens   int64
}

// rateSpan is the time over which rates are measured.
const rateSpan = time.Minute

// Text describes the counts at a time, in as many characters as there is room for; 0
// means any number. It is called with times that do not decrease.
func (p *Progress) Text(c Counts, now time.Time, room int) string {
	s := sample{now, c.Answered, c.InputTokens + c.OutputTokens}
	p.samples = append(p.samples, s)
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) >= rateSpan {
		p.samples = slices.Delete(p.samples, 0, 1)
	}
	first := p.samples[0]
	var waiting, tokens, left string
	if c.Waiting > 0 {
		waiting = fmt.Sprintf("%d waiting", c.Waiting)
	}
	span := now.Sub(first.at).Seconds()
	if span > 0 {
		tokens = fmt.Sprintf("%.0f tokens/s", float64(s.tokens-first.tokens)/span)
	}
	if done := s.answered - first.answered; done > 0 && span > 0 && c.Left() > 0 {
		left = time.Duration(float64(c.Left())/float64(done)*span*float64(time.Second)).Round(time.Second).String() + " left"
	}
	parts := []string{fmt.Sprintf("%d failed", c.Failed), fmt.Sprintf("%d in flight", c.InFlight), waiting, tokens, c.shares(), left}
	text := joinParts(parts)
	for _, dispensable := range []int{4, 3, 2, 1, 5} {
		if room == 0 || len(text) <= room {
			break
		}
		parts[dispensable] = ""
		text = joinParts(parts)
	}
	return text
}

// joinParts joins the parts that there are.
func joinParts(parts []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(part string) bool { return part == "" }), ", ")
}

// Done is how many of the requests have an answer.
func (c Counts) Done() string {
	percent := 100.0
	if c.Total > 0 {
		percent = float64(c.Answered) / float64(c.Total) * 100
	}
	return fmt.Sprintf("%d of %d answered (%.1f %%)", c.Answered, c.Total, percent)
}

// shares are the responses of each tier, as shares.
func (c Counts) shares() string {
	var all int64
	for _, n := range c.Tiers {
		all += n
	}
	var parts []string
	for _, tier := range slices.Sorted(maps.Keys(c.Tiers)) {
		parts = append(parts, fmt.Sprintf("tier %d %.0f %%", tier, float64(c.Tiers[tier])/float64(all)*100))
	}
	return strings.Join(parts, ", ")
}

// plural is the ending of a noun after a number.
func plural(n int64) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// Summary describes the counts at the end of a run, which took some time.
func (c Counts) Summary(took time.Duration) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s, %d failed", c.Done(), c.Failed)
	if c.Before > 0 {
		fmt.Fprintf(&s, "; %d of them in earlier runs", c.Before)
	}
	fmt.Fprintf(&s, "\nthis run: %v, %d input and %d output tokens", took.Round(time.Millisecond), c.InputTokens, c.OutputTokens)
	if shares := c.shares(); shares != "" {
		s.WriteString(", " + shares)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Backends)) {
		fmt.Fprintf(&s, "\n  %s: %d response%s", name, c.Backends[name], plural(c.Backends[name]))
	}
	return s.String()
}
