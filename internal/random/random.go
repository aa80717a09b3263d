// Package random is the source of the random numbers that choices depend on.
package random

import "math/rand/v2"

// Uint64 returns a random number. A program of this module may replace it before it
// makes a Transport, to get the same choices in each run; it must be safe for
// concurrent use.
var Uint64 = rand.Uint64
