package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every patch of ablations still applies, and says what its mechanism buys.
func TestAblations(t *testing.T) {
	const root = "../.."
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		t.Skip("not in a checkout of the repository:", err) // git would apply nothing, and be content
	}
	patches, err := filepath.Glob("ablations/*.patch")
	require.NoError(t, err)
	require.NotEmpty(t, patches)
	for _, path := range patches {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".patch"), func(t *testing.T) {
			patch, err := os.ReadFile(path)
			require.NoError(t, err)
			sentence, _, _ := strings.Cut(string(patch), "\n")
			require.True(t, strings.HasSuffix(sentence, "."), "the first line is %q", sentence)

			check := exec.Command("git", "apply", "--check", "-")
			check.Dir, check.Stdin = root, strings.NewReader(string(patch))
			out, err := check.CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}
