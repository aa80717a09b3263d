package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// calmPeriod is for how long a deployment must have had no cool-down until its cool-downs
// count as over.
const calmPeriod = 30 * time.Second

// An Episode keeps what was logged of a deployment or of a whole backend, so that a
// state that keeps changing does not fill the log. The zero Episode is that of a
// healthy one. It must not be copied.
type Episode struct {
	// backDue is whether the end of the cool-downs is to be logged, which it almost never
	// is: with the first response that comes calmPeriod after it.
	backDue atomic.Bool

	mu       sync.Mutex
	cooling  coolingEpisode
	ejection map[int]*ejectionEpisode // by Transition.Part
}

// A coolingEpisode is a series of cool-downs, each less than calmPeriod after the one before.
type coolingEpisode struct {
	count       int // 0: there is none
	total       time.Duration
	since, ends time.Time // the beginning of the first, and the end of the last
	reason      string    // of the last
}

// An ejectionEpisode is what was logged of ejections.
type ejectionEpisode struct {
	warnings failureWarnings
	ejected  bool // the last change was an ejection or a probe
	quiet    bool // that ejection was not logged above DEBUG
	shown    bool // one was, and no recovery since then
}

// admit is the level of a transition's record, with what the record says of the
// transitions before it.
func (e *Episode) admit(now time.Time, t Transition) (level slog.Level, more []slog.Attr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	level = transitionRecords[t.Phase].level
	c, j := &e.cooling, e.ejections(t.Part)
	switch t.Phase {
	case Cooling:
		e.backDue.Store(false)
		if c.count > 0 && now.Sub(c.ends) < calmPeriod {
			level = slog.LevelDebug
		} else {
			*c = coolingEpisode{since: now}
		}
		c.count++
		c.total += max(0, t.Until.Sub(now))
		c.ends, c.reason, j.ejected = t.Until, t.Reason, false
	case Ejected:
		count, due := j.warnings.count(now, t.Reason)
		if !due {
			level = slog.LevelDebug
		} else if count > 1 {
			more = append(more, slog.Int("ejections", count))
		}
		j.ejected, j.quiet, j.shown = true, !due, j.shown || due
	case Probing:
		if j.quiet {
			level = slog.LevelDebug
		}
	case Healthy:
		switch {
		case t.Response == (ResponseInfo{}): // by a new configuration: what follows is news
			*c, j.warnings = coolingEpisode{}, failureWarnings{}
			e.backDue.Store(false)
		case j.ejected && !j.shown:
			level = slog.LevelDebug
		case j.ejected || c.count == 0: // not a cool-down
		case now.Sub(c.ends) >= calmPeriod:
			more = c.attrs()
			*c = coolingEpisode{}
		default:
			level = slog.LevelDebug
			e.backDue.Store(true)
		}
		j.ejected, j.quiet, j.shown = false, false, false
	}
	return level, more
}

func (e *Episode) ejections(part int) *ejectionEpisode {
	if e.ejection == nil {
		e.ejection = map[int]*ejectionEpisode{}
	}
	if e.ejection[part] == nil {
		e.ejection[part] = new(ejectionEpisode)
	}
	return e.ejection[part]
}

// attrs are what a record says of cool-downs that are over.
func (c *coolingEpisode) attrs() []slog.Attr {
	return []slog.Attr{slog.Int("cooldowns", c.count), milliseconds("cooling_ms", c.total)}
}

// Served logs that a deployment is back, if this is the first response that it served
// since its cool-downs are over.
func (r *Recorder) Served(ctx context.Context, d *Deployment, e *Episode, response ResponseInfo) {
	if !e.backDue.Load() {
		return // almost always
	}
	now := time.Now()
	e.mu.Lock()
	c := e.cooling
	over := e.backDue.Load() && now.Sub(c.ends) >= calmPeriod
	if over {
		e.cooling = coolingEpisode{}
		e.backDue.Store(false)
	}
	e.mu.Unlock()
	if record := transitionRecords[Healthy]; over && r.log.Enabled(ctx, record.level) {
		attributes := append(d.attrs(), milliseconds("lasted_ms", now.Sub(c.since)), slog.String("reason", c.reason))
		r.log.LogAttrs(ctx, record.level, record.deployment, append(append(attributes, c.attrs()...), response.attrs()...)...)
	}
}
