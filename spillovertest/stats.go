package spillovertest

import (
	"net/http"
	"time"
)

// Counts are of requests and tokens since the server was made. Every request
// is Served, Throttled, Failed or Canceled in the end, and InFlight until then.
// The token counts are estimates, by four characters to a token.
type Counts struct {
	Requests  int
	Served    int // answered to the end, without a fault
	Throttled int // refused by a Limit
	Failed    int // by a fault, or with another error such as 401 or 404
	Canceled  int // left by the client, or by Close, before the end

	InFlight    int // in memory: until the body is closed or read to its end
	MaxInFlight int

	PromptTokens int // of the requests admitted
	OutputTokens int // written in answers that have ended
	// Charged is what the ended answers cost: input-equivalent tokens for a
	// PTU, estimated tokens for PAYG, prompt and output without a limit.
	Charged float64
	// Utilization is the share of the limit in use now, 1 for all of it. It may
	// exceed 1: a PTU above 100 %, PAYG in debt. In the total: the highest.
	Utilization float64
}

// Stats are a server's counts.
type Stats struct {
	Counts // of everything, also of requests for no or an unknown deployment
	// Deployments has the configured ones, or without any those asked for.
	Deployments map[string]Counts
}

// Request is one that a server has received.
type Request struct {
	Time       time.Time
	Method     string
	URL        string // path and query as received, still escaped
	Host       string
	Proto      string // "HTTP/1.1" or "HTTP/2.0"
	Header     http.Header
	Body       []byte
	Deployment string // from the path, or the body's model; "" if neither
	Status     int    // of the answer; 0: no header sent, or not yet
}

// maxRequests is how many requests are remembered.
const maxRequests = 1000

// deployment is one being served.
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

// Stats counts what the server has done so far.
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

// Requests returns the last 1000 requests, oldest first. Their headers and
// bodies are shared: do not change them.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Request, 0, len(s.log))
	for i := range s.log {
		list = append(list, *s.log[(s.oldest+i)%len(s.log)])
	}
	return list
}

// arrived counts and remembers a request, and returns its deployment, or nil.
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

// admit asks a deployment's limit, and reports it to the client.
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

// limits reports a deployment's limit to the client.
func (s *Server) limits(d *deployment, h http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.limiter.header(time.Now(), s.dialect, h)
}

// answered remembers the status sent.
func (s *Server) answered(r *Request, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Status = status
}

// finished settles an exchange that has ended, in whatever way.
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

// tally changes a deployment's counts and the total. The caller holds mu.
func (s *Server) tally(d *deployment, change func(*Counts)) {
	change(&s.counts)
	if d != nil {
		change(&d.counts)
	}
}
