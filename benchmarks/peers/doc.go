// Command peers measures what a spillover.Transport costs, next to libraries that do part of the same work, a bare base
// transport, and the minimum of every load balancer: a clone of the request with another host and key. It writes
// REPORT.md and the charts.
//
// The candidates of a comparison take turns, in rounds, so that all of them see the same machine. What counts is a ratio
// of times, not a time.
package main
