package replay

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

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
