package spillover

import "sync/atomic"

// A budget bounds second attempts within a tier (a retry budget), so that trouble
// is not doubled by our own retries: each success earns a fifth of one. It starts
// full.
type budget struct{ spent atomic.Int64 } // in fifths of an attempt

const (
	budgetFull  = 10 * attemptCost
	attemptCost = 5
	// A last resort costs more than a second attempt, and is paid back if it is
	// served: so it is free where caution is wrong, and bounded where it is right.
	lastResortCost = 7
)

// earn gives back so many fifths.
func (b *budget) earn(fifths int64) {
	for {
		spent := b.spent.Load()
		if spent <= 0 || b.spent.CompareAndSwap(spent, max(0, spent-fifths)) {
			return
		}
	}
}

// has reports whether there are so many fifths left.
func (b *budget) has(fifths int64) bool { return b.spent.Load()+fifths <= budgetFull }

// spend takes so many fifths, if they are left.
func (b *budget) spend(fifths int64) bool {
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
