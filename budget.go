package spillover

import "sync/atomic"

// A budget bounds second attempts within a tier, so that trouble is not
// doubled by our own retries: each success earns a fifth of one. It starts full.
type budget struct{ spent atomic.Int64 } // in fifths of an attempt

const (
	budgetFull  = 10 * attemptCost
	attemptCost = 5
)

func (b *budget) earn() {
	for {
		spent := b.spent.Load()
		if spent <= 0 || b.spent.CompareAndSwap(spent, spent-1) {
			return
		}
	}
}

// spend takes one attempt, if there is one.
func (b *budget) spend() bool {
	for {
		spent := b.spent.Load()
		if spent+attemptCost > budgetFull {
			return false
		}
		if b.spent.CompareAndSwap(spent, spent+attemptCost) {
			return true
		}
	}
}
