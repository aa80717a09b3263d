package spillover

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/spillover-go/spillover/internal/health"
)

// The table of what fails over in docs/failover.md says what judge decides, and its
// times are those of the ejections.
func TestDocsSayWhatFailsOver(t *testing.T) {
	type response struct {
		status int
		header string
		body   string
	}
	const serviceError = `{"error":{"code":"server_error","message":"x"}}`
	retryAfter := "Retry-After: 7"
	rows := map[string]struct {
		responses []response
		verdict   verdict
		cause     health.Cause
	}{
		"2xx, 3xx":                   {[]response{{status: 200}, {status: 206}, {status: 302}}, served, 0},
		"429 (rate limit)":           {[]response{{status: 429}, {429, retryAfter, ""}}, throttled, 0},
		"429 out of quota or credit": {[]response{{429, "", `{"error":{"code":"insufficient_quota"}}`}}, failed, health.OutOfQuota},
		"429, 413 request larger than the limit": {[]response{
			{429, "", `{"error":{"code":"rate_limit_exceeded","message":"Request too large for gpt-4o"}}`},
			{413, "", `{"error":{"message":"Request too large"}}`},
		}, declined, 0},
		"5xx with `Retry-After`":      {[]response{{500, retryAfter, ""}, {503, retryAfter, serviceError}}, failed, health.ServerFailure},
		"5xx without":                 {[]response{{500, "", serviceError}, {status: 502}, {status: 503}, {status: 504}}, failed, health.ServerFailure},
		"408; 409 with `Retry-After`": {[]response{{status: 408}, {409, retryAfter, ""}}, declined, 0},
		"401, 403, 404 for the deployment or the operation": {[]response{
			{401, "", serviceError}, {403, "", serviceError}, {404, "", serviceError}, {404, "", `{"error":{"code":"DeploymentNotFound"}}`},
		}, failed, health.Misconfigured},
		"403, 404 of a firewall or gateway (HTML)": {[]response{{403, "", "<html>"}, {404, "", "<html>"}}, failed, health.Blocked},
		"any other 4xx: content filter, context length, …": {[]response{
			{400, "", `{"error":{"code":"content_filter"}}`}, {400, "", `{"error":{"code":"context_length_exceeded"}}`}, {422, "", serviceError}, {409, "", serviceError},
		}, rejected, 0},
	}
	moves := map[verdict]string{served: "no", rejected: "no", throttled: "yes", declined: "yes", failed: "yes"}
	text, err := os.ReadFile("docs/failover.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), "| response | other deployments tried? |")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	seen := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		name := strings.TrimSpace(cells[0])
		row, ok := rows[name]
		if !ok {
			continue
		}
		seen++
		for _, r := range row.responses {
			h := http.Header{}
			if name, value, ok := strings.Cut(r.header, ": "); ok {
				h.Set(name, value)
			}
			o := judge(r.status, h, []byte(r.body), "chat/completions", time.Now())
			require.Equal(t, row.verdict, o.verdict, "%s: %v", name, r)
			require.Equal(t, row.cause, o.cause, "%s: %v", name, r)
		}
		require.True(t, strings.HasPrefix(cells[1], moves[row.verdict]), line)
		if row.cause != health.NoFailure && !strings.Contains(name, "with `Retry-After`") && row.cause != health.Blocked {
			require.Contains(t, cells[2], ejectionTimes(row.cause), name)
		}
	}
	require.Equal(t, len(rows), seen, "a row is missing")
	require.Contains(t, table, "| the whole backend is ejected for "+ejectionTimes(health.Unreachable))
	require.Contains(t, table, "| first one ignored; then ejected for "+ejectionTimes(health.NoAnswer))
}

// ejectionTimes is how long repeated failures eject, as the table writes it.
func ejectionTimes(cause health.Cause) string {
	var s health.State
	now := time.Now()
	var all []time.Duration
	for range 20 {
		s.Fail(now, health.FailedAttempt{Sent: now, Seen: now, Cause: cause}, 0.5)
		until, _, _ := s.Closed(now)
		if until.After(now) {
			all = append(all, until.Sub(now))
			now = until
			s.Admit(now, false)
		}
		now = now.Add(time.Millisecond)
	}
	if last := all[len(all)-1]; all[0] != last {
		return fmt.Sprintf("%v s, %v s, … %v s", all[0].Seconds(), all[1].Seconds(), last.Seconds())
	}
	return fmt.Sprintf("%v minutes", all[0].Minutes())
}

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
