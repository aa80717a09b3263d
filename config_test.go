package spillover_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// mistakes are what New has to say against a configuration, one a line.
func mistakes(cfg spillover.Config) []string {
	_, err := spillover.New(cfg)
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return nil
	}
	var lines []string
	for _, e := range joined.Unwrap() {
		lines = append(lines, strings.TrimPrefix(e.Error(), "spillover: "))
	}
	return lines
}

func TestConfigWithoutBackendsIsRefused(t *testing.T) {
	require.Equal(t, []string{"Backends: at least one is required"}, mistakes(spillover.Config{}))
}

// Each mistake alone, and what is said of it.
var wrong = []struct {
	change func(*spillover.Backend)
	said   string
}{
	{func(b *spillover.Backend) { b.URL = "" }, "URL: is missing"},
	{func(b *spillover.Backend) { b.URL = "https://h:x" }, "URL: is not a valid URL"},
	{func(b *spillover.Backend) { b.URL = "https://h/%zz" }, "URL: is not a valid URL"},
	{func(b *spillover.Backend) { b.URL = "ftp://h" }, `URL: scheme "ftp" is neither https nor http`},
	{func(b *spillover.Backend) { b.URL = "https:///path" }, "URL: has no host"},
	{func(b *spillover.Backend) { b.URL = "https://:443" }, "URL: has no host"},
	{func(b *spillover.Backend) { b.URL = "https://h:0" }, `URL: port "0" is not between 1 and 65535`},
	{func(b *spillover.Backend) { b.URL = "https://h:65536" }, `URL: port "65536" is not between 1 and 65535`},
	{func(b *spillover.Backend) { b.URL = "https://me:pw@h" }, "URL: has user info: the credential belongs in APIKey or Token"},
	{func(b *spillover.Backend) { b.URL = "https://h?api-version=1" }, "URL: has a query: an api-version belongs in APIVersion, a credential in APIKey"},
	{func(b *spillover.Backend) { b.URL = "https://h?" }, "URL: has a query: an api-version belongs in APIVersion, a credential in APIKey"},
	{func(b *spillover.Backend) { b.URL = "https://h#a" }, "URL: has a fragment"},
	{func(b *spillover.Backend) { b.Priority = -1 }, "Priority: -1 is negative"},
	{func(b *spillover.Backend) { b.Weight = -1 }, "Weight: -1 is not between 0 and 1000000"},
	{func(b *spillover.Backend) { b.Weight = 1_000_001 }, "Weight: 1000001 is not between 0 and 1000000"},
	{func(b *spillover.Backend) { b.HeaderTimeout = -time.Second }, "HeaderTimeout: -1s is negative"},
	{func(b *spillover.Backend) { b.IdleTimeout = -time.Second }, "IdleTimeout: -1s is negative"},
	{func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: "m", MaxInFlight: -1}} }, "Models[0].MaxInFlight: -1 is negative"},
	{func(b *spillover.Backend) { b.FailoverStatuses = []int{399} }, "FailoverStatuses[0]: 399 is not between 400 and 599"},
	{func(b *spillover.Backend) { b.FailoverStatuses = []int{600} }, "FailoverStatuses[0]: 600 is not between 400 and 599"},
	{func(b *spillover.Backend) { b.FailoverStatuses = []int{451, 451} }, "FailoverStatuses[1]: 451 is listed twice"},
	{func(b *spillover.Backend) { b.Dialect = "Azure" }, `Dialect: must be one of "azure", "azure-v1", "openai", not "Azure"; did you mean "azure"?`},
	{func(b *spillover.Backend) { b.Dialect = "bedrock" }, `Dialect: must be one of "azure", "azure-v1", "openai", not "bedrock"`},
	{func(b *spillover.Backend) { b.Dialect, b.APIVersion = spillover.OpenAI, "1" }, `APIVersion: is only for the dialects "azure" and "azure-v1"; this backend is "openai"`},
	{func(b *spillover.Backend) { b.APIVersion = "1&x=2" }, `APIVersion: "1&x=2" is not a valid api-version`},
	{func(b *spillover.Backend) { b.Token = func(context.Context) (string, error) { return "", nil } }, "APIKey: cannot be combined with Token"},
	{func(b *spillover.Backend) { b.APIKey = "a key" }, "APIKey: contains a space, a line break or a character that is not ASCII"},
	{func(b *spillover.Backend) { b.APIKey = "key\r\n" }, "APIKey: contains a space, a line break or a character that is not ASCII"},
	{func(b *spillover.Backend) { b.APIKey = "ké" }, "APIKey: contains a space, a line break or a character that is not ASCII"},
	{func(b *spillover.Backend) { b.APIKey = "$PTU_KEY" }, "APIKey: is the name of a variable, not a key: in a file write ${PTU_KEY}, in a program use os.Getenv"},
	{func(b *spillover.Backend) { b.Models = []spillover.Model{{Deployment: "d"}} }, "Models[0].Name: is missing"},
	{func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: "m"}, {Name: "m", Deployment: "d"}} }, `Models[1].Name: "m" is listed twice`},
	{func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: ".."}} }, `Models[0].Deployment: ".." would change the path of a URL`},
	{func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: "m", Deployment: "."}} }, `Models[0].Deployment: "." would change the path of a URL`},
}

func TestEachConfigMistakeIsReported(t *testing.T) {
	for _, c := range wrong {
		require.Equal(t, []string{`backend "a": ` + c.said}, mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", c.change)}}))
	}
	for _, name := range []string{"a\nb", "ü", strings.Repeat("n", 129)} {
		require.Equal(t, []string{fmt.Sprintf("backend %q: Name: must be at most 128 printable ASCII characters, because it is sent in a header", name)},
			mistakes(spillover.Config{Backends: []spillover.Backend{{Name: name, URL: "h", APIKey: "k"}}}))
	}
	require.Equal(t, []string{"backend 1 (other): Priority: -3 is negative"},
		mistakes(spillover.Config{Backends: []spillover.Backend{{URL: "h", APIKey: "k"}, {URL: "other", APIKey: "k", Priority: -3}}}), "one without a name is identified by its index and host")
}

// One New tells everything there is to mend.
func TestAllMistakesAtOnce(t *testing.T) {
	cfg := spillover.Config{MaxAttempts: -1, PromptAffinity: -1, DefaultCooldown: -time.Second, MaxCooldown: -time.Minute}
	want := []string{"MaxAttempts: -1 is negative", "PromptAffinity: -1 is not between 0 and 1048576", "DefaultCooldown: -1s is negative", "MaxCooldown: -1m0s is negative"}
	for i, c := range wrong {
		name := fmt.Sprintf("backend-%d", i)
		cfg.Backends = append(cfg.Backends, azure(name, c.change))
		want = append(want, fmt.Sprintf("backend %q: %s", name, c.said))
	}
	require.Subset(t, mistakes(cfg), want)

	everything := spillover.Backend{
		Name: "all", URL: "ftp://u@h:0?q#f", Priority: -1, Weight: -1, Dialect: "x", APIVersion: "?", APIKey: " ",
		Token: func(context.Context) (string, error) { return "", nil }, Models: []spillover.Model{{}}, HeaderTimeout: -1,
	}
	for _, field := range []string{"URL: scheme", "URL: port", "URL: has user info", "URL: has a query", "URL: has a fragment", "Priority", "Weight", "Dialect", "APIVersion", "APIKey: cannot be combined", "APIKey: contains a space", "Models", "HeaderTimeout"} {
		require.ErrorContains(t, func() error {
			_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{everything}})
			return err
		}(), `backend "all": `+field)
	}
}

func TestCooldowns(t *testing.T) {
	one := []spillover.Backend{azure("a")}
	require.Equal(t, []string{"DefaultCooldown: 2m0s is more than MaxCooldown, 1m0s"}, mistakes(spillover.Config{Backends: one, DefaultCooldown: 2 * time.Minute}))
	require.Equal(t, []string{"DefaultCooldown: 5s is more than MaxCooldown, 4s"}, mistakes(spillover.Config{Backends: one, DefaultCooldown: 5 * time.Second, MaxCooldown: 4 * time.Second}))
}

func TestDuplicateBackendNamesAreRefused(t *testing.T) {
	require.Equal(t, []string{`backend "a": Name: backends 0 and 2 are both called "a"; give each its own name`},
		mistakes(spillover.Config{Backends: []spillover.Backend{azure("a"), azure("b"), azure("a", func(b *spillover.Backend) { b.URL = "https://elsewhere" })}}))
	require.Equal(t, []string{`backend 1 (h): Name: is missing: backends 0 and 1 are both called h, after the host of their URL; give each a name`},
		mistakes(spillover.Config{Backends: []spillover.Backend{{URL: "https://h", APIKey: "1"}, {URL: "https://h", APIKey: "2"}}}), "the default name counts")
}

func TestDuplicateDeploymentsAreRefused(t *testing.T) {
	twin := func(name string, change ...func(*spillover.Backend)) spillover.Backend {
		b := spillover.Backend{Name: name, URL: "https://a.openai.azure.com", APIKey: "k"}
		for _, f := range change {
			f(&b)
		}
		return b
	}
	at := func(u string) func(*spillover.Backend) { return func(b *spillover.Backend) { b.URL = u } }
	for _, same := range []string{"https://a.openai.azure.com/", "a.openai.azure.com", "https://A.OpenAI.azure.com/openai", "https://a.openai.azure.com//"} {
		require.Equal(t, []string{`backend "y": URL: backend "x" already uses it for all models with the same credential`},
			mistakes(spillover.Config{Backends: []spillover.Backend{twin("x"), twin("y", at(same))}}), same)
	}
	m := func(name, deployment string) func(*spillover.Backend) {
		return func(b *spillover.Backend) {
			b.Models = append(b.Models, spillover.Model{Name: name, Deployment: deployment})
		}
	}
	require.Equal(t, []string{`backend "y": URL: backend "x" already uses its deployment "d" with the same credential`},
		mistakes(spillover.Config{Backends: []spillover.Backend{twin("x", m("m", "d"), m("o", "o")), twin("y", m("d", ""))}}))

	for name, backends := range map[string][]spillover.Backend{
		"two models of a host":        {twin("x", m("a", "")), twin("y", m("b", ""))},
		"two names for a deployment":  {twin("x", m("a", "d"), m("b", "d"))},
		"two keys":                    {twin("x"), twin("y", func(b *spillover.Backend) { b.APIKey = "other" })},
		"two tokens":                  {twin("x", entra), twin("y", entra)},
		"two base paths":              {twin("x"), twin("y", at("https://a.openai.azure.com/ai"))},
		"two ports":                   {twin("x"), twin("y", at("https://a.openai.azure.com:8443"))},
		"paths that differ in case":   {twin("x", at("https://gw.example/Team")), twin("y", at("https://gw.example/team"))},
		"two schemes":                 {twin("x"), twin("y", at("http://a.openai.azure.com"))},
		"the same host, two dialects": {twin("x"), twin("y", at("https://a.openai.azure.com/prefix/openai/v1"))},
	} {
		require.Empty(t, mistakes(spillover.Config{Backends: backends}), name)
	}
}

func entra(b *spillover.Backend) {
	b.APIKey, b.Token = "", func(context.Context) (string, error) { return "token", nil }
}

// A caller's credential suits one kind of backend only.
func TestMixedCredentials(t *testing.T) {
	none := func(b *spillover.Backend) { b.APIKey = "" }
	openAI := func(name string, change ...func(*spillover.Backend)) spillover.Backend {
		b := spillover.Backend{Name: name, URL: "https://" + name + ".example", APIKey: "k"}
		for _, f := range change {
			f(&b)
		}
		return b
	}
	const said = ": APIKey: is required: the pool mixes Azure and OpenAI backends, and a caller's credential works with one kind only"
	require.Equal(t, []string{`backend "a"` + said}, mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", none), openAI("o")}}))
	require.Equal(t, []string{`backend "o"` + said}, mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", entra), openAI("o", none)}}))
	require.ElementsMatch(t, []string{`backend "a"` + said, `backend "o"` + said},
		mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", none), azure("b"), openAI("o", none)}}), "each is named")

	for _, backends := range [][]spillover.Backend{
		{azure("a"), openAI("o")},
		{azure("a", entra), openAI("o")},
		{azure("a", none), azure("b", func(b *spillover.Backend) { b.Dialect = spillover.AzureV1 })},
		{openAI("o", none), openAI("p")},
	} {
		require.Empty(t, mistakes(spillover.Config{Backends: backends}))
	}
}

func TestConfigIsCopied(t *testing.T) {
	n := newNet()
	cfg := spillover.Config{Base: n, Backends: []spillover.Backend{{Name: "a", URL: "https://a", APIKey: "k", Models: []spillover.Model{{Name: "m", Deployment: "m-east"}}}}}
	tr := configured(t, cfg)
	require.Equal(t, []spillover.Backend{{Name: "a", URL: "https://a", APIKey: "k", Models: []spillover.Model{{Name: "m", Deployment: "m-east"}}}}, cfg.Backends, "New changes nothing")
	cfg.Backends[0].Models[0] = spillover.Model{Name: "other", Deployment: "other"}
	cfg.Backends[0].URL, cfg.Backends[0].APIKey, cfg.Backends[0].Name = "https://b", "x", "b"
	resp, _ := send(t, tr, newChat(t, "/v1/responses"))
	require.Equal(t, "a", servedBy(resp))
	require.Equal(t, "a", n.Last().Host)
	require.Contains(t, n.Last().Body, `"m-east"`)
	require.Equal(t, "Bearer k", n.Last().Header.Get("Authorization"))
}

// Defaults are set in the copy.
func TestNewDoesNotChangeTheConfig(t *testing.T) {
	given := func() []spillover.Backend {
		return []spillover.Backend{{
			URL: "https://a", APIKey: "k", Models: []spillover.Model{{Name: "m"}}, Tags: []string{"region=eu"}, FailoverStatuses: []int{451},
			Headers: map[string]string{"x-team": "a"}, Defaults: map[string]any{"temperature": 0},
		}}
	}
	cfg := spillover.Config{Base: newNet(), Backends: given(), Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"m"}}}}
	_, err := spillover.New(cfg)
	require.Error(t, err, "a model cannot fall back to itself")
	require.Equal(t, given(), cfg.Backends)
	require.Equal(t, []spillover.Fallback{{Model: "m", To: []string{"m"}}}, cfg.Fallbacks)
	cfg.Fallbacks = nil
	configured(t, cfg)
	require.Equal(t, given(), cfg.Backends)
}

func TestModelServedByNobodyIsNotFound(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a", serves("x")))
	for _, path := range []string{"/openai/deployments/y/files", "/openai/v1/responses", "/v1/embeddings"} {
		resp, _ := send(t, tr, newChat(t, path))
		require.Equal(t, 404, resp.StatusCode)
	}
	require.Zero(t, n.Sends())
	// What is not about a deployment may name any model.
	resp, _ := send(t, tr, newChat(t, "/v1/fine_tuning/jobs"))
	require.Equal(t, 200, resp.StatusCode)
}

// A flushed base counts how often it was told to close its idle connections.
type flushed struct {
	http.RoundTripper
	n atomic.Int32
}

func (c *flushed) CloseIdleConnections() { c.n.Add(1) }

func TestCloseLeavesAGivenBaseAlone(t *testing.T) {
	base := &flushed{RoundTripper: newNet()}
	tr := balance(t, base, azure("a"))
	(&http.Client{Transport: tr}).CloseIdleConnections()
	require.EqualValues(t, 1, base.n.Load())
	require.NotPanics(t, balance(t, newNet(), azure("a")).CloseIdleConnections, "a base need not have it")

	require.NoError(t, tr.Close())
	require.NoError(t, tr.Close())
	require.EqualValues(t, 1, base.n.Load(), "a base that was given is left alone")
	closed := &testnet.CloseCounter{Reader: strings.NewReader("{}")}
	req := newChat(t, chatPath)
	req.Body = closed
	_, err := tr.RoundTrip(req)
	require.ErrorIs(t, err, net.ErrClosed)
	require.Equal(t, 1, closed.Closes)
}

func TestConcurrentRequestsReturnEitherAnswerOrError(t *testing.T) {
	answers := []roundTripFunc{status(429, "", "retry-after-ms: 1"), status(500, ""), status(200, "{}"), broken(errors.New("reset")), status(200, "{}")}
	var turn atomic.Int64
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return answers[turn.Add(1)%int64(len(answers))](req)
	})
	tr := balance(t, base, azure("a"), azure("b", weight(3)), azure("c", priority(2)))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range 10 {
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				if (resp == nil) == (err == nil) {
					t.Error("exactly one of answer and error")
				}
				if resp != nil {
					resp.Body.Close()
				}
			}
		})
	}
	wg.Wait()
	for _, backend := range []string{"a", "b", "c"} {
		require.Zero(t, statusOf(t, tr, backend).InFlight)
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	tr := balance(t, newNet(), azure("a"))
	for _, target := range []string{"", "mailto:x"} {
		req := newChat(t, chatPath)
		if req.URL = nil; target != "" {
			req = newChat(t, target)
		}
		closed := &testnet.CloseCounter{Reader: strings.NewReader("{}")}
		req.Body = closed
		resp, err := tr.RoundTrip(req)
		require.Nil(t, resp)
		require.ErrorContains(t, err, "spillover: the request")
		require.Equal(t, 1, closed.Closes)
	}
}

// A program that has put something else in the default's place keeps its own
// out of our sends, and what it set there is honoured.
func TestDefaultTransportIsClonedOrReplaced(t *testing.T) {
	was := http.DefaultTransport
	defer func() { http.DefaultTransport = was }()
	mine := was.(*http.Transport).Clone()
	mine.MaxConnsPerHost = 7
	http.DefaultTransport = mine
	require.Equal(t, 7, spillover.BaseOf(configured(t, spillover.Config{Backends: []spillover.Backend{azure("a")}})).(*http.Transport).MaxConnsPerHost)
	http.DefaultTransport = newNet()
	require.True(t, spillover.BaseOf(configured(t, spillover.Config{Backends: []spillover.Backend{azure("a")}})).(*http.Transport).ForceAttemptHTTP2)
}
