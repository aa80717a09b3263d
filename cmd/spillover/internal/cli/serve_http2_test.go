package cli_test

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Types and flags of frames (RFC 9113, section 6).
const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway = 0, 1, 3, 4, 6, 7
	flagEndStream, flagAck, flagEndHeaders                                     = 1, 1, 4
)

// A rawHTTP2 is a connection without TLS that shows each frame, which clients hide.
type rawHTTP2 struct {
	t    *testing.T
	conn net.Conn
}

type rawFrame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func dialHTTP2(t *testing.T, s *serving) *rawHTTP2 {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	require.NoError(t, err)
	c := &rawHTTP2{t, conn}
	c.send(rawFrame{kind: frameSettings})
	return c
}

func (c *rawHTTP2) send(f rawFrame) {
	c.t.Helper()
	text := binary.BigEndian.AppendUint32(nil, uint32(len(f.payload))<<8|uint32(f.kind))
	text = binary.BigEndian.AppendUint32(append(text, f.flags), f.stream)
	_, err := c.conn.Write(append(text, f.payload...))
	require.NoError(c.t, err)
}

// get sends a request. Its header uses the static table and literals (RFC 7541).
func (c *rawHTTP2) get(stream uint32, path string) {
	c.t.Helper()
	const host = "localhost"
	header := append([]byte{0x82, 0x86, 0x04, byte(len(path))}, path...)
	header = append(append(header, 0x01, byte(len(host))), host...)
	c.send(rawFrame{frameHeaders, flagEndStream | flagEndHeaders, stream, header})
}

// until returns the payloads of a stream's data, up to the first frame of a kind. kind
// may be frameData for the end of the stream.
func (c *rawHTTP2) until(kind byte) (data string, last rawFrame) {
	c.t.Helper()
	for {
		f, err := c.next()
		require.NoError(c.t, err)
		if f.kind == frameData {
			data += string(f.payload)
		}
		if f.kind == kind && (kind != frameData || f.flags&flagEndStream != 0) {
			return data, f
		}
		require.False(c.t, f.kind == frameData && f.flags&flagEndStream != 0, "the response is complete")
	}
}

// next returns the next frame that is not about the connection only.
func (c *rawHTTP2) next() (rawFrame, error) {
	for {
		var head [9]byte
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			return rawFrame{}, err
		}
		f := rawFrame{head[3], head[4], binary.BigEndian.Uint32(head[5:]), make([]byte, binary.BigEndian.Uint32(head[:4])>>8)}
		if _, err := io.ReadFull(c.conn, f.payload); err != nil {
			return f, err
		}
		if (f.kind == frameSettings || f.kind == framePing) && f.flags&flagAck == 0 {
			if f.kind == frameSettings {
				f.payload = nil
			}
			c.send(rawFrame{f.kind, flagAck, 0, f.payload})
			continue
		}
		return f, nil
	}
}
