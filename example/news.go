package main

import (
	"fmt"
	"strconv"
	"time"
)

// news finds what is worth a line of its own in a row of views.
type news struct {
	phase    string
	last     counts
	used     uint64        // answers and requests under way of pay-as-you-go
	spilling bool          // pay-as-you-go is in use
	spilled  time.Duration // last seen
	full     bool          // callers are told to wait
	told     time.Duration // last seen
}

// calm is how long nothing may happen until it is over: the PTU refuses for
// milliseconds, and nobody wants to read of each.
const calm = time.Second

func (n *news) of(v view, l load) (events []string) {
	say := func(format string, args ...any) { events = append(events, fmt.Sprintf(format, args...)) }
	if phase := l.phase(v.at); phase != n.phase {
		n.phase = phase
		say("== %s ==", phase)
	}
	var used uint64
	for _, r := range v.rows[1:] {
		used += r.Served
	}
	switch {
	case used > n.used:
		if !n.spilling {
			say("the PTU is full: failing over to pay-as-you-go")
		}
		n.spilling, n.spilled = true, v.at
	case n.spilling && v.at-n.spilled >= calm:
		n.spilling = false
		say("back on the PTU only")
	}
	switch {
	case v.told > n.last.told:
		if !n.full {
			say("every deployment is rate-limited: 429 to the caller, Retry-After %s", duration(v.wait))
		}
		n.full, n.told = true, v.at
	case n.full && v.at-n.told >= calm:
		n.full = false
		say("no 429 to a caller for a second")
	}
	if v.failed > n.last.failed {
		say("%d failed with an error other than 429", v.failed-n.last.failed)
	}
	n.used, n.last = used, v.counts
	return events
}

// duration reads a number of milliseconds for people.
func duration(ms string) string {
	n, err := strconv.Atoi(ms)
	if err != nil {
		return "a while"
	}
	return (time.Duration(n) * time.Millisecond).String()
}
