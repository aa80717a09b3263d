//go:build unix

package main

import (
	"syscall"
	"time"
)

// processorTime is what the process has used of the processors. Unlike a clock it
// does not go on while other programs run.
func processorTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
