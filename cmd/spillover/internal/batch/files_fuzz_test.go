package batch

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// Whatever the files of an earlier run contain, they are refused or continued: then each
// line is counted once, and answers are only cut off at the end. Another run finds the same.
func FuzzJournal(f *testing.F) {
	input := bytes.Repeat([]byte("{}\n"), 100)
	header := func(errors bool) string {
		return fmt.Sprintf(`{"spillover_batch":1,"input":{"bytes":300,"sha256":"%x"},"part":"1/1","errors_file":%v}`+"\n", sha256.Sum256(input), errors)
	}
	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{{URL: "https://a.example", APIKey: "k"}}})
	require.NoError(f, err)
	f.Cleanup(func() { lb.Close() })
	answer := `{"id":"batch_req_7","response":{"status_code":200}}` + "\n"
	for _, records := range []string{
		"", `{"answered":[7],"output":52}` + "\n", `{"answered":[1,1],"output":0}` + "\n", `{"failed":[100],"answered":[0],"output":0}` + "\n",
		`{"answered":[2],"output":-1}` + "\n", `{"answered":[3],"failed":[3],"output":0,"errors":9}` + "\n" + "\x00\x00", `{"answered":[4],"output":0}`,
	} {
		f.Add([]byte(header(true)+records), []byte(answer+answer), []byte(`{"id":"batch_req_8"}`+"\n{"), true)
		f.Add([]byte(header(false)+records), []byte(answer+`{"id":"batch_req_101"}`+"\n"), []byte{}, false)
	}
	f.Add([]byte("{}\n"), []byte{}, []byte{}, false)
	f.Add([]byte(`{"spilloverbatch`), []byte{}, []byte{}, false)
	f.Fuzz(func(t *testing.T, log, output, failures []byte, split bool) {
		dir := t.TempDir()
		o := Options{Input: filepath.Join(dir, "in"), Output: filepath.Join(dir, "out"), Transport: lb, sync: func(*os.File) error { return nil }}
		require.NoError(t, os.WriteFile(o.Input, input, 0o600))
		require.NoError(t, os.WriteFile(o.Output+JournalSuffix, log, 0o600))
		require.NoError(t, os.WriteFile(o.Output, output, 0o600))
		if split {
			o.Errors = filepath.Join(dir, "err")
			require.NoError(t, os.WriteFile(o.Errors, failures, 0o600))
		}
		batch, err := Open(t.Context(), o)
		if err != nil {
			return
		}
		j := batch.journal
		var known int
		for _, word := range j.known.bits {
			known += bits.OnesCount64(word)
		}
		require.EqualValues(t, known, j.answered)
		require.LessOrEqual(t, j.failed, j.answered)
		batch.Close()
		left, err := os.ReadFile(o.Output)
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(output, left))

		batch, err = Open(t.Context(), o)
		require.NoError(t, err)
		defer batch.Close()
		again := batch.journal
		require.Equal(t, []int64{j.answered, j.failed, 0, 0}, []int64{again.answered, again.failed, again.recovered, again.cut})
		require.Equal(t, j.known, again.known)
	})
}

// The lines of an input, read in parts, are the lines that were counted.
func FuzzInput(f *testing.F) {
	for _, s := range []string{"", "\n", "a\nb", "\xef\xbb\xbf\n{}\r\n \t\n{}", "\xef\xbb\xbf", "long line\nx\n\n\ny"} {
		f.Add([]byte(s), "1/1", uint8(4))
		f.Add([]byte(s), "2/3", uint8(200))
	}
	f.Add([]byte("a\nb\nc"), "1/99999999999999999999", uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, name string, most uint8) {
		part, err := ParsePart(name)
		if err != nil || checkFormat(text) != nil {
			return
		}
		again, err := ParsePart(part.String())
		require.NoError(t, err)
		require.Equal(t, part, again)
		id, lines, requests, err := scanInput(t.Context(), bytes.NewReader(text), part)
		require.NoError(t, err)
		require.EqualValues(t, len(text), id.Bytes)
		r := newLineReader(bytes.NewReader(text), part, int(most))
		var found, last int64
		for {
			number, line, err := r.next(func(int64) bool { return true })
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			require.True(t, part.has(number) && number > last && number <= lines)
			require.LessOrEqual(t, len(line), int(most))
			require.True(t, line == nil || bytes.Contains(text, line))
			last = number
			found++
		}
		require.Equal(t, requests, found)
	})
}
