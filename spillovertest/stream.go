package spillovertest

import (
	"net/http"
	"strings"
	"time"
)

const eventStream = "text/event-stream; charset=utf-8"

// A form writes n tokens of text as an operation returns them, as a whole and as a
// stream. What it returns is valid until its next call.
type form interface {
	whole(n int) []byte
	preamble() []byte             // sent with the header; may be empty
	tokens(i, n int) []byte       // n tokens from the i-th on as content events; the first ones include the opening events
	closing(n int) []byte         // what follows the content
	failure(object string) []byte // an error object and what follows it
}

// A stream sends a form with the latency of a deployment, up to a fault.
type stream struct {
	form  form
	n     int // tokens
	i     int // tokens sent
	pace  Latency
	batch int    // tokens that are sent together, after the first
	stop  int    // no token after this many
	fail  string // the error object that is sent there, if any
	phase int    // 0 before the preamble, 1 in the content, 2 at the end
}

func (s *Server) stream(c *call, f form, n int, l Latency, batch int, h http.Header, cut *Fault) answer {
	h.Set("Content-Type", eventStream)
	a := answer{wait: l.FirstToken / 2, status: http.StatusOK, header: h, length: -1}
	p := &stream{form: f, n: n, pace: l, batch: batch, stop: -1}
	if cut != nil {
		p.stop = min(cut.After, n)
		a.end, a.result = cut.ending(), failed
		if cut.Kind == KindError {
			cut.decorate(h)
			p.fail = cut.Body
			if p.fail == "" {
				p.fail = s.overload(c)
			}
		}
	}
	a.next = p.next
	return a
}

func (p *stream) next() (event, bool) {
	if p.phase == 0 {
		p.phase++
		if b := p.form.preamble(); len(b) > 0 {
			return event{data: b}, true
		}
	}
	if p.phase > 1 {
		return event{}, false
	}
	var e event
	k := p.together()
	if p.i < p.n {
		e.wait = time.Duration(k) * p.pace.PerToken
		if p.i == 0 {
			e.wait = p.pace.FirstToken - p.pace.FirstToken/2
		}
	}
	switch {
	case p.i == p.stop:
		p.phase++
		// The fault is due when the next token would have been.
		if p.fail != "" {
			e.data, e.last = p.form.failure(p.fail), true
		}
	case p.i < p.n:
		e.data, e.tokens = p.form.tokens(p.i, k), k
		p.i += k
	default:
		p.phase++
		e.data, e.last = p.form.closing(p.n), true
	}
	return e, true
}

// together returns the number of tokens that are sent next. A batch ends where a fault
// is due.
func (p *stream) together() int {
	if p.i == 0 || p.i >= p.n {
		return 1
	}
	k := min(p.batch, p.n-p.i)
	if p.stop > p.i {
		k = min(k, p.stop-p.i)
	}
	return k
}

// latency returns the latency of one response, with the prompt and the jitter.
func (d *deployment) latency(prompt int, draw func() float64) Latency {
	l := d.Latency
	l.FirstToken += time.Duration(prompt) * l.PerPromptToken
	if l.Jitter > 0 {
		l = l.scaled(1 + l.Jitter*(2*draw()-1))
	}
	return l
}

// times returns the latency with the fault, which may be nil.
func (l Latency) times(f *Fault) Latency {
	if f != nil && f.Slower > 0 {
		return l.scaled(f.Slower)
	}
	return l
}

func (l Latency) scaled(by float64) Latency {
	l.FirstToken = time.Duration(by * float64(l.FirstToken))
	l.PerToken = time.Duration(by * float64(l.PerToken))
	return l
}

// words are the tokens of every response, repeated.
var words = [...]string{
	" when", " one", " region", " is", " full", " the", " next", " one", " takes",
	" the", " work,", " and", " nobody", " has", " to", " wait;",
}

// word returns the token at a position.
func word(i int) string {
	if i == 0 {
		return words[0][1:]
	}
	return words[i%len(words)]
}

// text returns n tokens from the i-th on.
func text(i, n int) string {
	var b strings.Builder
	b.Grow(6 * n)
	for k := range n {
		b.WriteString(word(i + k))
	}
	return b.String()
}
