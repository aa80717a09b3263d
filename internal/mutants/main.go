/*
Mutants shows that the tests notice when a rule is broken. mutants.yaml lists rules, and
for each a change of the code that breaks it. This program makes one change after the
other, and runs the tests that have to fail:

	go run ./internal/mutants             all of them, in some minutes
	go run ./internal/mutants -only tier  those whose rule, file or test matches

The changes are made in copies of the files (go build -overlay), so the checkout stays as
it is. The exit code is 0 if a test has failed for each of them.
*/
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"time"
)

func main() {
	only := flag.String("only", "", "a `pattern` for the rule, the file or the tests of the changes to make")
	all := flag.Bool("all", false, "where the tests of a rule do not fail, show whether another one of the package does")
	parallel := flag.Int("parallel", 2, "how many are tried at the same time")
	flag.Parse()
	survived, err := run(context.Background(), os.Stdout, *only, *all, *parallel)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	if survived > 0 {
		os.Exit(1)
	}
}

// run tries the mutants that match only, and returns how many no test has noticed.
func run(ctx context.Context, out io.Writer, only string, all bool, parallel int) (survived int, err error) {
	matches, err := regexp.Compile(only)
	if err != nil {
		return 0, err
	}
	mutants, err := read(".")
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	var chosen []*mutant
	for _, m := range mutants {
		if matches.MatchString(m.Rule) || matches.MatchString(m.File) || matches.MatchString(m.Test) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return 0, fmt.Errorf("no rule matches %q", only)
	}
	r := report{out: out}
	limit := make(chan struct{}, max(parallel, 1))
	var wait sync.WaitGroup
	for b := range binaries(ctx, dir, chosen, r.failed) {
		if failed, err := b.tryUnchanged(ctx); failed != "" || err != nil {
			r.failed(b.mutants[0], fmt.Errorf("%s fails without a change, too (%v)", failed, err)) //nolint:errorlint // err may be nil
			continue
		}
		for _, m := range b.mutants {
			limit <- struct{}{}
			wait.Go(func() {
				defer func() { <-limit }()
				begin := time.Now()
				failed, err := b.try(ctx, m, m.Test)
				if err == nil && failed == "" && all {
					if failed, err = b.try(ctx, m, "."); failed != "" {
						err = fmt.Errorf("is noticed by %s, but not by %s", failed, m.Test)
					}
				}
				if err != nil {
					r.failed(m, err)
					return
				}
				r.tried(m, failed, time.Since(begin))
			})
		}
	}
	wait.Wait()
	fmt.Fprintf(out, "%d rules broken, %d unnoticed\n", len(chosen), r.survived)
	if r.errors > 0 {
		err = fmt.Errorf("%d could not be tried", r.errors)
	}
	return r.survived, err
}

// A report prints results as they come.
type report struct {
	out io.Writer

	mu       sync.Mutex // guards what follows
	survived int
	errors   int
}

func (r *report) failed(m *mutant, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors++
	fmt.Fprintf(r.out, "ERROR     %s (%s): %v\n", m.Rule, m.File, err)
}

func (r *report) tried(m *mutant, failed string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if failed == "" {
		r.survived++
		fmt.Fprintf(r.out, "SURVIVED  %s (%s; %s)\n", m.Rule, m.File, m.Test)
		return
	}
	fmt.Fprintf(r.out, "noticed   %s: %s, %.1f s\n", m.Rule, failed, took.Seconds())
}
