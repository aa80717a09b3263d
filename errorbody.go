package spillover

import (
	"io"
	"slices"
	"sync"
	"time"
)

// How much of an error body is read into memory, how long it is awaited before
// the request fails over, and how long it may be silent while the caller reads
// it if there is no IdleTimeout.
const (
	errorBodyLimit   = 64 << 10
	errorBodyWait    = time.Second
	errorBodySilence = time.Minute
)

// An aheadBody is a body whose beginning is read before anybody asks for it.
type aheadBody struct {
	io.ReadCloser
	done chan struct{} // closed when the beginning is complete

	mu    sync.Mutex
	more  sync.Cond
	text  []byte
	taken int   // bytes of text that Read has returned
	err   error // of the last read; nil while there may be more
	whole bool  // the beginning is complete
}

// readAhead starts to read a body, at most errorBodyLimit bytes and one more.
func readAhead(body io.ReadCloser) *aheadBody {
	b := &aheadBody{ReadCloser: body, done: make(chan struct{})}
	b.more.L = &b.mu
	go func() {
		defer close(b.done)
		p := make([]byte, 4<<10)
		for left := errorBodyLimit + 1; ; {
			n, err := body.Read(p[:min(len(p), left)])
			if left -= n; b.append(p[:n], err) {
				return
			}
		}
	}()
	return b
}

// append reports whether the beginning is complete.
func (b *aheadBody) append(p []byte, err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text, b.err = append(b.text, p...), err
	b.whole = err != nil || len(b.text) > errorBodyLimit
	b.more.Broadcast()
	return b.whole
}

// soFar is what has arrived, whether that is the whole beginning, and the error
// that ended it.
func (b *aheadBody) soFar() (text []byte, whole bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clip(b.text), b.whole, b.err
}

// Read waits for what has not arrived yet.
func (b *aheadBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	for !b.whole && b.taken == len(b.text) {
		b.more.Wait()
	}
	n := copy(p, b.text[b.taken:])
	b.taken += n
	end, err := b.taken == len(b.text), b.err
	b.mu.Unlock()
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case end && err != nil:
		return 0, err
	}
	return b.ReadCloser.Read(p)
}
