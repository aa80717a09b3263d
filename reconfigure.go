package spillover

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/configfile"
)

// Reconfigure replaces the whole configuration at once. Requests that begin
// later use the new one; requests in flight end with the one that they began
// with. Its error is that of [New], in which case nothing has changed, or wraps
// [net.ErrClosed] after Close.
//
// A backend is kept if its Name and URL stay the same, and a deployment if its
// backend is kept and has the same name for it. What is known of them is kept
// as well: cool-downs, failures, reported limits, counters, stored objects, and
// whether they are drained. Only failures that a new credential, Dialect,
// APIVersion or Headers may repair are forgotten.
func (t *Transport) Reconfigure(cfg Config) error {
	cfg, err := cfg.normalize()
	if err != nil {
		return err
	}
	s, old, amended, err := t.replace(cfg)
	if err != nil {
		return err
	}
	s.warnOfCallersCredentials(old.table.backends)
	s.recorder.Reconfigured(len(s.table.backends), s.changes(old))
	s.recordRepaired(context.Background(), amended)
	t.opened.notify()
	return nil
}

// replace puts a normalized Config into force. It returns the configuration before, and
// the deployments whose failures the new one may have repaired.
func (t *Transport) replace(cfg Config) (s, old *activeConfig, amended []*deployment, err error) {
	t.changing.Lock()
	defer t.changing.Unlock()
	if t.closed.Load() {
		return nil, nil, nil, errClosed
	}
	old = t.setup.Load()
	if s, err = newActiveConfig(cfg, old); err != nil {
		return nil, nil, nil, err
	}
	if err := s.observe(t.inForce()); err != nil {
		return nil, nil, nil, err
	}
	t.markDrained(s)
	amended = s.table.repaired()
	s.table.limitInFlight()
	t.join(s, old)
	t.setup.Store(s)
	s.replica.recall(s.table)
	old.recorder.Unobserve()
	if old.ownTransport != nil && s.ownTransport == nil {
		old.ownTransport.CloseIdleConnections()
	}
	return s, old, amended, nil
}

// changes are the differences between two configurations: the names of backends, and
// for each changed one its fields.
func (s *activeConfig) changes(old *activeConfig) (c configChanges) {
	before := map[string]fingerprint{}
	for _, b := range old.table.backends {
		before[b.name] = b.fingerprint
	}
	for _, b := range s.table.backends {
		was, known := before[b.name]
		delete(before, b.name)
		if !known {
			c.Added = append(c.Added, b.name)
			continue
		}
		var fields []string
		for key, hash := range b.fingerprint {
			if was[key] != hash {
				fields = append(fields, key)
			}
		}
		if slices.Sort(fields); len(fields) > 0 {
			c.Changed = append(c.Changed, b.name+": "+strings.Join(fields, ", "))
		}
	}
	for _, b := range old.table.backends {
		if _, gone := before[b.name]; gone {
			c.Removed = append(c.Removed, b.name)
		}
	}
	now, then := reflect.ValueOf(s.cfg), reflect.ValueOf(old.cfg)
	for _, field := range reflect.VisibleFields(now.Type()) {
		if !sameSetting(now.FieldByIndex(field.Index), then.FieldByIndex(field.Index)) {
			c.Settings = append(c.Settings, configfile.Key(field.Name))
		}
	}
	return c
}

// repaired forgets the failures that a backend's new credential or form of
// requests may repair, and returns their deployments. Failures of requests that
// are still in flight in the old form do not count.
func (t *table) repaired() (amended []*deployment) {
	changed := map[*backend]bool{}
	for _, b := range t.backends {
		changed[b] = !b.latest.Swap(b).sameRequests(b)
	}
	return t.forgetFailures(changed)
}

// Drain takes a backend out of use until [Transport.Resume]: it gets no new
// request, and requests in flight finish. When [Transport.Status] shows 0 in
// flight, no request can reach it any more. Objects that it stores are
// unavailable meanwhile. A request that no other backend can take is answered
// 503. Status shows drained backends, and Reconfigure keeps them drained.
// [Backend.Drained] does the same in the configuration. Drain returns an error if
// no backend has the name.
func (t *Transport) Drain(backend string) error {
	changed, err := t.setDrained(backend, true)
	if changed {
		t.setup.Load().recorder.Drained(backend)
	}
	return err
}

// Resume ends [Transport.Drain]. The backend may have been removed from the
// configuration since. Resume returns an error if no backend has the name, and if
// the backend stays drained because [Backend.Drained] is set; Drain has ended then,
// too. It does nothing for a backend that is not drained.
func (t *Transport) Resume(backend string) error {
	changed, err := t.setDrained(backend, false)
	if changed {
		t.setup.Load().recorder.Resumed(backend)
	}
	return err
}

// DrainFleet drains a backend in all replicas of the [Config.Fleet]: here as
// [Transport.Drain] does, until Resume, and in the others for wait, which must be more than
// 0 and at most one hour. They avoid the backend, and use it only for requests that no other
// backend can take. Replicas that the notice does not reach go on using it: Status of each
// shows it. The error is that of Drain, or is about wait, or says that there is no Fleet.
func (t *Transport) DrainFleet(backend string, wait time.Duration) error {
	if wait <= 0 || wait > maxFleetDrain {
		return fmt.Errorf("spillover: DrainFleet: %v is not more than 0 and at most %v", wait, maxFleetDrain)
	}
	d, r, err := t.inFleet(backend)
	if err != nil {
		return err
	}
	if err := t.Drain(backend); err != nil {
		return err
	}
	r.drain(d, wait)
	return nil
}

// ResumeFleet ends [Transport.DrainFleet] in all replicas. The backend must be in the
// configuration. The error is that of Resume, or says that there is no Fleet; the other
// replicas hear nothing then.
func (t *Transport) ResumeFleet(backend string) error {
	d, r, err := t.inFleet(backend)
	if err != nil {
		return err
	}
	if err := t.Resume(backend); err != nil {
		return err
	}
	r.drain(d, 0)
	return nil
}

// inFleet returns a deployment of a backend, and this replica.
func (t *Transport) inFleet(backend string) (*deployment, *replica, error) {
	s := t.setup.Load()
	if s.replica == nil {
		return nil, nil, errors.New("spillover: the configuration has no Fleet")
	}
	for d := range s.table.nameless.all {
		if d.backend.name == backend {
			return d, s.replica, nil
		}
	}
	return nil, nil, fmt.Errorf("spillover: no backend is called %q", backend)
}

func (t *Transport) setDrained(name string, drained bool) (changed bool, err error) {
	t.changing.Lock()
	defer t.changing.Unlock()
	b := t.named(name)
	if b == nil && (drained || !t.drained[name]) {
		return false, fmt.Errorf("spillover: no backend is called %q", name)
	}
	changed = t.drained[name] != drained
	if drained {
		t.drained[name] = true
	} else {
		delete(t.drained, name)
	}
	t.markDrained(t.setup.Load())
	t.opened.notify()
	if !drained && b != nil && b.drainedByConfig {
		return false, fmt.Errorf("spillover: backend %q is drained by the configuration: remove Drained (in a file: drained) from it", name)
	}
	return changed, nil
}

// named returns the configured backend of that name, or nil.
func (t *Transport) named(name string) *backend {
	backends := t.setup.Load().table.backends
	if i := slices.IndexFunc(backends, func(b *backend) bool { return b.name == name }); i >= 0 {
		return backends[i]
	}
	return nil
}

func (t *Transport) markDrained(s *activeConfig) {
	for _, b := range s.table.backends {
		b.drained.Store(b.drainedByConfig || t.drained[b.name])
	}
}

// warnOfCallersCredentials warns of backends that are sent the callers' own
// credentials while others have one, or had one in the configuration before. Those
// that were sent them before are not warned of again.
func (s *activeConfig) warnOfCallersCredentials(before []*backend) {
	known := map[string]bool{}
	for _, b := range before {
		known[b.name] = b.usesCallerCredential()
	}
	all := s.table.backends
	if !slices.ContainsFunc(slices.Concat(all, before), func(b *backend) bool { return !b.usesCallerCredential() }) {
		return
	}
	for _, b := range all {
		if b.usesCallerCredential() && !known[b.name] {
			s.recorder.CallersCredentialsSent(b.name, b.priority)
		}
	}
}
