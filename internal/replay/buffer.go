package replay

import (
	"bytes"
	"hash/maphash"
	"io"
	"sync"
)

// A body of at most MaxKept bytes is read into memory of its own. A larger body with
// GetBody is not kept after it was sent, so that it takes no memory during the wait for
// the response. Its buffer is reused if it is no larger than MaxReused.
const (
	MaxKept   = 16 << 10
	MaxReused = 1 << 20
)

// readBuffers are the buffers of larger bodies, up to MaxReused.
var readBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// release returns a buffer to the pool. Nothing may refer to it any more.
func release(buf *bytes.Buffer) {
	if buf.Cap() <= MaxReused {
		buf.Reset()
		readBuffers.Put(buf)
	}
}

// A bufferedBody is a body that was read.
type bufferedBody struct {
	text []byte        // the part that is not sent yet
	buf  *bytes.Buffer // contains text; nil if text is not in a pooled buffer
}

// Read implements io.Reader. It releases the buffer at the end.
func (r *bufferedBody) Read(p []byte) (int, error) {
	if len(r.text) == 0 && len(p) > 0 {
		r.Close()
		return 0, io.EOF
	}
	n := copy(p, r.text)
	r.text = r.text[n:]
	return n, nil
}

// Close releases the buffer. No Read may be in progress.
func (r *bufferedBody) Close() error {
	if r.buf != nil {
		release(r.buf)
	}
	*r = bufferedBody{}
	return nil
}

// bodySeed is the seed of checksums, different in each process.
var bodySeed = maphash.MakeSeed()

// checksumOf returns a checksum that is never 0.
func checksumOf(text []byte) uint64 { return max(1, maphash.Bytes(bodySeed, text)) }

// readInto reads at most limit bytes, and reports whether that was the whole body.
func readInto(buf *bytes.Buffer, src io.Reader, limit int) (whole bool, err error) {
	for buf.Len() < limit {
		buf.Grow(bytes.MinRead)
		p := buf.AvailableBuffer()
		n, err := src.Read(p[:min(cap(p), limit-buf.Len())])
		buf.Write(p[:n])
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}
