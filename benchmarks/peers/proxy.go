package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// The rows of proxies.
const (
	reverseProxy = "httputil.ReverseProxy"
	serve        = "spillover serve"
)

// proxies compares requests through proxies with those of a client that asks the service itself.
func proxies(ctx context.Context, s settings, at endpoint, root, tmp string) (*comparison, error) {
	var reverse string
	p, err := itself(ctx, &reverse, roleProxy, at.url())
	if err != nil {
		return nil, err
	}
	defer p.stop()
	addresses := [][2]string{{bare, at.address}, {reverseProxy, reverse}}
	if _, err := os.Stat(root + "/cmd/spillover/internal/proxy"); err == nil {
		address, stop, err := startServe(ctx, s, at, root, tmp)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", serve, err)
		}
		defer stop()
		addresses = append(addresses, [2]string{serve, address})
	}
	var candidates []candidate
	for _, a := range addresses {
		var writes atomic.Int64
		base := endpoint{scheme: "http", address: a[1]}.transport(&writes)
		defer base.CloseIdleConnections()
		request := requests(ctx, "http://"+a[1]+"/v1/chat/completions", s.sizes[0])
		if err := warm(base, request, s.backends); err != nil {
			return nil, fmt.Errorf("%s: %w", a[0], err)
		}
		candidates = append(candidates, each(a[0], func() error { return send(base, request()) }))
	}
	return compare(s, candidates...)
}

// startServe compiles the command and starts it in front of the service, with a backend for each deployment.
func startServe(ctx context.Context, s settings, at endpoint, root, tmp string) (address string, stop func(), err error) {
	program := tmp + "/spillover"
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/spillover") //nolint:gosec // a program of this repository
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("go build: %w: %s", err, out)
	}
	var config strings.Builder
	config.WriteString("backends:\n")
	for i := range s.backends {
		fmt.Fprintf(&config, "  - name: b%d\n    url: %s/v1\n    dialect: openai\n    api_key: key\n    models: [{name: gpt-4o, deployment: gpt-4o-%d}]\n", i, at.url(), i)
	}
	file := tmp + "/spillover.yaml"
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return "", nil, err
	}
	address, err = freeAddress(ctx)
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, program, "serve", "-config", file, "-listen", address) //nolint:gosec // the program that was just compiled
	log, err := os.Create(tmp + "/serve.log")
	if err != nil {
		return "", nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		log.Close()
	}
	for range 100 {
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil { //nolint:noctx // a second at most
			c.Close()
			return address, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	text, _ := os.ReadFile(log.Name())
	return "", nil, fmt.Errorf("does not listen at %s: %s", address, text)
}

// freeAddress is one of loopback where nobody listens.
func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
