//go:build race

package spillover

// The race detector makes pools forget, which costs an allocation or two.
const poolsForget = 4
