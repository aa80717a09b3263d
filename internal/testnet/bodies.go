package testnet

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
)

// Tracked is a body that adds one to Closed when it is closed for the first time.
type Tracked struct {
	io.Reader
	Closed *atomic.Int64
	once   sync.Once
}

func (b *Tracked) Close() error {
	b.once.Do(func() { b.Closed.Add(1) })
	return nil
}

// Endless is a reader without an end. It counts the bytes that were read.
type Endless struct{ Bytes *atomic.Int64 }

var manyX = bytes.Repeat([]byte("x"), 64<<10)

func (e Endless) Read(p []byte) (int, error) {
	n := copy(p, manyX)
	e.Bytes.Add(int64(n))
	return n, nil
}

// ReaderFunc is a Read method.
type ReaderFunc func([]byte) (int, error)

func (f ReaderFunc) Read(p []byte) (int, error) { return f(p) }

// BrokenBody is a body whose Read fails.
type BrokenBody struct {
	io.Closer
	Err error
}

func (b BrokenBody) Read([]byte) (int, error) { return 0, b.Err }

// Upgraded is the body of a 101 response, which can be written to as that of net/http.
type Upgraded struct {
	io.Reader
	bytes.Buffer
}

func (u *Upgraded) Read(p []byte) (int, error) { return u.Reader.Read(p) }

func (u *Upgraded) Close() error { return nil }

// ErrorReader is a reader that fails.
type ErrorReader struct{ Err error }

func (e ErrorReader) Read([]byte) (int, error) { return 0, e.Err }

// CloseCounter is a body that counts how often it is closed.
type CloseCounter struct {
	io.Reader
	Closes int
}

func (c *CloseCounter) Close() error { c.Closes++; return nil }

// Encodings are content codings for wiretest.Compress, by how Content-Encoding names them.
var Encodings = map[string]string{"gzip": "gzip", "x-gzip": "x-gzip", "deflate": "deflate", "Deflate": "without zlib's header"}
