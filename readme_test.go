package spillover_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
)

// The README is short: at most 900 words, without code, comments and addresses. Tables
// count.
func TestREADMEIsShort(t *testing.T) {
	words := 0
	for word := range strings.FieldsSeq(proseOf(readme(t))) {
		if strings.ContainsFunc(word, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			words++
		}
	}
	require.Greater(t, words, 300)
	require.LessOrEqual(t, words, 900)
}

func TestProseOf(t *testing.T) {
	require.Equal(t, "One two\n\n\nthree  | four", proseOf("One [two](https://x.example/a)\n```go\ncode\n```\n![ ](a.svg)\nthree <!-- no\n --> | [![](b)](c)four"))
}

// proseOf is a document without what nobody reads as a text: blocks of code, comments
// and addresses.
func proseOf(text string) string {
	for _, what := range []struct{ pattern, replacement string }{
		{"(?ms)^```.*?^```$\n?", "\n"},
		{`(?s)<!--.*?-->`, ""},
		{`!\[[^\]]*\]\([^)]*\)`, ""},
		{`\[([^\]]*)\]\([^)]*\)`, "$1"},
	} {
		text = regexp.MustCompile(what.pattern).ReplaceAllString(text, what.replacement)
	}
	return text
}

// What the README quotes of the example is what the example prints.
func TestExampleInDocs(t *testing.T) {
	output, err := os.ReadFile("example/testdata/output.txt")
	require.NoError(t, err)
	doctest.Section(t, "README.md", "example", "```\n"+strings.TrimRight(string(output), "\n")+"\n```\n")
}

// What the README says of the module is what go.mod says, and its badges are of files
// that exist.
func TestREADMENamesTheModule(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	module := regexp.MustCompile(`(?m)^module (\S+)$`).FindStringSubmatch(string(mod))[1]
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(mod))[1]
	text := readme(t)
	require.Contains(t, text, "```sh\ngo get "+module+"\n```")
	require.Contains(t, text, "needs Go "+version+" or later")
	require.Contains(t, text, "https://pkg.go.dev/badge/"+module+".svg")
	workflow := regexp.MustCompile(module + `/actions/workflows/([a-z]+\.yml)/badge\.svg`).FindStringSubmatch(text)
	require.NotNil(t, workflow)
	require.FileExists(t, ".github/workflows/"+workflow[1])
}

// Whoever cannot see the README's picture reads the same figures.
func TestREADMEPictureInWords(t *testing.T) {
	picture := regexp.MustCompile(`!\[([^\]]+)\]\((docs/[a-z-]+\.svg)\)`).FindStringSubmatch(readme(t))
	require.NotNil(t, picture)
	svg, err := os.ReadFile(picture[2])
	require.NoError(t, err)
	_, words, ok := strings.Cut(picture[1], "load.") // the sentence before is the cell
	require.True(t, ok)
	for _, figure := range regexp.MustCompile(`\d+`).FindAllString(strings.ReplaceAll(words, "per 100 served", ""), -1) {
		require.Regexp(t, ">"+figure+"( %)?</text>", string(svg))
	}
}

// Documents link to files and headings that exist.
func TestLinksInDocs(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "*/README.md", "*/*/README.md"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, found, pattern)
		files = append(files, found...)
	}
	links := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(string(text), -1) {
			path, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(path, "://") || strings.HasPrefix(path, "mailto:") {
				continue
			}
			links++
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), filepath.FromSlash(path))
			}
			_, err := os.Stat(target)
			require.NoError(t, err, "%s links to %s", file, link[1])
			if anchor != "" {
				require.Contains(t, anchors(t, target), anchor, "%s links to %s", file, link[1])
			}
		}
	}
	require.Greater(t, links, 100)
}

// anchors are those of a document's headings, as GitHub makes them.
func anchors(t testing.TB, file string) (all []string) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	text = regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAll(text, nil)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(text), -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}\- _]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

func readme(t testing.TB) string {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return string(text)
}
