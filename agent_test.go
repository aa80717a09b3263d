package spillover_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
)

// eight is a pool of so many equal backends.
func eight(t testing.TB, n http.RoundTripper, change func(*spillover.Config)) *spillover.Transport {
	cfg := spillover.Config{Base: n}
	for i := range 8 {
		cfg.Backends = append(cfg.Backends, azure(fmt.Sprint("d", i)))
	}
	change(&cfg)
	return configured(t, cfg)
}

func unchanged(*spillover.Config) {}

// homes is which backends serve 24 such requests.
func homes(t testing.TB, tr *spillover.Transport, req func() *http.Request) map[string]bool {
	seen := map[string]bool{}
	for range 24 {
		resp, _ := send(t, tr, req())
		seen[servedBy(resp)] = true
	}
	return seen
}

// asking is a request with a body and a header of "Name: value" lines.
func asking(t testing.TB, body string, header ...string) func() *http.Request {
	return func() *http.Request { return with(t, "POST "+chatPath+" "+body, header...) }
}

func TestHeadersOfCodingAgentsMakeASession(t *testing.T) {
	tr := eight(t, newNet(), unchanged)
	const body = `{"model":"m","messages":[]}`
	for _, name := range []string{"session-id", "session_id", "x-claude-code-session-id", "x-session-affinity", "x-session-id", "x-opencode-session"} {
		all := map[string]bool{}
		for i := range 20 {
			home := homes(t, tr, asking(t, body, fmt.Sprintf("%s: conversation-%d", name, i)))
			require.Len(t, home, 1, name)
			for one := range home {
				all[one] = true
			}
		}
		require.Greater(t, len(all), 3, "different conversations are spread")
	}
	require.Greater(t, len(homes(t, tr, asking(t, body))), 3)
	require.Greater(t, len(homes(t, tr, asking(t, body, "x-request-id: 1", "session: 2", "session_id: "))), 3, "other headers and empty ones make none")
	nth := 0
	require.Greater(t, len(homes(t, tr, func() *http.Request { nth++; return asking(t, body, fmt.Sprint("session_id: ", nth))() })), 3)
}

// WithSession, then Config.Session, then prompt_cache_key, then the headers of agents
// in their order, then the prompt.
func TestPrecedenceOfSessions(t *testing.T) {
	prompt := strings.Repeat("x", 100)
	withKey := `{"prompt_cache_key":"two","messages":[{"role":"system","content":"` + prompt + `"}]}`
	withoutKey := strings.Replace(withKey, `"prompt_cache_key":"two",`, "", 1)
	headers := []string{"session-id: three", "session_id: four", "x-session-id: five"}
	n := newNet()
	tr := eight(t, n, func(cfg *spillover.Config) { cfg.PromptAffinity = 100 })
	ruled := eight(t, n, func(cfg *spillover.Config) {
		cfg.PromptAffinity = 100
		cfg.Session = func(r *http.Request) string { return r.Header.Get("Rule") }
	})
	home := func(tr *spillover.Transport, req func() *http.Request) string {
		found := homes(t, tr, req)
		require.Len(t, found, 1)
		for name := range found {
			return name
		}
		return ""
	}
	named := func(req func() *http.Request, id string) func() *http.Request {
		return func() *http.Request {
			r := req()
			return r.WithContext(spillover.WithSession(r.Context(), id))
		}
	}
	of := func(id string) string { return home(tr, named(asking(t, "{}"), id)) }
	require.Equal(t, of("one"), home(ruled, named(asking(t, withKey, append(headers, "Rule: rule")...), "one")))
	require.Equal(t, of("rule"), home(ruled, asking(t, withKey, append(headers, "Rule: rule")...)))
	require.Greater(t, len(homes(t, ruled, asking(t, withKey, headers...))), 3, "a rule decides that there is none")
	require.Equal(t, of("two"), home(tr, asking(t, withKey, headers...)))
	require.Equal(t, of("three"), home(tr, asking(t, withoutKey, headers...)))
	require.Equal(t, of("four"), home(tr, asking(t, withoutKey, headers[1:]...)))
	require.Equal(t, of("five"), home(tr, asking(t, withoutKey, headers[2:]...)))
	home(tr, asking(t, withoutKey))
}

func TestPromptAffinityIsByTheBeginningOfThePrompt(t *testing.T) {
	system := strings.Repeat("You are a helpful assistant. ", 40)
	message := func(role, text string) string { return `{"role":"` + role + `","content":"` + text + `"}` }
	chat := func(messages ...string) string { return `{"messages":[` + strings.Join(messages, ",") + `]` }
	for name, test := range map[string]struct {
		bytes  int
		path   string
		one    func(i int) string // bodies that share a session, or do not
		shared bool
	}{
		"off":             {0, "", func(int) string { return chat(message("system", system)) + "}" }, false},
		"a system prompt": {1000, "", func(i int) string { return chat(message("system", system), message("user", fmt.Sprint(i))) + "}" }, true},
		"other fields":    {1000, "", func(i int) string { return chat(message("system", system)) + fmt.Sprintf(`,"temperature":0.%d}`, i) }, true},
		"other fields before": {1000, "", func(i int) string {
			return fmt.Sprintf(`{"temperature":0.%d,`, i) + chat(message("system", system))[1:] + "}"
		}, true},
		"as much as there is": {len(chat(message("system", system))) - len(`{"messages":`), "", func(int) string { return chat(message("system", system)) + "}" }, true},
		"a shorter prompt":    {len(chat(message("system", system))) - len(`{"messages":`) + 1, "", func(int) string { return chat(message("system", system)) + "}" }, false},
		"instructions":        {1000, "responses", func(i int) string { return fmt.Sprintf(`{"model":"m","input":"%d","instructions":"%s"}`, i, system) }, true},
		"instructions, then input": {1000, "responses", func(i int) string {
			return fmt.Sprintf(`{"model":"m","input":"%s%d","instructions":"Be brief."}`, system, i)
		}, true},
		"other instructions":     {1000, "responses", func(i int) string { return fmt.Sprintf(`{"model":"m","input":"%s","instructions":"%d"}`, system, i) }, false},
		"a prompt":               {1000, "completions", func(i int) string { return fmt.Sprintf(`{"model":"m","prompt":"%s%d"}`, system, i) }, true},
		"not generated":          {1000, "embeddings", func(int) string { return fmt.Sprintf(`{"model":"m","input":"%s"}`, system) }, false},
		"a body that breaks off": {1000, "", func(int) string { return chat(message("system", system)) }, true},
		"nothing":                {1, "", func(int) string { return "{}" }, false},
		"no JSON":                {1, "", func(int) string { return "messages" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			tr := eight(t, newNet(), func(cfg *spillover.Config) { cfg.PromptAffinity = test.bytes })
			path := chatPath
			if test.path != "" {
				path = "/openai/v1/" + test.path
			}
			i := 0
			found := homes(t, tr, func() *http.Request { i++; return with(t, "POST "+path+" "+test.one(i)) })
			if test.shared {
				require.Len(t, found, 1)
			} else {
				require.Greater(t, len(found), 2)
			}
		})
	}
}

// Different prompts are spread, and every process chooses the same home.
func TestPromptAffinitySpreadsPrompts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bytes := rapid.IntRange(1, 300).Draw(rt, "bytes")
		with := func(cfg *spillover.Config) { cfg.PromptAffinity = bytes }
		one, two := eight(t, newNet(), with), eight(t, newNet(), with)
		text := rapid.StringMatching(`[ -!#-\[\]-~]{300,400}`).Draw(rt, "text")
		first := asking(t, `{"messages":"`+text+`","seed":1}`)
		last := asking(t, `{"seed":2,"messages":"`+text[:bytes-1]+`another end of it","stream":false}`)
		if bytes+len("another end of it") < 310 {
			r1, _ := send(t, one, first())
			r2, _ := send(t, two, last())
			if servedBy(r1) != servedBy(r2) {
				rt.Fatalf("%s, %s", servedBy(r1), servedBy(r2))
			}
		}
	})
	all := map[string]bool{}
	tr := eight(t, newNet(), func(cfg *spillover.Config) { cfg.PromptAffinity = 20 })
	for i := range 100 {
		for home := range homes(t, tr, asking(t, fmt.Sprintf(`{"messages":"%d of one hundred prompts"}`, i))) {
			all[home] = true
		}
	}
	require.Len(t, all, 8)
}

func BenchmarkPromptAffinity(b *testing.B) {
	body := `{"model":"m","messages":[{"role":"system","content":"` + strings.Repeat("x", 8000) + `"}]}`
	for _, bytes := range []int{0, 1024, 4096} {
		b.Run(fmt.Sprint(bytes), func(b *testing.B) {
			tr := eight(b, newNet(), func(cfg *spillover.Config) { cfg.PromptAffinity = bytes })
			b.ReportAllocs()
			for range b.N {
				if _, err := tr.Explain(asking(b, body)()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
