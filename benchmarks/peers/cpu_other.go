//go:build !unix

package main

import "time"

var begin = time.Now()

// processorTime is the clock where there is nothing better.
func processorTime() time.Duration { return time.Since(begin) }
