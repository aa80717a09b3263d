package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/fleet/redis"
	"github.com/spillover-go/spillover/internal/random"
)

// newTransport returns a Transport that shares what it learns through a Redis server. This
// is all that a program needs.
func newTransport(server, ptu, payg string) (*spillover.Transport, *redis.Engine, error) {
	engine, err := redis.Open(server, redis.Options{Group: "example"})
	if err != nil {
		return nil, nil, err
	}
	lb, err := spillover.New(spillover.Config{
		Fleet: engine,
		Backends: []spillover.Backend{
			{Name: "ptu", URL: ptu, Dialect: spillover.Azure, APIKey: "key", Models: []spillover.Model{{Name: "gpt-4o"}}},
			{Name: "payg", URL: payg, Dialect: spillover.Azure, APIKey: "key", Models: []spillover.Model{{Name: "gpt-4o"}}, Priority: 2},
		},
	})
	if err != nil {
		_ = engine.Close()
		return nil, nil, err
	}
	return lb, engine, nil
}

// The commands that a process reads from its standard input, one a line. It answers each
// with a line.
const (
	commandAsk  = "ask"  // send a request
	commandHear = "hear" // wait until another process has reported the PTU
)

func beProcess(name, server, ptu, payg string) error {
	// 2 % of the requests ignore reports, to find out whether they are true. For the same
	// output in each run, none does here. A program does not need this.
	random.Uint64 = func() uint64 { return uint64(name[0]) * 0x0101010101010101 }

	lb, engine, err := newTransport(server, ptu, payg)
	if err != nil {
		return err
	}
	defer engine.Close()
	defer lb.Close()
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		do := map[string]func(*spillover.Transport) (string, error){commandAsk: ask, commandHear: hear}[commands.Text()]
		said, err := do(lb)
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, said)
	}
	return nil
}

// ask sends a request.
func ask(lb *spillover.Transport) (string, error) {
	client := http.Client{Transport: lb, Timeout: 10 * time.Second}
	resp, err := client.Post("https://any.openai.azure.com/openai/v1/chat/completions", "application/json", //nolint:noctx // the client has a timeout
		strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}`))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d from %s, attempts: %s", resp.StatusCode, resp.Header.Get("X-Spillover-Backend"), resp.Header.Get("X-Spillover-Attempts")), nil
}

// hear waits until another process has reported the PTU.
func hear(lb *spillover.Transport) (string, error) {
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(5 * time.Millisecond) {
		status := lb.Status()
		if ptu := status.Tiers[0].Backends[0].Deployments[0]; !ptu.AvoidedUntil.IsZero() {
			return fmt.Sprintf("the PTU is avoided, reported by %d process", len(status.Fleet.Replicas)), nil
		}
	}
	return "", errors.New("no notice has arrived")
}
