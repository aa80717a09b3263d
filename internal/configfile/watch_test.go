package configfile_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/stretchr/testify/require"
)

// A fakeFile is what each poll finds, and what the Watcher did.
type fakeFile struct {
	contents []string // "!x" is the error x
	log      []string // what was done, with the number of the poll
	polls    int
}

func (f *fakeFile) watcher() *configfile.Watcher {
	return &configfile.Watcher{
		Period: 2 * time.Second,
		Read: func() ([]byte, error) {
			text := f.contents[min(f.polls, len(f.contents)-1)]
			f.polls++
			if text != "" && text[0] == '!' {
				return nil, errors.New(text[1:])
			}
			return []byte(text), nil
		},
		Apply: func(text []byte) error {
			f.log = append(f.log, fmt.Sprintf("%d: apply %s", f.polls, text))
			if text[0] == '?' {
				return errors.New("bad " + string(text))
			}
			return nil
		},
		Report: func(err error) { f.log = append(f.log, fmt.Sprintf("%d: report %v", f.polls, err)) },
	}
}

func TestWatcherAppliesEachStableContent(t *testing.T) {
	for _, c := range []struct {
		name     string
		contents []string
		want     []string
	}{
		{"the first content counts", []string{"a", "a", "a", "a"}, []string{"2: apply a"}},
		{"a change", []string{"a", "a", "b", "b", "b", "a", "a"}, []string{"2: apply a", "4: apply b", "7: apply a"}},
		{"being written", []string{"a", "a", "b", "bc", "bcd", "bcd"}, []string{"2: apply a", "6: apply bcd"}},
		{"written in place", []string{"a", "a", "?", "b", "b"}, []string{"2: apply a", "5: apply b"}},
		{"never stable", []string{"a", "b", "c", "d", "e"}, nil},
		{"an invalid content is reported once", []string{"a", "a", "?b", "?b", "?b"}, []string{"2: apply a", "4: apply ?b", "4: report bad ?b", "5: apply ?b"}},
		{"invalid, and invalid in another way", []string{"?a", "?a", "?b", "?b"}, []string{"2: apply ?a", "2: report bad ?a", "4: apply ?b", "4: report bad ?b"}},
		{"missing for a moment", []string{"a", "a", "!gone", "a", "a"}, []string{"2: apply a"}},
		{"missing for long", []string{"a", "a", "!gone", "!gone", "!gone", "b", "b"}, []string{"2: apply a", "4: report gone", "7: apply b"}},
		{"two errors", []string{"!gone", "!gone", "!denied", "!denied", "!denied"}, []string{"2: report gone", "4: report denied"}},
	} {
		f := &fakeFile{contents: c.contents}
		w := f.watcher()
		for range c.contents {
			w.Poll()
		}
		require.Equal(t, c.want, f.log, c.name)
	}
}

func TestWatcherEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFile{contents: []string{"a"}}
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		start := time.Now()
		require.Equal(t, context.DeadlineExceeded, f.watcher().Run(ctx, nil))
		require.Equal(t, 9*time.Second, time.Since(start))
		require.Equal(t, 5, f.polls, "at 0, 2, 4, 6 and 8 s")
		require.Equal(t, context.DeadlineExceeded, f.watcher().Run(ctx, nil))

		stop := make(chan struct{})
		time.AfterFunc(3*time.Second, func() { close(stop) })
		start, f.polls = time.Now(), 0
		require.NoError(t, f.watcher().Run(t.Context(), stop))
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, 2, f.polls)
		require.NoError(t, f.watcher().Run(t.Context(), stop))
		require.Equal(t, 2, f.polls, "nothing is read any more")
	})
}
