package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// header is the first line of the Azure LLM inference trace.
var header = []string{"TIMESTAMP", "ContextTokens", "GeneratedTokens"}

// openTrace reads a file as readTrace does.
func openTrace(name string, speed float64, most time.Duration) (load, error) {
	f, err := os.Open(name)
	if err != nil {
		return load{}, err
	}
	defer f.Close()
	l, err := readTrace(f, speed, most)
	if err != nil {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	l.about = fmt.Sprintf("%.0f minutes, %s chats, %g times as fast, of\n%s",
		l.length.Minutes()*speed, thousands(len(l.chats)), speed, filepath.Base(name))
	return l, nil
}

// readTrace makes a load of a trace, speed times faster than it happened, and
// ends it after most, if that is not 0.
func readTrace(from io.Reader, speed float64, most time.Duration) (load, error) {
	lines := csv.NewReader(from)
	lines.FieldsPerRecord = -1
	lines.ReuseRecord = true
	first, err := lines.Read()
	if err == io.EOF {
		return load{}, errors.New("the file is empty")
	}
	if err != nil {
		return load{}, err
	}
	if !slices.Equal(first, header) {
		return load{}, fmt.Errorf("line 1: the header must be %s,%s,%s", header[0], header[1], header[2])
	}
	lines.FieldsPerRecord = len(header)
	var l load
	var began time.Time
	for {
		record, err := lines.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return load{}, err
		}
		at, c, err := parseChat(record)
		if err != nil {
			line, _ := lines.FieldPos(0)
			return load{}, fmt.Errorf("line %d: %w", line, err)
		}
		if began.IsZero() {
			began = at
		}
		c.at = time.Duration(float64(at.Sub(began)) / speed)
		c.stream = len(l.chats)%4 == 0 // the trace does not tell
		if c.at < l.length {
			line, _ := lines.FieldPos(0)
			return load{}, fmt.Errorf("line %d: its time is before that of the previous line", line)
		}
		if most > 0 && c.at > most {
			break
		}
		l.length = c.at
		l.chats = append(l.chats, c)
	}
	if l.length == 0 {
		return load{}, errors.New("a trace needs requests at two different times at least")
	}
	return l, nil
}

// parseChat reads the fields of one line.
func parseChat(record []string) (at time.Time, c chat, err error) {
	if at, err = time.Parse(time.DateTime, record[0]); err != nil { // any fraction is taken
		return at, c, fmt.Errorf("%s %q is not like 2023-11-16 18:15:46.6805900", header[0], record[0])
	}
	var tokens [2]int
	for i := range tokens {
		if tokens[i], err = strconv.Atoi(record[1+i]); err != nil || tokens[i] < 0 {
			return at, c, fmt.Errorf("%s %q is not a number of tokens", header[1+i], record[1+i])
		}
	}
	c.prompt = min(max(tokens[0], 1), maxPrompt)
	c.output = max(tokens[1], 1)
	return at, c, nil
}
