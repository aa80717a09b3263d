package health

import "sync/atomic"

// A RetryBudget bounds second attempts within a tier (a retry budget), so that trouble
// is not doubled by our own retries: each success earns a fifth of one. It starts
// full.
type RetryBudget struct{ Spent atomic.Int64 } // in fifths of an attempt

const (
	budgetFull  = 10 * AttemptCost
	AttemptCost = 5
	// LastResortCost is higher: a last resort costs more than a second attempt, and is paid back if it is
	// served: so it is free where caution is wrong, and bounded where it is right.
	LastResortCost = 7
)

// Earn gives back so many fifths.
func (b *RetryBudget) Earn(fifths int64) {
	for {
		spent := b.Spent.Load()
		if spent <= 0 || b.Spent.CompareAndSwap(spent, max(0, spent-fifths)) {
			return
		}
	}
}

// Has reports whether there are so many fifths left.
func (b *RetryBudget) Has(fifths int64) bool { return b.Spent.Load()+fifths <= budgetFull }

// Spend takes so many fifths, if they are left.
func (b *RetryBudget) Spend(fifths int64) bool {
	for {
		spent := b.Spent.Load()
		if spent+fifths > budgetFull {
			return false
		}
		if b.Spent.CompareAndSwap(spent, spent+fifths) {
			return true
		}
	}
}
