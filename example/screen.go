package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// A screen shows what happens: an event on each line and, on a terminal, a
// table below them that is redrawn.
type screen struct {
	w      io.Writer
	live   bool // redraw the table
	colour bool
	width  int // of the terminal, in columns
	drawn  int // lines of the table that is on the terminal
	events
}

// standardWidth is used where the width is not known.
const standardWidth = 80

// newScreen returns a screen with the abilities of w. plain ignores them.
func newScreen(w io.Writer, plain bool) *screen {
	f, ok := w.(*os.File)
	if plain || !ok || !isTerminal(f) {
		return &screen{w: w, width: standardWidth}
	}
	return &screen{w: w, live: true, colour: os.Getenv("NO_COLOR") == "", width: max(minWidth, widthOf(f))}
}

// isTerminal reports whether f is a terminal that can be redrawn.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// widthOf asks stty, since the standard library cannot tell.
func widthOf(terminal *os.File) int {
	stty := exec.CommandContext(context.Background(), "stty", "size")
	stty.Stdin = terminal
	size, _ := stty.Output() // such as "24 80"; nothing where there is no stty
	_, columns, _ := strings.Cut(strings.TrimSpace(string(size)), " ")
	if n, err := strconv.Atoi(columns); err == nil && n > 0 {
		return n
	}
	return standardWidth
}

func (s *screen) open(l load, z size) {
	about := wrap("go-openai calls three simulated deployments through spillover. "+z.String(), s.width, 0) +
		wrap(fmt.Sprintf("Simulated: %.0f s of %s.", l.length.Seconds(), l.about), s.width, 0)
	io.WriteString(s.w, about+"\n")
}

// A terminal that became narrower must not break lines of the table in two:
// that would spoil the number of lines to draw over.
const noWrap, autoWrap = "\x1b[?7l", "\x1b[?7h"

// erase goes up some lines and clears everything below.
const erase = "\x1b[%dA\x1b[J"

// show prints new events and redraws the table.
func (s *screen) show(v view, l load) {
	events := s.next(v, l)
	if !s.live && len(events) == 0 {
		return
	}
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, erase, s.drawn)
	}
	for _, event := range events {
		b.WriteString(wrap(fmt.Sprintf("%6.1f s  %s", v.at.Seconds(), event), s.width, 10))
	}
	if s.live {
		table := "\n" + v.table(s.width, s.colour) + wrap(fmt.Sprintf(
			"  %.0f s: %d chats, 429 to the caller: %d, without spillover: %d", v.at.Seconds(), v.chats, v.rateLimited, v.rateLimitedAlone,
		), s.width, 2)
		s.drawn = strings.Count(table, "\n")
		b.WriteString(noWrap + table + autoWrap)
	}
	io.WriteString(s.w, b.String())
}

// close shows the last events and the summary in place of the table.
func (s *screen) close(v view, l load, sum summary) {
	s.show(v, l)
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, erase, s.drawn)
	}
	b.WriteString("\n" + v.totals())
	b.WriteString("\n")
	for line := range strings.Lines(sum.String()) {
		indent := 0
		if strings.HasPrefix(line, " ") {
			indent = summaryColumn
		}
		b.WriteString(wrap(strings.TrimSuffix(line, "\n"), s.width, indent))
	}
	io.WriteString(s.w, b.String())
}

// wrap breaks a line between words where it is longer than width, and indents
// what follows.
func wrap(line string, width, indent int) string {
	var b strings.Builder
	for len(line) > width {
		at := strings.LastIndexByte(line[:width+1], ' ')
		if strings.TrimSpace(line[:max(0, at)]) == "" {
			break // a word that does not fit
		}
		b.WriteString(line[:at] + "\n")
		line = strings.Repeat(" ", indent) + line[at+1:]
	}
	return b.String() + line + "\n"
}
