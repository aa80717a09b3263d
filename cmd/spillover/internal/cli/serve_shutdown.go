package cli

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
)

// run serves until ctx ends, and then until responses in progress have ended.
func (s *server) run(ctx context.Context) error {
	defer s.close()
	requests, cancelRequests := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancelRequests(nil)
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatching()
	s.watch(watching)

	callers := s.newHTTPServer(requests, s.proxy)
	servers := []*http.Server{callers}
	failed := make(chan error, 2)
	s.serve(callers, s.listener, "listening", failed)
	if s.adminListener != nil {
		admin := s.newHTTPServer(requests, s.proxy.AdminHandler())
		servers = append(servers, admin)
		s.serve(admin, s.adminListener, "listening for administration", failed)
	}
	select {
	case err := <-failed:
		for _, server := range servers {
			_ = server.Close()
		}
		return err
	case <-ctx.Done():
	}
	s.proxy.Drain()
	s.log.Info("shutting down", "drain_delay", s.drainDelay.String(), "shutdown_timeout", s.shutdownTimeout.String())
	select {
	case <-time.After(s.drainDelay):
	case err := <-failed:
		return err
	}
	s.shutdown(callers, cancelRequests)
	if len(servers) > 1 {
		_ = servers[1].Close()
	}
	s.log.Info("stopped")
	return nil
}

// shutdown ends the listener, waits for requests and WebSockets, and cancels those that are
// left.
func (s *server) shutdown(callers *http.Server, cancelRequests context.CancelCauseFunc) {
	until, cancel := context.WithTimeout(context.Background(), s.shutdownTimeout)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { s.proxy.CloseSockets(until) })
	var err error
	both.Go(func() { err = callers.Shutdown(until) })
	both.Wait()
	if err == nil {
		return
	}
	s.log.Warn("requests in progress are canceled", "after", s.shutdownTimeout.String())
	cancelRequests(proxy.ErrShutdown)
	within, cancel := context.WithTimeout(context.Background(), cancelGrace)
	defer cancel()
	if callers.Shutdown(within) != nil {
		_ = callers.Close()
	}
}
