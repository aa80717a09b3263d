package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	urfave "github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

func batchCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "batch",
		Usage: "send the requests of a file through the pool, in OpenAI's batch format",
		Description: "Each line of the input is {\"custom_id\", \"method\", \"url\", \"body\"}, and each line of the output\n" +
			"{\"id\", \"custom_id\", \"response\", \"error\"}, as in OpenAI's and Azure's batches. Answers come in any order.\n\n" +
			"A batch that was killed or interrupted continues when the same command is run again. A request whose\n" +
			"answer was written is not sent again. OUT" + batch.JournalSuffix + " remembers what is done.\n\n" +
			"Exit codes: 0 all requests were answered; 1 some failed, or the batch ended early and can be continued;\n" +
			"2 nothing was sent, since the command line, the configuration or a file is wrong.",
		Flags: []urfave.Flag{
			configFlag(),
			&urfave.StringFlag{Name: "in", Usage: "the `FILE` with the requests", TakesFile: true},
			&urfave.StringFlag{Name: "out", Usage: "the `FILE` for the answers", TakesFile: true},
			&urfave.StringFlag{Name: "errors", Usage: "the `FILE` for requests that failed; without it they are in the output, too", TakesFile: true},
			&urfave.StringFlag{Name: "part", Value: "1/1", Usage: "ask the lines of part `I/N` only, so that N processes share an input"},
			&urfave.IntFlag{Name: "max-in-flight", Value: batch.DefaultMaxInFlight, Usage: "the maximum `NUMBER` of requests of one model in flight; the actual number adapts to the limits"},
			&urfave.DurationFlag{Name: "timeout", Value: batch.DefaultTimeout, Usage: "the maximum `TIME` that a deployment has to answer; waiting for a rate limit does not count"},
			&urfave.DurationFlag{Name: "give-up-after", Value: batch.DefaultGiveUpAfter, Usage: "a request that is still rate-limited after this `TIME` fails"},
			&urfave.DurationFlag{Name: "grace", Value: 30 * time.Second, Usage: "after an interrupt, requests that were sent have this `TIME` to end"},
			&urfave.BoolFlag{Name: "quiet", Usage: "show neither progress nor a summary"},
			logFlag(),
		},
		Action: runBatch,
	}
}

func runBatch(ctx context.Context, cmd *urfave.Command) error {
	options, err := batchOptions(cmd)
	if err != nil {
		return usageError(cmd, err)
	}
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	progress := newProgress(cmd)
	cmd.Root().ErrWriter = progress // so that log records and the bar do not mix
	log, err := newLogger(cmd)
	if err != nil {
		return usageError(cmd, err)
	}
	cfg.Logger = slog.New(warnings{log.Handler()})
	options.TierWait = batch.Configure(&cfg)
	lb, err := spillover.New(cfg)
	if err != nil {
		return wrong(err)
	}
	defer lb.Close()
	options.Transport = lb
	b, err := batch.Open(ctx, options)
	if err != nil {
		return wrong(err)
	}
	defer b.Close()
	if answers, removed := b.Repaired(); answers+removed > 0 && !progress.quiet {
		fmt.Fprintf(progress, "repaired after an incomplete write: %d complete answers kept, %d bytes of incomplete ones removed\n", answers, removed)
	}

	begun := time.Now()
	stop := progress.show(b)
	defer context.AfterFunc(ctx, func() {
		if n := b.Counts().InFlight; n > 0 && options.Grace > 0 && !progress.quiet {
			fmt.Fprintf(progress, "interrupted: %d requests in flight have %v to end; interrupt again to end at once\n", n, options.Grace)
		}
	})()
	err = b.Run(ctx)
	stop()
	counts := b.Counts()
	if !progress.quiet {
		fmt.Fprintln(progress, counts.Summary(time.Since(begun)))
	}
	switch {
	case ctx.Err() != nil && counts.Left() > 0 && errors.Is(err, ctx.Err()):
		return &exitError{exitFailed, fmt.Errorf("interrupted with %d requests left: run the same command again to resume", counts.Left())}
	case err != nil:
		return &exitError{exitFailed, fmt.Errorf("the batch has ended with %d requests left: %w\nRun the same command again to resume", counts.Left(), err)}
	case counts.Failed > 0:
		return failed()
	}
	return nil
}

func batchOptions(cmd *urfave.Command) (batch.Options, error) {
	part, err := batch.ParsePart(cmd.String("part"))
	if err != nil {
		return batch.Options{}, fmt.Errorf("-part: %w", err)
	}
	o := batch.Options{
		Input: cmd.String("in"), Output: cmd.String("out"), Errors: cmd.String("errors"), Part: part,
		MaxInFlight: cmd.Int("max-in-flight"), Timeout: cmd.Duration("timeout"),
		GiveUpAfter: cmd.Duration("give-up-after"), Grace: cmd.Duration("grace"),
	}
	switch {
	case cmd.Args().Present():
		return o, fmt.Errorf("%q is not a flag", cmd.Args().First())
	case o.Input == "":
		return o, errors.New("-in is required")
	case o.Output == "":
		return o, errors.New("-out is required")
	case o.Input == "-" || o.Output == "-" || o.Errors == "-":
		return o, errors.New("-in, -out and -errors must be files: a batch that is killed continues with them")
	case o.MaxInFlight < 1 || o.MaxInFlight > maxMaxInFlight:
		return o, fmt.Errorf("-max-in-flight: %d is not between 1 and %d", o.MaxInFlight, maxMaxInFlight)
	case o.Timeout <= 0:
		return o, fmt.Errorf("-timeout: %v is not positive", o.Timeout)
	case o.GiveUpAfter <= 0:
		return o, fmt.Errorf("-give-up-after: %v is not positive", o.GiveUpAfter)
	case o.Grace < 0:
		return o, fmt.Errorf("-grace: %v is negative", o.Grace)
	}
	return o, nil
}

// maxMaxInFlight is the maximum of -max-in-flight.
const maxMaxInFlight = 100_000

// warnings is a handler for warnings and errors only. That a deployment is throttled is
// the normal state of a batch.
type warnings struct{ slog.Handler }

func (h warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}
func (h warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{h.Handler.WithAttrs(attrs)}
}
func (h warnings) WithGroup(name string) slog.Handler { return warnings{h.Handler.WithGroup(name)} }

// The bar itself has barWidth characters. In a narrow terminal the library makes it
// shorter, and then what stands beside it, so that minBarWidth remain.
const (
	barWidth    = 20
	minBarWidth = 5
)

// room is how many characters a line of the terminal has beside the shortest bar and its
// count, "100% |bar| (total/total) ". It is 0 if that is not known.
func (p *progress) room(total int64) int {
	f, ok := p.to.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return 0
	}
	return max(width-len("100% || (/)  ")-minBarWidth-2*len(strconv.FormatInt(total, 10)), 1)
}

// How often progress is shown.
const (
	barInterval  = 500 * time.Millisecond
	lineInterval = 10 * time.Second // if standard error is not a terminal
)

// A progress shows how far a batch is: as a bar on a terminal, as lines elsewhere. What
// is written to it appears above the bar.
type progress struct {
	to       io.Writer
	quiet    bool
	terminal bool

	mu  sync.Mutex
	bar *progressbar.ProgressBar // nil while none is shown
}

func newProgress(cmd *urfave.Command) *progress {
	p := &progress{to: cmd.Root().ErrWriter, quiet: cmd.Bool("quiet")}
	if f, ok := p.to.(*os.File); ok {
		p.terminal = term.IsTerminal(int(f.Fd()))
	}
	return p
}

func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear() // as with other output to a terminal
	}
	return p.to.Write(text)
}

// show shows the progress of a batch until stop is called.
func (p *progress) show(b *batch.Batch) (stop func()) {
	if p.quiet {
		return func() {}
	}
	interval := lineInterval
	if p.terminal {
		interval = barInterval
		p.mu.Lock()
		p.bar = progressbar.NewOptions64(max(b.Counts().Total, 1), progressbar.OptionSetWriter(p.to), progressbar.OptionShowCount(),
			progressbar.OptionSetWidth(barWidth), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
			progressbar.OptionShowDescriptionAtLineEnd(), progressbar.OptionThrottle(0))
		p.mu.Unlock()
	}
	var text batch.Progress
	text.Text(b.Counts(), time.Now(), 0) // the start of the rates
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-ticker.C:
				p.update(b.Counts(), &text, now)
			}
		}
	})
	return func() {
		close(done)
		ended.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.bar != nil {
			_ = p.bar.Clear() // as with other output to a terminal
			p.bar = nil
		}
	}
}

func (p *progress) update(c batch.Counts, text *batch.Progress, now time.Time) {
	if !p.terminal {
		fmt.Fprintf(p, "%s, %s\n", c.Done(), text.Text(c, now, 0))
		return
	}
	line := text.Text(c, now, p.room(c.Total))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bar.Describe(line)
	_ = p.bar.Set64(c.Answered)
}
