package replay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/wire"
)

var errDisk = errors.New("disk lost")

// A source is a request body that counts how often it is closed.
type source struct {
	io.Reader
	closed int
}

func (s *source) Close() error {
	s.closed++
	return nil
}

func sourceOf(text string) *source { return &source{Reader: strings.NewReader(text)} }

// getBody is a GetBody that returns text each time.
func getBody(text string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return sourceOf(text), nil }
}

// prepared returns a body that was prepared for sending.
func prepared(t require.TestingT, own io.ReadCloser, again func() (io.ReadCloser, error), length int64) *Body {
	b := New(own)
	require.NoError(t, b.Prepare(again, length))
	return &b
}

// open returns one more attempt.
func open(t require.TestingT, b *Body, e Edits) *Attempt {
	a := new(Attempt)
	require.NoError(t, b.Open(a, e))
	return a
}

// sends reads a whole attempt and ends it.
func sends(t require.TestingT, b *Body, e Edits) string {
	if text, ok := b.InMemory(e); ok {
		return string(text)
	}
	a := open(t, b, e)
	text, err := io.ReadAll(a)
	require.NoError(t, err)
	a.Settle(b)
	return string(text)
}

// A body that will probably be edited has room for one edited copy. The copies do not
// change each other, nor the body.
func TestEditedCopiesAreIndependent(t *testing.T) {
	text := `{"model":"m"}`
	at := wire.Span{From: 9, To: 12}
	for _, name := range []string{`""`, `"east"`, `"` + strings.Repeat("x", 2*maxAdded) + `"`} {
		b := New(sourceOf(text))
		b.ExpectEdits = true
		require.NoError(t, b.Prepare(nil, int64(len(text))))
		first, ok := b.InMemory(Edits{{At: at, Text: name}})
		require.True(t, ok)
		second, ok := b.InMemory(Edits{{At: at, Text: `"west"`}})
		require.True(t, ok)
		kept, ok := b.InMemory(Edits{})
		require.True(t, ok)
		require.Equal(t, []string{`{"model":` + name + `}`, `{"model":"west"}`, text}, []string{string(first), string(second), string(kept)})
	}
	own := sourceOf("longer")
	b := New(own)
	b.ExpectEdits = true
	require.NoError(t, b.Prepare(getBody("again"), 4))
	require.Equal(t, "longer", sends(t, &b, Edits{}))
}

func TestRequestWithoutBody(t *testing.T) {
	for _, own := range []io.ReadCloser{nil, http.NoBody} {
		b := prepared(t, own, nil, 0)
		require.False(t, b.Present)
		require.True(t, b.CanSend())
		require.NoError(t, b.WaitIdle(t.Context()))
		b.Close()
	}
	var none *Attempt
	none.Settle(nil)
	none.Keep()
}

func TestBodyWithoutGetBodyIsReadOnceAndRepeated(t *testing.T) {
	for _, text := range []string{"text", strings.Repeat("x", MaxKept+1)} {
		for _, length := range []int64{-1, 0, int64(len(text))} {
			own := sourceOf(text)
			b := prepared(t, own, nil, length)
			require.Equal(t, 1, own.closed)
			require.EqualValues(t, len(text), b.Length)
			for range 3 {
				require.Equal(t, text, sends(t, b, Edits{}))
			}
		}
	}
	b := New(io.NopCloser(iotest.ErrReader(errDisk)))
	require.ErrorIs(t, b.Prepare(nil, -1), errDisk)
}

func TestBodyBeyondMaxBufferedIsSentOnce(t *testing.T) {
	text := strings.Repeat("x", MaxBuffered+1)
	for _, length := range []int64{int64(len(text)), -1} {
		own := sourceOf(text)
		b := prepared(t, own, nil, length)
		require.Equal(t, length, b.Length)

		// Closed before it was read, it can still be sent.
		a := open(t, b, Edits{})
		require.NoError(t, a.Close())
		a.Settle(b)
		require.True(t, b.CanSend())

		seen := 0
		require.NoError(t, b.Peek(func(text []byte) { seen = len(text) }))
		require.Equal(t, MaxBuffered, min(seen, MaxBuffered))
		require.NoError(t, b.Peek(func(text []byte) { require.Len(t, text, seen) }))
		require.True(t, sends(t, b, Edits{}) == text)
		require.False(t, b.CanSend())
		require.Equal(t, 1, own.closed)
	}
}

func TestOriginalIsSentBeforeGetBody(t *testing.T) {
	first, again := strings.Repeat("x", MaxKept+1), strings.Repeat("y", MaxKept+1)
	own := sourceOf(first)
	b := prepared(t, own, getBody(again), int64(len(first)))
	require.Equal(t, first, sends(t, b, Edits{}))
	require.Equal(t, 1, own.closed)
	require.Equal(t, again, sends(t, b, Edits{}), "it was not read here, so it cannot be compared")

	own = sourceOf(first)
	b = prepared(t, own, getBody(again), int64(len(first)))
	require.Same(t, own, b.TakeOriginal())
	b.Close()
	require.Zero(t, own.closed)
}

// A small body is read into memory, and GetBody is not used.
func TestSmallBodyIsKeptInMemory(t *testing.T) {
	for _, text := range []string{"text", strings.Repeat("x", MaxKept)} {
		own := sourceOf(text)
		b := prepared(t, own, func() (io.ReadCloser, error) { return nil, errDisk }, int64(len(text)))
		require.Equal(t, 1, own.closed)
		require.True(t, b.CanRepeat())
		kept, ok := b.InMemory(Edits{})
		require.True(t, ok)
		require.Equal(t, text, string(kept))
		require.Equal(t, text, sends(t, b, Edits{}))
		next, err := b.Next(t.Context())
		require.NoError(t, err)
		got, err := io.ReadAll(next)
		require.NoError(t, err)
		require.Equal(t, text, string(got))
		require.NoError(t, b.Peek(func(seen []byte) { require.Equal(t, text, string(seen)) }))
	}
	b := New(io.NopCloser(iotest.ErrReader(errDisk)))
	require.ErrorIs(t, b.Prepare(getBody("text"), 4), errDisk)
}

// A body that is longer than its declared length is sent as it is.
func TestBodyLongerThanDeclared(t *testing.T) {
	b := prepared(t, sourceOf("longer"), nil, 4)
	require.Equal(t, "longer", sends(t, b, Edits{}))
	require.True(t, b.CanRepeat(), "it was read here")

	b = prepared(t, sourceOf("longer"), getBody("again"), 4)
	_, ok := b.InMemory(Edits{})
	require.False(t, ok)
	require.Equal(t, "longer", sends(t, b, Edits{}))
	require.True(t, b.CanRepeat())
}

// A body of unknown length turns out to be small when it is searched.
func TestSmallBodyOfUnknownLengthIsKeptOnceItIsRead(t *testing.T) {
	b := prepared(t, sourceOf("text"), getBody("other"), -1)
	_, ok := b.InMemory(Edits{})
	require.False(t, ok)
	require.NoError(t, b.Peek(func(seen []byte) { require.Equal(t, "text", string(seen)) }))
	kept, ok := b.InMemory(Edits{})
	require.True(t, ok)
	require.Equal(t, "text", string(kept))
}

// A body that was read is compared with what GetBody returns.
func TestRepeatIsTheBodyThatWasSent(t *testing.T) {
	for name, c := range map[string]struct {
		size  int
		again string
		want  error
	}{
		"large, the same":    {2 * MaxKept, "", nil},
		"large, another one": {2 * MaxKept, strings.Repeat("y", 2*MaxKept), ErrOtherBody},
		"large, shorter":     {2 * MaxKept, "x", ErrOtherBody},
		"large, longer":      {2 * MaxKept, strings.Repeat("x", 2*MaxKept+1), ErrOtherBody},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Repeat("x", c.size)
			again := c.again
			if again == "" {
				again = text
			}
			b := prepared(t, sourceOf(text), getBody(again), int64(len(text)))
			require.NoError(t, b.Peek(func(seen []byte) { require.Equal(t, text, string(seen)) }))
			require.Equal(t, text, sends(t, b, Edits{}))
			var a Attempt
			err := b.Open(&a, Edits{})
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
				require.False(t, b.CanSend(), "GetBody is not asked again")
				return
			}
			require.NoError(t, err)
			got, err := io.ReadAll(&a)
			require.NoError(t, err)
			require.Equal(t, text, string(got))
			require.NoError(t, b.PeekAgain(func(seen []byte) { require.Equal(t, text, string(seen)) }))
		})
	}
}

// A body that is too large to be compared must at least have the length of the first.
func TestRepeatHasTheLengthOfTheBodyThatWasSent(t *testing.T) {
	text := strings.Repeat("x", MaxReused+1)
	for _, again := range []string{text[1:], text + "x"} {
		b := prepared(t, sourceOf(text), getBody(again), int64(len(text)))
		require.True(t, sends(t, b, Edits{}) == text)
		a := open(t, b, Edits{})
		_, err := io.ReadAll(a)
		require.ErrorIs(t, err, ErrOtherBody)
		a.Settle(b)
		require.False(t, b.CanSend())
	}
}

func TestErrorsOfTheCallersBody(t *testing.T) {
	fails := func() (io.ReadCloser, error) { return nil, errDisk }
	breaks := func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(errDisk)), nil }
	text := strings.Repeat("x", MaxKept+1)
	for _, again := range []func() (io.ReadCloser, error){fails, breaks} {
		b := prepared(t, sourceOf(text), again, int64(len(text)))
		require.NoError(t, b.Peek(func([]byte) {}))
		require.Equal(t, text, sends(t, b, Edits{}))
		require.ErrorIs(t, b.Open(new(Attempt), Edits{}), errDisk)
		require.ErrorIs(t, b.PeekAgain(func([]byte) {}), errDisk)
		_, err := b.Next(t.Context())
		require.ErrorIs(t, err, errDisk)
	}
	b := prepared(t, io.NopCloser(iotest.ErrReader(errDisk)), getBody("x"), -1)
	a := open(t, b, Edits{})
	_, err := a.Read(make([]byte, 1))
	require.ErrorIs(t, err, errDisk)
	require.True(t, a.ReadFailed.Load(), "so it is not counted against a deployment")

	b = prepared(t, io.NopCloser(iotest.ErrReader(errDisk)), getBody("x"), -1)
	require.ErrorIs(t, b.Peek(func([]byte) {}), errDisk)
}

// Whatever is replaced in a body, and in whatever pieces it is read, it is the text with
// these edits.
// A GetBody that returns neither a body nor an error has another body than the one that
// was sent.
func TestGetBodyWithoutABody(t *testing.T) {
	text := strings.Repeat("x", MaxKept+1)
	for _, peek := range []bool{false, true} {
		b := New(io.NopCloser(strings.NewReader(text)))
		require.NoError(t, b.Prepare(func() (io.ReadCloser, error) { return nil, nil }, int64(len(text))))
		if peek {
			require.NoError(t, b.Peek(func([]byte) {}))
		}
		first, err := b.Next(t.Context())
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, first)
		require.NoError(t, err)
		again, err := b.Next(t.Context())
		if err == nil {
			_, err = io.Copy(io.Discard, again)
		}
		require.ErrorIs(t, err, ErrOtherBody)
	}
}

func TestEditsAreAppliedWhileReading(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 40, 60).Draw(t, "text")
		if rapid.Bool().Draw(t, "large") {
			text += strings.Repeat("z", MaxKept+1)
		}
		var at [4]int
		for i := range at {
			at[i] = rapid.IntRange(0, len(text)).Draw(t, "at")
		}
		for i := range at {
			for j := range i {
				at[i], at[j] = max(at[i], at[j]), min(at[i], at[j])
			}
		}
		edit := func(from, to int) Edit {
			return Edit{wire.Span{From: from, To: to}, rapid.StringN(0, 10, 20).Draw(t, "replacement")}
		}
		first, second := edit(at[0], at[1]), edit(at[2], at[3])
		want := text[:first.At.From] + first.Text + text[first.At.To:second.At.From] + second.Text + text[second.At.To:]
		e := Edits{first, second}
		if rapid.Bool().Draw(t, "swapped") && first.At.From != second.At.From && first != (Edit{}) && second != (Edit{}) {
			e = Edits{second, first}.Sorted()
		}
		b := prepared(t, sourceOf(text), getBody(text), int64(len(text)))
		if rapid.Bool().Draw(t, "peek") {
			require.NoError(t, b.Peek(func([]byte) {}))
		}
		if len(text) > 0 {
			require.EqualValues(t, len(want), b.EditedLength(e))
		}
		if got, ok := b.InMemory(e); ok {
			require.Equal(t, want, string(got))
			return
		}
		size := rapid.IntRange(1, 9).Draw(t, "size") + len(text)/100
		for range 2 {
			a := open(t, b, e)
			var got bytes.Buffer
			_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{a}, make([]byte, size))
			require.NoError(t, err)
			require.Equal(t, want, got.String())
			a.Settle(b)
		}
	})
	b := prepared(t, sourceOf("x"), getBody("x"), -1)
	require.EqualValues(t, -1, b.EditedLength(Edits{}))
}

// The text that an edit replaces may break off.
func TestErrorInsideAnEdit(t *testing.T) {
	b := prepared(t, io.NopCloser(io.MultiReader(strings.NewReader("a"), iotest.ErrReader(errDisk))), getBody("x"), -1)
	a := open(t, b, Edits{{wire.Span{From: 0, To: 5}, ""}})
	_, err := io.ReadAll(a)
	require.ErrorIs(t, err, errDisk)
}

func TestReadAfterClose(t *testing.T) {
	text := strings.Repeat("x", MaxKept+1)
	b := prepared(t, sourceOf(text), nil, -1)
	a := open(t, b, Edits{})
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
	_, err := a.Read(make([]byte, 1))
	require.Error(t, err)
	require.Equal(t, text, sends(t, b, Edits{}))
}

// A stuck body blocks in Read until it is released.
type stuck struct{ reading, release chan struct{} }

func (s stuck) Read([]byte) (int, error) {
	close(s.reading)
	<-s.release
	return 0, io.EOF
}

func (stuck) Close() error { return nil }

func TestNextAttemptWaitsForTheReadUnderWay(t *testing.T) {
	s := stuck{make(chan struct{}), make(chan struct{})}
	b := prepared(t, s, getBody("text"), -1)
	a := open(t, b, Edits{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = a.Read(make([]byte, 1))
	}()
	<-s.reading
	a.Settle(b) // does not wait
	a.Keep()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errDisk)
	require.ErrorIs(t, b.WaitIdle(ctx), errDisk)
	_, err := b.Next(ctx)
	require.ErrorIs(t, err, errDisk)

	close(s.release)
	next, err := b.Next(t.Context())
	require.NoError(t, err)
	text, err := io.ReadAll(next)
	require.NoError(t, err)
	require.Equal(t, "text", string(text))
	<-done
}

// The only copy of a body stays with the attempt whose response the caller receives.
func TestKeptAttemptOwnsTheBody(t *testing.T) {
	own := sourceOf("text")
	b := prepared(t, own, nil, MaxBuffered+1)
	a := open(t, b, Edits{})
	require.NoError(t, a.Close())
	require.Zero(t, own.closed, "the body could go to the next attempt")
	a.Keep()
	require.Equal(t, 1, own.closed)
	a.Settle(b)
	require.False(t, b.CanSend())

	own = sourceOf("text")
	b = prepared(t, own, nil, MaxBuffered+1)
	a = open(t, b, Edits{})
	a.Keep()
	require.NoError(t, a.Close())
	require.Equal(t, 1, own.closed)
}

func TestUnsentBodyIsClosed(t *testing.T) {
	own := sourceOf("text")
	b := prepared(t, own, getBody("text"), 4)
	b.Close()
	b.Close()
	require.Equal(t, 1, own.closed)
	require.True(t, b.CanSend())
}
