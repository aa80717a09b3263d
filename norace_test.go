//go:build !race

package spillover

const poolsForget = 0
