// Example shows that one process avoids a deployment that has refused another one:
//
//	go run ./fleet/redis/example
//
// It starts a redis-server, which must be installed, and itself twice, as the processes A
// and B. The deployments are simulated: no key and no network is needed. With a Redis
// server that is running already:
//
//	go run ./fleet/redis/example -redis redis://localhost:6379
//
// process.go shows how a program joins a fleet.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spillover-go/spillover/spillovertest"
)

const install = `redis-server is not installed. Install it:

	apt-get install redis-server    Debian, Ubuntu
	brew install redis              macOS

or name a server that is running: -redis redis://localhost:6379`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	server := flag.String("redis", "", "URL of a Redis server; without it, a redis-server is started")
	name := flag.String("process", "", "for internal use: be this process of the fleet")
	ptu := flag.String("ptu", "", "for internal use: URL of the PTU")
	payg := flag.String("payg", "", "for internal use: URL of the pay-as-you-go deployment")
	flag.Parse()
	if *name != "" {
		return beProcess(*name, *server, *ptu, *payg)
	}
	if *server == "" {
		url, stop, err := startRedis(ctx)
		if err != nil {
			return err
		}
		defer stop()
		*server = url
	}
	return show(ctx, *server)
}

// show plays the example.
func show(ctx context.Context, redis string) error {
	ptu := spillovertest.NewServer(spillovertest.Config{Name: "ptu", Dialect: spillovertest.Azure})
	defer ptu.Close()
	payg := spillovertest.NewServer(spillovertest.Config{Name: "payg", Dialect: spillovertest.Azure})
	defer payg.Close()
	ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"20"}}})

	fmt.Fprint(os.Stdout, "A and B are two processes with the same deployments: a PTU and, after it, payg.\n"+
		"The PTU is full: it refuses requests for 20 s.\n\n")
	processes := map[string]*process{}
	for _, name := range []string{"A", "B"} {
		p, err := start(ctx, "-process", name, "-redis", redis, "-ptu", ptu.URL, "-payg", payg.URL)
		if err != nil {
			return err
		}
		defer p.end()
		processes[name] = p
	}
	for _, step := range []struct{ process, command, title string }{
		{"A", commandAsk, "A sends a request"},
		{"B", commandHear, "B hears of it"},
		{"B", commandAsk, "B sends a request"},
		{"B", commandAsk, "B sends a request"},
	} {
		said, err := processes[step.process].do(step.command)
		if err != nil {
			return fmt.Errorf("process %s: %w", step.process, err)
		}
		fmt.Fprintf(os.Stdout, "%-18s %s\n", step.title+":", said)
	}
	fmt.Fprintf(os.Stdout, "\nOf these 3 requests, the PTU has seen %d.\n", ptu.Stats().Requests)
	return nil
}

// A process is another process of this program. It carries out commands.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(ctx context.Context, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...) //nolint:gosec // this program
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, in, bufio.NewScanner(out)}, cmd.Start()
}

// do sends a command and returns the line that the process answers.
func (p *process) do(command string) (string, error) {
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		return "", err
	}
	if !p.out.Scan() {
		return "", errors.Join(errors.New("it has ended"), p.out.Err())
	}
	return p.out.Text(), nil
}

func (p *process) end() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

// startRedis starts a redis-server, which listens on a socket in a temporary directory.
func startRedis(ctx context.Context) (url string, stop func(), err error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return "", nil, errors.New(install)
	}
	dir, err := os.MkdirTemp("", "spillover")
	if err != nil {
		return "", nil, err
	}
	socket := filepath.Join(dir, "redis.sock")
	cmd := exec.CommandContext(ctx, binary, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", dir) //nolint:gosec // found on the PATH
	if err := cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	var dialer net.Dialer
	for begin := time.Now(); time.Since(begin) < 10*time.Second && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if c, err := dialer.DialContext(ctx, "unix", socket); err == nil {
			return "unix://" + socket, stop, c.Close()
		}
	}
	stop()
	return "", nil, errors.New("redis-server does not accept connections")
}
