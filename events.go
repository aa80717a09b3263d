package spillover

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/health"
)

// The records of a change, by the phase that it leads to: one for deployments
// and one for backends. That something is out wants a look; the others are what
// this package is for.
var records = [...]struct {
	level               slog.Level
	deployment, backend string
}{
	health.Healthy:     {slog.LevelInfo, "deployment back", "backend back"},
	health.CoolingDown: {slog.LevelInfo, "deployment cooling", ""},
	health.Ejected:     {slog.LevelWarn, "deployment out", "backend out"},
	health.Probing:     {slog.LevelInfo, "deployment probing", "backend probing"},
}

// tell tells of a change in what is known of a deployment, or of its backend,
// if there is any, and of the answer that made it. Neither's lock is held
// meanwhile.
func (t *pool) tell(ctx context.Context, s *activeConfig, h *health.State, d *deployment, now time.Time, o outcome) {
	if h.Private {
		return
	}
	n, changed := h.News(now)
	if !changed {
		return
	}
	whole := h == &d.backend.State
	wait := n.Until.Sub(now)
	record := records[n.Phase]
	if closes := n.Phase == health.CoolingDown || n.Phase == health.Ejected; closes && s.cooldowns.Enabled(ctx) {
		id := t.identify(s.table, d)
		if whole {
			id = newIdentity(d, "")
		}
		state := map[health.Phase]string{health.CoolingDown: "cooling", health.Ejected: "out"}[n.Phase]
		s.cooldowns.Record(ctx, max(0, wait.Seconds()), id.with(keyState.String(state), errorType(o.status, o.reason)).record...)
	}
	if !s.log.Enabled(ctx, record.level) {
		return
	}
	message, attributes := record.deployment, d.attrs()
	if whole {
		message, attributes = record.backend, d.backend.attrs()
	}
	for i, one := range d.Operations {
		// Where nothing else was ever served it is as good as the whole.
		if one == h && d.ServedOperations.Load()&^(1<<i) != 0 {
			attributes = append(attributes, slog.String("operation", wire.OperationName(i)))
		}
	}
	switch n.Phase {
	case health.CoolingDown, health.Ejected:
		attributes = append(attributes, slog.Time("until", n.Until), slog.Duration("wait", wait))
	case health.Healthy:
		attributes = append(attributes, slog.Duration("lasted", now.Sub(n.Since)))
	}
	attributes = append(attributes, slog.String("reason", n.Reason))
	if n.Phase == health.Ejected && o.detail != "" {
		attributes = append(attributes, slog.String("error", o.detail))
	}
	s.log.LogAttrs(ctx, record.level, message, append(attributes, o.attrs()...)...)
}

// warnOfCallersCredentials tells which backends are sent the callers' own
// credentials while others have one: that is easily meant otherwise, such as
// where a variable is not set. What was so before is not told again.
func (s *activeConfig) warnOfCallersCredentials(before []*backend) {
	known := map[string]bool{}
	for _, b := range before {
		known[b.name] = b.usesCallerCredential()
	}
	all := s.table.backends
	if !slices.ContainsFunc(all, func(b *backend) bool { return !b.usesCallerCredential() }) {
		return
	}
	for _, b := range all {
		if b.usesCallerCredential() && !known[b.name] {
			s.log.LogAttrs(context.Background(), slog.LevelWarn, "callers' credentials are sent",
				append(b.attrs(), slog.String("remedy", "set APIKey (api_key) or Token, unless callers are to bring their own"))...)
		}
	}
}

func (c *call) tell(h *health.State, d *deployment, now time.Time, o outcome) {
	c.pool.tell(c.ctx, c.activeConfig, h, d, now, o)
}

// log tells of an attempt, to those who look that closely.
func (a *attempt) log(outcome string, o outcome) {
	c := a.call
	if !c.telemetry.log.Enabled(c.ctx, slog.LevelDebug) {
		return
	}
	attributes := append(a.deployment.attrs(), slog.Int("attempt", c.sends), slog.String("outcome", outcome), slog.Duration("took", time.Since(a.sentAt)))
	if o.reason != "" {
		attributes = append(attributes, slog.String("reason", o.reason))
	}
	if o.detail != "" && o.verdict != rejected {
		attributes = append(attributes, slog.String("error", o.detail))
	}
	c.telemetry.log.LogAttrs(c.ctx, slog.LevelDebug, "attempt", append(attributes, o.attrs()...)...)
}

// attrs is what a deployment is called in the log, as in Status.
func (d *deployment) attrs() []slog.Attr {
	attributes := d.backend.attrs()
	if d.model != "" {
		attributes = append(attributes, slog.String("model", sanitize(d.model)))
	}
	if d.name != "" {
		attributes = append(attributes, slog.String("deployment", sanitize(d.name)))
	}
	return attributes
}

func (b *backend) attrs() []slog.Attr {
	return append(make([]slog.Attr, 0, 12), slog.String("backend", b.name), slog.Int("tier", b.priority))
}

// attrs are those of the answer.
func (o outcome) attrs() (attributes []slog.Attr) {
	if o.status != 0 {
		attributes = append(attributes, slog.Int("status", o.status))
	}
	if o.requestID != "" {
		attributes = append(attributes, slog.String("request_id", o.requestID))
	}
	return attributes
}

// well is what an answer says that is no error.
func successOf(resp *http.Response) outcome {
	return outcome{status: resp.StatusCode, requestID: wire.RequestID(resp.Header)}
}
