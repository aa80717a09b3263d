//go:build !race

package spillover

// PoolsForget is how many allocations pools cost. They forget with the race detector only.
const PoolsForget = 0

// UnderRace reports whether the race detector is in use.
const UnderRace = false
