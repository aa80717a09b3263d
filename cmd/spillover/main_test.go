package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asProgram is the variable that makes the test the program itself.
const asProgram = "SPILLOVER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// The first signal lets a response finish, the second one ends the process at once.
func TestSecondSignalEndsTheProcess(t *testing.T) {
	released := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"first\"}}]}\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-released:
		case <-r.Context().Done():
		}
	}))
	defer backend.Close()
	defer close(released)
	config := filepath.Join(t.TempDir(), "spillover.yaml")
	require.NoError(t, os.WriteFile(config, []byte("backends: [{name: b, url: '"+backend.URL+"/v1', dialect: openai, api_key: k}]"), 0o600))
	program := exec.CommandContext(t.Context(), os.Args[0], "serve", "-config", config, "-listen", "127.0.0.1:0", "-log", "json")
	program.Env = append(os.Environ(), asProgram+"=1")
	output, err := program.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, program.Start())
	records := bufio.NewScanner(output)
	await := func(message string) (record struct{ Msg, Address string }) {
		for records.Scan() {
			record.Msg = ""
			if json.Unmarshal(records.Bytes(), &record) == nil && record.Msg == message {
				return record
			}
		}
		require.Fail(t, "no such record", message)
		return record
	}
	address := await("listening").Address
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/v1/chat/completions", strings.NewReader(`{"model":"m","stream":true}`))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, program.Process.Signal(syscall.SIGTERM))
	await("shutting down")
	// Signals are reset a moment after the record: the second one is repeated until then.
	ended := make(chan error, 1)
	go func() { _, _ = io.Copy(io.Discard, output); ended <- program.Wait() }()
	for late := time.After(20 * time.Second); ; {
		_ = program.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			exit, ok := err.(*exec.ExitError)
			require.True(t, ok, err)
			require.Equal(t, syscall.SIGTERM, exit.Sys().(syscall.WaitStatus).Signal())
			_, err = io.ReadAll(resp.Body)
			require.Error(t, err, "the response is not complete")
			return
		case <-late:
			require.Fail(t, "the program still runs")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
