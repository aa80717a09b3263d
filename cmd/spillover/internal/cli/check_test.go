package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/spillover-go/spillover/spillovertest"
)

// write writes a new file and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// twoServers are a healthy deployment and one that refuses its key, with a
// configuration for them.
func twoServers(t *testing.T) (config string) {
	t.Helper()
	ptu := spillovertest.NewServer(spillovertest.Config{Name: "ptu", Keys: []string{"right"}, Deployments: []spillovertest.Deployment{{Name: "gpt-4o"}, {Name: "gpt-4o-mini"}}})
	t.Cleanup(ptu.Close)
	eastus := spillovertest.NewServer(spillovertest.Config{Name: "eastus", Keys: []string{"right"}})
	t.Cleanup(eastus.Close)
	return write(t, "spillover.yaml", `backends:
  - {name: ptu, url: `+ptu.URL+`, dialect: azure, api_key: right}
  - {name: eastus, url: `+eastus.URL+`, dialect: azure, api_key: wrong-secret, priority: 2}
`)
}

func TestCheckPrintsATable(t *testing.T) {
	code, out, errs := run(t, "check", "-config", twoServers(t))
	require.Equal(t, 1, code)
	require.Empty(t, errs)
	require.NotContains(t, out, "wrong-secret")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 3)
	require.Regexp(t, `^BACKEND +TIER +STATE +STATUS +MODELS +TIME +CAUSE$`, lines[0])
	require.Regexp(t, `^ptu +1 +ok +200 +2 +\d+ms +$`, lines[1])
	require.Regexp(t, `^eastus +2 +failed +401 +- +\d+ms +401: `, lines[2])
	// Times, and the width of their column, are different each time.
	out = regexp.MustCompile(`TIME +`).ReplaceAllString(out, "TIME  ")
	out = regexp.MustCompile(`\d+ms *`).ReplaceAllString(out, "8ms   ")
	doctest.Section(t, "../../../../docs/cli/check.md", "output", "```console\n$ spillover check\n"+trimmed(out)+"$ echo $?\n1\n```\n")
}

// trimmed is a text without spaces at the ends of its lines.
func trimmed(s string) string { return regexp.MustCompile(`(?m) +$`).ReplaceAllString(s, "") }

func TestCheckAsJSON(t *testing.T) {
	code, out, errs := run(t, "check", "-json", "-config", twoServers(t))
	require.Equal(t, 1, code)
	require.Empty(t, errs)
	var all []map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &all))
	require.Len(t, all, 2)
	require.Equal(t, true, all[0]["ok"])
	require.Equal(t, 2.0, all[1]["priority"])
	require.Equal(t, "401", all[1]["reason"])
}

func TestCheckWarns(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"data":[{"id":"other"}]}`))
	}))
	defer server.Close()
	code, out, errs := run(t, "check", "-config", write(t, "c.yaml", "backends: [{name: own, url: "+server.URL+", drained: true, models: [{name: served}]}]"))
	require.Equal(t, 0, code)
	require.Regexp(t, `(?m)^own +1 +ok, drained +200 +1 `, out)
	require.Contains(t, errs, "warning: own: has no credential")
	require.Contains(t, errs, "warning: own: its list of models lacks served")
}

func TestCheckOfAWrongFile(t *testing.T) {
	path := write(t, "c.yaml", "backends:\n  - url: https://a.example\n    priority: high\n    apikey: x\n")
	for _, args := range [][]string{{"check"}, {"check", "-offline"}, {"explain", "-model", "gpt-4o"}} {
		code, out, errs := run(t, append(args, "-config", path)...)
		require.Equal(t, 2, code, args)
		require.Empty(t, out, args)
		require.Contains(t, errs, "c.yaml:3:15: backends[0].priority: must be a whole number", args)
		require.Contains(t, errs, `c.yaml:4:5: backends[0]: unknown key "apikey"; did you mean "api_key"?`, args)
	}
}

func TestCheckOffline(t *testing.T) {
	path := write(t, "c.yaml", "backends: [{url: https://no-such-host.invalid, api_key: x}, {name: b, url: https://b.invalid}]")
	code, out, errs := run(t, "check", "-offline", "-config", path)
	require.Equal(t, 0, code)
	require.Equal(t, path+" is valid: 2 backends in 1 tier\n", out)
	require.Equal(t, "warning: b: has no credential, so only requests that bring their own can use it\n", errs)
}

// What Load leaves to New is found, too.
func TestCheckOfAFileThatNewRejects(t *testing.T) {
	path := write(t, "c.yaml", "backends: [{url: https://a.openai.azure.com, api_key: x}, {url: https://api.openai.com}]")
	code, _, errs := run(t, "check", "-offline", "-config", path)
	require.Equal(t, 2, code)
	require.Contains(t, errs, "is required: the pool mixes Azure and OpenAI backends")
}

func TestCheckOfWrongCommandLines(t *testing.T) {
	for want, args := range map[string][]string{
		"timeout: must be positive": {"-timeout", "0s"},
		"unexpected argument":       {"spillover.yaml"},
		"cannot be combined":        {"-offline", "-json"},
	} {
		code, _, errs := run(t, append([]string{"check"}, args...)...)
		require.Equal(t, 2, code)
		require.Contains(t, errs, want)
	}
}
