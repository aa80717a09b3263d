package health

import "sync/atomic"

// RetryBudget limits retries within a tier, so that retries do not double the load of
// a service in trouble: each success earns a fifth of one. It starts full.
type RetryBudget struct{ spent atomic.Int64 } // in fifths of a retry

const (
	budgetFull  = 10 * AttemptCost // ten retries
	AttemptCost = 5                // of a retry: five successes earn one
	// LastResortCost is the cost of an attempt at a deployment that only the ramp-up
	// closes. It is more than that of a retry, and paid back if the attempt is served:
	// so it is free where the ramp-up is too cautious, and limited where it is not.
	LastResortCost = 7
)

// Earn gives back so many fifths.
func (b *RetryBudget) Earn(fifths int64) {
	for {
		spent := b.spent.Load()
		if spent <= 0 || b.spent.CompareAndSwap(spent, max(0, spent-fifths)) {
			return
		}
	}
}

// Has reports whether so many fifths are left.
func (b *RetryBudget) Has(fifths int64) bool { return b.spent.Load()+fifths <= budgetFull }

// Spend takes so many fifths, if they are left.
func (b *RetryBudget) Spend(fifths int64) bool {
	for {
		spent := b.spent.Load()
		if spent+fifths > budgetFull {
			return false
		}
		if b.spent.CompareAndSwap(spent, spent+fifths) {
			return true
		}
	}
}
