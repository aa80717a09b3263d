package main

import (
	"fmt"
	"time"
)

// events finds what deserves a line of its own, from one view to the next.
type events struct {
	phase       string
	last        view
	spilling    bool          // PAYG is in use
	spilled     time.Duration // when it last was
	rateLimited bool          // callers receive 429s
	refused     time.Duration // when one last did
}

func (e *events) next(v view, l load) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if phase := l.phase(v.at); phase != e.phase {
		e.phase = phase
		say("%s", phase)
	}
	quiet := l.length / 24 // what has not happened for so long is over
	switch {
	case v.sentToPAYG() > e.last.sentToPAYG():
		if !e.spilling {
			say("> the PTU is nearly full: failing over to PAYG")
		}
		e.spilling, e.spilled = true, v.at
	case e.spilling && v.at-e.spilled >= quiet:
		e.spilling = false
		say("> back on the PTU only")
	}
	switch {
	case v.rateLimited > e.last.rateLimited:
		if !e.rateLimited {
			say("> every deployment is rate-limited: 429 to the caller")
		}
		e.rateLimited, e.refused = true, v.at
	case e.rateLimited && v.at-e.refused >= quiet:
		e.rateLimited = false
	}
	if failed := v.failed - e.last.failed; failed > 0 {
		say("> errors other than 429: %d", failed)
	}
	e.last = v
	return lines
}
