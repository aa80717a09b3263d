// Package cli has the commands of the program. Each has a file.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	urfave "github.com/urfave/cli/v3"
)

// Exit codes of all commands.
const (
	exitOK     = 0
	exitFailed = 1 // the command ran, and something failed: a backend that does not answer, a request of a batch
	exitUsage  = 2 // nothing was done: the command line, the configuration or an input file is wrong
)

// Streams are the standard streams of the process.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run runs the command that args name, and returns the exit code. args[0] is the
// name of the program. A command that is running ends when ctx does.
func Run(ctx context.Context, args []string, streams Streams) int {
	root := newRoot(streams)
	err := root.Run(ctx, args)
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(streams.Err, "spillover:", text)
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return exitFailed
}

func newRoot(streams Streams) *urfave.Command {
	return &urfave.Command{
		Name:                  "spillover",
		Usage:                 "load balancer for Azure OpenAI and OpenAI",
		Version:               version(),
		Reader:                streams.In,
		Writer:                streams.Out,
		ErrWriter:             streams.Err,
		Suggest:               true,
		EnableShellCompletion: true,
		// Run reports errors. The library would end the process.
		ExitErrHandler: func(context.Context, *urfave.Command, error) {},
		OnUsageError:   func(_ context.Context, cmd *urfave.Command, err error, _ bool) error { return usageError(cmd, err) },
		Commands:       commands(),
		Action: func(_ context.Context, cmd *urfave.Command) error {
			if name := cmd.Args().First(); name != "" {
				return usageError(cmd, unknownCommand(cmd, name))
			}
			return urfave.ShowRootCommandHelp(cmd)
		},
		Description: "Exit codes of all commands: 0 success; 1 the command ran, and something failed; " +
			"2 nothing was done, since the command line, the configuration or an input file is wrong.",
	}
}

// commands are the commands in the order in which help lists them.
func commands() []*urfave.Command {
	all := []*urfave.Command{
		serveCommand(), keyCommand(),
		checkCommand(),
		simulateCommand(),
		explainCommand(),
		convertCommand(),
		batchCommand(),
	}
	for _, c := range all {
		c.OnUsageError = func(_ context.Context, cmd *urfave.Command, err error, _ bool) error { return usageError(cmd, err) }
	}
	return all
}

// unknownCommand is an error that lists the commands.
func unknownCommand(cmd *urfave.Command, name string) error {
	var known []string
	for _, c := range cmd.VisibleCommands() {
		known = append(known, c.Name)
	}
	return fmt.Errorf("unknown command %q: the commands are %s", name, strings.Join(known, ", "))
}

// An exitError is an error with an exit code.
type exitError struct {
	code int
	err  error // nil if the command has already said what failed
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// failed is for a command that has run and reported what failed.
func failed() error { return &exitError{code: exitFailed} }

// wrong is for a configuration or an input that is wrong, so that nothing was done.
func wrong(err error) error { return &exitError{exitUsage, err} }

// usageError is for a wrong command line.
func usageError(cmd *urfave.Command, err error) error {
	return wrong(fmt.Errorf("%w\nSee: %s --help", err, cmd.FullName()))
}

// version is that of the module, as Go records it in a program.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
