// Example shows what spillover does for a program that uses go-openai. It sends
// the same chats to one provisioned deployment (PTU) without spillover, and to
// the PTU and two pay-as-you-go deployments (PAYG) with spillover:
//
//	go run ./example
//
// It needs no network, no key and no configuration: the deployments are
// simulated in memory. Two minutes of virtual time are shown in eight seconds.
// The same seed always gives the same numbers. The PTU is full when it has
// accepted 20 seconds of work, so failover begins a while after the load rises.
//
// pool.go shows how go-openai is connected to spillover.
//
// It can also replay a file in the format of the Azure LLM inference trace
// (TIMESTAMP,ContextTokens,GeneratedTokens), by default an hour in a minute:
//
//	go run ./example -trace AzureLLMInferenceTrace_conv.csv -speed 60
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the values of the flags.
type options struct {
	plain   bool
	seconds int
	seed    uint64
	trace   string
	speed   float64
}

// run is main without global state. It returns the exit status: 1 if a caller
// received an error other than a 429.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	l, s, err := o.load()
	if err != nil {
		fmt.Fprintln(stderr, "example:", err)
		return 1
	}
	screen := newScreen(stdout, o.plain)
	pace, stop := newPacer(ctx, o.speed)
	defer stop()
	var sum summary
	inVirtualTime(func() {
		var c *comparison
		if c, err = newComparison(l, s, o.seed); err == nil {
			sum = c.play(ctx, screen, pace)
		}
	})
	if err != nil {
		fmt.Fprintln(stderr, "example:", err)
		return 1
	}
	if sum.failed+sum.failedAlone > 0 {
		return 1
	}
	return 0
}

// The default of -speed, without and with -trace.
const standardSpeed, traceSpeed = 15, 60

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("example", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.plain, "plain", false, "print plain lines, even on a terminal")
	f.IntVar(&o.seconds, "seconds", 0, "end after this many simulated seconds (default: the whole load)")
	f.Uint64Var(&o.seed, "seed", 1, "seed of everything random: the same seed gives the same numbers")
	f.StringVar(&o.trace, "trace", "", "a `file` of TIMESTAMP,ContextTokens,GeneratedTokens to replay")
	f.Float64Var(&o.speed, "speed", 0, fmt.Sprintf("simulated seconds shown in one second (default %d, or %d for a trace)", standardSpeed, traceSpeed))
	if err := f.Parse(args); err != nil {
		return o, err
	}
	set := map[string]bool{}
	f.Visit(func(f *flag.Flag) { set[f.Name] = true })
	switch {
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.seconds < 0 || set["seconds"] && o.seconds == 0:
		err = errors.New("-seconds must be positive")
	case set["speed"] && !(o.speed > 0 && o.speed <= 1000):
		err = errors.New("-speed must be above 0 and at most 1000")
	}
	if err != nil {
		fmt.Fprintln(stderr, "example:", err)
	}
	if o.trace != "" {
		o.speed = cmp.Or(o.speed, traceSpeed)
	}
	o.speed = cmp.Or(o.speed, standardSpeed)
	return o, err
}

// load returns the load, and the size of the deployments for it.
func (o options) load() (l load, s size, err error) {
	l, s = standardLoad(o.seed), standardSize
	if o.trace != "" {
		if l, err = openTrace(o.trace); err != nil {
			return load{}, size{}, err
		}
	}
	if o.seconds > 0 {
		l = l.first(time.Duration(o.seconds) * time.Second)
	}
	if o.trace != "" {
		s = traceSize(l)
	}
	return l, s, nil
}
