package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
)

// build compiles the program.
func build(t *testing.T) (path string) {
	path = filepath.Join(t.TempDir(), "example")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// docs/fleet.md shows the command and what it prints.
func TestProcessAvoidsWhatRefusedAnother(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil && os.Getenv("SPILLOVER_SKIP_REDIS") != "" {
		t.Skip("no redis-server, and SPILLOVER_SKIP_REDIS is set")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, build(t))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s", &errs)
	require.Empty(t, errs.String())
	doctest.Section(t, "../../../docs/fleet.md", "example", "```\n$ go run ./fleet/redis/example\n"+string(out)+"```\n")
}

func TestWithoutRedisServerItSaysHowToInstallOne(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), build(t))
	cmd.Env = []string{"PATH=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Equal(t, install, strings.TrimSpace(string(out)))
}
