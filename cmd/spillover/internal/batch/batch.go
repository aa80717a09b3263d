// Package batch sends the requests of a file through a spillover.Transport, in the format
// of OpenAI's batches, and can be killed and continued at any time.
package batch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover"
)

// Options are what a batch is made of.
type Options struct {
	Input  string // the file with the requests
	Output string // the file for the answers
	Errors string // the file for the answers of requests that failed; "" means Output
	Part   Part   // the lines to ask; the zero value means all

	Transport *spillover.Transport

	MaxInFlight int           // requests of one model in flight; 0 means DefaultMaxInFlight
	TierWait    time.Duration // how long the transport lets a background request wait for its tier; see Configure
	Timeout     time.Duration // of one try; 0 means DefaultTimeout
	GiveUpAfter time.Duration // how long a request is tried because of rate limits; 0 means DefaultGiveUpAfter
	Grace       time.Duration // for requests that were sent, after Run's context has ended; 0 means none

	maxLine int                                 // for tests; 0 means maxLineSize
	write   func(f *os.File, text []byte) error // for tests; nil means Write
	sync    func(f *os.File) error              // for tests; nil means Sync
}

// Defaults of Options.
const (
	DefaultTimeout     = 10 * time.Minute // that of OpenAI's SDKs
	DefaultGiveUpAfter = 24 * time.Hour   // the completion window of OpenAI's batches
)

// What the transport of a batch waits for, if the configuration has not more.
const (
	// tierWait is how long a request waits for its tier, before it spills.
	tierWait = 5 * time.Second
	// maxWait is how long it waits before it is refused. The transport is the first to
	// know when a deployment can take it.
	maxWait = 2 * time.Minute
)

// Configure makes a configuration that of a batch. It returns Options.TierWait. Without it
// requests that wait in the transport are not given up when the batch ends.
func Configure(cfg *spillover.Config) time.Duration {
	if cfg.BackgroundWait == 0 {
		cfg.BackgroundWait = tierWait
	}
	cfg.MaxWait = max(cfg.MaxWait, maxWait)
	cfg.Base = newBase(cfg.Base)
	return max(cfg.BackgroundWait, cfg.TierWait)
}

// Bounds on memory.
const (
	maxLineSize     = 32 << 20 // bytes of a line of the input
	maxResponseSize = 64 << 20 // bytes of a response
	windowSize      = 64 << 20 // bytes of all lines in memory; one line may exceed it
	windowPerFlight = 2        // lines in memory for each of MaxInFlight, some of which wait
	groupSize       = 8 << 20  // bytes of answers after which a group is written
)

// A Batch is a file of requests with the answers that there are so far.
type Batch struct {
	options   Options
	input     *os.File
	inputInfo os.FileInfo
	journal   *journal
	flows     flows
	tiers     map[string]int // the priorities of backends, by name
	answered  atomic.Int64   // requests that were answered in this run, whatever the answer was
	inFlight  atomic.Int64
	waiting   atomic.Int64

	stopRun context.CancelCauseFunc // of Run

	mu     sync.Mutex
	counts Counts
}

// Counts are the numbers of a batch. Tokens, Backends and Tiers are those of this run,
// the others include earlier runs.
type Counts struct {
	Total    int64 // requests in the input
	Answered int64 // requests with an answer, including those that failed
	Failed   int64
	InFlight int // requests that were sent to a deployment and have no answer
	Waiting  int // requests that wait for a deployment

	Before       int64 // requests that were answered in earlier runs
	InputTokens  int64 // as responses report
	OutputTokens int64
	Backends     map[string]int64 // responses of each backend
	Tiers        map[int]int64    // responses of each tier, by priority
}

// Left is the number of requests without an answer.
func (c Counts) Left() int64 { return c.Total - c.Answered }

var errSameFile = errors.New("input, output, errors and the journal must be different files")

// Open opens the files and checks that they belong together. Answers of an earlier run
// are kept, and what an interrupted one has left incomplete is removed. An error means
// that nothing was sent.
func Open(ctx context.Context, o Options) (*Batch, error) {
	o.setDefaults()
	input, err := openInput(o.Input)
	if err != nil {
		return nil, err
	}
	b := &Batch{options: o, input: input, flows: flows{most: o.MaxInFlight}, tiers: map[string]int{}}
	if err := b.open(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (o *Options) setDefaults() {
	o.Part = o.Part.known()
	if o.MaxInFlight == 0 {
		o.MaxInFlight = DefaultMaxInFlight
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.GiveUpAfter == 0 {
		o.GiveUpAfter = DefaultGiveUpAfter
	}
	if o.maxLine == 0 {
		o.maxLine = maxLineSize
	}
	if o.write == nil {
		o.write = writeFile
	}
	if o.sync == nil {
		o.sync = (*os.File).Sync
	}
}

func (b *Batch) open(ctx context.Context) error {
	var err error
	if b.inputInfo, err = b.input.Stat(); err != nil {
		return err
	}
	id, lines, requests, err := scanInput(ctx, b.input, b.options.Part)
	if err != nil {
		return fmt.Errorf("%s: %w", b.options.Input, err)
	}
	if b.journal, err = openJournal(&b.options, b.inputInfo, id, lines); err != nil {
		return err
	}
	for _, t := range b.options.Transport.Status().Tiers {
		for _, backend := range t.Backends {
			b.tiers[backend.Name] = t.Priority
		}
	}
	b.counts = Counts{
		Total: requests, Answered: b.journal.answered, Failed: b.journal.failed, Before: b.journal.answered,
		Backends: map[string]int64{}, Tiers: map[int]int64{},
	}
	return nil
}

// Close closes the files.
func (b *Batch) Close() {
	b.input.Close()
	if b.journal != nil {
		b.journal.close()
	}
}

// Repaired is what Open has found of a run that was killed: answers that were complete,
// and bytes of others that were removed.
func (b *Batch) Repaired() (answers, removed int64) { return b.journal.recovered, b.journal.cut }

// Counts are the present numbers.
func (b *Batch) Counts() Counts {
	b.mu.Lock()
	c := b.counts
	c.Backends, c.Tiers = maps.Clone(c.Backends), maps.Clone(c.Tiers)
	b.mu.Unlock()
	c.InFlight, c.Waiting = int(b.inFlight.Load()), int(b.waiting.Load())
	return c
}

// Pending are answers that are not durable yet.
type pending struct {
	answers []answer
	size    int // of the line in the window
}

// Run sends the requests that have no answer yet. It ends early if ctx does, with ctx's
// error, and if going on is of no use. Then requests that were sent have the time
// Options.Grace to end, the others are given up, and Counts.Left is not 0. Run is called
// once.
func (b *Batch) Run(ctx context.Context) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	b.stopRun = stop
	sending, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	ended := make(chan struct{})
	go func() {
		select {
		case <-ended:
			return
		case <-running.Done():
		}
		grace := time.NewTimer(b.options.Grace)
		defer grace.Stop()
		select {
		case <-ended:
		case <-grace.C:
			kill()
		}
	}()
	defer close(ended)

	most := windowPerFlight * b.options.MaxInFlight
	window := newWindow(most, windowSize)
	answers := make(chan pending, most)
	written := make(chan error, 1)
	go func() { written <- b.writeAnswers(answers, window, func() { stop(nil); kill() }) }()
	err := b.read(running, sending, window, answers)
	close(answers)
	writeErr := <-written
	switch {
	case writeErr != nil:
		return fmt.Errorf("writing answers: %w", writeErr)
	case err != nil:
		return err
	case b.Counts().Left() > 0:
		return context.Cause(running)
	}
	return nil
}

// read reads the lines and sends the requests. It returns when all of them have ended.
func (b *Batch) read(running, sending context.Context, window *window, answers chan<- pending) error {
	var requests sync.WaitGroup
	defer requests.Wait()
	if _, err := b.input.Seek(0, io.SeekStart); err != nil {
		return err
	}
	lines := newLineReader(b.input, b.options.Part, b.options.maxLine)
	known := b.journal.known
	for {
		number, text, err := lines.next(func(line int64) bool { return line <= known.lines && !known.has(line) })
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.stopRun(err)
			return fmt.Errorf("%s: %w", b.options.Input, err)
		}
		if window.enter(running, len(text)) != nil {
			return nil
		}
		requests.Go(func() {
			var r *request
			if text == nil {
				r = tooLongRequest(number, b.options.maxLine)
			} else {
				r = parseRequest(number, text)
			}
			answers <- pending{b.ask(running, sending, r), len(text)}
		})
	}
	requests.Wait()
	// The batch does not end early, so these requests are denied for a reason of their own.
	if held := b.flows.held(); running.Err() == nil && window.enter(running, 0) == nil {
		answers <- pending{held, 0}
	}
	now, err := b.input.Stat()
	if err == nil && (now.Size() != b.inputInfo.Size() || !now.ModTime().Equal(b.inputInfo.ModTime()) || lines.number-1 != known.lines) {
		err = fmt.Errorf("%s was changed while it was read: answers may belong to other requests", b.options.Input)
	}
	return err
}

// writeAnswers makes answers durable, as many together as there are. After an error it
// calls stop, and drops the rest.
func (b *Batch) writeAnswers(answers <-chan pending, window *window, stop func()) (err error) {
	for next := range answers {
		var group []answer
		var lines []int
		size := 0
		for more := true; more; {
			group, lines = append(group, next.answers...), append(lines, next.size)
			for _, a := range next.answers {
				size += len(a.text)
			}
			if size >= groupSize {
				break
			}
			select {
			case next, more = <-answers:
			default:
				more = false
			}
		}
		if err == nil && len(group) > 0 {
			if err = b.journal.commit(group); err != nil {
				stop()
			} else {
				b.count(group)
			}
		}
		for _, size := range lines {
			window.leave(size)
		}
	}
	return err
}

func (b *Batch) count(group []answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range group {
		b.counts.Answered++
		if a.failed {
			b.counts.Failed++
		}
		b.counts.InputTokens += a.tokens.input
		b.counts.OutputTokens += a.tokens.output
		if a.backend != "" {
			b.counts.Backends[a.backend]++
			b.counts.Tiers[b.tiers[a.backend]]++
		}
	}
}
