package spillover

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func keyless(b *Backend) { b.APIKey = "" }

// A key that is the name of a variable was never put in.
func TestKeyThatNamesAVariable(t *testing.T) {
	for key, write := range map[string]string{
		"$PTU_KEY": "${PTU_KEY}", "${PTU_KEY}": "${PTU_KEY}", "$${PTU_KEY}": "${PTU_KEY}", "${PTU_KEY:-none}": "${PTU_KEY}", "${PTU_KEY": "${PTU_KEY}", "$(PTU_KEY)": "${PTU_KEY}",
		"%PTU_KEY%": "${PTU_KEY}", "os.environ/PTU_KEY": "${PTU_KEY}", "os.environ/": "${NAME}", "env.PTU_KEY": "${PTU_KEY}", "env:PTU_KEY": "${PTU_KEY}", "{{.Values.key}}": "${NAME}",
		"$hunter2": "${NAME}", // it may be a password all the same
	} {
		require.Equal(t, []string{`backend "a": APIKey: is the name of a variable, not a key: in a file write ` + write + `, in a program use os.Getenv`},
			mistakes(Config{Backends: []Backend{azure("a", func(b *Backend) { b.APIKey = key })}}), key)
	}
	for _, key := range []string{"sk-proj-a_b-c", "k", "$", "$1", "a$PTU_KEY", "PTU_KEY", "os.environ", "%41", "{}", "env"} {
		require.Empty(t, mistakes(Config{Backends: []Backend{azure("a", func(b *Backend) { b.APIKey = key })}}), key)
	}
}

// That callers' own keys are sent is said where other backends have one.
func TestCallersCredentialsAreToldOf(t *testing.T) {
	const remedy = ",remedy:set APIKey (api_key) or Token, unless callers are to bring their own"
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
	require.Equal(t, []string{"WARN,callers' credentials are sent,backend:b,tier:1" + remedy, "INFO,reconfigured,backends:2", "INFO,reconfigured,backends:2"}, l.Log(), "once")
	require.NoError(t, tr.Close())
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
				require.Contains(t, strings.ReplaceAll(records[0], `\`, ""), `api_key: is missing, and backend `+c.refused+` has no Token: callers' own credentials would be sent to it`, name)
			}
			require.NoError(t, tr.Close())
		})
	}
}

// A backend whose key a template left out is no backend for callers' keys.
func TestLoadNullKey(t *testing.T) {
	for _, text := range []string{"backends: [{url: h, api_key: }]", "backends: [{url: h, api_key: null}]", `{"backends": [{"url": "h", "api_key": null}]}`, "backends: [{url: h, api_key: ''}]", "backends: [{url: h, api_key: '${EMPTY:-}'}]"} {
		_, err := Load(written(t, "c.yaml", text))
		require.ErrorContains(t, err, "api_key: is empty: leave it out if callers send their own credentials", text)
	}
	_, err := Load(written(t, "c.yaml", "backends: [{url: h}]"))
	require.NoError(t, err)
}
