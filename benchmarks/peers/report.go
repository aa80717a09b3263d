package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// A report has all that was measured.
type report struct {
	settings settings
	quick    bool
	begun    time.Time
	took     time.Duration
	load     string // of the machine, at the beginning
	bifrost  *bifrost
	root     string // of the repository
	tmp      string // a directory for files

	sizes, events, pools, inFlight, memory series
	wire                                   []wired
	idle                                   []idleMemory
	spreads                                []spread
	proxies                                *comparison
}

// A wired is what was measured over one protocol.
type wired struct {
	endpoint endpoint
	series   series
}

func newReport(s settings, short bool, root, tmp string) *report {
	return &report{settings: s, quick: short, root: root, tmp: tmp, begun: time.Now(), load: loadAverage()}
}

func (r *report) measure(ctx context.Context, a serviceAddresses, progress io.Writer) (err error) {
	s := r.settings
	step := func(name string) { fmt.Fprintf(progress, "%4.0f s  %s\n", time.Since(r.begun).Seconds(), name) }
	step("sizes of bodies")
	if r.sizes, err = vary(s.sizes, func(size int) (*comparison, error) { return inMemory(ctx, s, size, s.backends, peers()...) }); err != nil {
		return fmt.Errorf("sizes: %w", err)
	}
	for _, at := range a.endpoints() {
		step(at.name)
		var more []candidate
		wired := wired{endpoint: at}
		wired.series, err = vary(s.wire, func(size int) (*comparison, error) {
			more = nil
			if r.bifrost != nil && !at.http2 {
				more = append(more, r.bifrost.candidate(s, at, size))
			}
			return loopback(ctx, s, at, size, more...)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", at.name, err)
		}
		r.wire = append(r.wire, wired)
	}
	step("streams")
	if r.events, err = vary(s.events, func(events int) (*comparison, error) { return streams(ctx, s, events, names(peers())...) }); err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	step("numbers of backends")
	if r.pools, err = vary(s.pools, func(backends int) (*comparison, error) { return growingPool(ctx, s, backends) }); err != nil {
		return fmt.Errorf("backends: %w", err)
	}
	step("requests in flight")
	if r.inFlight, err = vary(s.inFlight, func(n int) (*comparison, error) { return inFlight(ctx, s, n) }); err != nil {
		return fmt.Errorf("requests in flight: %w", err)
	}
	step("memory of requests in flight")
	if r.memory, err = vary(s.inFlight, func(n int) (*comparison, error) { return heldMemory(ctx, s, n) }); err != nil {
		return fmt.Errorf("memory of requests in flight: %w", err)
	}
	step("idle deployments")
	if r.idle, err = idleDeployments(ctx, s); err != nil {
		return fmt.Errorf("idle deployments: %w", err)
	}
	step("proxies")
	if r.proxies, err = proxies(ctx, s, a.endpoints()[0], r.root, r.tmp); err != nil {
		return fmt.Errorf("proxies: %w", err)
	}
	step("the benchmark of azure-switchboard")
	r.spreads, err = bursts(ctx, s, r.bifrost, a)
	r.took = time.Since(r.begun)
	return err
}

func (r *report) charts() []chart {
	held := func(u usage) float64 { return max(u.Held, 1) }
	return []chart{
		newChart("sizes.svg", "Time of a request by the size of its body, base in memory", "bytes of the body", "µs", r.sizes, microseconds),
		newChart("events.svg", "Time of a stream by its number of events", "events of content", "µs", r.events, microseconds),
		newChart("backends.svg", "Time of a request by the number of backends, base in memory", "backends", "µs", r.pools, microseconds),
		newChart("inflight.svg", "Time of a request while others are in flight, base in memory", "other requests in flight", "µs", r.inFlight, microseconds),
		newChart("memory.svg", "Memory of a request in flight, base in memory", "requests in flight", "bytes of each", r.memory, held),
	}
}

// A table of Markdown. The first column is left-aligned, the others right-aligned.
func table(b *strings.Builder, head []string, rows [][]string) {
	fmt.Fprintf(b, "| %s |\n|---|%s\n", strings.Join(head, " | "), strings.Repeat("---:|", len(head)-1))
	for _, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	b.WriteString("\n")
}

func micros(d time.Duration) string { return number(float64(d.Nanoseconds()) / 1e3) }

// number has three digits that count.
func number(v float64) string {
	switch abs := max(v, -v); {
	case abs < 9.995:
		return fmt.Sprintf("%.2f", v)
	case abs < 99.95:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

// added is what a candidate takes beyond the bare base.
func added(c *comparison, name string) usage {
	u, from := c.of(name), c.of(bare)
	return usage{
		Clock: u.Clock - from.Clock, Processor: u.Processor - from.Processor,
		Allocs: u.Allocs - from.Allocs, Bytes: u.Bytes - from.Bytes, FirstContent: u.FirstContent - from.FirstContent, Held: u.Held - from.Held,
	}
}

func sizeName(bytes int) string { return fmt.Sprintf("%d KiB", bytes>>10) }

// summary is the part of the report that documents show.
func (r *report) summary() string {
	var b strings.Builder
	c := r.sizes.comparisons[0]
	var rows [][]string
	for _, name := range c.names() {
		if name == bare {
			continue
		}
		u := added(c, name)
		rows = append(rows, []string{name, micros(u.Clock), number(c.ratio(name, cloned)), fmt.Sprintf("%.0f", u.Allocs), fmt.Sprintf("%.0f", u.Bytes)})
	}
	table(&b, []string{sizeName(r.sizes.values[0]) + " of JSON", "added µs", "time × clone", "added allocations", "added bytes"}, rows)
	return b.String()
}

func (r *report) text() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# What a request costs, next to other libraries\n")
	p("Written by `go run ./benchmarks/peers`: do not edit. [README.md](README.md) explains the method.\n")
	kind := ""
	if r.quick {
		kind = " With -quick: too short for figures."
	}
	p("%s, %s, %s/%s, %d processors (%s). Load average at the start: %s. The run took %.0f seconds.%s\n",
		r.begun.UTC().Format("2006-01-02"), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), processorName(), r.load, r.took.Seconds(), kind)
	p("Times are the least of %d rounds (requests in flight: of 15), counts are medians. *Added* is what a candidate takes beyond the bare base. *Time × clone* is the time in terms of *clone and rewrite*.", r.settings.rounds)
	p("Processor time includes garbage collection, and also what runs in parallel. A difference of a few percent means nothing.\n")
	r.peers(&b)
	p("## Summary\n")
	p("Base in memory, %d backends where there are several.\n", r.settings.backends)
	b.WriteString(r.summary())
	p("## Size of the body, base in memory\n")
	p("The base reads the body and answers with %d bytes of JSON, which the caller reads.\n", len(completion))
	for i, c := range r.sizes.comparisons {
		p("### %s\n", sizeName(r.sizes.values[i]))
		costs(&b, c)
	}
	p("![Time by size of the body](sizes.svg)\n")
	r.connections(&b)
	r.streamed(&b)
	r.growth(&b)
	r.burst(&b)
	return b.String()
}

func costs(b *strings.Builder, c *comparison) {
	var rows [][]string
	for _, name := range c.names() {
		u, more := c.of(name), added(c, name)
		rows = append(rows, []string{
			name, micros(u.Clock), micros(more.Clock), number(c.ratio(name, cloned)), micros(u.Processor), number(c.processorRatio(name, cloned)),
			fmt.Sprintf("%.1f", more.Allocs), fmt.Sprintf("%.0f", more.Bytes),
		})
	}
	table(b, []string{"", "µs", "added µs", "time × clone", "processor µs", "processor × clone", "added allocations", "added bytes"}, rows)
}

// peers states what is compared, and in which versions.
func (r *report) peers(b *strings.Builder) {
	b.WriteString("## What is compared\n\n")
	found := versions()
	link := func(name, module, version string) string {
		return fmt.Sprintf("[%s](https://pkg.go.dev/%s@%s) %s", name, module, version, version)
	}
	fmt.Fprintf(b, "| | settings | what it does |\n|---|---|---|\n")
	for _, k := range peers() {
		name := k.name
		if k.module != "" {
			name = link(name, k.module, found[k.module])
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, k.settings, k.does)
	}
	if r.bifrost != nil {
		fmt.Fprintf(b, "| %s | defaults, a key of Azure for each deployment | a client with its own types: it encodes the request and decodes the response, "+
			"which callers of the others do with their SDK; chooses a key by weighted random choice, no retry by default, falls back to other providers that a request names |\n",
			link(underBifrost, "github.com/maximhq/bifrost/core", r.bifrost.Version))
	}
	b.WriteString(`
With these settings:

- Only httplb, spillover and Bifrost choose among deployments.
- Only spillover sends a request that failed to another deployment, and only spillover stops sending to a deployment that
  has answered 429 or that fails.
- Only spillover and Bifrost replace the model's name by that of the deployment.
- otelhttp and spillover have no OpenTelemetry provider, so they record nothing.

`)
}

func (r *report) connections(b *strings.Builder) {
	b.WriteString("## Over loopback\n\nThe service is another process, so processor time, allocations and bytes are the client's. " +
		"All Go clients have an `http.Transport` with a write buffer of 20 KiB; Bifrost has its own client (fasthttp), whose writes are not counted, " +
		"and which has no HTTP/2. Compare Bifrost with *spillover under openai-go*: both encode the request and decode the response, the others send prepared bytes. *Writes* are calls of `Write` of the connection for each request.\n\n")
	for _, w := range r.wire {
		for i, c := range w.series.comparisons {
			fmt.Fprintf(b, "### %s, %s\n\n", w.endpoint.name, sizeName(w.series.values[i]))
			var rows [][]string
			for _, name := range c.names() {
				u, more := c.of(name), added(c, name)
				writes := fmt.Sprintf("%.2f", u.Writes)
				if name == underBifrost {
					writes = "–"
				}
				rows = append(rows, []string{
					name, micros(u.Clock), number(c.ratio(name, bare)), micros(u.Processor), number(c.processorRatio(name, bare)),
					fmt.Sprintf("%.0f", more.Allocs), fmt.Sprintf("%.0f", more.Bytes), writes,
				})
			}
			table(b, []string{"", "µs", "time × bare", "processor µs", "processor × bare", "added allocations", "added bytes", "writes"}, rows)
		}
	}
	b.WriteString("### Proxies\n\nEach in a process of its own, between the client and the service, for " + sizeName(r.settings.sizes[0]) +
		" over HTTP/1.1. `httputil.ReverseProxy` sets the host and a key, for one deployment. `spillover serve` has its defaults, " +
		"which include metrics and a log record of each request, written to a file.\n\n")
	var rows [][]string
	for _, name := range r.proxies.names() {
		u := r.proxies.of(name)
		label := name
		if name == bare {
			label = "without a proxy"
		}
		rows = append(rows, []string{label, micros(u.Clock), micros(added(r.proxies, name).Clock), number(r.proxies.ratio(name, bare))})
	}
	table(b, []string{"", "µs", "added µs", "time × without"}, rows)
}

func (r *report) streamed(b *strings.Builder) {
	b.WriteString("## Streams\n\nOver HTTP/1.1 on loopback; the service, in the same process, sends each event when the client waits for it. " +
		"*First content later* is how much later than from the bare base the first content arrives.\n\n")
	for i, c := range r.events.comparisons {
		n := r.events.values[i]
		fmt.Fprintf(b, "### %d events\n\n", n)
		var rows [][]string
		for _, name := range c.names() {
			u, more := c.of(name), added(c, name)
			rows = append(rows, []string{
				name, micros(u.Clock), number(c.ratio(name, bare)), micros(u.FirstContent), micros(more.FirstContent),
				fmt.Sprintf("%.1f", more.Allocs), fmt.Sprintf("%.3f", more.Allocs/float64(n)),
			})
		}
		table(b, []string{"", "µs", "time × bare", "first content µs", "first content later µs", "added allocations", "for each event"}, rows)
	}
	b.WriteString("![Time by number of events](events.svg)\n\n")
}

// grid has a row for each candidate and a column for each value.
func grid(b *strings.Builder, s series, unit string, cell func(c *comparison, name string) string) {
	head := []string{unit}
	for _, v := range s.values {
		head = append(head, fmt.Sprint(v))
	}
	var rows [][]string
	for _, name := range s.comparisons[0].names() {
		row := []string{name}
		for _, c := range s.comparisons {
			row = append(row, cell(c, name))
		}
		rows = append(rows, row)
	}
	table(b, head, rows)
}

func (r *report) growth(b *strings.Builder) {
	clock := func(c *comparison, name string) string { return micros(c.of(name).Clock) }
	b.WriteString("## Number of backends\n\nTime of a request of " + sizeName(r.settings.sizes[0]) + ", base in memory. *Clone and rewrite* has one host.\n\n")
	grid(b, r.pools, "µs", clock)
	b.WriteString("![Time by number of backends](backends.svg)\n\n## Requests in flight\n\nTime of a request while so many others wait for their response, base in memory.\n\n")
	grid(b, r.inFlight, "µs", clock)
	b.WriteString("![Time by requests in flight](inflight.svg)\n\nMemory of each request in flight, objects and stacks, beyond that of the bare base. " +
		"A connection of `http.Transport` is not part of it. With few requests in flight, other memory of the process weighs more.\n\n")
	grid(b, r.memory, "bytes", func(c *comparison, name string) string { return fmt.Sprintf("%.0f", added(c, name).Held) })
	b.WriteString("![Memory of a request in flight](memory.svg)\n\n## Idle deployments\n\n")
	fmt.Fprintf(b, "Memory of one deployment, in bytes, from the difference of %d and 1 backends. The hosts of httplb share one transport here; by default each has its own, which is not counted.\n\n", r.settings.idle+1)
	var rows [][]string
	for _, m := range r.idle {
		rows = append(rows, []string{m.name, fmt.Sprintf("%.0f", m.configured), fmt.Sprintf("%.0f", m.used)})
	}
	table(b, []string{"", "before the first request", "after 20 requests for each"}, rows)
}

func (r *report) burst(b *strings.Builder) {
	fmt.Fprintf(b, `## The benchmark of azure-switchboard

%d simultaneous requests, spread over %d deployments with limits of %d TPM and %d RPM; no response arrives before all
requests have been sent. %d bursts, each with a new client that has sent one request before. Utilization is the larger of the shares of TPM and RPM, with
%d tokens for each request. *Overhead for each request* is the time from the start of the first request until the last one
has reached the base, divided by the number of requests, in the fastest burst.

`, r.settings.burst, r.settings.backends, burstTPM, burstRPM, r.settings.bursts, burstTokens)
	rows := [][]string{}
	for _, s := range r.spreads {
		if s.name == cloned {
			rows = append(rows, []string{"clone and rewrite, one host", "–", "–", "–", micros(s.overhead)})
			continue
		}
		overhead := "–"
		if s.overhead > 0 {
			overhead = micros(s.overhead)
		}
		rows = append(rows, []string{s.name, fmt.Sprintf("%.3f", s.average), fmt.Sprintf("%.3f to %.3f", s.low, s.high), fmt.Sprintf("%.3f", s.deviation), overhead})
	}
	rows = append(rows, []string{"azure-switchboard, as published", "0.338", "0.325 to 0.345", "0.005", "240"})
	table(b, []string{"", "average utilization", "lowest to highest", "standard deviation", "overhead for each request, µs"}, rows)
	b.WriteString(`The last row is one run on its authors' machine, with Python, from the
[README of azure-switchboard](https://github.com/arini-ai/azure-switchboard/blob/05b8ac5d60c583e9bfc1a64283c634742bb655c6/README.md#benchmarks)
(commit 05b8ac5, read on 2026-11-26). It includes OpenAI's SDK for Python: compare it with *spillover under openai-go*. The
others are given complete requests. Bifrost sends over connections that are made meanwhile, so its overhead is not comparable.
`)
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

func processorName() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// summaryOf is the part of a written report that documents show: its date and machine, and its summary.
func summaryOf(text string) (string, error) {
	_, rest, ok := strings.Cut(text, "## Summary\n\n")
	summary, _, more := strings.Cut(rest, "\n## ")
	_, when, found := strings.Cut(text, "explains the method.\n\n")
	when, _, ended := strings.Cut(when, " Load average")
	if !ok || !more || !found || !ended {
		return "", errors.New("the report has no summary")
	}
	return when + "\n\n" + summary, nil
}
