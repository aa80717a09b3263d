package spillover_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
)

// A draft is a configuration file with mistakes in it, and the errors that they
// have to cause.
type draft struct {
	top      []string            // lines
	backends []map[string]string // keys and values
	errors   []string            // path: what is wrong
}

// validDraft has four backends with names and two without, and three kinds of
// credentials.
func validDraft() *draft {
	d := &draft{}
	for i := range 6 {
		b := map[string]string{"url": fmt.Sprintf("https://b%d.openai.azure.com", i), "models": "[{name: gpt-4o, deployment: d}]"}
		if i < 4 {
			b["name"] = fmt.Sprintf("b%d", i)
		}
		switch i % 3 {
		case 0:
			b["api_key"] = fmt.Sprintf("key%d", i)
		case 1:
			b["auth"] = "spillover-test"
		case 2:
			b["headers"] = "{X-Api-Key: k}"
		}
		d.backends = append(d.backends, b)
	}
	return d
}

func (d *draft) text() string {
	text := strings.Join(d.top, "\n") + "\nbackends:\n"
	for _, b := range d.backends {
		prefix := "- "
		for _, key := range slices.Sorted(maps.Keys(b)) {
			text += fmt.Sprintf("%s%s: %s\n", prefix, key, b[key])
			prefix = "  "
		}
	}
	return text
}

// path is how errors name a backend.
func (d *draft) path(i int) string {
	name := d.backends[i]["name"]
	if name == "" || strings.Contains(name, "$") || strings.HasPrefix(name, "[") {
		return fmt.Sprintf("backends[%d]", i)
	}
	return fmt.Sprintf("backends[%q]", name)
}

// A mistake of one field: its value, and where and what the error is.
type fieldMistake struct{ key, value, at, said string }

var fieldMistakes = []fieldMistake{
	{"weight", "1.5", ".weight", "must be a whole number in plain digits, not 1.5"},
	{"weight", "-1", ".weight", "-1 is not between 0 and 1000000"},
	{"wieght", "2", "", `unknown key "wieght"; did you mean "weight"?`},
	{"priority", "high", ".priority", "must be a whole number in plain digits; this is text"},
	{"priority", "${NOTHING}", ".priority", "the variable NOTHING is not set"},
	{"header_timeout", "30", ".header_timeout", "must be a duration with its unit, such as 30s, 1m30s or 250ms, not 30"},
	{"header_timeout", "-3s", ".header_timeout", "-3s is negative"},
	{"idleTimeout", "3s", "", `unknown key "idleTimeout"; did you mean "idle_timeout"?`},
	{"drained", "${WORD}", ".drained", "must be true or false; this is text, from ${WORD}"},
	{"api_version", "a b", ".api_version", `"a b" is not a valid api-version`},
	{"defaults", "{model: x, temperature: 1}", ".defaults.model", "cannot be a default, because it decides what the response is"},
	{"models", "[{name: gpt-4o, rpm: -1}]", ".models[0].rpm", "-1 is negative"},
	{"models", "[{name: gpt-4o}, {name: gpt-4o, deployment: e}]", ".models[1].name", `"gpt-4o" is listed twice`},
	{"models", "[gpt-4o]", ".models[0]", "must be a mapping, such as {name: gpt-4o}; this is text"},
	{"surprise", "1", "", `unknown key "surprise"`},
}

// Mistakes outside of the backends.
var topMistakes = []struct{ line, at, said string }{
	{"max_wait: 30", "max_wait", "must be a duration with its unit, such as 30s, 1m30s or 250ms, not 30"},
	{"max_attempts: ${NOTHING}", "max_attempts", "the variable NOTHING is not set"},
	{"default_cooldown: 2m", "default_cooldown", "2m0s is more than max_cooldown, 1m0s"},
	{"surprise: 1", "", `unknown key "surprise"`},
	{"hold_streams: true\nhold_streams: true", "", ""}, // the error depends on the line
}

// conflictMistakes concern two backends, or two fields of one.
var conflictMistakes = []func(*draft){
	func(d *draft) { // two names
		d.backends[0]["name"], d.backends[1]["name"] = "same", "same"
		d.errors = append(d.errors, `backends["same"].name: backends 0 and 1 are both called "same"; give each its own name`)
	},
	func(d *draft) { // an account twice
		for _, b := range d.backends[2:4] {
			delete(b, "headers")
			b["url"], b["api_key"] = "https://account.openai.azure.com", "key"
		}
		d.errors = append(d.errors, `backends["b3"].url: backend "b2" already uses its deployment "d" with the same credential`)
	},
	func(d *draft) { // two hosts, and no names
		d.backends[4]["url"], d.backends[5]["url"] = "https://host.openai.azure.com/a", "https://host.openai.azure.com/b"
		d.errors = append(d.errors, "backends[5].name: is missing: backends 4 and 5 are both called host.openai.azure.com, after the host of their URL; give each a name")
	},
	func(d *draft) { // two credentials
		d.backends[0]["auth"] = "spillover-test"
		d.errors = append(d.errors, d.path(0)+".api_key: cannot be combined with Auth")
	},
}

// No error hides another, and none is the mere consequence of another: each mistake
// in a file causes its own error, and nothing else is reported.
func TestEveryMistakeInAFileIsReportedOnce(t *testing.T) {
	lookup := func(name string) (string, bool) { return "word", name == "WORD" }
	_, err := spillover.ParseConfig("f", []byte(validDraft().text()), lookup)
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		d := validDraft()
		conflicts := rapid.SliceOfNDistinct(rapid.IntRange(0, len(conflictMistakes)-1), 0, len(conflictMistakes), rapid.ID[int]).Draw(t, "conflicts")
		slices.Sort(conflicts) // names first: they are part of paths
		for _, i := range conflicts {
			conflictMistakes[i](d)
		}
		twins := slices.Contains(conflicts, 1)
		for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, len(topMistakes)-1), 0, len(topMistakes), rapid.ID[int]).Draw(t, "top") {
			m := topMistakes[i]
			d.top = append(d.top, m.line)
			if m.said == "" {
				line := strings.Count(strings.Join(d.top, "\n"), "\n")
				m.said = fmt.Sprintf(`duplicate key "hold_streams", first in line %d`, line)
			}
			d.errors = append(d.errors, strings.TrimPrefix(m.at+": "+m.said, ": "))
		}
		for i, b := range d.backends {
			for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom(fieldMistakes), 0, 4, func(m fieldMistake) string {
				return strings.NewReplacer("wieght", "weight").Replace(m.key)
			}).Draw(t, fmt.Sprintf("backend %d", i)) {
				if m.key == "models" && twins && (i == 2 || i == 3) {
					continue // whether the deployments are the same is unknown then
				}
				b[m.key] = m.value
				d.errors = append(d.errors, d.path(i)+m.at+": "+m.said)
			}
		}
		_, err := spillover.ParseConfig("f", []byte(d.text()), lookup)
		var got []string
		if err != nil {
			for _, e := range loadErrorsOf(err) {
				got = append(got, strings.TrimPrefix(e.Path+": "+e.Err.Error(), ": "))
			}
		}
		require.ElementsMatch(t, d.errors, got, d.text())
	})
}
