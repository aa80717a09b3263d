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
func openTrace(name string) (load, error) {
	f, err := os.Open(name)
	if err != nil {
		return load{}, err
	}
	defer f.Close()
	l, err := readTrace(f)
	if err != nil {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	l.about = filepath.Base(name) + ", whose average load is more than the PTU can serve"
	return l, nil
}

// readTrace makes a load of a trace.
func readTrace(from io.Reader) (load, error) {
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
	var last time.Duration
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
		c.stream = len(l.chats)%4 == 0 // the trace does not say which were
		if c.at = at.Sub(began); c.at < last {
			line, _ := lines.FieldPos(0)
			return load{}, fmt.Errorf("line %d: its time is before that of the previous line", line)
		}
		last = c.at
		// No two at the same time: the order in which they are served would be random.
		if len(l.chats) > 0 {
			c.at = max(c.at, l.length+1)
		}
		l.length = c.at
		l.chats = append(l.chats, c)
	}
	if last == 0 {
		return load{}, errors.New("a trace needs requests at two different times at least")
	}
	return l, nil
}

// parseChat reads the fields of one line.
func parseChat(record []string) (at time.Time, c chat, err error) {
	if at, err = time.Parse(time.DateTime, record[0]); err != nil { // with or without a fraction
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
