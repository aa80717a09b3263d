package lab

import (
	"fmt"
	"html"
	"strconv"
	"strings"
)

// Picture is the chart of the repository's README, drawn from the tables of a report: how much of the PTU each policy
// uses, and how many attempts deployments refuse meanwhile. The cell is ten backends, eight clients and a load of 0.9
// of the capacity.
func Picture(report string) (string, error) {
	const cell = "M=8 ρ=0.9"
	used, err := reportRow(report, "PTU used over the oracle's, B = 10", cell)
	if err != nil {
		return "", err
	}
	refused, err := reportRow(report, "Wasted attempts, B = 10", cell)
	if err != nil {
		return "", err
	}
	// What each policy does, rather than whose it is: the laboratory has a simple version of each.
	labels := []struct{ policy, text string }{
		{"spillover", "spillover"},
		{"random", "tiers, random within a tier"},
		{"walk", "one after the other, obeys Retry-After"},
		{"fallback", "fallback that remembers nothing"},
		{"counted", "two choices by own counts, no tiers"},
		{"shuffle", "weighted shuffle with cool-down, no tiers"},
		{"ring", "weighted ring with cool-down, no tiers"},
	}
	const (
		textRight         = 316.0
		first, row, thick = 106.0, 34.0, 18.0
		usedLeft          = 330.0
		refusedLeft       = 580.0
		bar               = 180.0 // the length of 100
	)
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	bottom := first + row*float64(len(labels))
	p(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="system-ui, sans-serif" font-size="14" role="img">`, width, bottom+6)
	p(`<title>Use of the PTU and refused attempts, by load-balancing policy</title>`)
	// Its own background: the page may be light or dark.
	p(`<rect x="1" y="1" width="%g" height="%g" rx="8" fill="#fff" stroke="#d0d7de"/>`, width-2, bottom+4)
	p(`<text x="20" y="28" font-size="17" font-weight="600" fill="#1f2328">The whole PTU is used, and few attempts are refused</text>`)
	p(`<text x="20" y="50" fill="#57606a">One PTU and nine pay-as-you-go deployments at 90 %% load; eight processes that share no state.</text>`)
	p(`<text x="%g" y="86" fill="#1f2328">PTU used: more is better</text>`, usedLeft)
	p(`<text x="%g" y="86" fill="#1f2328">429s per 100 served: fewer</text>`, refusedLeft)
	for i, l := range labels {
		y := first + row*float64(i)
		color, weight := "#8c959f", "400"
		if l.policy == "spillover" {
			color, weight = colors[l.policy], "700"
		}
		p(`<text x="%g" y="%g" text-anchor="end" font-weight="%s" fill="#1f2328">%s</text>`, textRight, y+14, weight, html.EscapeString(l.text))
		for _, v := range []struct {
			left, value float64
			unit        string
		}{{usedLeft, used[l.policy], " %"}, {refusedLeft, refused[l.policy], ""}} {
			p(`<rect x="%g" y="%g" width="%.1f" height="%g" rx="2" fill="%s"/>`, v.left, y, bar*v.value, thick, color)
			p(`<text x="%.1f" y="%g" font-weight="%s" fill="#1f2328">%.0f%s</text>`, v.left+bar*v.value+6, y+14, weight, 100*v.value, v.unit)
		}
	}
	p(`</svg>`)
	return b.String(), nil
}

// reportRow is a row of a table of a report, by policy.
func reportRow(report, section, row string) (map[string]float64, error) {
	_, rest, ok := strings.Cut(report, "### "+section+"\n\n")
	if !ok {
		return nil, fmt.Errorf("the report has no section %q", section)
	}
	table, _, _ := strings.Cut(rest, "\n\n")
	lines := strings.Split(table, "\n")
	cells := func(line string) []string { return strings.Split(strings.Trim(line, "|"), "|") }
	names := cells(lines[0])
	for _, line := range lines[1:] {
		values := cells(line)
		if strings.TrimSpace(values[0]) != row || len(values) != len(names) {
			continue
		}
		found := map[string]float64{}
		for i, value := range values[1:] {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", section, row, err)
			}
			found[strings.TrimSpace(names[i+1])] = v
		}
		return found, nil
	}
	return nil, fmt.Errorf("section %q has no row %q", section, row)
}
