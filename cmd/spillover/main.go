/*
Spillover is a load balancer for Azure OpenAI and OpenAI as a program of its own, for
callers that are not written in Go. It has the transport of the Go package
github.com/spillover-go/spillover.

	spillover simulate                      try it without an account
	spillover serve -config spillover.yaml  run the reverse proxy

"spillover help" lists all commands.
*/
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // before anything tells of the first signal: a second one ends the process
		cancel()
	}()
	os.Exit(cli.Run(ctx, os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
