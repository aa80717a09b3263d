package lab

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// readTrace reads arrivals and sizes of the Azure LLM inference trace, a CSV of
// TIMESTAMP, ContextTokens and GeneratedTokens. The trace does not tell the
// maximum of output that was asked for: it is the least power of two from 256
// on that held.
func readTrace(path string) ([]job, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	jobs, err := parseTrace(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return jobs, nil
}

// mostTokens is more than any request of a trace has.
const mostTokens = 1 << 30

func parseTrace(from io.Reader) ([]job, error) {
	lines := csv.NewReader(from)
	lines.FieldsPerRecord = 3
	lines.ReuseRecord = true
	if _, err := lines.Read(); err != nil {
		return nil, err // the header
	}
	var jobs []job
	var began time.Time
	for {
		record, err := lines.Read()
		if err == io.EOF {
			return jobs, nil
		}
		if err != nil {
			return nil, err
		}
		at, err := time.Parse(time.DateTime, record[0]) // any fraction is taken
		if err != nil {
			return nil, err
		}
		if began.IsZero() {
			began = at
		}
		j := job{at: at.Sub(began), most: 256, stream: len(jobs)%2 == 0}
		if j.prompt, err = strconv.Atoi(record[1]); err != nil {
			return nil, err
		}
		if j.output, err = strconv.Atoi(record[2]); err != nil {
			return nil, err
		}
		if min(j.prompt, j.output) < 0 || max(j.prompt, j.output) > mostTokens {
			return nil, fmt.Errorf("%s and %s are not both from 0 to %d tokens", record[1], record[2], mostTokens)
		}
		if len(jobs) > 0 && j.at < jobs[len(jobs)-1].at {
			return nil, fmt.Errorf("%s is before the line above", record[0])
		}
		for j.most < j.output {
			j.most *= 2
		}
		jobs = append(jobs, j)
	}
}

// faster is the trace at a multiple of its speed.
func faster(jobs []job, speed float64) []job {
	quick := make([]job, len(jobs))
	for i, j := range jobs {
		j.at = time.Duration(float64(j.at) / speed)
		quick[i] = j
	}
	return quick
}
