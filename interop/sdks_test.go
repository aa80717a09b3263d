package interop

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

var update = flag.Bool("update", false, "write the tables of docs/sdks.md")

const sdks = "../docs/sdks.md"

// The tables of docs/sdks.md are what the other tests check, SDK by SDK.
func TestSDKs(t *testing.T) {
	text, err := os.ReadFile(sdks)
	require.NoError(t, err)
	told := string(text)
	for name, table := range map[string]string{"sdks": theSDKs(t), "all down": theErrors(t), "streams": theStreams(t)} {
		begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
		head, rest, ok := strings.Cut(told, begin)
		require.True(t, ok, "%s has lost the marker %s", sdks, begin)
		_, tail, ok := strings.Cut(rest, end)
		require.True(t, ok, "%s has lost the marker %s", sdks, end)
		told = head + begin + table + end + tail
	}
	if *update {
		require.NoError(t, os.WriteFile(sdks, []byte(told), 0o644))
		return
	}
	require.Equal(t, string(text), told, "%s tells something else: go test -run TestSDKs . -update", sdks)
}

// theSDKs tells how each takes the client, and what it then does by itself.
func theSDKs(t *testing.T) string {
	table := newTable("SDK", "version", "takes the client as", "speaks", "tested", "retries", "off with")
	for _, a := range adapters {
		var tested []string
		for _, o := range a.operations() {
			tested = append(tested, o.name)
		}
		off := a.off
		if off == "" {
			off = "–"
		}
		table.row(a.name, version(t, a.module), a.inject, speaks(t, a), strings.Join(tested, ", "), fmt.Sprint(a.retries), off)
	}
	return table.String()
}

// theErrors tells what a caller sees when all deployments are down, and how
// often each of them is asked until then.
func theErrors(t *testing.T) string {
	table := newTable("SDK", "error", "has the 429's", "throttled", "out of quota", "500")
	row := func(name string, a adapter, retries int, within string) {
		sends := func(c calamity) string {
			_, n := c.expected(retries)
			return fmt.Sprintf("%d + %d + %d", n[0], n[1], n[2])
		}
		throttled := sends(allThrottled)
		if within != "" {
			throttled += ", in " + within
		}
		table.row(name, a.fails, tells(t, a), throttled, sends(allSpent), sends(allFailing))
	}
	for _, a := range oneOfEach(t) {
		within := ""
		if a.retries > 0 {
			within = fmt.Sprintf("%d s", a.retries*int(allThrottled.wait.Seconds()))
		}
		row(a.name, a, a.retries, within)
		if a.off != "" {
			row(a.name+", retries off", a, 0, "")
		}
	}
	for _, r := range retriers {
		row("go-openai over "+r.name+", 2 retries", goOpenAI, 2, r.within)
	}
	return table.String()
}

// oneOfEach are the SDKs in their first mode. In the others they do the same.
func oneOfEach(t *testing.T) (first []adapter) {
	for _, a := range adapters {
		i := slices.IndexFunc(first, func(b adapter) bool { return a.module == b.module })
		if i < 0 {
			first = append(first, a)
			continue
		}
		require.Equal(t, first[i].facts, a.facts, "%s and %s", first[i].name, a.name)
	}
	return first
}

// tells is what of the transport's 429 can be had from an error.
func tells(t *testing.T, a adapter) string {
	var has []string
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, inMemory, spillovertest.Latency{}, nil)
		err := allThrottled.befall(t, p, a.operations()[0], setup{client: p.client, once: true}).err
		f := failureOf(err)
		if f.status != 0 {
			has = append(has, "status")
		}
		if f.code != "" {
			has = append(has, "code")
		}
		if has = append(has, "message"); !strings.Contains(err.Error(), f.message) {
			has[len(has)-1] += " (not printed)"
		}
		if f.header != nil {
			has = append(has, "header")
		}
	})
	return strings.Join(has, ", ")
}

// theStreams tells what a caller sees of streams that do not end well.
func theStreams(t *testing.T) string {
	table := newTable("SDK", "connection breaks", "error event", "cancelled request", "cancelled stream", "cancelled wait for a retry")
	for _, a := range oneOfEach(t) {
		event, request, stream, wait := "an error", "`context.Canceled`", "`context.Canceled`", "–"
		if a.deaf {
			event = "**nothing**"
		}
		if a.hidesCause {
			request, stream = "another error", "another error"
		}
		if a.cutsShort {
			stream = "another error, or **nothing**"
		}
		if a.retries > 0 {
			wait = "ends at once"
		}
		if a.sleeps {
			wait = "goes on to its end"
		}
		table.row(a.name, "an error", event, request, stream, wait)
	}
	return table.String()
}

// version is that of a module in go.mod.
func version(t *testing.T, module string) string {
	text, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == module {
			return words[1]
		}
	}
	require.Fail(t, "not in go.mod", module)
	return ""
}

// speaks is the dialect of what an SDK asks for.
func speaks(t *testing.T, a adapter) (dialect string) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, inMemory, spillovertest.Latency{}, nil)
		_, err := a.chat(t.Context(), setup{client: p.client})
		require.NoError(t, err)
		switch path := p.asked.seen[0].path; {
		case strings.HasPrefix(path, "/openai/deployments/"):
			dialect = "`Azure`"
		case strings.HasPrefix(path, "/openai/v1/"):
			dialect = "`AzureV1`"
		case strings.HasPrefix(path, "/v1/"):
			dialect = "`OpenAI`"
		}
	})
	require.NotEmpty(t, dialect)
	return dialect
}

// A table is one of Markdown.
type table struct{ strings.Builder }

func newTable(columns ...string) *table {
	t := new(table)
	t.row(columns...)
	t.WriteString(strings.Repeat("|---", len(columns)) + "|\n")
	return t
}

func (t *table) row(cells ...string) { t.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
