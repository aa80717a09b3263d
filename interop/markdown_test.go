package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// documents are what users read, by their paths from the root.
func documents(t *testing.T) (paths []string) {
	for _, pattern := range []string{"README.md", "CHANGELOG.md", "docs/*.md"} {
		found, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(pattern)))
		require.NoError(t, err)
		for _, path := range found {
			paths = append(paths, filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator))))
		}
	}
	return paths
}

// A block is a fenced block of a document.
type block struct {
	file     string
	line     int    // where its text begins
	language string // after the fence
	text     string
	given    []line // from the comments <!-- go: … --> right before it
}

type line struct {
	number int
	text   string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

// blocks are those of a document in a language, such as "go" or "yaml".
func blocks(t *testing.T, file, language string) []block {
	text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(file)))
	require.NoError(t, err)
	return slices.DeleteFunc(cutBlocks(file, string(text)), func(b block) bool { return b.language != language })
}

func cutBlocks(file, text string) (all []block) {
	const fence, begin, end = "```", "<!-- go:", "-->"
	var given []line
	inside := false
	for i, full := range strings.SplitAfter(text, "\n") {
		number, trimmed := i+1, strings.TrimSpace(full)
		switch {
		case inside && trimmed == fence:
			inside = false
		case inside:
			all[len(all)-1].text += full
		case strings.HasPrefix(trimmed, fence):
			inside = true
			all = append(all, block{file: file, line: number + 1, language: strings.TrimPrefix(trimmed, fence), given: given})
			given = nil
		case strings.HasPrefix(trimmed, begin) && strings.HasSuffix(trimmed, end):
			given = append(given, line{number, strings.TrimSuffix(strings.TrimPrefix(trimmed, begin), end)})
		case trimmed != "":
			given = nil
		}
	}
	return all
}

func TestBlocks(t *testing.T) {
	found := cutBlocks("a.md", "text\n```go\nx\n\ny\n```\n<!-- go: import a -->\n<!-- go: var b int -->\n\n```yaml\nz: 1\n```\n<!-- go: lost -->\ntext\n```\n```")
	require.Equal(t, []block{
		{file: "a.md", line: 3, language: "go", text: "x\n\ny\n"},
		{file: "a.md", line: 11, language: "yaml", text: "z: 1\n", given: []line{{7, " import a "}, {8, " var b int "}}},
		{file: "a.md", line: 16},
	}, found)
	require.Equal(t, "a.md:3", found[0].String())
}
