package spillover

import (
	"fmt"
	"net"
	"slices"
)

// Reconfigure replaces the configuration, as a whole and at once: requests that
// begin after it find the new one, those under way end with the one they began
// with. Its error is that of [New], and then nothing has changed, or wraps
// [net.ErrClosed] after Close.
//
// A backend stays if its Name and URL do, and a deployment if its backend does
// and calls it the same. What is known of those that stay is kept: cool-downs,
// failures, limits that were told, counts, stored objects, and being drained.
// Only failures that a new credential, Dialect or APIVersion may mend are
// forgotten with the old one.
func (t *Transport) Reconfigure(cfg Config) error {
	cfg, err := cfg.normalize()
	if err != nil {
		return err
	}
	t.changing.Lock()
	defer t.changing.Unlock()
	if t.closed.Load() {
		return fmt.Errorf("spillover: the transport is closed: %w", net.ErrClosed)
	}
	old := t.setup.Load()
	s, err := newSetup(cfg, old)
	if err != nil {
		return err
	}
	if err := s.observe(t); err != nil {
		return err
	}
	t.markDrained(s)
	t.setup.Store(s)
	old.unobserve()
	s.log.Info("reconfigured", "backends", len(s.table.backends))
	for _, r := range s.table.all() {
		for d := range r.all {
			if was := old.table.same(d.backend); was != nil && !was.asks(d.backend) {
				d.change(func() { d.ejection.amend() })
			}
		}
	}
	if old.own != nil && s.own == nil {
		old.own.CloseIdleConnections()
	}
	return nil
}

// asks tells whether another backend sends requests with the same credential,
// in the same form. Token functions cannot be compared.
func (b *backend) asks(other *backend) bool {
	return b.key == other.key && (b.token == nil) == (other.token == nil) && b.dialect == other.dialect && b.apiVersion == other.apiVersion
}

// Drain takes a backend out by hand, until [Transport.Resume]: no request is
// sent to it any more, while those under way there finish. Objects that it
// stores cannot be reached meanwhile. A request that no other backend could
// take is answered 503. Status tells, and Reconfigure keeps it. It is an error
// if no backend has that name.
func (t *Transport) Drain(backend string) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	if !t.has(backend) {
		return fmt.Errorf("spillover: Drain: no backend is called %q", backend)
	}
	s := t.setup.Load()
	if !t.drained[backend] {
		s.log.Info("backend drained", "backend", backend)
	}
	t.drained[backend] = true
	t.markDrained(s)
	return nil
}

// Resume ends what [Transport.Drain] began. It is an error if no backend has
// that name; one that was not drained stays as it is.
func (t *Transport) Resume(backend string) error {
	t.changing.Lock()
	defer t.changing.Unlock()
	if !t.has(backend) && !t.drained[backend] {
		return fmt.Errorf("spillover: Resume: no backend is called %q", backend)
	}
	s := t.setup.Load()
	if t.drained[backend] {
		s.log.Info("backend resumed", "backend", backend)
	}
	delete(t.drained, backend)
	t.markDrained(s)
	return nil
}

func (t *Transport) has(name string) bool {
	return slices.ContainsFunc(t.setup.Load().table.backends, func(b *backend) bool { return b.name == name })
}

func (t *Transport) markDrained(s *setup) {
	for _, b := range s.table.backends {
		b.drained.Store(t.drained[b.name])
	}
}
