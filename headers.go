package spillover

// The headers that every answer carries, real or not.
const (
	headerBackend     = "X-Spillover-Backend"
	headerAttempts    = "X-Spillover-Attempts"
	headerSynthesized = "X-Spillover-Synthesized"
	headerPrefix      = "X-Spillover-" // of them all
)

// headerWaited tells on an answer for how long the request waited, in milliseconds.
const headerWaited = "X-Spillover-Waited-Ms"

// headerShouldRetry tells SDKs that waiting is useless.
const headerShouldRetry = "X-Should-Retry"
