package telemetry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// block returns the only code block of a language in the section Prometheus of
// docs/telemetry.md.
func block(t *testing.T, language string) string {
	text, err := os.ReadFile("../docs/telemetry.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n## Prometheus\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	_, code, found := strings.Cut(section, "```"+language+"\n")
	require.True(t, found)
	code, rest, found := strings.Cut(code, "```\n")
	require.True(t, found)
	require.NotContains(t, rest, "```"+language)
	return code
}

// exporter_test.go is the documented code, so what is tested here is what is documented.
func TestDocumentedExporterIsTheTestedOne(t *testing.T) {
	source, err := os.ReadFile("exporter_test.go")
	require.NoError(t, err)
	require.Equal(t, "package telemetry_test\n\n"+block(t, "go"), string(source))
}

var defaultRegistry sync.Once

// The documented exporter serves the metrics to a scrape of Prometheus. Chat streams without
// include_usage add no tokens; streams of the Responses API do.
func TestDocumentedExporterIsScraped(t *testing.T) {
	first := false
	if defaultRegistry.Do(func() { first = true }); !first {
		t.Skip("the default registry keeps the exporter of the first run")
	}
	service := spillovertest.New(spillovertest.Config{Deployments: []spillovertest.Deployment{{Name: "gpt-4o"}}})
	lb, handler, err := newTransport(spillover.Config{Base: service, Backends: []spillover.Backend{
		{Name: "ptu", URL: service.URL, Dialect: spillover.Azure, APIKey: "k", Models: []spillover.Model{{Name: "gpt-4o"}}},
	}})
	require.NoError(t, err)
	defer lb.Close()
	server := httptest.NewServer(handler)
	defer server.Close()
	post := func(path, body string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://any.openai.azure.com/openai/"+path+"?api-version=2025-04-01-preview", strings.NewReader(body))
		require.NoError(t, err)
		resp, err := lb.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	chat := func(options string) {
		post("deployments/gpt-4o/chat/completions", `{"messages":[{"role":"user","content":"hello"}]`+options+`}`)
	}
	scrape := func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		require.NoError(t, err)
		req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s", text)
		return string(text)
	}

	require.Regexp(t, `(?m)^spillover_deployment_available\{gen_ai_request_model="gpt-4o",.*spillover_backend="ptu",.*\} 1`, scrape())
	chat(`,"stream":true`)
	text := scrape()
	require.Regexp(t, `(?m)^spillover_requests_total\{.*spillover_outcome="served",.*\} 1`, text)
	require.Contains(t, text, "\nspillover_request_duration_seconds_bucket{")
	require.NotContains(t, text, "\nspillover_tokens_total{")
	post("responses", `{"model":"gpt-4o","input":"hello","stream":true}`)
	text = scrape()
	require.Regexp(t, `(?m)^spillover_tokens_total\{.*gen_ai_token_type="output",.*\} [1-9]`, text)
	chat(`,"stream":true,"stream_options":{"include_usage":true}`)
	require.NotEqual(t, tokens(text), tokens(scrape()))
	chat("")
	require.Regexp(t, `(?m)^spillover_requests_total\{.*spillover_outcome="served",.*\} 4`, scrape())
}

// tokens returns the lines of a scrape that count tokens.
func tokens(scraped string) []string {
	return regexp.MustCompile(`(?m)^spillover_tokens_total.*`).FindAllString(scraped, -1)
}

// The documented relabeling gives a pod the labels that alerts and dashboard use.
func TestDocumentedRelabeling(t *testing.T) {
	var scrape struct {
		Relabel []*relabel.Config `yaml:"relabel_configs"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(block(t, "yaml")), &scrape))
	require.NotEmpty(t, scrape.Relabel)
	for _, r := range scrape.Relabel {
		require.NoError(t, r.Validate(model.UTF8Validation))
	}
	target := labels.NewBuilder(labels.FromStrings("job", "pods", "__meta_kubernetes_namespace", "production", "__meta_kubernetes_pod_name", "gateway-7d9f"))
	require.True(t, relabel.ProcessBuilder(target, scrape.Relabel...))
	require.Equal(t, "production", target.Get("namespace"))
	require.Equal(t, "gateway-7d9f", target.Get("pod"))
	require.Equal(t, "pods", target.Get("job"), "a pod without the label keeps job_name")

	target.Set("__meta_kubernetes_pod_label_app_kubernetes_io_name", "gateway")
	require.True(t, relabel.ProcessBuilder(target, scrape.Relabel...))
	require.Equal(t, "gateway", target.Get("job"))
}
