package replay

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

// MaxBuffered is how much of a body without GetBody is kept so that it can be
// sent again. A larger one is sent once, as it comes. It is also how far a body
// is searched for its model.
const MaxBuffered = 32 << 20

// A Body is what the caller sends, as often as it needs to be sent. The zero
// value is that of a request without one.
//
// What is sent first is the caller's Body, or the bytes that were read of it.
// As in net/http, GetBody is for repeats alone: a program that replaces Body and
// ContentLength may have forgotten it. So a repeat must be what was sent first.
type Body struct {
	Present bool
	Length  int64 // -1 when unknown

	// All of the body, where it was read and is no larger than MaxKept: then nothing
	// else is asked for any more. Bases may still read what was sent, so it is never
	// changed nor used again.
	memory []byte

	original io.ReadCloser // what is sent first, until an attempt took it or it is closed
	larger   *larger       // nil for a body in memory, and before Prepare
}

// larger is what there is of a body that is not in memory.
type larger struct {
	again     func() (io.ReadCloser, error) // the caller's GetBody, or the same of what was read; nil when there is only the original
	beginning []byte                        // the beginning of the original, if that was read already and is kept

	read readBody // the original, once it was read whole
	size int64    // how many bytes a repeat must have; -1 when unknown
	sum  uint64   // of them, where the body was read and is no larger than MaxReused; else 0
	last *Attempt // the latest attempt: a Read of it may be in progress
}

// New takes a request's body over.
func New(own io.ReadCloser) Body {
	if own == nil || own == http.NoBody {
		return Body{}
	}
	return Body{Present: true, original: own}
}

// Prepare reads a body that is known to be small. A larger one it makes one that
// can be sent again: by the caller's GetBody, else by reading it here, up to
// MaxBuffered.
func (b *Body) Prepare(getBody func() (io.ReadCloser, error), length int64) error {
	if !b.Present {
		return nil
	}
	if b.Length = length; length <= 0 {
		b.Length = -1 // 0 with a body means that the length was not told
	}
	if b.Length > 0 && b.Length <= MaxKept {
		if err := b.readSmall(); err != nil || b.memory != nil {
			return err
		}
	}
	b.larger = &larger{again: getBody, size: b.Length}
	if getBody != nil || b.Length > MaxBuffered {
		return nil
	}
	var kept bytes.Buffer
	n, err := kept.ReadFrom(io.LimitReader(b.original, MaxBuffered+1))
	if err != nil {
		return readError(err)
	}
	text := kept.Bytes()
	if n > MaxBuffered {
		b.larger.beginning, b.original = text, prefixed(bytes.NewReader(text), b.original)
		return nil
	}
	b.Close()
	b.larger.size = n
	if b.Length < 0 {
		b.Length = n
	}
	if n <= MaxKept {
		b.memory = text
		return nil
	}
	b.larger.again = func() (io.ReadCloser, error) { return inMemory(text), nil }
	return nil
}

// readSmall reads a body into memory, unless it is longer than it was said to be.
func (b *Body) readSmall() error {
	text := make([]byte, 0, b.Length+1) // one more byte, to see that it ends
	for len(text) < cap(text) {
		n, err := b.original.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err == io.EOF {
			b.Close()
			b.memory = text
			return nil
		}
		if err != nil {
			return readError(err)
		}
	}
	b.original = prefixed(bytes.NewReader(text), b.original)
	return nil
}

func readError(err error) error { return fmt.Errorf("spillover: reading the request's body: %w", err) }

// inMemory is a body of a type that net/http knows to be in memory: then it writes
// the header and the body at once.
func inMemory(text []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(text)) }

// InMemory is the body with edits, if all of it is in memory. It must not be changed.
func (b *Body) InMemory(e Edits) (text []byte, ok bool) {
	if b.memory == nil || e == (Edits{}) {
		return b.memory, b.memory != nil
	}
	room := len(b.memory)
	for _, s := range e {
		room += len(s.Text) - (s.At.To - s.At.From)
	}
	text, from := make([]byte, 0, room), 0
	for _, s := range e {
		if s != (Edit{}) {
			text = append(append(text, b.memory[from:s.At.From]...), s.Text...)
			from = s.At.To
		}
	}
	return append(text, b.memory[from:]...), true
}

// CanSend reports whether the body can be sent (again).
func (b *Body) CanSend() bool { return !b.Present || b.original != nil || b.CanRepeat() }

// CanRepeat reports whether the body can be had again after it was sent.
func (b *Body) CanRepeat() bool { return b.memory != nil || b.larger != nil && b.larger.again != nil }

// Repeat is the caller's body once more.
func (b *Body) Repeat() (io.ReadCloser, error) {
	if b.memory != nil {
		return inMemory(b.memory), nil
	}
	src, err := b.larger.again()
	if err != nil {
		return nil, fmt.Errorf("spillover: GetBody: %w", err)
	}
	return src, nil
}

// TakeOriginal hands the caller's own body over, to be sent once as it is. Whoever
// takes it closes it.
func (b *Body) TakeOriginal() io.ReadCloser {
	own := b.original
	b.original = nil
	return own
}

// Close gives the caller's own body up if no attempt took it.
func (b *Body) Close() {
	if b.original != nil {
		b.original.Close()
		b.original = nil
	}
}

// prefixed is a body whose beginning was read already.
func prefixed(beginning io.Reader, rest io.ReadCloser) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(beginning, rest), rest}
}

// A body up to MaxKept is read into memory of its own. Of a larger one with GetBody
// nothing is kept once it has been sent, so that it is not held while its answer is
// waited for; up to MaxReused the buffer that it was read into is used again.
const (
	MaxKept   = 16 << 10
	MaxReused = 1 << 20
)

var readBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// release gives a buffer back to which nothing refers any more.
func release(buf *bytes.Buffer) {
	if buf.Cap() <= MaxReused {
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

// Peek shows the beginning of the body, at most MaxBuffered, to f, which must
// not keep it.
func (b *Body) Peek(f func([]byte)) error {
	if b.memory != nil || b.larger.beginning != nil || b.original == nil {
		return b.PeekAgain(f)
	}
	buf := readBuffers.Get().(*bytes.Buffer)
	whole, err := readInto(buf, b.original, MaxBuffered)
	if err != nil {
		return readError(err)
	}
	text := buf.Bytes()
	f(text)
	switch {
	case b.larger.again == nil:
		b.larger.beginning = text
		b.original = prefixed(buf, b.original)
	case !whole:
		b.original = prefixed(buf, b.original)
	case len(text) <= MaxKept:
		b.Close()
		b.memory = bytes.Clone(text)
		release(buf)
	default:
		b.Close()
		b.larger.size = int64(len(text))
		b.larger.read = readBody{text, buf}
		if len(text) <= MaxReused {
			b.larger.sum = sumOf(text)
		}
		b.original = &b.larger.read
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

// PeekAgain is Peek for a body that was read before, at least its beginning, or that
// an attempt took.
func (b *Body) PeekAgain(f func([]byte)) error {
	switch {
	case b.memory != nil:
		f(b.memory)
		return nil
	case b.larger.beginning != nil:
		f(b.larger.beginning)
		return nil
	}
	src, err := b.Repeat()
	if err != nil {
		return err
	}
	defer src.Close()
	text, err := io.ReadAll(io.LimitReader(src, MaxBuffered))
	if err != nil {
		return readError(err)
	}
	f(text)
	return nil
}

// ErrOtherBody is why a request is not sent again whose GetBody returns another
// body than the one that was sent.
var ErrOtherBody = errors.New("spillover: GetBody does not return the request's body, so it cannot be sent again")

// repeat is the body once more. Where the first one was read it is compared.
func (b *Body) repeat() (io.ReadCloser, error) {
	src, err := b.Repeat()
	if err != nil || b.larger.sum == 0 {
		return src, err
	}
	defer src.Close()
	buf := readBuffers.Get().(*bytes.Buffer)
	if _, err := readInto(buf, src, int(b.larger.size)+1); err != nil {
		return nil, readError(err)
	}
	if sumOf(buf.Bytes()) == b.larger.sum {
		return &readBody{buf.Bytes(), buf}, nil
	}
	release(buf)
	b.larger.again = nil
	return nil, ErrOtherBody
}

// A Edit is a stretch of a body that is replaced on the way.
type Edit struct {
	At   wire.Span
	Text string
}

// Edits are what is replaced in a body, in the order of the text. Its zero
// value, like that of a splice, changes nothing.
type Edits [2]Edit

// EditedLength is the length of the body with edits.
func (b *Body) EditedLength(e Edits) int64 {
	if b.Length < 0 {
		return -1
	}
	n := b.Length
	for _, s := range e {
		n += int64(len(s.Text) - (s.At.To - s.At.From))
	}
	return n
}

// Open makes a the body for one more attempt, where it is not in memory.
func (b *Body) Open(a *Attempt, e Edits) error {
	a.pending, a.single, a.remaining = e, b.larger.again == nil, -1
	if b.original != nil {
		a.src, b.original, b.larger.last = b.original, nil, a
		return nil
	}
	src, err := b.repeat()
	if err != nil {
		return err
	}
	a.src, a.remaining, b.larger.last = src, b.larger.size, a
	return nil
}

// Next is the body for one more send, when the one before has ended.
func (b *Body) Next(ctx context.Context) (io.ReadCloser, error) {
	if b.memory != nil {
		return inMemory(b.memory), nil
	}
	b.larger.last.Settle(b)
	if err := b.WaitIdle(ctx); err != nil {
		return nil, err
	}
	a := new(Attempt)
	if err := b.Open(a, Edits{}); err != nil {
		return nil, err
	}
	return a, nil
}

// WaitIdle waits until no attempt reads the body any more: several SDKs hand out one
// reader, rewound, for every GetBody.
func (b *Body) WaitIdle(ctx context.Context) error {
	if b.larger == nil {
		return nil
	}
	if b.larger.last == nil || b.larger.last.reading.TryLock() {
		if b.larger.last != nil {
			b.larger.last.reading.Unlock()
		}
		return nil
	}
	free := make(chan struct{})
	go func(reading *sync.Mutex) {
		reading.Lock()
		defer reading.Unlock()
		close(free)
	}(&b.larger.last.reading)
	select {
	case <-free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// An Attempt is the body of one attempt. A base may read a body even after
// RoundTrip returned, and several SDKs hand out one reader, rewound, for every
// GetBody: so once it is settled, and idle, the reader beneath is never touched
// again.
type Attempt struct {
	src    io.ReadCloser
	single bool        // src cannot be had again: unused it goes back to the body
	closed atomic.Bool // no read begins any more
	Failed atomic.Bool // src could not be read, which is no fault of a deployment

	reading    sync.Mutex // what follows belongs to the Read under way
	pending    Edits
	read       int   // bytes of src that were passed or skipped, until the edits are done
	written    int   // bytes of the text of the edit at hand that were passed
	used       bool  // read from
	remaining  int64 // how many bytes of src there must be; -1 when that is not known
	mismatched bool  // there are not
}

var errClosedBody = errors.New("spillover: read of a closed body")

func (a *Attempt) Read(p []byte) (int, error) {
	a.reading.Lock()
	defer a.reading.Unlock()
	if a.closed.Load() {
		return 0, errClosedBody
	}
	a.used = true
	for len(p) > 0 && a.pending != (Edits{}) {
		s := a.pending[0]
		if before := s.At.From - a.read; before > 0 {
			n, err := a.pull(p[:min(len(p), before)])
			a.read += n
			return n, err
		}
		if a.written < len(s.Text) {
			n := copy(p, s.Text[a.written:])
			a.written += n
			return n, nil
		}
		if n := s.At.To - a.read; n > 0 {
			if _, err := io.CopyN(io.Discard, pulled{a}, int64(n)); err != nil {
				return 0, err
			}
			a.read = s.At.To
		}
		a.pending, a.written = Edits{a.pending[1]}, 0
	}
	return a.pull(p)
}

// pull reads from the body beneath. A repeat that is longer or shorter than what
// was sent first is never passed whole.
func (a *Attempt) pull(p []byte) (int, error) {
	n, err := a.src.Read(p)
	if a.remaining >= 0 {
		if a.remaining -= int64(n); a.remaining < 0 || err == io.EOF && a.remaining > 0 {
			a.remaining, a.mismatched, n, err = 0, true, 0, ErrOtherBody
		}
	}
	if err != nil && err != io.EOF && !a.closed.Load() {
		a.Failed.Store(true)
	}
	return n, err
}

// pulled reads by pull.
type pulled struct{ *Attempt }

func (a pulled) Read(p []byte) (int, error) { return a.pull(p) }

// Close does not wait for a Read under way: closing what is beneath is what
// lets one go that is stuck. One of memory is never stuck.
func (a *Attempt) Close() error {
	if a.closed.Swap(true) {
		return nil
	}
	_, read := a.src.(*readBody)
	if read {
		a.reading.Lock()
	}
	if read || a.reading.TryLock() {
		defer a.reading.Unlock()
		if a.single && !a.used {
			return nil // settle or keep decides
		}
	}
	return a.src.Close()
}

// Settle ends an attempt's hold on its body, whatever its base still does with
// it: it is closed, or given back to b if it is the only one and unread. It does
// not wait for a Read under way, which a stuck upload may never end.
func (a *Attempt) Settle(b *Body) {
	if a == nil {
		return
	}
	a.Close()
	if !a.reading.TryLock() {
		return
	}
	defer a.reading.Unlock()
	switch {
	case a.single && !a.used:
		a.single, b.original = false, a.src
	case a.mismatched:
		b.larger.again = nil
	}
}

// Keep leaves the body to an attempt whose answer goes to the caller. One that is
// being read is in use: Close closes it.
func (a *Attempt) Keep() {
	if a == nil || !a.single || !a.reading.TryLock() {
		return
	}
	defer a.reading.Unlock()
	a.single = false
	if a.closed.Load() && !a.used {
		a.src.Close()
	}
}

// Sorted puts two edits in the order of the text.
func (e Edits) Sorted() Edits {
	if e[1] != (Edit{}) && e[1].At.From < e[0].At.From {
		e[0], e[1] = e[1], e[0]
	}
	return e
}
