package spillover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// maxBuffered is how much of a body without GetBody is kept so that it can be
// sent again. A larger one is sent once, as it comes. It is also how far a body
// is searched for its model.
const maxBuffered = 32 << 20

// A body is what the caller sends, as often as it needs to be sent. The zero
// value is that of a request without one.
type body struct {
	present bool
	own     io.ReadCloser                 // the caller's own, until an attempt took it or it is closed
	again   func() (io.ReadCloser, error) // a fresh one; nil when there is only own
	begun   []byte                        // the beginning of own, if that was read already
	length  int64                         // -1 when unknown
}

// take takes a request's body over.
func take(own io.ReadCloser) body {
	if own == nil || own == http.NoBody {
		return body{}
	}
	return body{present: true, own: own}
}

// prepare makes the body one that can be sent again: by the caller's GetBody,
// else by reading it here, up to maxBuffered.
func (b *body) prepare(getBody func() (io.ReadCloser, error), length int64) error {
	if !b.present {
		return nil
	}
	b.again, b.length = getBody, length
	if length <= 0 {
		b.length = -1 // 0 with a body means that the length was not told
	}
	if b.again != nil || b.length > maxBuffered {
		return nil
	}
	var kept bytes.Buffer
	n, err := kept.ReadFrom(io.LimitReader(b.own, maxBuffered+1))
	if err != nil {
		return fmt.Errorf("spillover: reading the request's body: %w", err)
	}
	text := kept.Bytes()
	if n > maxBuffered {
		b.begun, b.own = text, prefixed(bytes.NewReader(text), b.own)
		return nil
	}
	b.close()
	b.again = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	if b.length < 0 {
		b.length = n
	}
	return nil
}

// sendable tells whether the body can be sent (again).
func (b *body) sendable() bool { return !b.present || b.own != nil || b.again != nil }

// close gives the caller's own body up if no attempt took it.
func (b *body) close() {
	if b.own != nil {
		b.own.Close()
		b.own = nil
	}
}

// prefixed is a body whose beginning was read already.
func prefixed(beginning io.Reader, rest io.ReadCloser) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(beginning, rest), rest}
}

var readBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// peek shows the beginning of the body, at most maxBuffered, to f, which must
// not keep it. Where the body can be had again nothing of it stays in memory,
// and the caller's own is done with.
func (b *body) peek(f func([]byte)) error {
	if b.begun != nil || b.own == nil {
		return b.peekAgain(f)
	}
	buf := readBuffers.Get().(*bytes.Buffer)
	buf.Reset()
	for buf.Len() < maxBuffered {
		buf.Grow(bytes.MinRead)
		p := buf.AvailableBuffer()
		n, err := b.own.Read(p[:min(cap(p), maxBuffered-buf.Len())])
		buf.Write(p[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("spillover: reading the request's body: %w", err)
		}
	}
	f(buf.Bytes())
	if b.again == nil {
		b.begun = buf.Bytes()
		b.own = prefixed(buf, b.own)
		return nil
	}
	b.close()
	if buf.Cap() <= 1<<20 {
		readBuffers.Put(buf)
	}
	return nil
}

// peekAgain is peek for a body of which the beginning was read before, or that
// an attempt took.
func (b *body) peekAgain(f func([]byte)) error {
	if b.begun != nil {
		f(b.begun)
		return nil
	}
	src, err := b.again()
	if err != nil {
		return fmt.Errorf("spillover: GetBody: %w", err)
	}
	defer src.Close()
	text, err := io.ReadAll(io.LimitReader(src, maxBuffered))
	if err != nil {
		return fmt.Errorf("spillover: reading the request's body: %w", err)
	}
	f(text)
	return nil
}

// A splice is a stretch of a body that is replaced on the way.
type splice struct {
	at   span
	text string
}

// Edits are what is replaced in a body, in the order of the text. Its zero
// value, like that of a splice, changes nothing.
type edits [2]splice

// edited is the length of the body with edits.
func (b *body) edited(e edits) int64 {
	if b.length < 0 {
		return -1
	}
	n := b.length
	for _, s := range e {
		n += int64(len(s.text) - (s.at.to - s.at.from))
	}
	return n
}

// open makes a the body for one more attempt.
func (b *body) open(a *attemptBody, e edits) error {
	a.edits, a.only = e, b.again == nil
	if b.own != nil {
		a.src, b.own = b.own, nil
		return nil
	}
	src, err := b.again()
	if err != nil {
		return fmt.Errorf("spillover: GetBody: %w", err)
	}
	a.src = src
	return nil
}

// An attemptBody is the body of one attempt. A base may read a body even after
// RoundTrip returned, and several SDKs hand out one reader, rewound, for every
// GetBody: so once it is settled the reader beneath is never touched again.
type attemptBody struct {
	src    io.ReadCloser
	only   bool        // src cannot be had again: unused it goes back to the body
	closed atomic.Bool // no read begins any more

	reading sync.Mutex // what follows belongs to the Read under way
	edits   edits
	read    int  // bytes of src that were passed or skipped, until the edits are done
	put     int  // bytes of the text of the edit at hand that were passed
	used    bool // read from
}

var errClosedBody = errors.New("spillover: read of a closed body")

func (a *attemptBody) Read(p []byte) (int, error) {
	a.reading.Lock()
	defer a.reading.Unlock()
	if a.closed.Load() {
		return 0, errClosedBody
	}
	a.used = true
	for len(p) > 0 && a.edits != (edits{}) {
		s := a.edits[0]
		if before := s.at.from - a.read; before > 0 {
			n, err := a.src.Read(p[:min(len(p), before)])
			a.read += n
			return n, err
		}
		if a.put < len(s.text) {
			n := copy(p, s.text[a.put:])
			a.put += n
			return n, nil
		}
		if n := s.at.to - a.read; n > 0 {
			if _, err := io.CopyN(io.Discard, a.src, int64(n)); err != nil {
				return 0, err
			}
			a.read = s.at.to
		}
		a.edits, a.put = edits{a.edits[1]}, 0
	}
	return a.src.Read(p)
}

// Close does not wait for a Read under way: closing what is beneath is what
// lets one go that is stuck.
func (a *attemptBody) Close() error {
	if a.closed.Swap(true) {
		return nil
	}
	if a.reading.TryLock() {
		defer a.reading.Unlock()
		if a.only && !a.used {
			return nil // settle or keep decides
		}
	}
	return a.src.Close()
}

// settle ends an attempt's hold on its body, whatever its base still does with
// it: it is closed, or given back to b if it is the only one and unread.
func (a *attemptBody) settle(b *body) {
	if a == nil {
		return
	}
	a.Close()
	a.reading.Lock()
	defer a.reading.Unlock()
	if a.only && !a.used {
		a.only, b.own = false, a.src
	}
}

// keep leaves the body to an attempt whose answer goes to the caller.
func (a *attemptBody) keep() {
	if a == nil || !a.only {
		return
	}
	a.reading.Lock()
	defer a.reading.Unlock()
	a.only = false
	if a.closed.Load() && !a.used {
		a.src.Close()
	}
}
