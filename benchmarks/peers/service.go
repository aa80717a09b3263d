package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Other processes that this program starts of itself. The service is one, so that what it does is not counted as the
// clients'.
const (
	roleVariable = "SPILLOVER_PEERS_ROLE"
	roleService  = "service"
	roleProxy    = "proxy" // httputil.ReverseProxy
)

// playRole does the work of another process, if this is one, until its standard input ends.
func playRole() bool {
	switch role := os.Getenv(roleVariable); role {
	case roleService:
		var s service
		plain, encrypted, http2 := httptest.NewServer(&s), httptest.NewTLSServer(&s), httptest.NewUnstartedServer(&s)
		http2.EnableHTTP2 = true
		http2.StartTLS()
		announce(serviceAddresses{
			HTTP1: plain.Listener.Addr().String(), TLS: encrypted.Listener.Addr().String(), HTTP2: http2.Listener.Addr().String(),
			Certificate: encrypted.Certificate().Raw,
		})
	case roleProxy:
		target, err := url.Parse(os.Args[1])
		if err != nil {
			panic(err)
		}
		base := http.DefaultTransport.(*http.Transport).Clone()
		base.MaxIdleConnsPerHost = base.MaxIdleConns
		announce(httptest.NewServer(&httputil.ReverseProxy{
			Transport: base,
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Header.Set("Api-Key", "key")
			},
		}).Listener.Addr().String())
	default:
		return false
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return true
}

func announce(v any) {
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		panic(err)
	}
}

// A process is a program that this one has started.
type process struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	lines *bufio.Reader
}

// start starts a program and reads the first line that it writes, which is JSON.
func start(ctx context.Context, first any, environment []string, name string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // programs of this repository
	cmd.Env, cmd.Stderr = append(os.Environ(), environment...), os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &process{cmd, input, bufio.NewReader(output)}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.read(first); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// itself starts this program in a role.
func itself(ctx context.Context, first any, role string, args ...string) (*process, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(ctx, first, []string{roleVariable + "=" + role}, path, args...)
}

func (p *process) read(v any) error {
	line, err := p.lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

func (p *process) ask(question, answer any) error {
	if err := json.NewEncoder(p.input).Encode(question); err != nil {
		return err
	}
	return p.read(answer)
}

func (p *process) stop() {
	p.input.Close()
	_ = p.cmd.Wait()
}

// A service simulates deployments that answer after a delay and counts their requests by key.
type service struct {
	delay  atomic.Int64
	mu     sync.Mutex
	counts map[string]int
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	text := []byte(completion)
	w.Header().Set("Content-Type", "application/json")
	s.mu.Lock()
	switch r.URL.Path {
	case "/reset": // and sets the delay of what follows
		s.counts = map[string]int{}
		n, _ := strconv.ParseInt(r.URL.Query().Get("delay"), 10, 64)
		s.delay.Store(n)
	case "/counts":
		text, _ = json.Marshal(s.counts) // strings and numbers
	default:
		if s.counts != nil {
			s.counts[r.Header.Get("Api-Key")]++
		}
		s.mu.Unlock()
		time.Sleep(time.Duration(s.delay.Load()))
		s.mu.Lock()
	}
	s.mu.Unlock()
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text)
}

// serviceAddresses are where the simulated service listens.
type serviceAddresses struct {
	HTTP1, TLS, HTTP2 string
	Certificate       []byte
}

// An endpoint is one of them.
type endpoint struct {
	name, scheme, address string
	http2                 bool
	certificate           []byte
}

func (a serviceAddresses) endpoints() []endpoint {
	return []endpoint{
		{name: "HTTP/1.1", scheme: "http", address: a.HTTP1},
		{name: "HTTP/1.1 over TLS", scheme: "https", address: a.TLS, certificate: a.Certificate},
		{name: "HTTP/2 over TLS", scheme: "https", address: a.HTTP2, certificate: a.Certificate, http2: true},
	}
}

func (e endpoint) url() string { return e.scheme + "://" + e.address }

// certificateFile writes the certificate to a file, for other programs.
func (a serviceAddresses) certificateFile(path string) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate}), 0o600)
}

// A countedConn counts what is written to a connection at once: each is a system call.
type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// transport is a base that reaches the service under the name of every deployment. Its write buffer is the one that
// docs/cost.md recommends for a base of one's own.
func (e endpoint) transport(writes *atomic.Int64) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(!e.http2)
	protocols.SetHTTP2(e.http2)
	t := &http.Transport{
		Protocols: &protocols, WriteBufferSize: 20 << 10, MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Hour,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, e.address)
			return countedConn{c, writes}, err
		},
	}
	if e.certificate != nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.certificate}))
		t.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS12}
	}
	return t
}

// A bifrost is Bifrost's core in a process of its own: its dependencies are those of many clouds.
type bifrost struct {
	*process
	Version string
}

// startBifrost compiles and starts the program of the module bifrost. The service's certificate is trusted.
func startBifrost(ctx context.Context, dir, tmp string) (*bifrost, error) {
	program := tmp + "/bifrost"
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".") //nolint:gosec // a program of this repository
	build.Dir, build.Env = dir, append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w: %s", err, bytes.TrimSpace(out))
	}
	b := new(bifrost)
	var err error
	b.process, err = start(ctx, b, []string{"SSL_CERT_FILE=" + tmp + "/service.pem"}, program)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// A work is what Bifrost is asked to do.
type work struct {
	URL      string // of the deployments
	Backends int
	Body     int // bytes of the message
	Requests int
	Burst    bool // all at the same time
}

// The name of its candidate.
const underBifrost = "Bifrost core"

// candidate is Bifrost with another key for each deployment, which is how it addresses several.
func (b *bifrost) candidate(s settings, at endpoint, size int) candidate {
	return candidate{underBifrost, func(n int) (usage, error) {
		return b.do(work{URL: at.url(), Backends: s.backends, Body: size, Requests: n})
	}}
}

func (b *bifrost) do(w work) (usage, error) {
	var answer struct {
		usage
		Error string
	}
	if err := b.ask(w, &answer); err != nil {
		return usage{}, err
	}
	if answer.Error != "" {
		return usage{}, errors.New(answer.Error)
	}
	return answer.usage, nil
}

// get reads a URL of the service.
func get(ctx context.Context, target string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
