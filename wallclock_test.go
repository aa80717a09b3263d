package spillover_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// wallClock are the files that use the wall clock, which may jump, and what a jump does.
// All other times have a monotonic reading, which a jump does not change: those of
// time.Now, and what is added to them.
var wallClock = map[string]string{
	"retryafter.go":          "a date in Retry-After is compared with the Date of the response. Without one a cool-down is shorter, or longer up to MaxCooldown",
	"replica.go":             "notices are counted by second: another second begins, so a few more of them are read",
	"entra/entra.go":         "a token is fetched again too early after a jump forward; a jump back changes nothing, as the monotonic clock counts, too",
	"internal/configfile":    "a file is compared with itself a moment earlier: a time of modification that differs, in any direction, is a change",
	"statuspage":             "times are shown as they were: the page shows a jump. Samples are found by their order",
	"example/trace.go":       "reads times of a trace",
	"spillovertest":          "shows the time at which a response was created",
	"cmd/spillover/internal": "the input of a batch must have the time of modification that it had at the start",
}

func TestWallClockIsUsedOnlyWhereAJumpIsHarmless(t *testing.T) {
	uses := regexp.MustCompile(`\.Unix(Nano|Milli|Micro)?\(|time\.Unix|\.Round\(0\)|http\.ParseTime|time\.Parse\(|\.ModTime\(|time\.Date\(|\.(GobEncode|MarshalJSON)\(`)
	found := map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		name := filepath.ToSlash(path)
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name == "benchmarks" || name == "interop" || name == "internal/walljump" || entry.Name() == "node_modules" || len(name) > 1 && strings.HasPrefix(entry.Name(), ".")):
			return filepath.SkipDir
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil && uses.Match(text) {
			known := false
			for file := range wallClock {
				if name == file || strings.HasPrefix(name, file+"/") {
					known, found[file] = true, true
				}
			}
			require.True(t, known, "%s uses the wall clock (%s): say in wallClock what a jump does", name, uses.Find(text))
		}
		return err
	}))
	for file := range wallClock {
		require.True(t, found[file], "%s does not use the wall clock any more", file)
	}
}
