// Package health holds what is known of the health of a deployment, of one of its
// operations, of a backend and of a caller's credential: rate limits and the ramp-up
// after them (slow start), outlier ejection with half-open probes, silence, headroom,
// latency, configured limits and the retry budget.
//
// The state machines are pure: the time is an argument (now, sent, seen), randomness
// is an argument (u), and nothing sleeps, logs or starts a goroutine. The transport
// decides what is a refusal, a failure or a success; this package decides what
// follows from it and for how long.
//
// A [State] owns the mutex that guards its throttle, its ramp-up and its ejection.
// These three have no lock of their own and are used only by State's methods. What
// each request reads ([State.Open], [State.Troubled], reported limits, latencies,
// counters) is atomic, so that a request to a healthy deployment takes no lock.
//
// Transitions, such as from healthy to ejected, are returned by [State.Transition].
// The caller reports them to logs and metrics.
package health
