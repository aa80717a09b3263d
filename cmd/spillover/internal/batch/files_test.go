package batch_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

// errFull is what a full disk returns.
var errFull = syscall.ENOSPC

// Wherever writing fails, the error is reported, and a later run completes the answers.
func TestWriteErrorsLoseNothing(t *testing.T) {
	for fail := 1; fail <= 12; fail++ {
		for _, part := range []int{0, 1, 1 << 30} { // so many bytes are written nevertheless
			in, dir := writeInput(t, 20, hello), t.TempDir()
			asked := map[string]int{}
			var mu sync.Mutex
			lb := transport(t, service(func(_ *http.Request, _ []byte) (int, string) {
				mu.Lock()
				defer mu.Unlock()
				asked["all"]++
				return 200, fine
			}))
			o := batch.Options{Input: in, Output: filepath.Join(dir, "out"), Transport: lb, MaxInFlight: 1}
			operations := 0
			failing := o.WithWrite(func(f *os.File, text []byte) error {
				if operations++; operations >= fail {
					f.Write(text[:min(part, len(text))])
					return errFull
				}
				_, err := f.Write(text)
				return err
			}).WithSync(func(f *os.File) error {
				if operations++; operations >= fail {
					return errFull
				}
				return nil
			})
			b, err := batch.Open(t.Context(), failing)
			if err == nil {
				err = b.Run(t.Context())
				require.ErrorIs(t, err, errFull)
				require.Positive(t, b.Counts().Left())
				b.Close()
			}
			require.ErrorIs(t, err, errFull)
			c, err := run(t, o)
			require.NoError(t, err)
			require.EqualValues(t, 20, c.Answered)
			require.Len(t, outputs(t, o.Output), 20)
			require.LessOrEqual(t, asked["all"], 20+3, "at most the window is asked again")
		}
	}
}

// A file that a killed run, or a power failure, has left in any state between two syncs
// is completed.
func TestTornFilesAreRepaired(t *testing.T) {
	in, dir := writeInput(t, 30, hello), t.TempDir()
	lb := transport(t, answering(200, fine))
	whole := batch.Options{Input: in, Output: filepath.Join(dir, "whole"), Transport: lb, MaxInFlight: 1}
	_, err := run(t, whole)
	require.NoError(t, err)
	log, err := os.ReadFile(whole.Output + batch.JournalSuffix)
	require.NoError(t, err)
	text, err := os.ReadFile(whole.Output)
	require.NoError(t, err)
	for cut := 0; cut <= len(log); cut += 37 {
		for _, tail := range []string{"", "\x00\x00\x00", "\n", "{}\n", `{"answered":[9999],"output":7}` + "\n"} {
			o := whole
			o.Output = filepath.Join(dir, fmt.Sprintf("%d-%x", cut, tail))
			require.NoError(t, os.WriteFile(o.Output+batch.JournalSuffix, []byte(string(log[:cut])+tail), 0o666))
			// The output has at least what the journal says.
			if header := bytes.IndexByte(log, '\n') + 1; cut >= header {
				require.NoError(t, os.WriteFile(o.Output, []byte(string(text)+`{"id":"batch_re`), 0o666))
			} else if tail != "" {
				continue // cannot be: the header is synced before anything follows
			}
			c, err := run(t, o)
			require.NoError(t, err, "%d %q", cut, tail)
			require.EqualValues(t, 30, c.Answered)
			require.Len(t, outputs(t, o.Output), 30)
		}
	}
}

func TestFilesThatDoNotBelongTogetherAreRefused(t *testing.T) {
	in, dir := writeInput(t, 10, hello), t.TempDir()
	lb := transport(t, answering(200, fine))
	o := batch.Options{Input: in, Output: filepath.Join(dir, "out"), Transport: lb}
	refused := func(want string, o batch.Options) {
		t.Helper()
		_, err := batch.Open(t.Context(), o)
		require.ErrorContains(t, err, want)
	}

	require.NoError(t, os.WriteFile(filepath.Join(dir, "foreign"), []byte("mine\n"), 0o666))
	foreign := o
	foreign.Output = filepath.Join(dir, "foreign")
	refused("is not empty", foreign)
	text, err := os.ReadFile(foreign.Output)
	require.NoError(t, err)
	require.Equal(t, "mine\n", string(text))
	require.NoFileExists(t, foreign.Output+batch.JournalSuffix)

	// A line without an end could be the beginning of a journal, and is not.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x.journal"), []byte(line("a", hello)), 0o666))
	foreign.Output = filepath.Join(dir, "x")
	refused("not a journal", foreign)
	foreign.Input = filepath.Join(dir, "x.journal")
	refused("different files", foreign)
	text, err = os.ReadFile(foreign.Input)
	require.NoError(t, err)
	require.Equal(t, line("a", hello), string(text))

	// Files are the same under other names, too.
	links := t.TempDir()
	require.NoError(t, os.Symlink(in, filepath.Join(links, "in")))
	same := o
	same.Output = filepath.Join(links, "in")
	refused("different files", same)
	same = o
	same.Errors = filepath.Join(links, "out")
	require.NoError(t, os.Symlink(o.Output, same.Errors))
	refused("different files", same)
	same.Errors = o.Output + batch.JournalSuffix
	refused("different files", same)

	// What cannot be an output gets no journal.
	for _, output := range []string{dir, os.DevNull} {
		other := o
		other.Output = output
		_, err := batch.Open(t.Context(), other)
		require.Error(t, err)
		require.NoFileExists(t, output+batch.JournalSuffix)
	}

	missing := o
	missing.Input = filepath.Join(dir, "none")
	refused("no such file", missing)
	missing.Input = dir
	refused("not a regular file", missing)
	same = o
	same.Output = in
	refused("different files", same)
	same = o
	same.Errors = o.Output
	refused("different files", same)

	b, err := batch.Open(t.Context(), o)
	require.NoError(t, err)
	refused("in use by another process", o)
	b.Close()
	_, err = run(t, o)
	require.NoError(t, err)

	other := o
	other.Part = batch.Part{Index: 1, Of: 2}
	refused("-part 1/1", other)
	other = o
	other.Errors = filepath.Join(dir, "errors")
	refused("without -errors", other)
	other = o
	other.Input = writeInput(t, 10, `{"model":"other"}`)
	refused("the input has changed", other)
	require.NoError(t, os.Truncate(o.Output, 10))
	refused("answers were removed", o)
	require.NoError(t, os.WriteFile(o.Output+batch.JournalSuffix, []byte("{}\n"), 0o666))
	refused("not a journal", o)
}

func TestAnEmptyInputIsDone(t *testing.T) {
	for _, text := range []string{"", "\n", "\xef\xbb\xbf\n \n"} {
		in, out := writeLines(t, text), filepath.Join(t.TempDir(), "out")
		c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, answering(200, fine))})
		require.NoError(t, err)
		require.Zero(t, c.Total)
	}
}

func TestAChangeOfTheInputIsNoticed(t *testing.T) {
	for name, change := range map[string]func(text []byte) []byte{
		"shorter":                       func([]byte) []byte { return []byte("\n") },
		"fewer lines at the same times": func(text []byte) []byte { return bytes.ReplaceAll(text, []byte("}\n"), []byte("} ")) },
	} {
		in, out := writeInput(t, 10, hello), filepath.Join(t.TempDir(), "out")
		text, err := os.ReadFile(in)
		require.NoError(t, err)
		info, err := os.Stat(in)
		require.NoError(t, err)
		b, err := batch.Open(t.Context(), batch.Options{Input: in, Output: out, Transport: transport(t, answering(200, fine))}.WithoutSync())
		require.NoError(t, err)
		defer b.Close()
		require.NoError(t, os.WriteFile(in, change(text), 0o666))
		require.NoError(t, os.Chtimes(in, info.ModTime(), info.ModTime()))
		require.ErrorContains(t, b.Run(t.Context()), "changed", name)
	}
}

// The journal names an answer when it is on disk, not before. Otherwise a power failure
// could lose it.
func TestAnAnswerIsOnDiskBeforeItIsRecorded(t *testing.T) {
	in, out := writeInput(t, 50, hello), filepath.Join(t.TempDir(), "out")
	errs := out + ".errors"
	var mu sync.Mutex
	dirty := map[string]bool{}
	recorded := 0
	o := batch.Options{Input: in, Output: out, Errors: errs, Transport: transport(t, service(func(_ *http.Request, _ []byte) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		if len(dirty)%2 == 0 {
			return 400, `{}`
		}
		return 200, fine
	}))}.WithWrite(func(f *os.File, text []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if f.Name() == out+batch.JournalSuffix {
			recorded++
			if dirty[out] || dirty[errs] || dirty[f.Name()] {
				return errors.New("a record was written before what it names was synced")
			}
		}
		dirty[f.Name()] = true
		_, err := f.Write(text)
		return err
	}).WithSync(func(f *os.File) error {
		mu.Lock()
		defer mu.Unlock()
		dirty[f.Name()] = false
		return nil
	})
	b, err := batch.Open(t.Context(), o)
	require.NoError(t, err)
	defer b.Close()
	require.NoError(t, b.Run(t.Context()))
	require.Greater(t, recorded, 1)
	require.False(t, dirty[out+batch.JournalSuffix])
}
