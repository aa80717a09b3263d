// Package doctest keeps the generated parts of documents equal to the code that
// they describe. It is for tests only.
package doctest

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Update makes the tests write the documents instead of comparing them:
// go test ./... -run InDocs -update.
var Update = flag.Bool("update", false, "write the generated parts of the documents")

// Section requires that the part of a file between the markers
// <!-- name: begin --> and <!-- name: end --> is the given text.
func Section(t *testing.T, file, name, text string) {
	t.Helper()
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	page, err := os.ReadFile(file)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(page), begin)
	require.True(t, ok, "%s has lost the marker %s", file, begin)
	written, tail, ok := strings.Cut(rest, end)
	require.True(t, ok, "%s has lost the marker %s", file, end)
	if *Update {
		require.NoError(t, os.WriteFile(file, []byte(head+begin+text+end+tail), 0o644))
		return
	}
	require.Equal(t, text, written, "%s is out of date: go test -run %s -update", file, t.Name())
}

// File requires that a whole file is the given text.
func File(t *testing.T, file, text string) {
	t.Helper()
	if *Update {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		return
	}
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, text, string(written), "%s is out of date: go test -run %s -update", file, t.Name())
}
