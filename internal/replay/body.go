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
	"io"
	"net/http"
	"slices"
	"sync"
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
	if src == nil {
		return http.NoBody, nil // another body than the one that was sent
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
