package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// listen opens an address. One that other hosts can reach needs keys.
func (s *server) listen(ctx context.Context, flag, address string) (net.Listener, error) {
	network, given := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, network, address)
	if errors.Is(err, syscall.EADDRINUSE) && network == "unix" && removeStaleSocket(ctx, address) {
		l, err = config.Listen(ctx, network, address)
	}
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // the rest of its text is the address again
		}
		return nil, fmt.Errorf("-%s %s: %w", flag, given, err)
	}
	if !isLocal(l.Addr()) && s.keysPath == "" {
		_ = l.Close()
		if s.localOnly {
			return nil, fmt.Errorf("-%s: %s is not a loopback address: simulate serves this host only", flag, address)
		}
		return nil, fmt.Errorf("-%s: %s is not a loopback address: other hosts could use the backends' credentials. Set -keys", flag, address)
	}
	return l, nil
}

// removeStaleSocket removes a socket of the file system that a process has left behind
// which was killed. It removes nothing else, and no socket on which a process listens.
func removeStaleSocket(ctx context.Context, path string) bool {
	before, err := os.Lstat(path)
	if err != nil || before.Mode().Type() != os.ModeSocket {
		return false
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return false // somebody listens, or it is not known whether
	}
	// Another process may have replaced it in the meantime.
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(before, now) && now.ModTime().Equal(before.ModTime()) && os.Remove(path) == nil
}

// isLocal reports whether only this host can reach an address.
func isLocal(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}

// newHTTPServer makes a server for HTTP/1.1 and HTTP/2, with and without TLS.
func (s *server) newHTTPServer(requests context.Context, h http.Handler) *http.Server {
	server := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	server.Protocols.SetHTTP1(true)
	if s.certPath == "" {
		server.Protocols.SetUnencryptedHTTP2(true)
		return server
	}
	server.Protocols.SetHTTP2(true)
	server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return s.certificate.Load(), nil
	}}
	return server
}

// serve starts a server.
func (s *server) serve(server *http.Server, l net.Listener, message string, failed chan<- error) {
	scheme := "http"
	if server.TLSConfig != nil {
		scheme = "https"
	}
	s.log.Info(message, "address", l.Addr().String(), "scheme", scheme)
	go func() {
		var err error
		if server.TLSConfig != nil {
			err = server.ServeTLS(l, "", "")
		} else {
			err = server.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
}
