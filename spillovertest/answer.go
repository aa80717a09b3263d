package spillovertest

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/http"
	"time"
)

// An answer is all that a server will send for one request. It neither waits nor
// writes, so that servers in memory and on a network can use the same one.
type answer struct {
	wait   time.Duration // from the request's arrival until the header
	status int           // 0 if there is no header, only the end
	header http.Header
	length int                  // of the body; -1 for a stream
	next   func() (event, bool) // returns the next piece of the body
	end    ending
	result result
}

// An event is a piece of a body.
type event struct {
	wait   time.Duration // since the previous piece, or the header
	data   []byte        // valid until the next call of next
	tokens int           // in data
	last   bool          // only the end follows
}

// An ending is what follows the last event.
type ending int

const (
	endEOF     ending = iota
	endCut            // the connection breaks in the middle of the body
	endSilence        // nothing more, and the connection stays open
	endReset          // the connection is reset before any answer
	endRefuse         // the connection is refused
)

// A result says where a finished answer is counted.
type result int

const (
	served result = iota
	throttled
	failed
)

// answer returns the answer to a request, and whether its deployment has admitted it.
// If so, the limit must be settled when it has ended.
func (s *Server) answer(now time.Time, c *call, f *Fault, d *deployment) (a answer, admitted bool) {
	var cut *Fault
	if f != nil {
		switch f.Kind {
		case KindAnswer, KindReset, KindSilent, KindRefuse:
			return s.faulty(f, d), false
		case KindCut, KindStall, KindError:
			cut = f
		}
		defer func() { a.wait += f.Delay }()
	}
	p := c.problem
	if p == nil && d == nil && c.op != opModels {
		p = s.dialect.unknownDeployment(c.deployment)
	}
	if p != nil {
		return s.problem(p, s.header(d), cut), false
	}
	if c.op == opModels {
		return s.whole(s.models(), 0, s.header(nil), cut), false
	}
	h := s.header(d)
	no, ok := s.admit(now, d, c.demand, h)
	if !ok {
		a = s.problem(s.throttled(c, no), h, cut)
		a.wait, a.result = d.Latency.Refusal, throttled
		return a, false
	}
	return s.success(c, d.latency(c.prompt, s.draw).times(f), d, h, cut), true
}

// success returns the answer of an admitted request.
func (s *Server) success(c *call, l Latency, d *deployment, h http.Header, cut *Fault) answer {
	n := min(cmp.Or(c.output, c.max, d.Output, defaultOutput), mostOutput)
	if c.max > 0 {
		n = min(n, c.max)
	}
	var a answer
	switch f := s.form(c); {
	case f == nil:
		a = s.whole(embeddings(c), 0, h, cut)
		a.wait = l.FirstToken
	case c.Stream:
		a = s.stream(c, f, n, l, max(1, d.Batch), h, cut)
	default:
		a = s.whole(f.whole(n), n, h, cut)
		a.wait = l.FirstToken + time.Duration(n)*l.PerToken
	}
	if s.dialect == OpenAI {
		h.Set("Openai-Processing-Ms", itoa(int(a.wait.Milliseconds())))
	}
	return a
}

// form returns the form of a call that is answered with text, or nil.
func (s *Server) form(c *call) form {
	switch c.op {
	case opEmbeddings:
		return nil
	case opResponses:
		return newResponse(c, s.id())
	}
	return newChat(c, s.id(), s.dialect)
}

// whole returns an answer with a JSON body in one piece.
func (s *Server) whole(body []byte, tokens int, h http.Header, cut *Fault) answer {
	h.Set("Content-Length", itoa(len(body)))
	a := answer{status: http.StatusOK, header: h, length: len(body)}
	e := event{data: body, tokens: tokens, last: true}
	if cut != nil && cut.Kind != KindError {
		a.end, a.result = cut.ending(), failed
		e.data, e.last = body[:len(body)/2], false
	}
	done := len(e.data) == 0
	a.next = func() (event, bool) {
		if done {
			return event{}, false
		}
		done = true
		return e, true
	}
	return a
}

// problem returns an answer with an error.
func (s *Server) problem(p *problem, h http.Header, cut *Fault) answer {
	if p.edge {
		h.Del("X-Ms-Region")
	}
	maps.Copy(h, p.header)
	a := s.whole([]byte(p.body()), 0, h, cut)
	a.status, a.result = p.status, failed
	return a
}

// faulty returns the answer of a fault that does not need the usual one.
func (s *Server) faulty(f *Fault, d *deployment) answer {
	if f.Kind != KindAnswer {
		return answer{wait: f.Delay, end: f.ending(), result: failed}
	}
	h := s.header(d)
	if f.Limits && d != nil {
		s.limits(d, h)
	}
	f.decorate(h)
	a := s.whole([]byte(f.Body), 0, h, nil)
	a.wait, a.status = f.Delay, f.Status
	if f.Status >= 400 {
		a.result = failed
	}
	return a
}

// header returns the headers of every answer. d may be nil.
func (s *Server) header(d *deployment) http.Header {
	h := make(http.Header, 24)
	h.Set("Content-Type", "application/json")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains; preload")
	h.Set("X-Content-Type-Options", "nosniff")
	if s.dialect == OpenAI {
		h.Set("X-Request-Id", "req_"+s.id())
		h.Set("Openai-Version", "2020-10-01")
		h.Set("Openai-Organization", "org-"+s.Name)
		return h
	}
	h.Set("Apim-Request-Id", uuid(s.id()))
	h.Set("X-Request-Id", uuid(s.id()))
	h.Set("X-Ms-Region", s.Name)
	h.Set("X-Accel-Buffering", "no")
	if d != nil {
		h.Set("X-Ms-Deployment-Name", d.Name)
		h.Set("X-Ms-Rai-Invoked", "true")
	}
	return h
}

// draw returns a random number in [0, 1).
func (s *Server) draw() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Float64()
}

// id returns 32 random hexadecimal digits.
func (s *Server) id() string {
	s.mu.Lock()
	a, b := s.rng.Uint64(), s.rng.Uint64()
	s.mu.Unlock()
	const digits = "0123456789abcdef"
	var id [32]byte
	for i := range 16 {
		id[i], id[16+i] = digits[a>>(4*i)&15], digits[b>>(4*i)&15]
	}
	return string(id[:])
}

func uuid(id string) string {
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// models returns the body of the list of deployments.
func (s *Server) models() []byte {
	b := []byte(`{"object":"list","data":[`)
	for i, d := range s.configured {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":`+quote(d.Name)+`,"object":"model","created":1,"owned_by":"system"}`...)
	}
	return append(b, "]}"...)
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }
