//go:build race

package spillover

// PoolsForget is how many allocations pools cost: the race detector makes them forget.
const PoolsForget = 4

// UnderRace is for tests of large bodies: with the race detector each byte costs twenty
// times as much. They are as large as the limits without it.
const UnderRace = true
