package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
)

func main() {
	if playRole() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

// run measures everything and writes the report and the charts.
func run(ctx context.Context, args []string, progress io.Writer) error {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(progress)
	short := flags.Bool("quick", false, "measure little, in seconds: for a look, not for figures")
	withBifrost := flags.Bool("bifrost", true, "measure Bifrost's core, too, which is compiled first")
	dir := flags.String("dir", home(), "the directory of this command")
	out := flags.String("out", "", "the directory of the report and the charts (default: -dir, or none with -quick: the report is printed)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := thorough
	if *short {
		s = quick
	}
	if *out == "" && !*short {
		*out = *dir
	}
	tmp, err := os.MkdirTemp("", "peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	r := newReport(s, *short, filepath.Join(*dir, "..", ".."), tmp)
	var addresses serviceAddresses
	service, err := itself(ctx, &addresses, roleService)
	if err != nil {
		return err
	}
	defer service.stop()
	if err := addresses.certificateFile(tmp + "/service.pem"); err != nil {
		return err
	}
	if *withBifrost {
		fmt.Fprintln(progress, "compiling Bifrost's core")
		b, err := startBifrost(ctx, filepath.Join(*dir, "bifrost"), tmp)
		if err != nil {
			return fmt.Errorf("Bifrost's core (-bifrost=false leaves it out): %w", err)
		}
		defer b.stop()
		r.bifrost = b
	}
	if err := r.measure(ctx, addresses, progress); err != nil {
		return err
	}
	text := r.text()
	if *out == "" {
		fmt.Fprint(os.Stdout, text)
		return nil
	}
	for _, c := range r.charts() {
		if err := c.write(*out); err != nil {
			return err
		}
	}
	fmt.Fprint(os.Stdout, r.summary())
	return os.WriteFile(*out+"/REPORT.md", []byte(text), 0o644)
}

// home is the directory of this command, from the root of the repository or from itself.
func home() string {
	if _, err := os.Stat("benchmarks/peers/go.mod"); err == nil {
		return "benchmarks/peers"
	}
	return "."
}
