package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// Sockets are the WebSockets of callers whose exchanges have not ended. Their connections
// are not the server's any more, so its Shutdown does not know them.
type sockets struct {
	mu     sync.Mutex
	open   map[*socket]struct{}
	closed bool
	empty  chan struct{} // closed with the last one; nil unless close waits
}

// A socket is a connection that sockets keep track of.
type socket struct {
	net.Conn
	timeout time.Duration // for each write

	writing chan struct{} // full while something is written; guards what follows
	frames  frames        // that were written
	going   bool          // a close frame follows as soon as a frame is complete
	gone    bool          // it was sent: nothing may follow
}

// goingAway is a close frame with the status 1001, of an endpoint that is going down
// (RFC 6455, sections 5.5.1 and 7.4.1).
var goingAway = []byte{0x88, 2, 0x03, 0xe9}

// closeGrace is how long a caller may take to answer a close frame.
const closeGrace = time.Second

// track adds a connection. The header of a handshake is what is written first, unless it
// was sent already.
func (s *sockets) track(conn net.Conn, timeout time.Duration, handshakeSent bool) *socket {
	c := &socket{Conn: conn, timeout: timeout, writing: make(chan struct{}, 1), frames: frames{begun: handshakeSent}}
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

// forget removes a connection as its exchange ends. The backend's side has ended too, then.
func (s *sockets) forget(c *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	if len(s.open) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Write implements [net.Conn]. A caller that reads nothing does not hold a connection.
func (c *socket) Write(p []byte) (int, error) {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	if c.gone {
		return len(p), nil // the caller ignores what follows a close frame
	}
	_ = c.SetWriteDeadline(time.Now().Add(c.timeout))
	text := p
	if c.going {
		text = p[:c.frames.untilBoundary(p)]
	} else {
		c.frames.pass(p)
	}
	n, err := c.Conn.Write(text)
	if err != nil || !c.going {
		return n, err
	}
	return len(p), c.sendGoingAway()
}

// goAway sends a close frame, now or once the frame that is being written is complete.
func (c *socket) goAway() {
	_ = c.SetWriteDeadline(time.Now().Add(closeGrace)) // of a write that holds the lock
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	c.going = true
	_ = c.SetWriteDeadline(time.Now().Add(closeGrace))
	_ = c.sendGoingAway() // a caller that has left
}

// sendGoingAway sends the close frame if a frame may follow.
func (c *socket) sendGoingAway() error {
	if !c.frames.atBoundary() {
		return nil
	}
	c.gone = true
	_, err := c.Conn.Write(goingAway)
	return err
}

// close waits for the end of all until ctx ends. Those that are left then get a close
// frame, and are closed once they have answered, or after closeGrace. Their backends have
// as long again to answer theirs.
func (s *sockets) close(ctx context.Context) {
	s.wait(ctx)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, c := range s.left() {
		go c.goAway()
	}
	s.waitFor(closeGrace)
	for _, c := range s.left() {
		_ = c.Close()
	}
	s.waitFor(closeGrace)
}

// waitFor waits for the end of all, at most for a time.
func (s *sockets) waitFor(most time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	s.wait(ctx)
}

// left are the sockets whose exchanges have not ended.
func (s *sockets) left() (all []*socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		all = append(all, c)
	}
	return all
}

// wait waits for the end of all until ctx ends.
func (s *sockets) wait(ctx context.Context) {
	s.mu.Lock()
	if len(s.open) == 0 {
		s.mu.Unlock()
		return
	}
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// Frames know where the frames of a server end (RFC 6455, section 5.2), which have no
// mask. The response to the handshake comes before the first one.
type frames struct {
	begun    bool   // the handshake is over
	end      []byte // of the handshake, as far as it was written: at most endOfHeader
	header   [10]byte
	known    int    // bytes of header
	complete bool   // header is
	payload  uint64 // bytes of the frame that are left after header
	closing  bool   // a close frame has passed: none may follow
}

const endOfHeader = "\r\n\r\n"

// atBoundary reports whether a frame may follow.
func (f *frames) atBoundary() bool { return f.begun && f.known == 0 && !f.closing }

// pass notes what is written.
func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		p = p[f.step(p):]
	}
}

// untilBoundary notes what is written up to the first boundary, and returns its length.
func (f *frames) untilBoundary(p []byte) (n int) {
	for n < len(p) && !f.atBoundary() {
		n += f.step(p[n:])
	}
	return n
}

// step notes the first bytes of what is written, at most to the end of a frame, and
// returns how many. There is at least one.
func (f *frames) step(p []byte) int {
	switch {
	case !f.begun:
		return f.stepHandshake(p[0])
	case f.complete:
		n := min(f.payload, uint64(len(p)))
		f.payload -= n
		f.endFrame()
		return int(n)
	}
	f.header[f.known] = p[0]
	f.known++
	size, extended := 2, 0
	if f.known >= 2 {
		switch f.header[1] & 0x7f {
		case 126:
			extended = 2
		case 127:
			extended = 8
		}
		size += extended
	}
	if f.known < size {
		return 1
	}
	switch extended {
	case 2:
		f.payload = uint64(binary.BigEndian.Uint16(f.header[2:4]))
	case 8:
		f.payload = binary.BigEndian.Uint64(f.header[2:10])
	default:
		f.payload = uint64(f.header[1] & 0x7f)
	}
	f.closing = f.closing || f.header[0]&0x0f == 8
	f.complete = true
	f.endFrame()
	return 1
}

// endFrame begins the next frame if nothing is left of this one.
func (f *frames) endFrame() {
	if f.payload == 0 {
		f.known, f.complete = 0, false
	}
}

// stepHandshake notes a byte of the handshake.
func (f *frames) stepHandshake(b byte) int {
	if f.end = append(f.end, b); len(f.end) > len(endOfHeader) {
		f.end = f.end[1:]
	}
	f.begun = bytes.Equal(f.end, []byte(endOfHeader))
	return 1
}
