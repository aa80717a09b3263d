//go:build unix

package redis_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// skipVariable is the environment variable that skips the tests with a server.
const skipVariable = "SPILLOVER_SKIP_REDIS"

// deadline is how long a test waits for what must happen. A machine may be busy.
const deadline = 30 * time.Second

// eventually waits until a condition holds.
func eventually(t *testing.T, condition func() bool, what string) {
	t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			require.Fail(t, what)
		}
	}
}

// A server is a redis-server process on a port of its own.
type server struct {
	t    *testing.T
	port int
	args []string
	cmd  *exec.Cmd
	out  *bytes.Buffer
}

// binary is the path of redis-server.
func binary(t *testing.T) string {
	path, err := exec.LookPath("redis-server")
	if err != nil && os.Getenv(skipVariable) != "" {
		t.Skipf("no redis-server, and %s is set", skipVariable)
	}
	require.NoError(t, err, "install redis-server (apt-get install redis-server), or set %s to skip the tests that need it", skipVariable)
	return path
}

// newServer reserves a port; start starts the process. Directives are those of
// redis.conf, one an argument pair.
func newServer(t *testing.T, directives ...string) *server {
	binary(t)
	return &server{t: t, port: freePort(t), args: directives}
}

var ports = struct {
	sync.Mutex
	used map[int]bool
}{used: map[int]bool{}}

// freePort returns a port that no other test of this process was given.
func freePort(t *testing.T) int {
	ports.Lock()
	defer ports.Unlock()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		port := l.Addr().(*net.TCPAddr).Port
		require.NoError(t, l.Close())
		// A cluster uses another port, 10000 above.
		if !ports.used[port] && port+10000 < 65536 {
			ports.used[port] = true
			return port
		}
	}
}

func started(t *testing.T, directives ...string) *server {
	s := newServer(t, directives...)
	s.start()
	return s
}

// start starts the process and waits until it accepts connections.
func (s *server) start() {
	args := append([]string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--save", "", "--dir", s.t.TempDir()}, s.args...)
	s.run(args...)
}

func (s *server) run(args ...string) {
	s.out = new(bytes.Buffer)
	s.cmd = exec.Command(binary(s.t), args...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = serverAttributes
	require.NoError(s.t, s.cmd.Start())
	cmd := s.cmd
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(s.t, func() bool {
		c, err := net.Dial("tcp", s.addr())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, "redis-server does not listen")
}

func (s *server) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

func (s *server) url() string { return "redis://" + s.addr() }

func (s *server) signal(signal syscall.Signal) { require.NoError(s.t, s.cmd.Process.Signal(signal)) }

// kill ends the process as a crash would.
func (s *server) kill() {
	s.signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
}

// client is a client for looking at the server.
func (s *server) client() *goredis.Client {
	c := goredis.NewClient(&goredis.Options{Addr: s.addr()})
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// do runs a command on the server.
func (s *server) do(args ...any) any {
	reply, err := s.client().Do(context.Background(), args...).Result()
	require.NoError(s.t, err, "%v", args)
	return reply
}

// certificates writes a certificate authority, and a certificate and key of 127.0.0.1.
func certificates(t *testing.T) (dir string) {
	dir = t.TempDir()
	authority, server := newCertificates(t)
	for name, content := range map[string][]byte{"ca.pem": authority, "cert.pem": server.certificate, "key.pem": server.key} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return dir
}

func notice(kind, place string, left time.Duration) []byte {
	return fmt.Appendf(nil, `{"v":1,"k":%q,"p":%q,"f":"0123abcd","l":%d,"a":3}`, kind, place, left.Milliseconds())
}
