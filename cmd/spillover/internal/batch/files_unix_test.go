//go:build unix

package batch_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

// A pipe that nobody writes to is refused instead of waited for.
func TestAPipeIsRefused(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	lb := transport(t, answering(200, fine))
	_, err := batch.Open(t.Context(), batch.Options{Input: pipe, Output: filepath.Join(dir, "out"), Transport: lb})
	require.ErrorContains(t, err, "not a regular file")
	_, err = batch.Open(t.Context(), batch.Options{Input: writeInput(t, 1, hello), Output: pipe, Transport: lb})
	require.ErrorContains(t, err, "not a regular file")
}

// The files of a directory that cannot be written to are named.
func TestADirectoryWithoutPermissionIsRefused(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500))
	out := filepath.Join(dir, "out")
	_, err := batch.Open(t.Context(), batch.Options{Input: writeInput(t, 1, hello), Output: out, Transport: transport(t, answering(200, fine))})
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, out)
}
