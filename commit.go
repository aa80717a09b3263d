package spillover

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

// How much of a stream is held before its first content, and how much of one
// that is to be committed when it is whole.
const (
	maxPreamble = 256 << 10
	maxHeld     = 8 << 20
)

// errUnfinished is what a stream ended with before it was complete.
var errUnfinished = errors.New("the stream ended before it was complete")

// commit reads an event stream up to where it belongs to the caller: its first
// event with content, or with HoldStreams its end. An error until then is
// judged as the status it stands for, and so moves the request on. What was
// read is held, and is the beginning of what the caller reads.
//
// With an error there was no stream to speak of.
func (c *call) commit(resp *http.Response, s *sending) (held []byte, o outcome, err error) {
	whole := c.cfg.HoldStreams
	limit := maxPreamble
	held = make([]byte, 0, 4<<10)
	judged, begun, ended := 0, false, endings(nil)
	for {
		// What ends the stream without a blank line is its last event all the same.
		for rest := held[judged:]; len(rest) > 0; rest = held[judged:] {
			n := cutEvent(rest)
			last := n == 0
			if last && err != io.EOF {
				break
			}
			if last {
				n = len(rest)
			}
			judged += n
			name, data := readEvent(rest[:n])
			switch t, problem := judgeEvent(name, data); {
			case t == failing:
				return held, c.judgeProblem(resp, problem), nil
			case last && t == content && !json.Valid(data):
				// A part of an event is no content: nothing of it can be used.
			case t == ending, t == content && !whole:
				return held, outcome{}, nil
			case t == content:
				if !begun {
					s.relax()
					begun, limit, ended = true, maxHeld, endings{}
				}
				ended.note(data)
			}
		}
		switch {
		case err == io.EOF && ended.all():
			return held, outcome{}, nil
		case err == io.EOF:
			// A refusal that is nothing but a header (wire: a 200 stream has
			// Retry-After only when it is one).
			if o := c.judgeProblem(resp, nil); o.wait > 0 && !begun {
				return held, o, nil
			}
			return held, outcome{}, errUnfinished
		case err != nil:
			return held, outcome{}, s.explain(err)
		case len(held) > limit:
			return held, outcome{}, nil
		}
		if begun {
			s.limit(s.d.backend.idleTimeout, errIdleTimeout)
		}
		held = slices.Grow(held, 4<<10)
		var n int
		n, err = resp.Body.Read(held[len(held):cap(held)])
		held = held[:len(held)+n]
	}
}

// judgeProblem is the outcome of an error in a stream.
func (c *call) judgeProblem(resp *http.Response, problem []byte) outcome {
	status, h := http.StatusTooManyRequests, resp.Header
	if problem != nil {
		status, h = standsFor(h, problem)
	}
	return judge(status, h, problem, c.op, time.Now())
}

// streamed tells whether an answer is a stream of events that this package
// knows how to read.
func (c *call) streamed(resp *http.Response) bool {
	return resp.StatusCode == http.StatusOK && isStream(resp.Header) && field(resp.Header, "Content-Encoding") == "" &&
		(c.op == "chat/completions" || c.op == "completions" || c.op == "responses")
}
