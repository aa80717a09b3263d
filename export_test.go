package spillover

import (
	"iter"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
)

// What the tests of package spillover_test know of the inside.

const (
	ErrorBodyLimit    = errorBodyLimit
	HeaderAttempts    = headerAttempts
	HeaderSynthesized = headerSynthesized
	KeyFileInterval   = keyFileInterval
	MaxHeld           = maxHeld
	MaxKeyFile        = maxKeyFile
	MaxLoadErrors     = maxLoadErrors
	MaxPreamble       = maxPreamble
	MaxPresets        = maxPresets
	MaxRoutes         = maxRoutes
	MaxWeight         = maxWeight
	MigrationPage     = migrationPage
	MostCooldown      = mostCooldown
	WatchPeriod       = watchPeriod
	WorthReadingLimit = worthReadingLimit
)

var (
	ErrHeaderTimeout   = errHeaderTimeout
	ErrIdleTimeout     = errIdleTimeout
	ErrRequestCanceled = errRequestCanceled
	ErrUnfinished      = errUnfinished

	HasContent  = hasContent
	ParseConfig = parseConfig
	Prose       = prose
)

// HasCredential reports whether b has a credential of its own.
func (b *Backend) HasCredential() bool { return b.hasCredential() }

// ConfigOf returns the configuration in force, normalized.
func ConfigOf(tr *Transport) Config { return tr.setup.Load().cfg }

// BaseOf returns the transport that requests are sent with.
func BaseOf(tr *Transport) http.RoundTripper { return tr.setup.Load().base }

// SetRandom makes t draw its random numbers from draw.
func (t *Transport) SetRandom(draw func() uint64) { t.random = draw }

// DeploymentOf returns a backend's deployment of the model m.
func DeploymentOf(t testing.TB, tr *Transport, backend string) *deployment {
	for d := range DeploymentsOf(tr, "m") {
		if d.backend.name == backend {
			return d
		}
	}
	require.Fail(t, "no such backend", backend)
	return nil
}

// DeploymentsOf returns the deployments of a model, or of requests without a model.
func DeploymentsOf(tr *Transport, model string) iter.Seq[*deployment] {
	if model == "" {
		return tr.table().nameless.all
	}
	return tr.table().find(model).all
}

// BackendName returns the name of the backend of d.
func (d *deployment) BackendName() string { return d.backend.name }

// BackendState returns the state of the backend of d.
func (d *deployment) BackendState() *health.Connection { return &d.backend.Connection }

// RetryBudgetOf returns the retry budget of a tier for a model. The first tier is 0.
func RetryBudgetOf(tr *Transport, model string, tier int) *health.RetryBudget {
	return tr.table().find(model).tiers[tier].budget
}
