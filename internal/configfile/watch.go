package configfile

import (
	"context"
	"crypto/sha256"
	"time"
)

// A Watcher polls a file and applies each new content once: when two polls in a
// row have found it, so that a file that is still being written is not applied. A
// content that could not be applied is tried again by each poll, because the cause
// may be outside of the file, such as another file that is not there yet.
type Watcher struct {
	Period time.Duration
	// Read returns the content of the file.
	Read func() ([]byte, error)
	// Apply is called with a content that is not the one applied last.
	Apply func(text []byte) error
	// Report is called with the errors of Read and Apply, once for each content and
	// each error.
	Report func(error)

	lastPolled, lastHandled fingerprint
	notApplied              string // the error of the content that was handled last; "" if it was applied
}

// A fingerprint identifies what a poll found: a content, or an error. The content
// itself may hold secrets and is not kept.
type fingerprint struct {
	sum    [sha256.Size]byte
	failed bool
}

// Run polls the file, first at once, until ctx ends or stop is closed. It returns
// the error of ctx, or nil if it was stopped.
func (w *Watcher) Run(ctx context.Context, stop <-chan struct{}) error {
	ticker := time.NewTicker(w.Period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-stop:
			return nil
		default:
			w.poll()
		}
		select {
		case <-ctx.Done():
		case <-stop:
		case <-ticker.C:
		}
	}
}

func (w *Watcher) poll() {
	text, err := w.Read()
	polled := fingerprint{sum: sha256.Sum256(text)}
	if err != nil {
		polled = fingerprint{sha256.Sum256([]byte(err.Error())), true}
	}
	previous := w.lastPolled
	w.lastPolled = polled
	again := polled == w.lastHandled
	if polled != previous || again && w.notApplied == "" {
		return
	}
	was := w.notApplied
	w.lastHandled, w.notApplied = polled, ""
	if err == nil {
		if err = w.Apply(text); err != nil {
			w.notApplied = err.Error()
		}
	}
	if err != nil && !(again && w.notApplied == was) {
		w.Report(err)
	}
}
