package wire

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
)

// A Decompressor decodes a compressed response while it is passed on, so that it can be
// read like any other. The caller receives the original bytes.
//
// The decoders of the standard library pull their input, but here the input is pushed.
// So the decoder runs in a coroutine, which Close ends.
type Decompressor struct {
	mu       sync.Mutex
	in       []byte            // input that is not decoded yet
	out      func([]byte) bool // receives decoded text; false ends the decoding
	next     func() (struct{}, bool)
	stop     func()
	encoding string
	fed      int64
	closed   bool // the coroutine has ended
	failed   bool // the input is not valid, or inflates too much
}

// Decoding stops when the output is longer than maxInflationRatio times the input, plus
// inflationAllowance. Text never inflates that much, but a decompression bomb does.
const (
	inflationAllowance = 1 << 20
	maxInflationRatio  = 128
)

// NewDecompressor returns a Decompressor for an encoding that CanDecompress accepts.
// It passes the decoded text to out, which may return false to end the decoding.
func NewDecompressor(encoding string, out func([]byte) bool) *Decompressor {
	d := &Decompressor{encoding: encoding, out: out}
	d.next, d.stop = iter.Pull(d.run)
	return d
}

// Feed decodes a further piece. It returns false if the input cannot be decoded.
func (d *Decompressor) Feed(p []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.in = p; !d.closed && len(p) > 0 {
		d.fed += int64(len(p))
		if _, more := d.next(); !more {
			d.closed = true
		}
	}
	d.in = nil
	return !d.failed
}

// Close ends the decoding. Feed may be called afterwards and does nothing.
func (d *Decompressor) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		d.stop()
	}
}

// run decodes, and yields when it needs more input.
func (d *Decompressor) run(yield func(struct{}) bool) {
	source := bufio.NewReader(pullReader(func(p []byte) (int, error) {
		for len(d.in) == 0 {
			if !yield(struct{}{}) {
				return 0, io.EOF
			}
		}
		n := copy(p, d.in)
		d.in = d.in[n:]
		return n, nil
	}))
	r, err := decoder(d.encoding, source)
	p := make([]byte, 4<<10)
	for made := int64(0); err == nil; {
		var n int
		n, err = r.Read(p)
		if d.closed || n > 0 && !d.out(p[:n]) {
			return
		}
		if made += int64(n); made > inflationAllowance+maxInflationRatio*d.fed {
			d.failed = true
			return
		}
	}
	d.failed = !d.closed && err != io.EOF
}

// A pullReader is a function as an io.Reader.
type pullReader func(p []byte) (int, error)

func (f pullReader) Read(p []byte) (int, error) { return f(p) }

// decoder returns a decoder for source. HTTP's deflate is the zlib format, but some
// servers send raw deflate data.
func decoder(encoding string, source *bufio.Reader) (io.Reader, error) {
	if encoding == "gzip" {
		return gzip.NewReader(source)
	}
	head, err := source.Peek(2)
	if err != nil {
		return nil, err
	}
	if head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return zlib.NewReader(source)
	}
	return flate.NewReader(source), nil
}

// ContentEncoding returns how a response is compressed: "gzip", "deflate", another
// encoding that cannot be decoded here, or "" if it is not compressed.
func ContentEncoding(h http.Header) string {
	switch e := strings.ToLower(strings.TrimSpace(Header(h, "Content-Encoding"))); e {
	case "x-gzip":
		return "gzip"
	case "identity":
		return ""
	default:
		return e
	}
}

// CanDecompress reports whether a response is not compressed or can be decoded here.
func CanDecompress(h http.Header) bool {
	switch ContentEncoding(h) {
	case "", "gzip", "deflate":
		return true
	}
	return false
}

// Decompress decodes the body of an error response, as far as possible and up to a
// limit in bytes.
func Decompress(h http.Header, text []byte, limit int64) []byte {
	encoding := ContentEncoding(h)
	if encoding == "" || !CanDecompress(h) {
		return text
	}
	r, err := decoder(encoding, bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		return nil
	}
	plain, _ := io.ReadAll(io.LimitReader(r, limit))
	return plain
}
