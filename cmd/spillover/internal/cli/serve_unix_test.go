//go:build unix

package cli_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

// here is a configuration of a backend that answers "here".
func here(t *testing.T) (config string) {
	return backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") })
}

// askSocket sends a request to a socket of the file system.
func askSocket(t *testing.T, path string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(text)
}

func TestServeListensOnAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, here(t), "-listen", "unix:"+path)
	require.Equal(t, "here", askSocket(t, path))
}

// A process that was killed leaves its socket behind, on which nobody listens.
func TestServeReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	killed, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	require.NoError(t, err)
	killed.SetUnlinkOnClose(false)
	require.NoError(t, killed.Close())
	require.FileExists(t, path)
	s := serve(t, here(t), "-listen", "unix:"+path)
	require.Equal(t, "here", askSocket(t, path))
	s.stop()
	require.Equal(t, 0, s.exitCode())
	require.NoFileExists(t, path)
}

// What is not a stale socket stays, and serve does not start.
func TestServeReplacesNothingElse(t *testing.T) {
	config := file(t, "spillover.yaml", here(t))
	dir := t.TempDir()
	live := filepath.Join(dir, "live")
	listener, err := net.Listen("unix", live)
	require.NoError(t, err)
	defer listener.Close()
	plain, folder, link, pipe, datagram := filepath.Join(dir, "plain"), filepath.Join(dir, "folder"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe"), filepath.Join(dir, "datagram")
	require.NoError(t, os.WriteFile(plain, []byte("content"), 0o600))
	require.NoError(t, os.Mkdir(folder, 0o700))
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "stale")})
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	require.NoError(t, os.Symlink(filepath.Join(dir, "stale"), link))
	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: datagram, Net: "unixgram"})
	require.NoError(t, err)
	defer packets.Close()
	for _, path := range []string{live, plain, folder, link, pipe, datagram} {
		before, err := os.Lstat(path)
		require.NoError(t, err)
		code, _, errs := run(t, "serve", "-config", config, "-listen", "unix:"+path)
		require.Equal(t, 2, code, path)
		require.Contains(t, errs, "-listen unix:"+path+": ", path)
		now, err := os.Lstat(path)
		require.NoError(t, err, path)
		require.True(t, os.SameFile(before, now), path)
	}
	text, err := os.ReadFile(plain)
	require.NoError(t, err)
	require.Equal(t, "content", string(text))
	conn, err := net.Dial("unix", live)
	require.NoError(t, err)
	conn.Close()
}

func TestServeReloadsOnHangup(t *testing.T) {
	_, sum := keys.New()
	s := serve(t, backend(t, func(http.ResponseWriter, *http.Request) {}), "-keys", file(t, "keys.yaml", "keys: [{name: a, sha256: "+sum+"}]"))
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	s.records.await(t, "configuration reloaded") // although nothing has changed
	s.records.await(t, "keys reloaded")
}
