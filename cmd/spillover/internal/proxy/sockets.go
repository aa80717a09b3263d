package proxy

import (
	"context"
	"net"
	"sync"
	"time"
)

// Sockets are the open WebSockets of callers. Their connections are not the server's any
// more, so its Shutdown does not know them.
type sockets struct {
	mu     sync.Mutex
	open   map[*socket]struct{}
	closed bool
	empty  chan struct{} // closed with the last one; nil unless close waits
}

// A socket is a connection that sockets keep track of.
type socket struct {
	net.Conn
	of      *sockets
	timeout time.Duration // for each write
	once    sync.Once
}

func (s *sockets) track(conn net.Conn, timeout time.Duration) *socket {
	c := &socket{Conn: conn, of: s, timeout: timeout}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*socket]struct{}{}
	}
	s.open[c] = struct{}{}
	if s.closed {
		_ = conn.Close()
	}
	return c
}

// Write implements [net.Conn]. A caller that reads nothing does not hold a connection.
func (c *socket) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.timeout))
	return c.Conn.Write(p)
}

// Close implements [net.Conn].
func (c *socket) Close() error {
	c.once.Do(func() {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		delete(c.of.open, c)
		if len(c.of.open) == 0 && c.of.empty != nil {
			close(c.of.empty)
			c.of.empty = nil
		}
	})
	return c.Conn.Close()
}

// close waits for the end of all until ctx ends, and closes those that are left.
func (s *sockets) close(ctx context.Context) {
	s.mu.Lock()
	var empty chan struct{}
	if len(s.open) > 0 {
		if s.empty == nil {
			s.empty = make(chan struct{})
		}
		empty = s.empty
	}
	s.mu.Unlock()
	if empty != nil {
		select {
		case <-empty:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	s.closed = true
	var left []*socket
	for c := range s.open {
		left = append(left, c)
	}
	s.mu.Unlock()
	for _, c := range left {
		_ = c.Close()
	}
}
