// Example shows a pool of one provisioned (PTU) and two pay-as-you-go
// deployments behind go-openai. The load exceeds first the PTU and then, for a
// moment, all deployments:
//
//	go run ./example
//
// The deployments are simulated in this process, on loopback. It takes about
// eight seconds and needs no network, no key and no configuration. Their limits
// are like Azure's, but the PTU's bucket holds one second instead of twenty, so
// that seconds show what takes minutes in Azure.
//
// A production hour in the format of the Azure LLM inference trace
// (TIMESTAMP,ContextTokens,GeneratedTokens) can be replayed instead:
//
//	go run ./example -trace AzureLLMInferenceTrace_conv.csv -speed 60
package main

import (
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

// options are what the flags say.
type options struct {
	plain   bool
	seconds int
	seed    uint64
	trace   string
	speed   float64
}

// run is main with everything from outside as an argument. It returns the exit
// status: 1 when a caller met an error other than a 429.
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
	p, err := newPool(s, o.seed, loopback)
	if err != nil {
		fmt.Fprintln(stderr, "example:", err)
		return 1
	}
	defer p.close()
	return p.present(ctx, l, newScreen(stdout, !o.plain && isTerminal(stdout)))
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("example", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.plain, "plain", false, "print plain lines, even on a terminal")
	f.IntVar(&o.seconds, "seconds", 0, "run for this many seconds (default 8, or the whole trace)")
	f.Uint64Var(&o.seed, "seed", 1, "seed for arrivals and response times")
	f.StringVar(&o.trace, "trace", "", "a `file` of TIMESTAMP,ContextTokens,GeneratedTokens to replay")
	f.Float64Var(&o.speed, "speed", 60, "replay the trace this many times faster than recorded")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.seconds < 0:
		err = errors.New("-seconds must be positive")
	case !(o.speed > 0 && o.speed <= 1000):
		err = errors.New("-speed must be above 0 and at most 1000")
	}
	if err != nil {
		fmt.Fprintln(stderr, "example:", err)
	}
	return o, err
}

// load makes the load, and sizes the deployments for it.
func (o options) load() (load, size, error) {
	length := time.Duration(o.seconds) * time.Second
	if o.trace == "" {
		if length == 0 {
			length = 8 * time.Second
		}
		l := day(length, o.seed)
		return l, daySize(l), nil
	}
	l, err := openTrace(o.trace, o.speed, length)
	if err != nil {
		return load{}, size{}, err
	}
	return l, traceSize(l, o.speed), nil
}

// present plays the load, shows it, and sums up.
func (p *pool) present(ctx context.Context, l load, s *screen) int {
	s.open(l, p.size)
	start := time.Now()
	stop := make(chan struct{})
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		p.watch(start, l, s, stop)
	}()
	p.play(ctx, start, l)
	close(stop)
	<-shown
	sum := p.sum(time.Since(start))
	fmt.Fprint(s.w, sum)
	if sum.failed > 0 {
		return 1
	}
	return 0
}
