package spillovertest

import (
	"net/http"
	"time"
)

// Counts are numbers of requests and tokens since the server was made. A request is
// counted in InFlight until it ends, and then in Served, Throttled, Failed or
// Canceled. Tokens are estimated at four characters per token.
type Counts struct {
	Requests  int // all of them, except those refused by KindRefuse
	Served    int // success: the whole response was sent, without a fault
	Throttled int // refused by a Limit
	Failed    int // failed by a Fault, or with another error such as 401 or 404
	Canceled  int // ended by the client, or by Close, before the end of the response

	InFlight    int // in flight now; in memory until the body is closed or read to its end
	MaxInFlight int // the maximum of InFlight

	PromptTokens int // of the admitted requests
	OutputTokens int // written in responses that have ended
	// Charged is the cost of the responses that have ended: input-equivalent tokens
	// for a PTU, estimated tokens for a PAYG, prompt and output without a limit.
	Charged float64
	// Utilization is the share of the limit that is in use now. 1 is all of it. It
	// exceeds 1 if a PTU is above 100 % or the tokens of a PAYG are below zero. That of
	// a server is the highest of its deployments.
	Utilization float64
}

// Stats are the counts of a server.
type Stats struct {
	Counts // of all requests, also those without a deployment or for an unknown one
	// Deployments are the counts of the configured deployments by name. If none is
	// configured, they are those of the requested ones.
	Deployments map[string]Counts
}

// A Request is a request that a server has received.
type Request struct {
	Time       time.Time   // when it arrived
	Method     string      // such as POST
	URL        string      // path and query as received, still escaped
	Host       string      // the Host header
	Proto      string      // "HTTP/1.1" or "HTTP/2.0"
	Header     http.Header // as received
	Body       []byte      // as received
	Deployment string      // from the path, or the model of the body; "" if there is neither
	Status     int         // of the response; 0 if no header was sent (yet)
}

// maxRequests is the number of requests that are kept.
const maxRequests = 1000

// A deployment is the state of a Deployment.
type deployment struct {
	Deployment
	limiter limiter
	counts  Counts
}

func newDeployment(d Deployment) *deployment {
	live := &deployment{Deployment: d, limiter: unlimited{}}
	if d.Limit != nil {
		live.limiter = d.Limit.start()
	}
	return live
}

// Stats returns the counts so far. They are a copy.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	all := Stats{Counts: s.counts, Deployments: make(map[string]Counts, len(s.deployments))}
	for name, d := range s.deployments {
		c := d.counts
		c.Utilization = d.limiter.utilization(now)
		all.Utilization = max(all.Utilization, c.Utilization)
		all.Deployments[name] = c
	}
	return all
}

// Requests returns the last 1000 requests, oldest first. Their headers and bodies
// are not copied: do not change them.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Request, 0, len(s.log))
	for i := range s.log {
		list = append(list, *s.log[(s.oldest+i)%len(s.log)])
	}
	return list
}

// arrived counts and records a request, and returns its deployment, or nil.
func (s *Server) arrived(c *call, r *Request) *deployment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log) < maxRequests {
		s.log = append(s.log, r)
	} else {
		s.log[s.oldest] = r
		s.oldest = (s.oldest + 1) % maxRequests
	}
	d := s.deployments[c.deployment]
	if d == nil && len(s.configured) == 0 && c.problem == nil && c.deployment != "" {
		d = newDeployment(Deployment{Name: c.deployment})
		s.deployments[c.deployment] = d
	}
	s.tally(d, func(n *Counts) {
		n.Requests++
		n.InFlight++
		n.MaxInFlight = max(n.MaxInFlight, n.InFlight)
	})
	return d
}

// admit applies the limit of a deployment, and reports it in h.
func (s *Server) admit(now time.Time, d *deployment, want demand, h http.Header) (refusal, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	no, ok := d.limiter.admit(now, want)
	d.limiter.header(now, s.dialect, h)
	if ok {
		s.tally(d, func(n *Counts) { n.PromptTokens += want.prompt })
	}
	return no, ok
}

// limits reports the limit of a deployment in h.
func (s *Server) limits(d *deployment, h http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.limiter.header(time.Now(), s.dialect, h)
}

// answered records the status.
func (s *Server) answered(r *Request, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Status = status
}

// finished counts an exchange that has ended, in whatever way.
func (s *Server) finished(x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written, cost := int(x.written.Load()), 0.0
	if x.admitted {
		cost = x.deployment.limiter.settle(time.Now(), x.demand, written)
	}
	s.tally(x.deployment, func(n *Counts) {
		n.InFlight--
		n.OutputTokens += written
		n.Charged += cost
		switch {
		case x.result == failed:
			n.Failed++
		case x.result == throttled:
			n.Throttled++
		case !x.complete.Load():
			n.Canceled++
		default:
			n.Served++
		}
	})
}

// tally changes the counts of a deployment and the total. The caller holds mu.
func (s *Server) tally(d *deployment, change func(*Counts)) {
	change(&s.counts)
	if d != nil {
		change(&d.counts)
	}
}
