//go:build !race

package spillover

const poolsForget = 0

// UnderRace reports whether the race detector is in use.
const UnderRace = false
