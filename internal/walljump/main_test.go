package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The time.Now of this version of Go can be changed.
func TestOverlayHasAnotherTimeNow(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, write(dir))
	text, err := os.ReadFile(filepath.Join(dir, "overlay.json"))
	require.NoError(t, err)
	var overlay struct{ Replace map[string]string }
	require.NoError(t, json.Unmarshal(text, &overlay))
	require.Len(t, overlay.Replace, 2)
	for _, file := range overlay.Replace {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Contains(t, string(source), "wallClockJump")
	}
}
