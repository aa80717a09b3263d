//go:build unix

package configfile_test

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/stretchr/testify/require"
)

// What would block, or has no end, is not read.
func TestReadRefusesPipesAndDevices(t *testing.T) {
	dir := t.TempDir()
	pipe, socket := filepath.Join(dir, "pipe"), filepath.Join(dir, "socket")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	for _, path := range []string{"/dev/null", "/dev/zero", pipe, socket} {
		_, err := configfile.Read(path, configfile.MaxSize)
		require.EqualError(t, err, "is not a regular file", path)
	}
}
