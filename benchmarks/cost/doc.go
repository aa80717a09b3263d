// Package cost measures what a spillover.Transport adds to a request: beside a
// bare base, beside the least that any load balancer does (a clone of the request
// with another host and key), and beside two retry libraries that do the same
// rewriting.
//
// Everything is measured in one process, in rounds in which each candidate has
// its turn, so that all of them see the same machine. What counts is a ratio of
// medians, never a time.
package cost
