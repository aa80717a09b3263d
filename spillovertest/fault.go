package spillovertest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"sync/atomic"
	"time"
)

// Fault is something that goes wrong. A request gets the first fault of the
// script that matches it and has not yet run out, or none. The script is
// consulted when a request arrives, before credentials and limits.
type Fault struct {
	// Deployment takes only requests for this one. "" is any, and includes
	// requests that name none.
	Deployment string
	// Match, if not nil, takes only requests for which it is true. It may read
	// the body, must not call the server's Set, Heal or Close, and is called
	// by concurrent requests concurrently.
	Match func(*http.Request) bool
	// Times is how many requests it takes. 0: all until Heal or Set.
	Times int

	// Kind is what happens. The zero value is KindAnswer, or KindSlow when
	// there is a Delay or Slower and no Status.
	Kind Kind

	// Status of a KindAnswer: 200 to 599.
	Status int
	// Header is added to the answer's usual one by KindAnswer and KindError,
	// replacing what it names; a nil value takes the header away.
	Header http.Header
	// Body of a KindAnswer is sent byte for byte, also when it is empty. For
	// KindError it is the JSON of the error object; "" is the service's own.
	Body string
	// Limits adds what the deployment's Limit says of itself in its headers to a
	// KindAnswer, as a real refusal has it. Header comes after that.
	Limits bool
	// Delay is added before the header, or before whatever comes instead.
	Delay time.Duration
	// Slower multiplies the deployment's Latency in answers that succeed at
	// first: those of KindSlow, KindCut, KindStall and KindError. 0 means 1.
	Slower float64
	// After is how many tokens a stream gets to send before KindCut, KindStall
	// and KindError, which come when the next token is due. What precedes the
	// first token is sent even when After is 0. Longer than the stream means
	// after its last token.
	After int
}

// Kind is a way to go wrong.
type Kind int

// The kinds of faults.
const (
	// KindAnswer answers with Status, Header and Body.
	KindAnswer Kind = iota
	// KindRefuse refuses the connection. A server on a real network closes its
	// listener and all connections, whatever the fault's other fields, and
	// listens on the same port again with the next Heal or Set without it.
	// Refused requests reach no server: they are not in Requests and Stats.
	KindRefuse
	// KindReset resets the connection instead of answering.
	KindReset
	// KindSilent accepts the request and says nothing until the client leaves
	// or the server closes.
	KindSilent
	// KindSlow is only Delay and Slower; everything else is as usual.
	KindSlow
	// KindCut breaks the connection off: a stream After that many tokens, any
	// other body in its middle.
	KindCut
	// KindStall sends as much as KindCut and then nothing, with the connection
	// open, until the client leaves.
	KindStall
	// KindError ends a stream with an error event, as Azure does when it is
	// overloaded after it has sent 200. Only streaming requests match.
	KindError
)

// Set replaces the script and starts it from the beginning. It panics on a
// fault that makes no sense.
func (s *Server) Set(faults ...Fault) {
	script := make([]*scripted, 0, len(faults))
	refusing := false
	for _, f := range faults {
		if f.Kind == KindAnswer && f.Status == 0 && (f.Delay > 0 || f.Slower > 0) {
			f.Kind = KindSlow
		}
		if err := f.check(); err != nil {
			panic("spillovertest: " + err.Error())
		}
		f.Header = f.Header.Clone()
		refusing = refusing || f.Kind == KindRefuse
		script = append(script, &scripted{Fault: f})
	}
	s.script.Store(&script)
	s.listen(!refusing)
}

// Heal ends all faults.
func (s *Server) Heal() { s.Set() }

func (f *Fault) check() error {
	switch {
	case f.Kind < KindAnswer || f.Kind > KindError:
		return fmt.Errorf("unknown Fault.Kind %d", f.Kind)
	case f.Kind == KindAnswer && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("Fault.Status %d is not within 200 and 599", f.Status)
	case f.Times < 0 || f.Delay < 0 || f.After < 0 || !(f.Slower >= 0):
		return fmt.Errorf("a Fault has a negative field")
	}
	return nil
}

// scripted is a fault and how often it was used.
type scripted struct {
	Fault
	taken atomic.Int64
}

// fault takes one for the request, or nil.
func (s *Server) fault(r *http.Request, body []byte, c *call) *Fault {
	for _, f := range *s.script.Load() {
		if f.matches(r, body, c) && f.take() {
			return &f.Fault
		}
	}
	return nil
}

func (f *scripted) take() bool {
	return f.Times == 0 || f.taken.Add(1) <= int64(f.Times)
}

func (f *Fault) matches(r *http.Request, body []byte, c *call) bool {
	if f.Deployment != "" && f.Deployment != c.deployment || f.Kind == KindError && !c.Stream {
		return false
	}
	if f.Match == nil {
		return true
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return f.Match(r)
}

// ending is how an answer with this fault ends.
func (f *Fault) ending() ending {
	switch f.Kind {
	case KindRefuse:
		return endRefuse
	case KindReset:
		return endReset
	case KindSilent, KindStall:
		return endSilence
	case KindCut:
		return endCut
	}
	return endEOF
}

// decorate adds the fault's header. Clients see names in their canonical form
// on a real network, so they do here.
func (f *Fault) decorate(h http.Header) {
	for k, v := range f.Header {
		k = textproto.CanonicalMIMEHeaderKey(k)
		if v == nil {
			delete(h, k)
			continue
		}
		h[k] = slices.Clone(v)
	}
}

// overload is the error Azure and OpenAI give in a stream they cannot go on
// with (captured in 2026).
func (s *Server) overload(c *call) string {
	if s.dialect == OpenAI {
		return fmt.Sprintf(`{"type":"tokens","code":"rate_limit_exceeded","message":%s,"param":null}`,
			quote("Rate limit reached for "+c.deployment+" in organization org-"+s.Name+" on tokens per min (TPM). Please try again in 44ms."))
	}
	return fmt.Sprintf(`{"type":"too_many_requests","code":"rate_limit_exceeded","headers":{"x-ms-fe-error":"true"},"message":%s,"param":null}`,
		quote("Your requests to "+c.deployment+" for "+c.deployment+" in "+s.Name+" have exceeded rate limit."))
}
