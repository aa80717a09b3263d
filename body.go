package spillover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/spillover-go/spillover/internal/wire"
)

// maxBuffered is how much of a body without GetBody is kept so that it can be
// sent again. A larger one is sent once, as it comes. It is also how far a body
// is searched for its model.
const maxBuffered = 32 << 20

// A body is what the caller sends, as often as it needs to be sent. The zero
// value is that of a request without one.
//
// What is sent first is the caller's Body, or the bytes that were read of it.
// As in net/http, GetBody is for repeats alone: a program that replaces Body and
// ContentLength may have forgotten it. So a repeat must be what was sent first.
type body struct {
	present bool
	own     io.ReadCloser                 // what is sent first, until an attempt took it or it is closed
	again   func() (io.ReadCloser, error) // a fresh one; nil when there is only own
	begun   []byte                        // the beginning of own, if that was read already and is kept
	length  int64                         // -1 when unknown

	read readBody     // own, once it was read whole
	size int64        // how many bytes a repeat must have; -1 when unknown
	sum  uint64       // of them, where the body was read and is no larger than maxReused; else 0
	kept []byte       // the body itself, where it is no larger than maxKept
	last *attemptBody // of the latest attempt: a Read of it may be under way
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
	b.size = b.length
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
	b.size = n
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

// Of a body with GetBody what was read is kept up to maxKept. What is larger is
// let go as soon as it has been sent, so that it is not held while its answer is
// waited for; up to maxReused its buffer is used again.
const (
	maxKept   = 16 << 10
	maxReused = 1 << 20
)

var readBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// release gives a buffer back to which nothing refers any more.
func release(buf *bytes.Buffer) {
	if buf.Cap() <= maxReused {
		buf.Reset()
		readBuffers.Put(buf)
	}
}

// A readBody is a body that was read.
type readBody struct {
	text []byte        // what is left of it
	buf  *bytes.Buffer // that has it; nil when it is in no buffer of readBuffers
}

func (r *readBody) Read(p []byte) (int, error) {
	if len(r.text) == 0 && len(p) > 0 {
		r.Close()
		return 0, io.EOF
	}
	n := copy(p, r.text)
	r.text = r.text[n:]
	return n, nil
}

// Close lets go of the text. No Read may be under way.
func (r *readBody) Close() error {
	if r.buf != nil {
		release(r.buf)
	}
	*r = readBody{}
	return nil
}

var bodySeed = maphash.MakeSeed()

// sumOf tells bodies apart; it is never 0.
func sumOf(text []byte) uint64 { return max(1, maphash.Bytes(bodySeed, text)) }

// peek shows the beginning of the body, at most maxBuffered, to f, which must
// not keep it.
func (b *body) peek(f func([]byte)) error {
	if b.begun != nil || b.own == nil {
		return b.peekAgain(f)
	}
	buf := readBuffers.Get().(*bytes.Buffer)
	whole, err := readInto(buf, b.own, maxBuffered)
	if err != nil {
		return fmt.Errorf("spillover: reading the request's body: %w", err)
	}
	text := buf.Bytes()
	f(text)
	switch {
	case b.again == nil:
		b.begun = text
		b.own = prefixed(buf, b.own)
	case !whole:
		b.own = prefixed(buf, b.own)
	default:
		b.close()
		b.size = int64(len(text))
		b.read = readBody{text, buf}
		if len(text) <= maxKept {
			b.kept = bytes.Clone(text)
			b.read = readBody{text: b.kept}
			release(buf)
		}
		if len(text) <= maxReused {
			b.sum = sumOf(text)
		}
		b.own = &b.read
	}
	return nil
}

// readInto reads a body, at most so much of it, and tells whether that is all.
func readInto(buf *bytes.Buffer, src io.Reader, most int) (whole bool, err error) {
	for buf.Len() < most {
		buf.Grow(bytes.MinRead)
		p := buf.AvailableBuffer()
		n, err := src.Read(p[:min(cap(p), most-buf.Len())])
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

// errOtherBody is why a request is not sent again whose GetBody returns another
// body than the one that was sent.
var errOtherBody = errors.New("spillover: GetBody does not return the request's body, so it cannot be sent again")

// repeat is the body once more. Where the first one was read it is compared.
func (b *body) repeat() (io.ReadCloser, error) {
	src, err := b.again()
	if err != nil {
		return nil, fmt.Errorf("spillover: GetBody: %w", err)
	}
	if b.sum == 0 {
		return src, nil
	}
	defer src.Close()
	buf := readBuffers.Get().(*bytes.Buffer)
	if _, err := readInto(buf, src, int(b.size)+1); err != nil {
		return nil, fmt.Errorf("spillover: reading the request's body: %w", err)
	}
	if sumOf(buf.Bytes()) == b.sum {
		return &readBody{buf.Bytes(), buf}, nil
	}
	release(buf)
	if b.kept == nil {
		b.again = nil
		return nil, errOtherBody
	}
	return &readBody{text: b.kept}, nil
}

// A splice is a stretch of a body that is replaced on the way.
type splice struct {
	at   wire.Span
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
		n += int64(len(s.text) - (s.at.To - s.at.From))
	}
	return n
}

// open makes a the body for one more attempt.
func (b *body) open(a *attemptBody, e edits) error {
	a.edits, a.only, a.left = e, b.again == nil, -1
	if b.own != nil {
		a.src, b.own, b.last = b.own, nil, a
		return nil
	}
	src, err := b.repeat()
	if err != nil {
		return err
	}
	a.src, a.left, b.last = src, b.size, a
	return nil
}

// next is the body for one more send, when the one before has ended.
func (b *body) next(ctx context.Context) (io.ReadCloser, error) {
	b.last.settle(b)
	if err := b.idle(ctx); err != nil {
		return nil, err
	}
	a := new(attemptBody)
	if err := b.open(a, edits{}); err != nil {
		return nil, err
	}
	return a, nil
}

// idle waits until no attempt reads the body any more: several SDKs hand out one
// reader, rewound, for every GetBody.
func (b *body) idle(ctx context.Context) error {
	if b.last == nil || b.last.reading.TryLock() {
		if b.last != nil {
			b.last.reading.Unlock()
		}
		return nil
	}
	free := make(chan struct{})
	go func(reading *sync.Mutex) {
		reading.Lock()
		defer reading.Unlock()
		close(free)
	}(&b.last.reading)
	select {
	case <-free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// An attemptBody is the body of one attempt. A base may read a body even after
// RoundTrip returned, and several SDKs hand out one reader, rewound, for every
// GetBody: so once it is settled, and idle, the reader beneath is never touched
// again.
type attemptBody struct {
	src    io.ReadCloser
	only   bool        // src cannot be had again: unused it goes back to the body
	closed atomic.Bool // no read begins any more
	failed atomic.Bool // src could not be read, which is no fault of a deployment

	reading sync.Mutex // what follows belongs to the Read under way
	edits   edits
	read    int   // bytes of src that were passed or skipped, until the edits are done
	put     int   // bytes of the text of the edit at hand that were passed
	used    bool  // read from
	left    int64 // how many bytes of src there must be; -1 when that is not known
	other   bool  // there are not
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
		if before := s.at.From - a.read; before > 0 {
			n, err := a.pull(p[:min(len(p), before)])
			a.read += n
			return n, err
		}
		if a.put < len(s.text) {
			n := copy(p, s.text[a.put:])
			a.put += n
			return n, nil
		}
		if n := s.at.To - a.read; n > 0 {
			if _, err := io.CopyN(io.Discard, pulled{a}, int64(n)); err != nil {
				return 0, err
			}
			a.read = s.at.To
		}
		a.edits, a.put = edits{a.edits[1]}, 0
	}
	return a.pull(p)
}

// pull reads from the body beneath. A repeat that is longer or shorter than what
// was sent first is never passed whole.
func (a *attemptBody) pull(p []byte) (int, error) {
	n, err := a.src.Read(p)
	if a.left >= 0 {
		if a.left -= int64(n); a.left < 0 || err == io.EOF && a.left > 0 {
			a.left, a.other, n, err = 0, true, 0, errOtherBody
		}
	}
	if err != nil && err != io.EOF && !a.closed.Load() {
		a.failed.Store(true)
	}
	return n, err
}

// pulled reads by pull.
type pulled struct{ *attemptBody }

func (a pulled) Read(p []byte) (int, error) { return a.pull(p) }

// Close does not wait for a Read under way: closing what is beneath is what
// lets one go that is stuck. One of memory is never stuck.
func (a *attemptBody) Close() error {
	if a.closed.Swap(true) {
		return nil
	}
	_, read := a.src.(*readBody)
	if read {
		a.reading.Lock()
	}
	if read || a.reading.TryLock() {
		defer a.reading.Unlock()
		if a.only && !a.used {
			return nil // settle or keep decides
		}
	}
	return a.src.Close()
}

// settle ends an attempt's hold on its body, whatever its base still does with
// it: it is closed, or given back to b if it is the only one and unread. It does
// not wait for a Read under way, which a stuck upload may never end.
func (a *attemptBody) settle(b *body) {
	if a == nil {
		return
	}
	a.Close()
	if !a.reading.TryLock() {
		return
	}
	defer a.reading.Unlock()
	switch {
	case a.only && !a.used:
		a.only, b.own = false, a.src
	case a.other:
		b.again = nil
	}
}

// keep leaves the body to an attempt whose answer goes to the caller. One that is
// being read is in use: Close closes it.
func (a *attemptBody) keep() {
	if a == nil || !a.only || !a.reading.TryLock() {
		return
	}
	defer a.reading.Unlock()
	a.only = false
	if a.closed.Load() && !a.used {
		a.src.Close()
	}
}
