package spillover

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/spillover-go/spillover/internal/random"
)

// A Transport sends each request to the best of several deployments. It is an
// [http.RoundTripper]: set it as the Transport of an [http.Client]. It is safe
// for concurrent use.
//
// As the contract of RoundTripper demands, the caller's request is never
// modified and its body is always closed. The contract also says that a
// RoundTripper should not interpret the response. A Transport does, since that
// is its purpose.
type Transport struct {
	pool
	setup atomic.Pointer[activeConfig]

	changing sync.Mutex      // guards changes of setup, and drained
	drained  map[string]bool // names of drained backends, whether configured or not
}

var _ http.RoundTripper = (*Transport)(nil)

// New makes a Transport. Its error joins all errors in the configuration. Each
// names the backend and the field, and none contains a credential.
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.normalize()
	if err != nil {
		return nil, err
	}
	t := &Transport{pool: pool{random: random.Uint64, done: make(chan struct{})}, drained: map[string]bool{}}
	s, err := newActiveConfig(cfg, &activeConfig{table: new(table)})
	if err != nil {
		return nil, err
	}
	t.markDrained(s)
	s.table.limitInFlight()
	if err := s.observe(t.inForce()); err != nil {
		return nil, err
	}
	t.join(s, nil)
	t.setup.Store(s)
	s.replica.recall(s.table)
	s.warnOfCallersCredentials(nil)
	return t, nil
}

// join makes a new configuration part of its Fleet, and leaves that of the old one. The
// replica is kept if the Fleet is, else what was reported ends.
func (t *Transport) join(s, old *activeConfig) {
	switch {
	case old != nil && old.replica.belongsTo(&s.cfg):
		s.replica = old.replica
	default:
		if old != nil {
			old.replica.leave()
			s.table.forgetReports()
		}
		s.replica = newReplica(&s.cfg, t.random, t.tableInForce())
	}
	if s.replica != nil {
		s.table.grown = s.replica.adopt
	}
}

// inForce is the configuration in force, nil once the Transport has been garbage
// collected: what observes it does not keep a Transport that nobody has closed.
func (t *Transport) inForce() func() *activeConfig {
	transport := weak.Make(t)
	return func() *activeConfig {
		if t := transport.Value(); t != nil {
			return t.setup.Load()
		}
		return nil
	}
}

// tableInForce is the table of the configuration in force, nil as inForce is.
func (t *Transport) tableInForce() func() *table {
	inForce := t.inForce()
	return func() *table {
		if s := inForce(); s != nil {
			return s.table
		}
		return nil
	}
}

// String returns the names of the backends. A Transport can be printed without
// revealing its keys.
func (t *Transport) String() string {
	var names []string
	for _, b := range t.setup.Load().table.backends {
		names = append(names, b.name)
	}
	return "spillover.Transport(" + strings.Join(names, ", ") + ")"
}

// GoString implements [fmt.GoStringer] with String.
func (t *Transport) GoString() string { return t.String() }

// RoundTrip sends the request to a deployment of its model. While deployments
// refuse it or fail, it fails over to others. The response is the deployment's,
// with X-Spillover-Backend and X-Spillover-Attempts added to the header, or one
// that is generated here, with X-Spillover-Synthesized: 429 with the time to
// wait if every deployment is rate-limited, 503 if every backend that could
// take the request is drained, 404 for a model that no backend serves.
//
// The error is the context's if the caller's context ends. If no deployment has
// responded, it wraps the error of each attempt.
func (t *Transport) RoundTrip(in *http.Request) (*http.Response, error) {
	c := t.newCall(in)
	defer c.pardonFailures() // those that a panic leaves undecided
	returns := false
	defer func() {
		c.body.Close() // unless an attempt has taken it
		if !returns {
			c.abandon()
		}
	}()
	resp, err := c.do()
	if err != nil {
		c.recordReturn(nil, err)
		returns = true
		return nil, err
	}
	resp.Request = in
	setWaitedHeader(resp, c.waited)
	c.answerHeaders = [2]string{c.answeredFrom.backendName(), strconv.Itoa(c.sends)}
	resp.Header[headerBackend], resp.Header[headerAttempts] = c.answerHeaders[:1:1], c.answerHeaders[1:]
	if d := c.answeredFrom; d != nil && c.table.fallbacks[c.model] != nil {
		resp.Header[headerModel] = []string{cmp.Or(d.model, c.model)}
	}
	c.recordReturn(resp, nil)
	returns = true
	return resp, nil
}

// newCall is the call of a request under the configuration in force.
func (t *Transport) newCall(in *http.Request) *call {
	s := t.setup.Load()
	c := &call{pool: &t.pool, activeConfig: s, request: newRequest(in), options: noOptions}
	c.request.fields, c.request.count, c.request.paths = s.fields, s.cfg.CountTokens, &s.paths
	c.request.knownModel, c.request.renames, c.request.limited = s.knownModel, s.table.renames, s.table.contextLimits
	c.request.promptBytes = uint32(s.cfg.PromptAffinity)
	c.ctx, c.recorded.Begun = in.Context(), time.Now()
	return c
}

// CloseIdleConnections closes the idle connections of the base transport.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.setup.Load().base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Close ends the Transport: nothing new is sent. Later requests fail with an error
// that wraps [net.ErrClosed]. So do, at once, those that wait for a higher tier
// while a lower one could take them; others that wait are answered 429. Attempts in
// flight finish. If one fails, its request does not fail over, but ends with that
// attempt's response or error. A Base of the configuration is not closed. Close may
// be called more than once; its error is nil.
func (t *Transport) Close() error {
	t.changing.Lock()
	defer t.changing.Unlock()
	if t.closed.Swap(true) {
		return nil
	}
	close(t.done)
	t.setup.Load().recorder.Unobserve()
	t.setup.Load().replica.leave()
	if own := t.setup.Load().ownTransport; own != nil {
		own.CloseIdleConnections()
	}
	return nil
}
