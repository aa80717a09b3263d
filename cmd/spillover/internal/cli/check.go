package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	urfave "github.com/urfave/cli/v3"

	"github.com/spillover-go/spillover"
)

func checkCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "check",
		Usage: "validate a configuration and ask each backend whether it answers",
		Description: "Reports all mistakes of the file with line and column. Then it asks each backend for its list of models, " +
			"which is not billed: that shows whether names resolve, connections and TLS work, and credentials are accepted. " +
			"A gateway that does not have this operation answers 404; it may serve all others.\n\n" +
			"Exit codes: 0 all backends answer; 1 one does not; 2 the file is wrong.",
		Flags: []urfave.Flag{
			configFlag(),
			&urfave.BoolFlag{Name: "offline", Usage: "only validate the file, for CI: no backend is asked"},
			&urfave.DurationFlag{Name: "timeout", Value: time.Minute, Usage: "the time `LIMIT` for all backends together; each has its header_timeout, or 10s"},
			&urfave.BoolFlag{Name: "json", Usage: "print JSON instead of a table"},
		},
		Action: check,
	}
}

// A checkedBackend is what check prints of a backend as JSON.
type checkedBackend struct {
	spillover.CheckResult
	Priority int  `json:"priority"`
	Drained  bool `json:"drained,omitempty"`
}

func check(ctx context.Context, cmd *urfave.Command) error {
	if err := noArguments(cmd); err != nil {
		return err
	}
	if cmd.Duration("timeout") <= 0 {
		return usageError(cmd, errors.New("-timeout: must be positive"))
	}
	if cmd.Bool("offline") && cmd.Bool("json") {
		return usageError(cmd, errors.New("-offline and -json cannot be combined"))
	}
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	lb, err := spillover.New(cfg)
	if err != nil {
		return wrong(err)
	}
	defer lb.Close()
	out, errs := cmd.Root().Writer, cmd.Root().ErrWriter
	if cmd.Bool("offline") {
		printWarnings(errs, offlineWarnings(cfg))
		_, err := fmt.Fprintf(out, "%s is valid: %s in %s\n", cmd.String("config"), count(len(cfg.Backends), "backend"), count(len(lb.Status().Tiers), "tier"))
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cmd.Duration("timeout"))
	defer cancel()
	var all []checkedBackend
	var warnings []string
	ok := true
	for i, r := range lb.Check(ctx) { // in the order of the configuration
		b := cfg.Backends[i]
		all = append(all, checkedBackend{CheckResult: r, Priority: cmp.Or(b.Priority, 1), Drained: b.Drained})
		ok = ok && r.OK
		if r.Anonymous {
			warnings = append(warnings, r.Backend+": "+noCredential)
		}
		if len(r.NotListed) > 0 {
			warnings = append(warnings, fmt.Sprintf("%s: its list of models lacks %s; not every service lists all that it serves", r.Backend, strings.Join(r.NotListed, ", ")))
		}
	}
	if cmd.Bool("json") {
		err = printJSON(out, all)
	} else {
		err = printChecks(out, all)
	}
	if err != nil {
		return err
	}
	printWarnings(errs, warnings)
	if !ok {
		return failed()
	}
	return nil
}

const noCredential = "has no credential, so only requests that bring their own can use it" //nolint:gosec // it is a text

// offlineWarnings are the warnings about backends that were not asked.
func offlineWarnings(cfg spillover.Config) (warnings []string) {
	for _, b := range cfg.Backends {
		if !hasCredential(b) {
			warnings = append(warnings, cmp.Or(b.Name, b.URL)+": "+noCredential)
		}
	}
	return warnings
}

func printWarnings(to io.Writer, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(to, "warning:", w)
	}
}

func printChecks(to io.Writer, all []checkedBackend) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "BACKEND\tTIER\tSTATE\tSTATUS\tMODELS\tTIME\tCAUSE")
	for _, r := range all {
		state := "ok"
		if !r.OK {
			state = "failed"
		}
		if r.Drained {
			state += ", drained"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%dms\t%s\n", r.Backend, r.Priority, state, orDash(r.Status), orDash(r.Models), r.TookMS, causeOf(r.Reason, r.Cause))
	}
	return w.Flush()
}

// causeOf is a reason with its cause, which may begin with it.
func causeOf(reason, cause string) string {
	switch {
	case cause == "" || strings.HasPrefix(cause, reason):
		return cmp.Or(cause, reason)
	case reason == "":
		return cause
	default:
		return reason + ": " + cause
	}
}

// orDash is a number, or - for 0.
func orDash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func printJSON(to io.Writer, value any) error {
	e := json.NewEncoder(to)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// noArguments is for commands that take flags only.
func noArguments(cmd *urfave.Command) error {
	if cmd.Args().Present() {
		return usageError(cmd, fmt.Errorf("unexpected argument %q", cmd.Args().First()))
	}
	return nil
}
