package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
)

const docs = "../../../../docs"

// page is the page of a command.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docs, "cli", name+".md"))
	require.NoError(t, err)
	return string(text)
}

func TestCommandsInDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString("| command | |\n|---|---|\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "| [`spillover %s`](cli/%s.md) | %s |\n", c.Name, c.Name, c.Usage)
		require.True(t, strings.HasPrefix(page(t, c.Name), "# spillover "+c.Name+"\n"), c.Name)
	}
	doctest.Section(t, filepath.Join(docs, "cli.md"), "commands", b.String())
	pages, err := filepath.Glob(filepath.Join(docs, "cli", "*.md"))
	require.NoError(t, err)
	require.Len(t, pages, len(commands()), "a page for each command, and no other")
}

// Every flag is in the table of its command's page, and every flag there exists.
func TestFlagsInDocs(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `-([a-z0-9-]+)")
	for _, c := range commands() {
		flags := []string{}
		for _, f := range c.Flags {
			require.NotEmpty(t, f.Names()[0])
			flags = append(flags, f.Names()[0])
		}
		listed := []string{}
		for _, m := range row.FindAllStringSubmatch(page(t, c.Name), -1) {
			listed = append(listed, m[1])
		}
		require.ElementsMatch(t, flags, listed, "docs/cli/%s.md", c.Name)
	}
}

// The page and the help of a command say what its exit codes mean.
func TestExitCodesInDocs(t *testing.T) {
	for _, c := range commands() {
		require.NotEmpty(t, c.Usage, c.Name)
		require.NotEmpty(t, c.Description, c.Name)
		require.Contains(t, strings.ToLower(page(t, c.Name)), "exit code", c.Name)
	}
}
