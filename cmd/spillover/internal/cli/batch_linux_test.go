package cli_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/spillover-go/spillover/cmd/spillover/internal/cli"
	"github.com/spillover-go/spillover/spillovertest"
)

// newTerminal is a terminal of some columns. What is written to tty is read from screen.
func newTerminal(t *testing.T, columns uint16) (screen, tty *os.File) {
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo terminals: ", err)
	}
	t.Cleanup(func() { screen.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { tty.Close() })
	require.NoError(t, unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}))
	return screen, tty
}

// The bar stays in its line, also in a narrow one.
func TestTheBarOfABatchFitsTheTerminal(t *testing.T) {
	screen, tty := newTerminal(t, 60)
	server := spillovertest.NewServer(spillovertest.Config{Name: "a-deployment", Dialect: spillovertest.OpenAI, Deployments: []spillovertest.Deployment{
		{Name: "gpt-4o", Latency: spillovertest.Latency{FirstToken: time.Second}}}})
	t.Cleanup(server.Close)
	config, in, out := batchFiles(t, 20, server)
	var shown syncBuffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := screen.Read(buffer)
			shown.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	code := cli.Run(t.Context(), []string{"spillover", "batch", "-config", config, "-in", in, "-out", out}, cli.Streams{In: strings.NewReader(""), Out: tty, Err: tty})
	require.Equal(t, 0, code)
	require.NoError(t, tty.Close())
	<-read
	bars := 0
	for _, line := range strings.FieldsFunc(shown.String(), func(r rune) bool { return r == '\r' || r == '\n' }) {
		if strings.Contains(line, "/20) ") && strings.Contains(line, "in flight") {
			require.LessOrEqual(t, utf8.RuneCountInString(line), 60, line)
			bars++
		}
	}
	require.Positive(t, bars, shown.String())
	require.Contains(t, shown.String(), "20 of 20 answered (100.0 %), 0 failed\r\n")
}
