//go:build unix

package spillover

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// What would be waited for, or has no end, is not read.
func TestLoadPipesAndDevices(t *testing.T) {
	for _, device := range []string{"/dev/null", "/dev/zero"} {
		_, err := Load(device)
		require.EqualError(t, err, device+": is not a regular file")
	}

	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	_, err := Load(pipe)
	require.EqualError(t, err, pipe+": is not a regular file")

	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	_, err = Load(socket)
	require.EqualError(t, err, socket+": is not a regular file")
}
