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

// A Decompressor decodes a compressed answer while it passes, to read in it what
// is read in others. The caller is handed the answer as it came.
//
// The packages that decode pull their input. Here it is pushed, so the decoding
// runs in a coroutine, which close ends.
type Decompressor struct {
	mu       sync.Mutex
	in       []byte            // fed, and not yet decoded
	out      func([]byte) bool // takes what was decoded; false ends the decoding
	next     func() (struct{}, bool)
	stop     func()
	encoding string
	fed      int64
	closed   bool // it has ended
	failed   bool // it is not what it claims to be
}

// What is decoded may be so many times as long as what came, beyond a first
// MiB: text never is, but what is made to exhaust its readers.
const (
	InflatedFree  = 1 << 20
	InflatedTimes = 128
)

func NewDecompressor(encoding string, out func([]byte) bool) *Decompressor {
	d := &Decompressor{encoding: encoding, out: out}
	d.next, d.stop = iter.Pull(d.run)
	return d
}

// Feed decodes a further piece. It is false when that is not possible.
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

func (d *Decompressor) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		d.stop()
	}
}

// run decodes, and yields when it needs more to do so.
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
		if made += int64(n); made > InflatedFree+InflatedTimes*d.fed {
			d.failed = true
			return
		}
	}
	d.failed = !d.closed && err != io.EOF
}

type pullReader func(p []byte) (int, error)

func (f pullReader) Read(p []byte) (int, error) { return f(p) }

// decoder decodes a source. What HTTP calls deflate is zlib's format, but some
// send it without its header.
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

// ContentEncoding is how an answer is compressed: "gzip", "deflate", another that
// cannot be read here, or "" if it is not.
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

func CanDecompress(h http.Header) bool {
	switch ContentEncoding(h) {
	case "", "gzip", "deflate":
		return true
	}
	return false
}

// Decompress is the text of an error, decoded as far as it can be and no further
// than a limit.
func Decompress(h http.Header, text []byte, most int64) []byte {
	encoding := ContentEncoding(h)
	if encoding == "" || !CanDecompress(h) {
		return text
	}
	r, err := decoder(encoding, bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		return nil
	}
	plain, _ := io.ReadAll(io.LimitReader(r, most))
	return plain
}
