package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillover-go/spillover/internal/random"
)

// This file makes the example reproducible. Programs that use spillover need
// nothing of it.

// inVirtualTime calls f in a bubble of testing/synctest. There, time stands
// still while any goroutine runs, so that times do not depend on the machine.
// synctest is made for tests and needs a testing.T, of which it uses nothing
// unless the test fails.
func inVirtualTime(f func()) {
	synctest.Test(new(testing.T), func(*testing.T) { f() })
}

// newPacer returns a function to be called in virtual time. It returns when
// the virtual time at has come in real time too, which passes speed times more
// slowly. Virtual time stands still until then. When ctx ends it never waits.
func newPacer(ctx context.Context, speed float64) (pace func(at time.Duration), stop func()) {
	// The bubble has no access to real time. This goroutine is outside of it.
	due, come, start := make(chan time.Duration), make(chan struct{}), time.Now()
	go func() {
		for at := range due {
			select {
			case <-time.After(time.Until(start.Add(time.Duration(float64(at) / speed)))):
			case <-ctx.Done():
			}
			come <- struct{}{}
		}
	}()
	return func(at time.Duration) { due <- at; <-come }, func() { close(due) }
}

// seedRandom makes the random choices of each Transport that is made from now on the
// same in each run.
func seedRandom(seed uint64) {
	var mu sync.Mutex
	source := rand.New(rand.NewPCG(seed, 1))
	random.Uint64 = func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return source.Uint64()
	}
}
