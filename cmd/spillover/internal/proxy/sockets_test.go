package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// frame is a frame of a server.
func frame(opcode byte, payload []byte) []byte {
	f := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		f = append(f, byte(n))
	case n < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, 126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 127), uint64(n))
	}
	return append(f, payload...)
}

// A bufferConn is a connection that remembers what was written.
type bufferConn struct {
	net.Conn
	bytes.Buffer
}

func (c *bufferConn) Write(p []byte) (int, error)      { return c.Buffer.Write(p) }
func (c *bufferConn) Read(p []byte) (int, error)       { return c.Buffer.Read(p) }
func (c *bufferConn) SetWriteDeadline(time.Time) error { return nil }

// Whenever a socket goes away: the caller gets whole frames, then one close frame, and
// nothing else.
func TestCloseFrameFollowsAWholeFrame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		handshake := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
		sent := rapid.Bool().Draw(t, "handshake sent")
		stream, ends := []byte{}, []int{}
		if !sent {
			stream = append(stream, handshake...)
		}
		ends = append(ends, len(stream))
		for _, size := range rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 125, 126, 127, 1000, 1<<16 - 1, 1 << 16, 70000}), 1, 6).Draw(t, "sizes") {
			stream = append(stream, frame(rapid.SampledFrom([]byte{0, 1, 2, 9, 10}).Draw(t, "opcode"), bytes.Repeat([]byte{0x88}, size))...)
			ends = append(ends, len(stream))
		}
		conn := &bufferConn{}
		s := (&sockets{}).track(conn, time.Minute, sent)
		leaves := rapid.IntRange(0, len(stream)).Draw(t, "leaves")
		want := len(stream)
		for _, end := range ends {
			if end >= leaves {
				want = end
				break
			}
		}
		for at := 0; at < len(stream); {
			if at == leaves {
				s.goAway()
			}
			n := rapid.IntRange(1, 5000).Draw(t, "piece")
			if n = min(n, len(stream)-at); at < leaves {
				n = min(n, leaves-at)
			}
			written, err := s.Write(stream[at : at+n])
			require.NoError(t, err)
			require.Equal(t, n, written)
			at += n
		}
		if leaves == len(stream) {
			s.goAway()
		}
		require.Equal(t, append(bytes.Clone(stream[:want]), goingAway...), conn.Bytes())
	})
}

func TestNoCloseFrameFollowsAnother(t *testing.T) {
	conn := &bufferConn{}
	s := (&sockets{}).track(conn, time.Minute, true)
	_, err := s.Write(frame(8, []byte{3, 232}))
	require.NoError(t, err)
	s.goAway()
	require.Equal(t, frame(8, []byte{3, 232}), conn.Bytes())
}

// A caller that does not answer the close frame, or does not even read it, is closed all the same.
func TestSocketOfASilentCallerIsClosed(t *testing.T) {
	for _, reads := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			caller, conn := net.Pipe()
			all := &sockets{}
			s := all.track(conn, time.Minute, true)
			written := make(chan error, 1)
			go func() { _, err := s.Write(frame(1, []byte("text"))); written <- err }() // nobody may read it
			var got []byte
			read := make(chan struct{})
			go func() {
				defer close(read)
				if reads {
					got, _ = io.ReadAll(caller)
				}
			}()
			go func() { // as the exchange
				_, _ = conn.Read(make([]byte, 1))
				all.forget(s)
			}()
			begun := time.Now()
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			synctest.Wait()
			all.close(ended)
			require.Equal(t, closeGrace, time.Since(begun))
			<-read
			err := <-written
			if reads {
				require.NoError(t, err)
				require.Equal(t, append(frame(1, []byte("text")), goingAway...), got)
			} else {
				require.Error(t, err)
			}
			_, err = conn.Write(nil)
			require.ErrorIs(t, err, io.ErrClosedPipe)
		})
	}
}

// A caller whose connection has ended is waited for until its exchange ends: the backend's
// side, which the end of the program would break off, is closed after the caller's.
func TestEndOfSocketsIsTheEndOfTheirExchanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conn := net.Pipe()
		all := &sockets{}
		s := all.track(conn, time.Minute, true)
		require.NoError(t, s.Close())
		const takes = closeGrace / 4
		time.AfterFunc(takes, func() { all.forget(s) })
		begun := time.Now()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		all.close(ended)
		require.Equal(t, takes, time.Since(begun))
	})
}
