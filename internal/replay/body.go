// Package replay makes a request body available for several attempts, with edits for each.
//
// It knows the caller's Body and GetBody, keeps small bodies in memory, replaces parts of
// the text while it is read, and makes sure that a repeat is the body that was sent first.
//
// It does not know what a body means, who sends it, or why it is sent again.
package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/spillover-go/spillover/internal/wire"
)

// MaxBuffered is how much of a body without GetBody is kept, in bytes, so that it can
// be sent again. A larger one is sent once, as it arrives. It is also how far a body is
// searched for its model.
const MaxBuffered = 32 << 20

// A Body is the body of a caller's request, which can be sent several times. The zero
// value is for a request without a body.
//
// The caller's Body, or what was read from it, is sent first. GetBody is used only for
// repeats, as in net/http: a program that replaces Body and ContentLength may have
// forgotten GetBody. Therefore a repeat must be equal to what was sent first.
type Body struct {
	Present bool  // the request has a body
	Length  int64 // -1 if unknown

	// ExpectEdits makes room for an edited copy together with a small body.
	ExpectEdits bool

	// The whole body, if it was read and is no larger than MaxKept. Then nothing
	// else is used. Base transports may still read what was sent, so the memory is
	// never changed or reused.
	memory []byte // its spare capacity is for an edited copy, until there is one

	original io.ReadCloser // what is sent first, until an attempt takes it or it is closed
	larger   *larger       // nil for a body in memory, and before Prepare
}

// larger has what is known of a body that is not in memory.
type larger struct {
	again     func() (io.ReadCloser, error) // the caller's GetBody, or one for what was read; nil if there is only the original
	beginning []byte                        // the beginning of the original, if it was read and is kept

	buffered     bufferedBody // the original, after it was read completely
	repeatLength int64        // required length of a repeat; -1 if unknown
	checksum     uint64       // required checksum of a repeat; 0 unless the body was read and is no larger than MaxReused
	lastAttempt  *Attempt     // a Read of it may be in progress
}

// New takes over the body of a request.
func New(own io.ReadCloser) Body {
	if own == nil || own == http.NoBody {
		return Body{}
	}
	return Body{Present: true, original: own}
}

// Prepare reads a body that is known to be small. It makes a larger body replayable:
// with the caller's GetBody, or by reading up to MaxBuffered bytes of it.
func (b *Body) Prepare(getBody func() (io.ReadCloser, error), length int64) error {
	if !b.Present {
		return nil
	}
	if b.Length = length; length <= 0 {
		b.Length = -1 // 0 with a body means that the length is unknown
	}
	if b.Length > 0 && b.Length <= MaxKept {
		if err := b.readSmall(); err != nil || b.memory != nil {
			return err
		}
	}
	b.larger = &larger{again: getBody, repeatLength: b.Length}
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
		b.larger.beginning, b.original = text, withPrefix(bytes.NewReader(text), b.original)
		return nil
	}
	b.Close()
	b.larger.repeatLength = n
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

// readSmall reads a body into memory, unless it is longer than its declared length.
func (b *Body) readSmall() error {
	size := int(b.Length) + 1 // one more byte, to reach the end of the body
	room := size
	if b.ExpectEdits {
		room += size + maxAdded
	}
	memory := make([]byte, room)
	text := memory[:0:size]
	for len(text) < cap(text) {
		n, err := b.original.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err == io.EOF {
			b.Close()
			b.memory = memory[:len(text)]
			return nil
		}
		if err != nil {
			return readError(err)
		}
	}
	b.original = withPrefix(bytes.NewReader(text), b.original)
	return nil
}

// maxAdded is how much longer than the body an edited copy may be that finds room beside
// it. What is longer gets memory of its own.
const maxAdded = 32

// readError wraps an error of the caller's body.
func readError(err error) error { return fmt.Errorf("spillover: reading the request's body: %w", err) }

// inMemory returns a body of a type that net/http recognises as being in memory.
// net/http writes the header and such a body with one write.
func inMemory(text []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(text)) }

// InMemory returns the body with edits if the whole body is in memory. The caller must
// not change it.
func (b *Body) InMemory(e Edits) (text []byte, ok bool) {
	if b.memory == nil || e == (Edits{}) {
		return slices.Clip(b.memory), b.memory != nil
	}
	room := len(b.memory)
	for _, s := range e {
		room += len(s.Text) - (s.At.To - s.At.From)
	}
	text, from := b.memory[len(b.memory):], 0
	b.memory = slices.Clip(b.memory)
	if cap(text) < room {
		text = make([]byte, 0, room)
	}
	for _, s := range e {
		if s != (Edit{}) {
			text = append(append(text, b.memory[from:s.At.From]...), s.Text...)
			from = s.At.To
		}
	}
	return append(text, b.memory[from:]...), true
}

// CanSend reports whether the body can be sent, for the first time or again.
func (b *Body) CanSend() bool { return !b.Present || b.original != nil || b.CanRepeat() }

// CanRepeat reports whether the body is still available after it was sent.
func (b *Body) CanRepeat() bool { return b.memory != nil || b.larger != nil && b.larger.again != nil }

// Repeat returns the caller's body once more, without edits.
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

// TakeOriginal returns the caller's own body, to be sent once and unchanged. The caller
// of TakeOriginal must close it.
func (b *Body) TakeOriginal() io.ReadCloser {
	own := b.original
	b.original = nil
	return own
}

// Close closes the caller's own body, unless an attempt has taken it.
func (b *Body) Close() {
	if b.original != nil {
		b.original.Close()
		b.original = nil
	}
}

// withPrefix returns a body of which the beginning was read already.
func withPrefix(beginning io.Reader, rest io.ReadCloser) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(beginning, rest), rest}
}

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

// Peek calls f with the beginning of the body, at most MaxBuffered bytes. f must not
// keep it.
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
		b.original = withPrefix(buf, b.original)
	case !whole:
		b.original = withPrefix(buf, b.original)
	case len(text) <= MaxKept:
		b.Close()
		b.memory = bytes.Clone(text)
		release(buf)
	default:
		b.Close()
		b.larger.repeatLength = int64(len(text))
		b.larger.buffered = bufferedBody{text, buf}
		if len(text) <= MaxReused {
			b.larger.checksum = checksumOf(text)
		}
		b.original = &b.larger.buffered
	}
	return nil
}

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

// PeekAgain is Peek for a body of which at least the beginning was read before, or that
// an attempt has taken.
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

// ErrOtherBody means that the request cannot be sent again, because its GetBody returns
// another body than the one that was sent.
var ErrOtherBody = errors.New("spillover: GetBody does not return the request's body, so it cannot be sent again")

// verifiedRepeat returns the body once more. It compares it with the first one if that
// one was read.
func (b *Body) verifiedRepeat() (io.ReadCloser, error) {
	src, err := b.Repeat()
	if err != nil || b.larger.checksum == 0 {
		return src, err
	}
	defer src.Close()
	buf := readBuffers.Get().(*bytes.Buffer)
	if _, err := readInto(buf, src, int(b.larger.repeatLength)+1); err != nil {
		return nil, readError(err)
	}
	if checksumOf(buf.Bytes()) == b.larger.checksum {
		return &bufferedBody{buf.Bytes(), buf}, nil
	}
	release(buf)
	b.larger.again = nil
	return nil, ErrOtherBody
}

// An Edit replaces a range of the body while it is sent.
type Edit struct {
	At   wire.Span
	Text string
}

// Edits are up to two replacements, in the order of their position. A zero Edit changes
// nothing.
type Edits [2]Edit

// EditedLength returns the length of the body with edits, or -1 if it is unknown.
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

// Open makes a the body of one more attempt. The body must not be in memory: InMemory
// returns such a body.
func (b *Body) Open(a *Attempt, e Edits) error {
	a.pending, a.onlyCopy, a.remaining = e, b.larger.again == nil, -1
	if b.original != nil {
		a.source, b.original, b.larger.lastAttempt = b.original, nil, a
		return nil
	}
	src, err := b.verifiedRepeat()
	if err != nil {
		return err
	}
	a.source, a.remaining, b.larger.lastAttempt = src, b.larger.repeatLength, a
	return nil
}

// Next returns the unedited body for one more attempt, after the previous attempt has
// ended.
func (b *Body) Next(ctx context.Context) (io.ReadCloser, error) {
	if b.memory != nil {
		return inMemory(b.memory), nil
	}
	b.larger.lastAttempt.Settle(b)
	if err := b.WaitIdle(ctx); err != nil {
		return nil, err
	}
	a := new(Attempt)
	if err := b.Open(a, Edits{}); err != nil {
		return nil, err
	}
	return a, nil
}

// WaitIdle waits until no attempt reads the body. Several SDKs return the same reader,
// rewound, from every GetBody.
func (b *Body) WaitIdle(ctx context.Context) error {
	if b.larger == nil {
		return nil
	}
	if b.larger.lastAttempt == nil || b.larger.lastAttempt.reading.TryLock() {
		if b.larger.lastAttempt != nil {
			b.larger.lastAttempt.reading.Unlock()
		}
		return nil
	}
	free := make(chan struct{})
	go func(reading *sync.Mutex) {
		reading.Lock()
		defer reading.Unlock()
		close(free)
	}(&b.larger.lastAttempt.reading)
	select {
	case <-free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// An Attempt is the body of one attempt. A base transport may read a body even after
// RoundTrip has returned, and several SDKs return the same reader, rewound, from every
// GetBody. So once an attempt is settled and idle, it never touches the underlying
// reader again.
type Attempt struct {
	source     io.ReadCloser
	onlyCopy   bool        // source is not available again: if it was not read, it goes back to the Body
	closed     atomic.Bool // no further Read begins
	ReadFailed atomic.Bool // source returned an error, for which the deployment is not at fault

	reading     sync.Mutex // guards the following fields
	pending     Edits
	sourceRead  int   // bytes of source that were passed on or skipped, until all edits are done
	editWritten int   // bytes of the current edit's text that were passed on
	used        bool  // Read was called
	remaining   int64 // required number of further bytes of source; -1 if unknown
	mismatched  bool  // source has another length than required
}

// errClosedBody is returned by a Read after Close.
var errClosedBody = errors.New("spillover: read of a closed body")

// Read implements io.Reader. It applies the edits.
func (a *Attempt) Read(p []byte) (int, error) {
	a.reading.Lock()
	defer a.reading.Unlock()
	if a.closed.Load() {
		return 0, errClosedBody
	}
	a.used = true
	for len(p) > 0 && a.pending != (Edits{}) {
		s := a.pending[0]
		if before := s.At.From - a.sourceRead; before > 0 {
			n, err := a.readSource(p[:min(len(p), before)])
			a.sourceRead += n
			return n, err
		}
		if a.editWritten < len(s.Text) {
			n := copy(p, s.Text[a.editWritten:])
			a.editWritten += n
			return n, nil
		}
		if n := s.At.To - a.sourceRead; n > 0 {
			if _, err := io.CopyN(io.Discard, sourceReader{a}, int64(n)); err != nil {
				return 0, err
			}
			a.sourceRead = s.At.To
		}
		a.pending, a.editWritten = Edits{a.pending[1]}, 0
	}
	return a.readSource(p)
}

// readSource reads from source. It never passes on the whole of a repeat whose length
// is not the required one.
func (a *Attempt) readSource(p []byte) (int, error) {
	n, err := a.source.Read(p)
	if a.remaining >= 0 {
		if a.remaining -= int64(n); a.remaining < 0 || err == io.EOF && a.remaining > 0 {
			a.remaining, a.mismatched, n, err = 0, true, 0, ErrOtherBody
		}
	}
	if err != nil && err != io.EOF && !a.closed.Load() {
		a.ReadFailed.Store(true)
	}
	return n, err
}

// A sourceReader reads from an attempt's source, without edits.
type sourceReader struct{ *Attempt }

func (a sourceReader) Read(p []byte) (int, error) { return a.readSource(p) }

// Close closes source. It does not wait for a Read in progress, because closing source
// is what ends a stuck Read. Only a Read from memory, which never gets stuck, is waited
// for.
func (a *Attempt) Close() error {
	if a.closed.Swap(true) {
		return nil
	}
	_, read := a.source.(*bufferedBody)
	if read {
		a.reading.Lock()
	}
	if read || a.reading.TryLock() {
		defer a.reading.Unlock()
		if a.onlyCopy && !a.used {
			return nil // Settle or Keep decides
		}
	}
	return a.source.Close()
}

// Settle ends the attempt's use of its body, whatever the base transport still does
// with it. The body is closed, or returned to b if it is the only copy and was not
// read. Settle does not wait for a Read in progress, because a stuck upload may never
// end.
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
	case a.onlyCopy && !a.used:
		a.onlyCopy, b.original = false, a.source
	case a.mismatched:
		b.larger.again = nil
	}
}

// Keep leaves the body to an attempt whose response goes to the caller. If a Read is in
// progress, the base transport still uses the body and will close it.
func (a *Attempt) Keep() {
	if a == nil || !a.onlyCopy || !a.reading.TryLock() {
		return
	}
	defer a.reading.Unlock()
	a.onlyCopy = false
	if a.closed.Load() && !a.used {
		a.source.Close()
	}
}

// Sorted returns the edits in the order of their position.
func (e Edits) Sorted() Edits {
	if e[1] != (Edit{}) && e[1].At.From < e[0].At.From {
		e[0], e[1] = e[1], e[0]
	}
	return e
}
