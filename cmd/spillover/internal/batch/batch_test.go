package batch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// writeInput writes n requests with the same body.
func writeInput(t testing.TB, n int, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "requests.jsonl")
	f, err := os.Create(path)
	require.NoError(t, err)
	for i := range n {
		fmt.Fprintf(f, `{"custom_id":"r%d","method":"POST","url":"/v1/chat/completions","body":%s}`+"\n", i+1, body)
	}
	require.NoError(t, f.Close())
	return path
}
