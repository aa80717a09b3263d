package spillover

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBackendHeadersFromAFile(t *testing.T) {
	parse := func(headers string) (Config, error) {
		text := "backends:\n  - name: a\n    url: https://a.openai.azure.com\n    api_key: k\n    headers: " + headers + "\n"
		return parseConfig("f.yaml", []byte(text), func(name string) (string, bool) { return "secret-of-" + name, name == "KEY" })
	}
	cfg, err := parse("{Ocp-Apim-Subscription-Key: '${KEY}', X-A: text}")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"Ocp-Apim-Subscription-Key": "secret-of-KEY", "X-A": "text"}, cfg.Backends[0].Headers)
	for headers, want := range map[string]string{
		"text": "must be a mapping", "[a]": "must be a mapping", "{X-A: 1}": "must be text", "{X-A: {b: c}}": "must be text", "{X-A: '${NONE}'}": "NONE",
		"{X-A: }": "this is empty", "{X-A: null, X-B: b}": "this is empty", "{X-A: ''}": "is empty", "{X-A: '${EMPTY:-}'}": "is empty",
		"{Host: x}": `headers.Host: cannot be set`, "{X-A: '${KEY} '}": "headers.X-A: starts or ends with a space", "{X-A: a, X-A: b}": `duplicate key "X-A"`,
	} {
		_, err := parse(headers)
		var mistake *LoadError
		require.ErrorAs(t, err, &mistake, headers)
		require.Contains(t, err.Error(), want)
		require.Contains(t, mistake.Path, `backends["a"].headers`)
		require.NotContains(t, err.Error(), "secret")
	}
}

// No cool-down that can be configured makes a time overflow.
func TestMaxCooldownIsBounded(t *testing.T) {
	for _, most := range []time.Duration{math.MaxInt64, 100 * 365 * 24 * time.Hour, mostCooldown + 1} {
		_, err := New(Config{MaxCooldown: most, Backends: []Backend{azure("a")}})
		require.ErrorContains(t, err, "spillover: MaxCooldown: ")
		_, err = parseConfig("f", fmt.Appendf(nil, "max_cooldown: %s\nbackends: [{url: a.example, api_key: k}]", most), nil)
		require.ErrorContains(t, err, "max_cooldown: ")
	}
	for _, hint := range []string{"9223372036", "9223372036854775807", "1e300", "99999999999999999999", "86400"} {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: "+hint))
		tr := configured(t, Config{Base: n, MaxCooldown: mostCooldown, Backends: []Backend{azure("a")}})
		resp, _ := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		seconds, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s")
		require.NoError(t, err)
		require.Positive(t, seconds)
		require.LessOrEqual(t, seconds, 2*mostCooldown)
	}
}

func keyless(b *Backend) { b.APIKey = "" }

// That callers' own keys are sent is said where other backends have one.
func TestCallersCredentialsAreToldOf(t *testing.T) {
	const remedy = ",remedy:set a credential, such as APIKey (api_key), APIKeyFile (api_key_file) or Auth (auth), unless callers are to bring their own"
	for name, c := range map[string]struct {
		backends []Backend
		want     []string
	}{
		"all have one":                {[]Backend{azure("a"), azure("b", entra)}, nil},
		"all are sent the callers'":   {[]Backend{azure("a", keyless), azure("b", keyless)}, nil},
		"one alone":                   {[]Backend{azure("a", keyless)}, nil},
		"a variable that was not set": {[]Backend{azure("a"), azure("b", keyless, priority(2))}, []string{"WARN,callers' credentials are sent,backend:b,tier:2" + remedy}},
		"beside a token":              {[]Backend{azure("a", keyless), azure("b", entra)}, []string{"WARN,callers' credentials are sent,backend:a,tier:1" + remedy}},
		"each by its name":            {[]Backend{azure("a", keyless), azure("b"), azure("c", keyless)}, []string{"WARN,callers' credentials are sent,backend:a,tier:1" + remedy, "WARN,callers' credentials are sent,backend:c,tier:1" + remedy}},
	} {
		l, tr := listened(t, Config{Base: newNet(), Backends: c.backends})
		require.Equal(t, c.want, l.Log(), name)
		require.NoError(t, tr.Close())
	}

	l, tr := listened(t, Config{Base: newNet(), Backends: []Backend{azure("a"), azure("b")}})
	for range 2 {
		cfg := tr.setup.Load().cfg
		cfg.Backends = []Backend{azure("a"), azure("b", keyless)}
		require.NoError(t, tr.Reconfigure(cfg))
	}
	require.Equal(t, []string{"WARN,callers' credentials are sent,backend:b,tier:1" + remedy, "INFO,reconfigured,backends:2,changed:[b: api_key]"}, l.Log(), "once")
	require.NoError(t, tr.Close())

	// A backend that is renamed and loses its only credential.
	for name, before := range map[string]Backend{
		"key": azure("a"), "token": azure("a", entra), "file": azure("a", withKeyFile(written(t, "key", "k"))), "auth": azure("a", withAuth("spillover-test")),
		"header": azure("a", keyless, func(b *Backend) { b.Headers = map[string]string{"X-Api-Key": "k"} }),
	} {
		l, tr := listened(t, Config{Base: newNet(), Backends: []Backend{before}})
		for range 2 {
			cfg := tr.setup.Load().cfg
			cfg.Backends = []Backend{azure("renamed", keyless)}
			require.NoError(t, tr.Reconfigure(cfg))
		}
		records := l.Log()
		require.Equal(t, "WARN,callers' credentials are sent,backend:renamed,tier:1"+remedy, records[0], name)
		require.NotContains(t, strings.Join(records[1:], "\n"), "credentials", "%s: once", name)
		require.NoError(t, tr.Close())
	}
}

// A file that would have callers' keys sent in the place of a Token is refused.
func TestWatchKeepsCallersCredentials(t *testing.T) {
	withToken := func(name string) Backend { return azure(name, entra) }
	yaml := func(lines ...string) string {
		text := "backends:\n"
		for _, line := range lines {
			name, rest, _ := strings.Cut(line, " ")
			text += "- {name: " + name + ", url: \"https://" + name + ".openai.azure.com\"" + rest + "}\n"
		}
		return text
	}
	for name, c := range map[string]struct {
		before  []Backend
		file    string
		adjust  func(*Config)
		refused string // the backend
	}{
		"a renamed backend":              {before: []Backend{withToken("ptu"), azure("b")}, file: yaml("ptu1", "b , api_key: key"), refused: "ptu1"},
		"a new one beside it":            {before: []Backend{withToken("ptu")}, file: yaml("ptu", "new"), refused: "new"},
		"a key that is gone":             {before: []Backend{azure("a"), azure("b")}, file: yaml("a", "b , api_key: key"), refused: "a"},
		"renamed, with a Token":          {before: []Backend{withToken("ptu")}, file: yaml("ptu1"), adjust: func(cfg *Config) { entra(&cfg.Backends[0]) }},
		"renamed, with a key":            {before: []Backend{withToken("ptu")}, file: yaml("ptu1 , api_key: key")},
		"the same name":                  {before: []Backend{withToken("ptu")}, file: yaml("ptu , weight: 2")},
		"callers bring their own":        {before: []Backend{azure("a", keyless)}, file: yaml("b")},
		"one of them did so before":      {before: []Backend{withToken("ptu"), azure("a", keyless)}, file: yaml("ptu", "a")},
		"keys and callers', by the file": {before: []Backend{azure("a")}, file: yaml("a , api_key: key", "b")},
	} {
		synctest.Test(t, func(t *testing.T) {
			l, tr := listened(t, Config{Base: newNet(), Backends: c.before})
			before := tr.String()
			path := written(t, "c.yaml", c.file)
			ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
			defer cancel()
			require.Equal(t, context.DeadlineExceeded, tr.Watch(ctx, path, c.adjust))
			var records []string
			for _, r := range l.Log() {
				if strings.Contains(r, "configuration not loaded") {
					records = append(records, r)
				}
			}
			if c.refused == "" {
				require.Empty(t, records, name)
			} else {
				require.Equal(t, before, tr.String(), name)
				require.Len(t, records, 1, name)
				require.Contains(t, strings.ReplaceAll(records[0], `\`, ""), `api_key: is missing, and backend `+c.refused+` has no other credential: callers' own credentials would be sent to it`, name)
			}
			require.NoError(t, tr.Close())
		})
	}
}
