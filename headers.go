package spillover

// The headers that the transport sets in responses.
const (
	headerBackend     = "X-Spillover-Backend"
	headerAttempts    = "X-Spillover-Attempts"
	headerSynthesized = "X-Spillover-Synthesized"
	headerPrefix      = "X-Spillover-" // of all of these
)

// headerModel names the model that was used, in responses to requests for a model that
// has fallbacks.
const headerModel = "X-Spillover-Model"

// headerWaited is how long the request waited, in milliseconds.
const headerWaited = "X-Spillover-Waited-Ms"

// headerShouldRetry tells SDKs not to retry.
const headerShouldRetry = "X-Should-Retry"
