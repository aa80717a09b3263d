//go:build race

package spillover

// The race detector makes pools forget, which costs an allocation or two.
const poolsForget = 4

// UnderRace is for tests of large bodies: with the race detector each byte costs twenty
// times as much. They are as large as the limits without it.
const UnderRace = true
