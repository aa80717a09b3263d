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

// A Fault is a failure that a server simulates. The server looks for a fault when a
// request arrives, before it checks credentials and limits. It uses the first fault of
// the script that matches the request and is not used up. Other requests are served as
// usual.
type Fault struct {
	// Deployment restricts the fault to requests for this deployment. "" means all
	// requests, also those that name no deployment.
	Deployment string
	// Match restricts the fault to requests for which it returns true. It may read
	// the body. It is called concurrently and must not call the server's Set, Heal
	// or Close. nil means all requests.
	Match func(*http.Request) bool
	// Times is the number of requests after which the fault is used up. 0 means
	// that it lasts until [Server.Heal] or [Server.Set].
	Times int

	// Kind is what happens. The zero value means KindAnswer, or KindSlow if Delay or
	// Slower is set and Status is not.
	Kind Kind

	// Status is the status of a KindAnswer, from 200 to 599.
	Status int
	// Header is set on the response by KindAnswer and KindError, in addition to the
	// usual headers. It replaces those of the same name; a nil value removes one.
	Header http.Header
	// Body is sent byte for byte by KindAnswer, even if it is empty. For KindError
	// it is the JSON of the error object. "" then means that of the service.
	Body string
	// Limits adds the rate-limit headers of the deployment to a KindAnswer, as a real
	// refusal has them. Header takes precedence.
	Limits bool
	// Delay is the time that is added before the header, or before the fault if
	// there is no header.
	Delay time.Duration
	// Slower multiplies the latency of the deployment for KindSlow, KindCut,
	// KindStall and KindError. 0 means 1.
	Slower float64
	// After is the number of tokens that a stream sends before KindCut, KindStall
	// and KindError. The fault happens when the next token is due. What precedes the
	// first token is sent even if After is 0. If the stream has fewer tokens, the
	// fault happens after the last one.
	After int
}

// A Kind is what a [Fault] does.
type Kind int

// The kinds of faults.
const (
	// KindAnswer responds with Status, Header and Body.
	KindAnswer Kind = iota
	// KindRefuse refuses the connection. A server that listens closes its listener
	// and all connections, whatever the other fields of the fault. It listens on the
	// same port again after a Heal, or a Set without this kind. Refused
	// requests do not appear in Requests and Stats.
	KindRefuse
	// KindReset resets the connection instead of responding.
	KindReset
	// KindSilent accepts the request and sends nothing until the client cancels it
	// or the server is closed.
	KindSilent
	// KindSlow applies only Delay and Slower. The response is the usual one.
	KindSlow
	// KindCut closes the connection before the end of the response: in a stream
	// after After tokens, in any other body in the middle.
	KindCut
	// KindStall sends as much as KindCut and then nothing. The connection stays open
	// until the client closes it.
	KindStall
	// KindError ends a stream with an error event, as Azure does if it is overloaded
	// after it has sent the status 200. Only streaming requests match.
	KindError
)

// Set replaces the script of faults and starts it from the beginning. It panics if a
// fault is invalid.
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

// Heal ends all faults. It is Set without arguments.
func (s *Server) Heal() { s.Set() }

func (f *Fault) check() error {
	switch {
	case f.Kind < KindAnswer || f.Kind > KindError:
		return fmt.Errorf("Fault.Kind %d is unknown", f.Kind)
	case f.Kind == KindAnswer && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("Fault.Status %d is not between 200 and 599", f.Status)
	case f.Times < 0 || f.Delay < 0 || f.After < 0 || !(f.Slower >= 0):
		return fmt.Errorf("a Fault has a negative field")
	}
	return nil
}

// A scripted fault counts how often it was used.
type scripted struct {
	Fault
	taken atomic.Int64
}

// fault uses a fault for the request, or returns nil.
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

// decorate sets the headers of the fault. Their names are in canonical form, as
// clients see them on a real network.
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

// overload returns the error object of a stream that Azure or OpenAI cannot continue
// (captured in 2026).
func (s *Server) overload(c *call) string {
	if s.dialect == OpenAI {
		return fmt.Sprintf(`{"type":"tokens","code":"rate_limit_exceeded","message":%s,"param":null}`,
			quote("Rate limit reached for "+c.deployment+" in organization org-"+s.Name+" on tokens per min (TPM). Please try again in 44ms."))
	}
	return fmt.Sprintf(`{"type":"too_many_requests","code":"rate_limit_exceeded","headers":{"x-ms-fe-error":"true"},"message":%s,"param":null}`,
		quote("Your requests to "+c.deployment+" for "+c.deployment+" in "+s.Name+" have exceeded rate limit."))
}
