package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	urfave "github.com/urfave/cli/v3"

	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
	"github.com/spillover-go/spillover/cmd/spillover/internal/simulation"
)

func simulateCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "simulate",
		Usage: "run simulated deployments and the reverse proxy, to try spillover without an account",
		Description: "Starts a provisioned deployment (PTU) and two pay-as-you-go deployments on loopback ports, with limits " +
			"that one person can reach, and the reverse proxy with a configuration for them. It prints commands to try. " +
			"Responses have no meaning.\n\n" +
			"Exit codes: 0 it was ended by SIGINT or SIGTERM; 1 the proxy failed; 2 nothing was started.",
		Flags: []urfave.Flag{
			listenFlag("the `ADDRESS` of the proxy, host:port on loopback; port 0 for any"),
			&urfave.IntFlag{Name: "ptu", Value: 1, Usage: "the `NUMBER` of provisioned deployments: ptu, or ptu-1, ptu-2, …"},
			&urfave.IntFlag{Name: "payg", Value: 2, Usage: "the `NUMBER` of pay-as-you-go deployments: payg-1, payg-2, …"},
			&urfave.StringSliceFlag{Name: "fault", Usage: "a failure `NAME=FAULT` of a deployment, such as ptu=429; a fault is a status or one of " + strings.Join(simulation.FaultNames(), ", ") + "; can be repeated"},
			&urfave.StringFlag{Name: "write-config", Usage: "write the configuration to this `FILE`", TakesFile: true},
			&urfave.BoolFlag{Name: "no-proxy", Usage: "only the deployments, for a serve of your own; prints the configuration, or writes it to the file of -write-config"},
			logFlag(),
		},
		Action: simulate,
	}
}

func simulate(ctx context.Context, cmd *urfave.Command) error {
	if err := noArguments(cmd); err != nil {
		return err
	}
	log, err := newLogger(cmd)
	if err != nil {
		return usageError(cmd, err)
	}
	s, err := simulation.Start(simulation.Options{PTU: cmd.Int("ptu"), PAYG: cmd.Int("payg"), Faults: cmd.StringSlice("fault")})
	if err != nil {
		return usageError(cmd, err)
	}
	defer s.Close()
	config, err := s.Config()
	if err != nil {
		return err
	}
	path := cmd.String("write-config")
	if path != "" {
		if err := writeSimulation(path, config); err != nil {
			return wrong(err)
		}
	}
	out := cmd.Root().Writer
	if cmd.Bool("no-proxy") {
		if path == "" {
			_, err := out.Write(config)
			if err != nil {
				return err
			}
		} else {
			printDeployments(out, s)
			fmt.Fprintf(out, "\nRun the proxy with\n\n  spillover serve -config %s\n\nCtrl-C ends it.\n", path)
		}
		<-ctx.Done()
		return nil
	}
	if path == "" {
		dir, err := os.MkdirTemp("", "spillover-simulate-")
		if err != nil {
			return wrong(err)
		}
		defer os.RemoveAll(dir)
		path = filepath.Join(dir, defaultConfig)
		if err := writeSimulation(path, config); err != nil {
			return wrong(err)
		}
	}
	return serveSimulation(ctx, cmd, log, s, path)
}

// writeSimulation writes a configuration. A file that was not written by simulate is
// not replaced.
func writeSimulation(path string, config []byte) error {
	old, err := os.ReadFile(path)
	if err == nil && !simulation.IsConfig(old) {
		return fmt.Errorf("-write-config: %s exists, and was not written by spillover simulate", path)
	}
	return os.WriteFile(path, config, 0o644)
}

// simulationShutdown is how long responses may take after a signal: nobody needs them.
const simulationShutdown = 2 * time.Second

// serveSimulation runs the proxy with the configuration in a file.
func serveSimulation(ctx context.Context, cmd *urfave.Command, log *slog.Logger, s *simulation.Simulation, path string) error {
	server, err := newServer(ctx, serveOptions{
		log: log, configPath: path, address: cmd.String("listen"), shutdownTimeout: simulationShutdown, localOnly: true,
		callers: proxy.Options{NoAccessLog: true},
	})
	if err != nil {
		return err
	}
	printSimulation(cmd.Root().Writer, s, "http://"+server.listener.Addr().String())
	return server.run(ctx)
}

func printDeployments(to io.Writer, s *simulation.Simulation) {
	fmt.Fprintln(to, "Simulated deployments:")
	fmt.Fprintln(to)
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, d := range s.Deployments {
		fault := ""
		if d.Fault != "" {
			fault = "; fault: " + d.Fault
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s%s\n", d.Name, d.Server.URL, d.Dialect, d.Limit, fault)
	}
	_ = w.Flush()
}

// tryRequests is how many requests the printed command sends: the PTU is full before
// the last ones.
const tryRequests = 5

func printSimulation(to io.Writer, s *simulation.Simulation, url string) {
	body := func(more string) string {
		return fmt.Sprintf(`{"model":%q,"max_tokens":64%s,"messages":[{"role":"user","content":"Hello"}]}`, simulation.Model, more)
	}
	five := "Five requests, and which deployment answers each:"
	if s.Spills() {
		five = "Five requests. The PTU takes the first ones; then it is full, and the others spill over:"
	}
	printDeployments(to, s)
	fmt.Fprintf(to, `
The proxy is %[1]s, and its status %[1]s/status

%[6]s

  curl -sS '%[1]s/v1/chat/completions#[1-%[2]d]' -D - -o /dev/null -H 'Content-Type: application/json' -d '%[3]s' | grep -i x-spillover-backend

A stream:

  curl -sSN '%[1]s/v1/chat/completions' -H 'Content-Type: application/json' -d '%[4]s'

The log shows when a deployment is full, and when it is back.
SDKs of OpenAI: base URL %[1]s/v1, any API key, model %[5]s.
Ctrl-C ends it.
`, url, tryRequests, body(""), body(`,"stream":true`), simulation.Model, five)
}
