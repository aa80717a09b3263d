package spillover

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"
)

// Reconfigure replaces the configuration, as a whole and at once: requests that
// begin after it find the new one, those under way end with the one they began
// with. Its error is that of [New], and then nothing has changed, or wraps
// [net.ErrClosed] after Close.
//
// A backend stays if its Name and URL do, and a deployment if its backend does
// and calls it the same. What is known of those that stay is kept: cool-downs,
// failures, limits that were told, counts, stored objects, and being drained.
// Only failures that a new credential, Dialect, APIVersion or Headers may mend are
// forgotten with the old one.
func (t *Transport) Reconfigure(cfg Config) error {
	cfg, err := cfg.normalize()
	if err != nil {
		return err
	}
	old := t.setup.Load()
	s, amended, err := t.replace(cfg)
	if err != nil {
		return err
	}
	s.warnOfCallersCredentials(old.table.backends)
	s.log.Info("reconfigured", "backends", len(s.table.backends))
	for _, d := range amended {
		t.tell(context.Background(), s, &d.State, d, time.Now(), outcome{})
		for _, h := range d.Operations {
			t.tell(context.Background(), s, h, d, time.Now(), outcome{})
		}
	}
	t.opened.notify()
	return nil
}

// replace takes a Config over that was normalized. It tells the deployments
// whose failures it may have mended.
func (t *Transport) replace(cfg Config) (s *activeConfig, amended []*deployment, err error) {
	t.changing.Lock()
	defer t.changing.Unlock()
	if t.closed.Load() {
		return nil, nil, fmt.Errorf("spillover: the transport is closed: %w", net.ErrClosed)
	}
	old := t.setup.Load()
	if s, err = newSetup(cfg, old); err != nil {
		return nil, nil, err
	}
	if err := s.observe(t); err != nil {
		return nil, nil, err
	}
	t.markDrained(s)
	amended = s.table.amend()
	t.setup.Store(s)
	old.unobserve()
	if old.ownTransport != nil && s.ownTransport == nil {
		old.ownTransport.CloseIdleConnections()
	}
	return s, amended, nil
}

// amend forgets the failures that a backend's new credential, or form of
// requests, may mend. Those of the old one that are still to come count no more.
func (t *table) amend() (amended []*deployment) {
	changed := map[*backend]bool{}
	for _, b := range t.backends {
		changed[b] = !b.latest.Swap(b).sameRequests(b)
	}
	for _, r := range t.all() {
		for d := range r.all {
			if changed[d.backend] {
				d.Reconfigured()
				for _, h := range d.Operations {
					h.Reconfigured()
				}
				amended = append(amended, d)
			}
		}
	}
	return amended
}

// Drain takes a backend out by hand, until [Transport.Resume]: no request is
// sent to it any more, while those under way there finish. Once Status shows
// none in flight there is nothing that could still arrive. Objects that it
// stores cannot be reached meanwhile. A request that no other backend could
// take is answered 503. Status tells, and Reconfigure keeps it. It is an error
// if no backend has that name.
func (t *Transport) Drain(backend string) error {
	changed, err := t.setDrained(backend, true)
	if changed {
		t.setup.Load().log.Info("backend drained", "backend", backend)
	}
	return err
}

// Resume ends what [Transport.Drain] began, of a backend that is configured no
// longer, too. It is an error if no backend has that name; one that was not
// drained stays as it is.
func (t *Transport) Resume(backend string) error {
	changed, err := t.setDrained(backend, false)
	if changed {
		t.setup.Load().log.Info("backend resumed", "backend", backend)
	}
	return err
}

func (t *Transport) setDrained(name string, drained bool) (changed bool, err error) {
	t.changing.Lock()
	defer t.changing.Unlock()
	if !t.has(name) && (drained || !t.drained[name]) {
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
	return changed, nil
}

func (t *Transport) has(name string) bool {
	return slices.ContainsFunc(t.setup.Load().table.backends, func(b *backend) bool { return b.name == name })
}

func (t *Transport) markDrained(s *activeConfig) {
	for _, b := range s.table.backends {
		b.drained.Store(t.drained[b.name])
	}
}
