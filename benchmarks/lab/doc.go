// Package lab is the laboratory: it runs the real spillover.Transport, many of
// them as separate processes would, in the virtual time of testing/synctest,
// against deployments of spillovertest under a load shaped like that of
// language models. Beside it, over the same network, run plain statements of
// what others do and an oracle that knows everything.
//
// A [Cell] is one experiment, a [Policy] is who does the balancing, and
// [Run] gives the [Figures] of the two. README.md has the commands.
package lab
