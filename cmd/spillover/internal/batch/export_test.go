package batch

import (
	"os"
)

// WithoutSync makes tests faster that do not test what is on disk.
func (o Options) WithoutSync() Options {
	o.sync = func(*os.File) error { return nil }
	return o
}

// WithMaxLine changes the longest line that is allowed.
func (o Options) WithMaxLine(most int) Options {
	o.maxLine = most
	return o
}

// WithWrite replaces how files are written.
func (o Options) WithWrite(write func(f *os.File, text []byte) error) Options {
	o.write = write
	return o
}

// WithSync replaces how files are synced.
func (o Options) WithSync(sync func(f *os.File) error) Options {
	o.sync = sync
	return o
}
