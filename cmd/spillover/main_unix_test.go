//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The first signal lets requests that were sent end. The second one ends the process at
// once. Nothing that was answered is asked again.
func TestASecondSignalEndsABatchAtOnce(t *testing.T) {
	const requests, answers = 40, 20
	var mu sync.Mutex
	asked, silent := map[string]int{}, true
	stuck := make(chan struct{}, requests)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ User string }
		text, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(text, &body) != nil {
			return
		}
		mu.Lock()
		asked[body.User]++
		hang := silent && len(asked) > answers
		mu.Unlock()
		if hang {
			stuck <- struct{}{}
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"x"}`)
	}))
	t.Cleanup(server.Close) // after the end of the process
	dir := t.TempDir()
	config, in, out := filepath.Join(dir, "spillover.yaml"), filepath.Join(dir, "in"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "backends:\n  - {name: a, url: %q, dialect: openai, api_key: sk-secret}\n", server.URL), 0o666))
	var lines bytes.Buffer
	for i := range requests {
		fmt.Fprintf(&lines, `{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","user":"%d"}}`+"\n", i, i)
	}
	require.NoError(t, os.WriteFile(in, lines.Bytes(), 0o666))
	start := func() (*exec.Cmd, *bufio.Scanner) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "batch", "-config", config, "-in", in, "-out", out, "-grace", "10m")
		cmd.Env = append(os.Environ(), asProgram+"=1")
		errs, err := cmd.StderrPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		return cmd, bufio.NewScanner(errs)
	}
	recorded := func() map[string]bool {
		text, err := os.ReadFile(out)
		require.NoError(t, err)
		ids := map[string]bool{}
		for l := range bytes.Lines(text) {
			var o struct {
				CustomID string `json:"custom_id"`
			}
			require.NoError(t, json.Unmarshal(l, &o))
			ids[o.CustomID] = true
		}
		return ids
	}

	cmd, errs := start()
	<-stuck
	require.Eventually(t, func() bool { return len(recorded()) == answers }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	found := false
	for !found && errs.Scan() {
		found = strings.HasPrefix(errs.Text(), "interrupted: ")
	}
	require.True(t, found)
	require.Contains(t, errs.Text(), "have 10m0s to end; interrupt again to end at once")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.False(t, errs.Scan(), errs.Text())
	require.ErrorContains(t, cmd.Wait(), "interrupt")
	before := recorded()
	require.Len(t, before, answers)

	mu.Lock()
	silent = false
	mu.Unlock()
	cmd, errs = start()
	for errs.Scan() {
	}
	require.NoError(t, cmd.Wait())
	require.Len(t, recorded(), requests)
	for id := range before {
		require.Equal(t, 1, asked[id])
	}
}
