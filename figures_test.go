package spillover_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A measured number in README.md and docs comes from a file that a command writes. It is
//
//   - in a part that a test generates, between <!-- name: begin --> and <!-- name: end -->, or
//   - in a paragraph below a line such as
//     <!-- from: benchmarks/lab/REPORT.md "wasted attempts, M = 64, ρ = 0.9" "… with the utilization header" -->
//     which names the file and a text of each line that has the numbers. A text that occurs
//     more often means the next place. Rounded as in the paragraph, each number must be one
//
// of those in the lines, or be listed in constants. Goals in these lines do not count.
//
// Tables and fences of output are paragraphs, too. A fence whose language is one of
// codeLanguages is code, whose numbers are settings and examples.
func TestFiguresComeFromFiles(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	more, err := filepath.Glob("docs/*/*.md")
	require.NoError(t, err)
	used := map[string]bool{}
	for _, page := range append(append(pages, more...), "README.md") {
		if generatedPages[page] {
			continue
		}
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		var above string // a table or a list cannot follow a comment at once
		for _, p := range paragraphs(string(text)) {
			if strings.HasPrefix(strings.TrimSpace(p), "<!-- from:") && !strings.Contains(strings.TrimSpace(p), "\n") {
				above = p
				continue
			}
			known := fromLines(t, page, above+p)
			above = ""
			for _, figure := range figures(p) {
				switch {
				case known.has(figure):
				case constants[page][figure] != "":
					used[page+figure] = true
				default:
					t.Errorf("%s: %q comes from no file. Write <!-- from: FILE \"LINE\" --> above the paragraph, or list it in constants:\n%s", page, figure, p)
				}
			}
		}
	}
	for page, all := range constants {
		for figure := range all {
			require.True(t, used[page+figure], "%s has no %q any more", page, figure)
		}
	}
}

// generatedPages are those that are written as a whole by a test.
var generatedPages = map[string]bool{"docs/tunables.md": true}

// constants are numbers that nobody has measured, with what they are.
var constants = map[string]map[string]string{
	"README.md":          {"1.0": "a version"},
	"docs/comparison.md": {"2.0": "a version"},
	"docs/routing.md":    {"10 %": "a fifth of health.backgroundBelow"},
	"docs/security.md":   {"8 of 256": "8 is a bound per deployment, 256 is maxKnownPath"},
	"docs/operating.md":  {"100 %": "a full PTU"},
	"docs/statuspage.md": {"100 %": "a full PTU", "0.73": "an example of the format"},
}

var (
	fenced    = regexp.MustCompile("(?ms)^[ ]*```.*?^[ ]*```[^\n]*$")
	generated = regexp.MustCompile(`(?s)<!-- ([a-z ]+): begin -->.*?<!-- [a-z ]+: end -->`)
	unmarked  = regexp.MustCompile("(?s)`[^`]*`|\\]\\([^)]*\\)|https?://[^\\s)>]+|<!-- (?:from|go): .*? -->")
	source    = regexp.MustCompile(`<!-- from: (\S+) ((?:"[^"]+" ?)+)-->`)
	// A number with a fraction, a share, a ratio, a count of allocations, or a time that is
	// too short to be a setting.
	figure = regexp.MustCompile(`\d+(?:\.\d+)?(?:\s(?:to|and|or)\s\d+(?:\.\d+)?)?\s(?:%|µs|ns|times|thousand|allocations?|refusals|refused attempts)|\d+ of \d+|\d+\.\d+|\d+(?:\.\d+)?%`)
	goal   = regexp.MustCompile(`[≤≥] \d+(?:\.\d+)?`)
	shares = regexp.MustCompile(`(%|refusals|refused attempts)$`)
	number = regexp.MustCompile(`\d+(?:\.\d+)?`)
	// Not measured: a version, or an address.
	version = regexp.MustCompile(`v?\d+\.\d+\.[\dx]+\S*|\bv\d+\.\d+|\b(?:Go|TLS|HTTP|[Vv]ersion)[ /]\d+\.\d+\b`)
)

// codeLanguages are those of fences that show code or configuration. Others, and fences
// without a language, show what a command prints.
var codeLanguages = []string{"go", "yaml", "json", "jsonl", "sh", "bash", "python", "js", "ts", "java", "csharp", "html", "mermaid", "diff", "nginx", "kql", "promql"}

// paragraphs are the parts of a page that are not code and not generated. A fence of
// output is one, without the marks.
func paragraphs(page string) (all []string) {
	page = generated.ReplaceAllString(page, "")
	for {
		at := fenced.FindStringIndex(page)
		if at == nil {
			return append(all, strings.Split(page, "\n\n")...)
		}
		before, fence := page[:at[0]], strings.TrimSpace(page[at[0]:at[1]])
		page = page[at[1]:]
		all = append(all, strings.Split(strings.TrimRight(before, "\n"), "\n\n")...)
		if first, rest, _ := strings.Cut(fence, "\n"); !slices.Contains(codeLanguages, strings.TrimPrefix(first, "```")) {
			all = append(all, strings.ReplaceAll(strings.TrimRight(rest, "`"), "`", ""))
		}
	}
}

func TestFiguresAreFoundInTablesAndOutput(t *testing.T) {
	page := "A table:\n\n| time | 12.5 |\n|---|---|\n\n<!-- from: FILE \"x\" -->\n\n```console\n$ command\n\n30 % of it\n```\n\n```yaml\nweight: 0.7\n```\n\n```\nin 3.21s\n```\n"
	var found []string
	for _, p := range paragraphs(page) {
		found = append(found, figures(p)...)
	}
	require.Equal(t, []string{"12.5", "30 %", "3.21"}, found)
}

// figures are the measured numbers in a paragraph, as they are written.
func figures(paragraph string) (found []string) {
	text := unmarked.ReplaceAllString(paragraph, "")
	text = version.ReplaceAllString(text, "")
	for _, m := range figure.FindAllString(text, -1) {
		found = append(found, strings.Join(strings.Fields(m), " "))
	}
	return found
}

// quoted are the numbers in the lines that a paragraph is from.
type quoted []float64

func fromLines(t *testing.T, page, paragraph string) (all quoted) {
	for _, m := range source.FindAllStringSubmatch(paragraph, -1) {
		file, err := os.ReadFile(m[1])
		require.NoError(t, err, page)
		whole := string(file)
		rest := whole
		for _, want := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(m[2], -1) {
			_, after, ok := strings.Cut(rest, want[1])
			if !ok {
				_, after, ok = strings.Cut(whole, want[1])
			}
			require.True(t, ok, "%s: %s has no line %q", page, m[1], want[1])
			line, below, _ := strings.Cut(after, "\n")
			rest = below
			for _, n := range number.FindAllString(want[1]+goal.ReplaceAllString(line, ""), -1) {
				v, err := strconv.ParseFloat(n, 64)
				require.NoError(t, err)
				if strings.Contains(line, "| thousandths |") {
					v /= 1000
				}
				all = append(all, v)
			}
		}
	}
	return all
}

// has reports whether each number of a figure is one of those, rounded to as many digits
// as it has. 0.41 may be written as 41 %, or as 41 refusals of 100 requests.
func (all quoted) has(figure string) bool {
	for _, n := range number.FindAllString(figure, -1) {
		_, fraction, _ := strings.Cut(n, ".")
		found := false
		for _, v := range all {
			found = found || strconv.FormatFloat(v, 'f', len(fraction), 64) == n ||
				shares.MatchString(figure) && strconv.FormatFloat(100*v, 'f', len(fraction), 64) == n
		}
		if !found {
			return false
		}
	}
	return true
}

// What the table of tunables says was measured is in the reports of the laboratory.
func TestMeasuredTunablesAreInReports(t *testing.T) {
	reports, err := filepath.Glob("benchmarks/lab/*.md")
	require.NoError(t, err)
	have := map[string]bool{}
	for _, report := range reports {
		text, err := os.ReadFile(report)
		require.NoError(t, err)
		for _, n := range number.FindAllString(string(text), -1) {
			have[n] = true
		}
	}
	page, err := os.ReadFile("docs/tunables.md")
	require.NoError(t, err)
	rows := 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 6 || !strings.HasPrefix(line, "| `") || cells[5] == "not measured" {
			continue
		}
		rows++
		for _, n := range regexp.MustCompile(`\d+\.\d+`).FindAllString(version.ReplaceAllString(cells[5], ""), -1) {
			require.True(t, have[n], "%s: no report of the laboratory has %s", cells[0], n)
		}
	}
	require.Greater(t, rows, 10)
}
