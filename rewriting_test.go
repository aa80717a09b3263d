package spillover_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

// to is a backend at a URL, which calls the model m by another name if one is given.
func to(target string, d spillover.Dialect, name string, change ...func(*spillover.Backend)) spillover.Backend {
	b := spillover.Backend{Name: "to " + target, URL: target, Dialect: d, APIKey: "k"}
	if name != "" {
		b.Models = []spillover.Model{{Name: "m", Deployment: name}}
	}
	for _, f := range change {
		f(&b)
	}
	return b
}

func apiVersion(v string) func(*spillover.Backend) {
	return func(b *spillover.Backend) { b.APIVersion = v }
}

// arrives is how a request to a target arrives at a backend.
func arrives(t testing.TB, b spillover.Backend, method, target, body string, header ...string) sent {
	n := newNet()
	req := posts(t, method, target, body)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header[name] = []string{value}
	}
	resp, _ := send(t, balance(t, n, b), req)
	require.Equal(t, 200, resp.StatusCode)
	return n.Last()
}

func TestDialects(t *testing.T) {
	t.Parallel()
	// Each operation as each dialect spells it.
	type spelling map[spillover.Dialect]string
	const version = "?api-version=2024-10-21"
	for op, c := range map[string]struct {
		in, out spelling
		inBody  bool // classic Azure looks for the model there, as the others do
	}{
		"chat/completions": {
			spelling{spillover.Azure: "/openai/deployments/m/chat/completions", spillover.AzureV1: "/openai/v1/chat/completions", spillover.OpenAI: "/v1/chat/completions"},
			spelling{spillover.Azure: "/openai/deployments/m-east/chat/completions", spillover.AzureV1: "/openai/v1/chat/completions", spillover.OpenAI: "/v1/chat/completions"},
			false,
		},
		"embeddings": {
			spelling{spillover.Azure: "/openai/deployments/m/embeddings", spillover.AzureV1: "/openai/v1/embeddings", spillover.OpenAI: "/v1/embeddings"},
			spelling{spillover.Azure: "/openai/deployments/m-east/embeddings", spillover.AzureV1: "/openai/v1/embeddings", spillover.OpenAI: "/v1/embeddings"},
			false,
		},
		"responses": {
			spelling{spillover.Azure: "/openai/responses", spillover.AzureV1: "/openai/v1/responses", spillover.OpenAI: "/v1/responses"},
			spelling{spillover.Azure: "/openai/responses", spillover.AzureV1: "/openai/v1/responses", spillover.OpenAI: "/v1/responses"},
			true,
		},
		"files": {
			spelling{spillover.Azure: "/openai/files", spillover.AzureV1: "/openai/v1/files", spillover.OpenAI: "/v1/files"},
			spelling{spillover.Azure: "/openai/files", spillover.AzureV1: "/openai/v1/files", spillover.OpenAI: "/v1/files"},
			true,
		},
		"an operation of tomorrow": {
			spelling{spillover.Azure: "/openai/telepathy/now", spillover.AzureV1: "/openai/v1/telepathy/now", spillover.OpenAI: "/v1/telepathy/now"},
			spelling{spillover.Azure: "/openai/telepathy/now", spillover.AzureV1: "/openai/v1/telepathy/now", spillover.OpenAI: "/v1/telepathy/now"},
			true,
		},
	} {
		for in, path := range c.in {
			for out, want := range c.out {
				t.Run(fmt.Sprintf("%s/%s to %s", op, in, out), func(t *testing.T) {
					query := map[spillover.Dialect]string{spillover.Azure: version, spillover.AzureV1: "", spillover.OpenAI: ""}[in]
					b := to("https://east.example/ai", out, "m-east")
					wantQuery := ""
					if out == spillover.Azure {
						b.APIVersion = "2025-01-01-preview"
						wantQuery = "api-version=2025-01-01-preview"
					}
					body := `{"input":"hi","model":"m"}`
					got := arrives(t, b, http.MethodPost, "https://foo.example"+path+query, body)
					require.Equal(t, "east.example", got.Host)
					require.Equal(t, "/ai"+want, got.Path)
					require.Equal(t, wantQuery, got.Query)
					if out != spillover.Azure || c.inBody {
						body = `{"input":"hi","model":"m-east"}`
					}
					require.Equal(t, body, got.Body)
					require.EqualValues(t, len(body), got.Length)
				})
			}
		}
	}
}

func TestOtherPaths(t *testing.T) {
	for _, c := range []struct {
		name, in string
		b        spillover.Backend
		want     string
	}{
		{"model inference", "https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
			to("https://r.services.ai.azure.com", spillover.AzureV1, ""), "/models/chat/completions?api-version=2024-05-01-preview"},
		{"none we know", "https://foo.example/a%2Fb//c?x=1", to("https://h/ai", spillover.Azure, "", apiVersion("1")), "/ai/a%2Fb//c?x=1"},
		{"root", "https://foo.example/", to("https://h/ai", spillover.OpenAI, ""), "/ai/"},
		{"base without v1", "https://foo.example/chat/completions", to("https://h", spillover.OpenAI, ""), "/v1/chat/completions"},
		{"base without v1, models", "https://foo.example/models", to("https://h", spillover.AzureV1, ""), "/openai/v1/models"},
		{"base without v1, one model", "https://foo.example/models/m", to("https://h", spillover.AzureV1, ""), "/openai/v1/models/m"},
		{"a stored answer", "https://foo.example/openai/responses/resp_1/input_items?api-version=1&after=x", to("https://h", spillover.AzureV1, ""), "/openai/v1/responses/resp_1/input_items?after=x"},
		{"slash at the end", "https://foo.example/v1/files/", to("https://h", spillover.AzureV1, ""), "/openai/v1/files"},
		{"project", "https://foo.example/v1/responses", to("https://r.services.ai.azure.com/api/projects/p", "", ""), "/api/projects/p/openai/v1/responses"},
		{"project to project", "https://x.services.ai.azure.com/api/projects/q/openai/v1/responses?api-version=preview", to("https://r.services.ai.azure.com/api/projects/p/openai/v1/", "", ""), "/api/projects/p/openai/v1/responses?api-version=preview"},
		{"gateway", "https://apim.example/team/a/openai/deployments/m/embeddings?api-version=1", to("https://apim.example/team/b", spillover.Azure, ""), "/team/b/openai/deployments/m/embeddings?api-version=1"},
		{"gateway of OpenAI", "https://gw.example/tenant/v1/embeddings", to("https://gw.example/other/v1", "", ""), "/other/v1/embeddings"},
		{"a deployment alone", "https://foo.example/openai/deployments/m?api-version=1", to("https://h", spillover.Azure, ""), "/openai/deployments/m?api-version=1"},
		{"the deployments", "https://foo.example/openai/deployments?api-version=1", to("https://h", spillover.Azure, ""), "/openai/deployments?api-version=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := arrives(t, c.b, http.MethodGet, c.in, "")
			if got.Query != "" {
				got.Path += "?" + got.Query
			}
			require.Equal(t, c.want, got.Path)
		})
	}
}

func TestBasePathAndQueryAreKept(t *testing.T) {
	const query = "?a=1&api-version=2024-08-01-preview&b=%20+%2f&&c"
	for _, base := range []string{
		"https://h.example/ai", "https://h.example/ai/", "h.example/ai", "h.example/ai/", "https://h.example//ai//",
		"https://h.example/ai/openai", "https://h.example/ai/openai/", "https://h.example/ai/openai/deployments",
	} {
		for _, in := range []string{"", "/", "/prefix/", "//"} {
			got := arrives(t, to(base, spillover.Azure, ""), http.MethodPost, "https://foo.example"+in+"/openai//deployments/m/chat/completions"+query, "{}")
			require.Equal(t, "/ai/openai/deployments/m/chat/completions", got.Path, base+in)
			require.Equal(t, query[1:], got.Query, "byte for byte")
		}
	}
	got := arrives(t, to("https://h.example", spillover.Azure, ""), http.MethodPost, "https://foo.example/openai/deployments/m/chat/completions", "{}")
	require.Equal(t, "/openai/deployments/m/chat/completions", got.Path)
}

// Failing over starts from the caller's own path, not from the last attempt's.
func TestFailoverStartsFromTheCallersPath(t *testing.T) {
	n := newNet()
	for _, h := range []string{"a", "b", "c"} {
		n.On(h, status(429, "", "Retry-After: 1"))
	}
	send(t, balance(t, n, to("https://a/ai", spillover.Azure, ""), to("https://b/ai", spillover.Azure, "", priority(2)), to("https://c", spillover.Azure, "", priority(3))), newChat(t, chatPath))
	var paths []string
	for _, s := range n.Seen {
		paths = append(paths, s.Path)
	}
	require.Equal(t, []string{
		"/ai/openai/deployments/m/chat/completions", "/ai/openai/deployments/m/chat/completions", "/openai/deployments/m/chat/completions",
	}, paths)
}

func TestEscapedDeploymentInThePathIsKept(t *testing.T) {
	for _, segment := range []string{"my%20dep%2Fft:1", "my%20dep%2fft%3A1", "m%C3%BC", "a+b", "%25", "a!b*(c)", "chat", "v1", "openai", "deployments", "%6d", "a;b=c", "a@b"} {
		for _, base := range []string{"https://h", "https://h/ai", "https://h/a%2Fi"} {
			got := arrives(t, to(base, spillover.Azure, ""), http.MethodPost, "https://foo.example/openai/deployments/"+segment+"/chat/completions", "{}")
			require.Equal(t, strings.TrimPrefix(base, "https://h")+"/openai/deployments/"+segment+"/chat/completions", got.Path)
		}
	}
}

// A name is a name, whatever it looks like.
func TestDeploymentNamesAreEscapedInPathsAndBodies(t *testing.T) {
	for name, segment := range map[string]string{
		"m-east":       "m-east",
		"chat":         "chat",
		"v1":           "v1",
		"openai":       "openai",
		"deployments":  "deployments",
		"completions":  "completions",
		"my dep/ft:1":  "my%20dep%2Fft:1",
		"a?b#c%d":      "a%3Fb%23c%25d",
		"ü":            "%C3%BC",
		`quote"\back`:  "quote%22%5Cback",
		"a/../b":       "a%2F..%2Fb",
		"tab\tand\nlf": "tab%09and%0Alf",
	} {
		b := to("https://h/ai", spillover.Azure, name, apiVersion("1"))
		for _, in := range []string{"/openai/deployments/m/chat/completions", "/v1/chat/completions"} {
			got := arrives(t, b, http.MethodPost, "https://foo.example"+in, `{"model":"m"}`)
			require.Equal(t, "/ai/openai/deployments/"+segment+"/chat/completions", got.Path)
			require.Equal(t, `{"model":"m"}`, got.Body)
		}
		// The same name in the body of another dialect, and back in a path.
		got := arrives(t, to("https://h", spillover.OpenAI, name), http.MethodPost, "https://foo.example/openai/deployments/m/chat/completions", "{}")
		model, _, found := findModel([]byte(got.Body))
		require.True(t, found)
		require.Equal(t, name, model)
		got = arrives(t, to("https://h/ai", spillover.Azure, "", apiVersion("1")), http.MethodPost, "https://foo.example/v1/chat/completions", got.Body)
		require.Equal(t, "/ai/openai/deployments/"+segment+"/chat/completions", got.Path)
	}
}

// A caller's model must not lead elsewhere on the host than to a deployment.
func TestDotsInAModelDoNotChangeThePath(t *testing.T) {
	for _, name := range []string{".", ".."} {
		n := newNet()
		tr := balance(t, n, to("https://h", spillover.Azure, "", apiVersion("1")))
		send(t, tr, posts(t, http.MethodPost, "https://foo.example/v1/chat/completions", `{"model":"`+name+`"}`))
		for _, s := range n.Seen {
			u, err := url.Parse("https://h" + s.Path)
			require.NoError(t, err)
			require.Equal(t, s.Path, u.JoinPath().EscapedPath(), "a server would resolve it to another path")
		}
	}
}

// Every byte of a body but its model is the caller's.
func TestOnlyTheModelOfABodyIsReplaced(t *testing.T) {
	long := strings.Repeat("all work and no play ", 5000)
	for name, c := range map[string]struct{ in, want string }{
		"first":           {`{"model":"m", "messages":[]}`, `{"model":"m-east", "messages":[]}`},
		"last":            {`{"messages":["` + long + `"],"model":"m"}`, `{"messages":["` + long + `"],"model":"m-east"}`},
		"spaces":          {" {\r\n\t\"model\" :\n \"m\"\t,\"a\":1 }\n", " {\r\n\t\"model\" :\n \"m-east\"\t,\"a\":1 }\n"},
		"numbers as they": {`{"a":1.0e+2,"b":12345678901234567890,"model":"m","c":0.10}`, `{"a":1.0e+2,"b":12345678901234567890,"model":"m-east","c":0.10}`},
		"escaped key":     {`{"\u006dod\u0065l":"m"}`, `{"\u006dod\u0065l":"m-east"}`},
		"escaped value":   {`{"model":"\u006d"}`, `{"model":"m-east"}`},
		"duplicate":       {`{"model":"x","a":{},"model":"m"}`, `{"model":"x","a":{},"model":"m-east"}`},
		"nested":          {`{"a":{"model":"m"},"b":[{"model":"m"}],"model":"m"}`, `{"a":{"model":"m"},"b":[{"model":"m"}],"model":"m-east"}`},
		"in a string":     {`{"a":"\"model\":\"m\"","model":"m"}`, `{"a":"\"model\":\"m\"","model":"m-east"}`},
		"cut off":         {`{"model":"m","messages":[`, `{"model":"m-east","messages":[`},
		"other encodings": {"{\"a\":\"\xff\xfe\",\"model\":\"m\"}", "{\"a\":\"\xff\xfe\",\"model\":\"m-east\"}"},

		"absent":      {`{"messages":[]}`, `{"messages":[]}`},
		"only nested": {`{"a":{"model":"m"}}`, `{"a":{"model":"m"}}`},
		"other case":  {`{"Model":"m"}`, `{"Model":"m"}`},
		"number":      {`{"model":5}`, `{"model":5}`},
		"null":        {`{"model":null}`, `{"model":null}`},
		"array":       {`[{"model":"m"}]`, `[{"model":"m"}]`},
		"no JSON":     {`model=m`, `model=m`},
		"half":        {`{"model":"m`, `{"model":"m`},
		"empty":       {`{}`, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range []spillover.Dialect{spillover.OpenAI, spillover.AzureV1} {
				got := arrives(t, to("https://h", d, "m-east"), http.MethodPost, "https://foo.example/v1/files", c.in)
				require.Equal(t, c.want, got.Body)
				require.EqualValues(t, len(c.want), got.Length)
			}
		})
	}
}

// A classic caller names the model in the path alone, or has something else in
// the body, which classic Azure does not look at. Other dialects do.
func TestModelFromThePathIsWrittenIntoTheBody(t *testing.T) {
	for in, want := range map[string]string{
		`{"messages":[]}`:               `{"model":"m-east","messages":[]}`,
		`{}`:                            `{"model":"m-east"}`,
		" {\n } ":                       " {\"model\":\"m-east\"\n } ",
		`{"model":"gpt-4o","a":1}`:      `{"model":"m-east","a":1}`,
		`{"a":1,"model":"m-east"}`:      `{"a":1,"model":"m-east"}`,
		`{"model":null,"messages":[]}`:  `{"model":"m-east","messages":[]}`, // what LangChain sends
		`{"messages":[],"model":null }`: `{"messages":[],"model":"m-east" }`,
		`[]`:                            `[]`,
		``:                              ``,
	} {
		t.Run(in, func(t *testing.T) {
			got := arrives(t, to("https://h", spillover.AzureV1, "m-east"), http.MethodPost, "https://foo.example"+chatPath, in)
			require.Equal(t, want, got.Body)
			require.EqualValues(t, len(want), got.Length)
		})
	}
}

// each attempt is looked at with its body, its length and a fresh body of GetBody.
func bodiesOf(t testing.TB, answers ...roundTripFunc) (base roundTripFunc, seen *[]string) {
	seen = new([]string)
	return func(req *http.Request) (*http.Response, error) {
		text, err := io.ReadAll(req.Body)
		require.NoError(t, err)
		require.NoError(t, req.Body.Close())
		require.EqualValues(t, len(text), req.ContentLength)
		for range 2 {
			again, err := req.GetBody()
			require.NoError(t, err)
			second, err := io.ReadAll(again)
			require.NoError(t, err)
			require.NoError(t, again.Close())
			require.Equal(t, string(text), string(second))
		}
		*seen = append(*seen, string(text))
		return answers[min(len(*seen), len(answers))-1](req)
	}, seen
}

func TestModelIsReplacedInEachAttempt(t *testing.T) {
	full := status(429, "", "Retry-After: 1")
	for _, kind := range []string{"with GetBody", "with one reader for all", "without"} {
		t.Run(kind, func(t *testing.T) {
			base, seen := bodiesOf(t, full, full, full, status(200, "{}"))
			tr := balance(t, base,
				to("https://a", spillover.OpenAI, "a-much-longer-name"), to("https://b", spillover.AzureV1, "x", priority(2)),
				to("https://c", spillover.Azure, "", priority(3), apiVersion("1")), to("https://d", spillover.OpenAI, "", priority(4)))
			req := posts(t, http.MethodPost, "https://foo.example/v1/chat/completions", `{"a":1,"model":"m","b":2}`)
			switch kind {
			case "without":
				req.GetBody, req.ContentLength = nil, -1
			case "with one reader for all":
				one := strings.NewReader(`{"a":1,"model":"m","b":2}`)
				req.Body = io.NopCloser(one)
				req.GetBody = func() (io.ReadCloser, error) {
					_, err := one.Seek(0, io.SeekStart)
					return io.NopCloser(one), err
				}
			}
			resp, _ := send(t, tr, req)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, []string{
				`{"a":1,"model":"a-much-longer-name","b":2}`, `{"a":1,"model":"x","b":2}`, `{"a":1,"model":"m","b":2}`, `{"a":1,"model":"m","b":2}`,
			}, *seen)
		})
	}
}

// What is no plain JSON is sent as it is, its model unread.
func TestOpaqueBodiesAreSentUnchanged(t *testing.T) {
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := w.Write([]byte(`{"model":"m"}`))
	require.NoError(t, err)
	require.NoError(t, w.Close())

	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	require.NoError(t, m.WriteField("model", "m"))
	part, err := m.CreateFormFile("file", "a.wav")
	require.NoError(t, err)
	_, err = part.Write(bytes.Repeat([]byte{0, 1, 0xff, '"', '{'}, 100_000))
	require.NoError(t, err)
	require.NoError(t, m.Close())

	for name, c := range map[string]struct{ path, body, header string }{
		"gzip":                {"/openai/v1/responses", zipped.String(), "Content-Encoding: gzip"},
		"upload":              {"/openai/v1/files", form.String(), "Content-Type: " + m.FormDataContentType()},
		"JSON says multipart": {"/openai/v1/responses", `{"model":"m"}`, "Content-Type: Multipart/form-data; boundary=x"},
	} {
		t.Run(name, func(t *testing.T) {
			base, seen := bodiesOf(t, status(429, "", "Retry-After: 1"), status(200, "{}"))
			tr := balance(t, base, to("https://a", spillover.AzureV1, "m-a"), to("https://b", spillover.OpenAI, "m-b", priority(2)))
			req := posts(t, http.MethodPost, "https://foo.example"+c.path, c.body)
			field, value, _ := strings.Cut(c.header, ": ")
			req.Header.Set(field, value)
			resp, _ := send(t, tr, req)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, []string{c.body, c.body}, *seen)
		})
	}

	got := arrives(t, to("https://h", spillover.Azure, "m-east"), http.MethodPost, "https://foo.example/openai/deployments/m/audio/transcriptions?api-version=1",
		form.String(), "Content-Type: "+m.FormDataContentType())
	require.Equal(t, "/openai/deployments/m-east/audio/transcriptions", got.Path, "the path tells it")
	require.Equal(t, form.String(), got.Body)
}

func TestGetBodyErrorEndsTheFailover(t *testing.T) {
	gone := errors.New("gone")
	n := newNet()
	n.On(host("a"), status(429, "{}"))
	req := testnet.NewLargeChat(t, "/v1/chat/completions")
	req.GetBody = func() (io.ReadCloser, error) { return nil, gone }
	_, err := balance(t, n, azure("a"), azure("b", priority(2))).RoundTrip(req)
	require.ErrorIs(t, err, gone)
	require.Equal(t, 1, n.Sends())
}

func TestAPIVersionIsRewrittenForEachDialect(t *testing.T) {
	const own = "2025-04-01"
	for _, c := range []struct {
		in   spillover.Dialect
		out  spillover.Dialect
		own  string
		raw  string
		want string
	}{
		{spillover.Azure, spillover.Azure, own, "api-version=1", "api-version=" + own},
		{spillover.Azure, spillover.Azure, own, "a=%20&api-version=1&b=2", "a=%20&api-version=" + own + "&b=2"},
		{spillover.Azure, spillover.Azure, own, "API-Version=1&a", "api-version=" + own + "&a"},
		{spillover.Azure, spillover.Azure, own, "api-version=1&a=b&api-version=2", "api-version=" + own + "&a=b"},
		{spillover.Azure, spillover.Azure, own, "", "api-version=" + own},
		{spillover.Azure, spillover.Azure, own, "a=b", "a=b&api-version=" + own},
		{spillover.Azure, spillover.Azure, own, "x-api-version=1", "x-api-version=1&api-version=" + own},
		{spillover.Azure, spillover.Azure, "", "api-version=1&a=%2f", "api-version=1&a=%2f"},
		{spillover.Azure, spillover.Azure, "", "", ""},
		{spillover.AzureV1, spillover.Azure, own, "api-version=preview", "api-version=" + own},
		{spillover.OpenAI, spillover.Azure, own, "limit=5", "limit=5&api-version=" + own},
		{spillover.Azure, spillover.AzureV1, "", "a=%20&api-version=1&b", "a=%20&b"},
		{spillover.AzureV1, spillover.AzureV1, "", "api-version=preview&&a", "api-version=preview&&a"},
		{spillover.OpenAI, spillover.AzureV1, "", "a=1&b=", "a=1&b="},
		{spillover.Azure, spillover.OpenAI, "", "api-version=1", ""},
		{spillover.AzureV1, spillover.OpenAI, "", "api-version=preview&after=x", "after=x"},
		{spillover.OpenAI, spillover.OpenAI, "", "after=%e2%82&after=;", "after=%e2%82&after=;"},
	} {
		path := map[spillover.Dialect]string{spillover.Azure: "/openai/files?", spillover.AzureV1: "/openai/v1/files?", spillover.OpenAI: "/v1/files?"}[c.in]
		got := arrives(t, to("https://h", c.out, "", apiVersion(c.own)), http.MethodGet, strings.TrimSuffix("https://foo.example"+path+c.raw, "?"), "")
		require.Equal(t, c.want, got.Query, "%s to %s: %q", c.in, c.out, c.raw)
	}
}

func TestHostAndEscapedPathReachTheServer(t *testing.T) {
	var hosts []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		hosts = append(hosts, req.Host+req.RequestURI)
	}))
	defer server.Close()
	tr := configured(t, spillover.Config{Base: server.Client().Transport, Backends: []spillover.Backend{to(server.URL+"/ai", spillover.Azure, "my dep/ft:1")}})
	req := newChat(t, chatPath)
	req.Host = "foo.example"
	send(t, tr, req)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	require.Equal(t, []string{u.Host + "/ai/openai/deployments/my%20dep%2Fft:1/chat/completions?api-version=2024-08-01-preview"}, hosts)
	require.Equal(t, "foo.example", req.Host)
}

// credentials are the two headers that carry one, whatever the case.
func credentials(h http.Header) http.Header {
	out := http.Header{}
	for name, v := range h {
		if strings.EqualFold(name, "api-key") || strings.EqualFold(name, "authorization") {
			out[name] = v
		}
	}
	return out
}

func TestCredentialHeadersFollowTheDialect(t *testing.T) {
	key := func(k string) func(*spillover.Backend) { return func(b *spillover.Backend) { b.APIKey = k } }
	token := func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(context.Context) (string, error) { return "entra", nil }
	}
	both := []string{"Api-Key: callers", "Authorization: Bearer callers"}
	for name, c := range map[string]struct {
		d      spillover.Dialect
		set    func(*spillover.Backend)
		caller []string
		want   http.Header
	}{
		"azure key":                  {spillover.Azure, key("own"), both, http.Header{"Api-Key": {"own"}}},
		"azure-v1 key":               {spillover.AzureV1, key("own"), both, http.Header{"Api-Key": {"own"}}},
		"openai key":                 {spillover.OpenAI, key("own"), both, http.Header{"Authorization": {"Bearer own"}}},
		"azure token":                {spillover.Azure, token, both, http.Header{"Authorization": {"Bearer entra"}}},
		"azure-v1 token":             {spillover.AzureV1, token, both, http.Header{"Authorization": {"Bearer entra"}}},
		"openai token":               {spillover.OpenAI, token, both, http.Header{"Authorization": {"Bearer entra"}}},
		"by hand":                    {spillover.Azure, key("own"), []string{"api-key: callers", "AUTHORIZATION: Bearer callers"}, http.Header{"Api-Key": {"own"}}},
		"by hand, to openai":         {spillover.OpenAI, key("own"), []string{"api-key: callers", "authorization: Bearer callers"}, http.Header{"Authorization": {"Bearer own"}}},
		"none":                       {spillover.Azure, key(""), nil, http.Header{}},
		"callers key":                {spillover.Azure, key(""), both[:1], http.Header{"Api-Key": {"callers"}}},
		"callers key by hand":        {spillover.AzureV1, key(""), []string{"api-key: callers"}, http.Header{"Api-Key": {"callers"}}},
		"callers token":              {spillover.Azure, key(""), both[1:], http.Header{"Authorization": {"Bearer callers"}}},
		"callers, openai":            {spillover.OpenAI, key(""), both[1:], http.Header{"Authorization": {"Bearer callers"}}},
		"callers key is not openais": {spillover.OpenAI, key(""), both[:1], http.Header{}},
		"callers both, openai":       {spillover.OpenAI, key(""), both, http.Header{"Authorization": {"Bearer callers"}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := to("https://h", c.d, "", c.set)
			got := arrives(t, b, http.MethodPost, "https://foo.example/v1/responses", "{}", slices.Concat(c.caller, []string{"X-Mine: 1"})...)
			require.Equal(t, c.want, credentials(got.Header))
			require.Equal(t, "1", got.Header.Get("X-Mine"))
		})
	}
}

// A header without a value is legal: it takes a default of net/http's out.
func TestHeaderWithoutValueDoesNotPanic(t *testing.T) {
	for _, name := range []string{"Authorization", "Api-Key", "api-key", "User-Agent"} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			for _, b := range []spillover.Backend{azure("a"), to("https://h", spillover.OpenAI, "", func(b *spillover.Backend) { b.APIKey = "" })} {
				req := newChat(t, chatPath)
				req.Header.Del("api-key")
				req.Header[name] = nil
				require.NotPanics(t, func() { send(t, balance(t, n, b), req) })
			}
		})
	}
}

// No attempt gets what was another's.
func TestEachAttemptHasItsOwnCredential(t *testing.T) {
	full := status(429, "", "Retry-After: 1")
	n := newNet()
	backends := []spillover.Backend{
		to("https://a", spillover.Azure, "", func(b *spillover.Backend) { b.APIKey = "KA" }),
		to("https://b", spillover.Azure, "", priority(2), func(b *spillover.Backend) { b.APIKey = "" }),
		to("https://c", spillover.AzureV1, "", priority(3), func(b *spillover.Backend) { b.APIKey = "KC" }),
		to("https://d", spillover.Azure, "", priority(4), func(b *spillover.Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) { return "TD", nil }
		}),
	}
	for _, h := range []string{"a", "b", "c", "d"} {
		n.On(h, full)
	}
	ask(t, balance(t, n, backends...))
	var got []http.Header
	for _, s := range n.Seen {
		got = append(got, credentials(s.Header))
	}
	require.Equal(t, []http.Header{
		{"Api-Key": {"KA"}}, {"Api-Key": {"example API key"}}, {"Api-Key": {"KC"}}, {"Authorization": {"Bearer TD"}},
	}, got)
}

// What does not concern a credential goes along, several values too, and a base
// that changes its header changes nobody else's.
func TestHeadersAreCopies(t *testing.T) {
	var got []http.Header
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		got = append(got, req.Header.Clone())
		for name := range req.Header {
			req.Header[name][0] = "changed"
			req.Header[name] = append(req.Header[name], "more")
		}
		req.Header.Set("X-New", "1")
		req.URL.Path = "/changed"
		return status(429, "", "Retry-After: 1")(req)
	})
	req := newChat(t, chatPath)
	req.Header["x-By-Hand"] = []string{"1", "2", "3"}
	before := req.Header.Clone()
	ask := balance(t, base, azure("a"), azure("b"))
	send(t, ask, req)
	require.Equal(t, before, req.Header)
	for _, h := range got {
		require.Equal(t, []string{"1", "2", "3"}, h["x-By-Hand"])
		require.NotContains(t, h, "X-New")
		require.NotEqual(t, "changed", h.Get("Content-Type"))
	}
	require.Len(t, got, 2)
}

// Models with long names share a deployment, but not the URL of its last request.
func TestLongModelNamesHaveTheirOwnURLs(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	for _, model := range []string{strings.Repeat("x", 300), strings.Repeat("y", 300), strings.Repeat("x", 300)} {
		_, _ = send(t, tr, with(t, `POST /v1/chat/completions {"model":"`+model+`"}`))
		require.Contains(t, n.Last().Path, "/deployments/"+model+"/")
	}
}

func TestTokenIsRequestedOncePerAttempt(t *testing.T) {
	calls := 0
	bad := errors.New("no identity")
	tokens := []func() (string, error){
		func() (string, error) { return "first", nil },
		func() (string, error) { return "second", nil },
		func() (string, error) { return "", bad },
		func() (string, error) { return "", nil },
		func() (string, error) { return "line\nbreak", nil },
	}
	type contextKey struct{}
	entra := func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(ctx context.Context) (string, error) {
			require.Equal(t, "the caller's", ctx.Value(contextKey{}))
			calls++
			return tokens[calls-1]()
		}
	}
	for i, want := range []string{"a", "a", "b", "b", "b"} {
		n := newNet()
		calls = i
		tr := balance(t, n, azure("a", entra), azure("b", priority(2)))
		req := newChat(t, chatPath)
		resp, _ := send(t, tr, req.WithContext(context.WithValue(req.Context(), contextKey{}, "the caller's")))
		require.Equal(t, want, servedBy(resp))
		require.Equal(t, i+1, calls, "once for each attempt")
		require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"), "what was not sent is no attempt")
		if want == "a" {
			require.Equal(t, http.Header{"Authorization": {"Bearer " + []string{"first", "second"}[i]}}, credentials(n.Last().Header))
			continue
		}
		require.Zero(t, n.Sends(host("a")))
		d := statusOf(t, tr, "a")
		require.False(t, d.Available)
		require.Equal(t, "no token", d.Reason)
		require.EqualValues(t, 1, d.Failed)
	}

	n := newNet()
	calls = 2
	req := newChat(t, chatPath)
	_, err := balance(t, n, azure("a", entra)).RoundTrip(req.WithContext(context.WithValue(req.Context(), contextKey{}, "the caller's")))
	require.ErrorIs(t, err, bad)
	require.EqualError(t, err, "spillover: no answer for m: a: token: no identity")
}

func TestCancellationDuringTheTokenIsNeutral(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tr := balance(t, newNet(), azure("a", func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(ctx context.Context) (string, error) {
			cancel()
			return "", ctx.Err()
		}
	}))
	_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
	require.Equal(t, context.Canceled, err)
	require.True(t, statusOf(t, tr, "a").Available)
}

func TestRequestIsUnchangedAfterFailoverAcrossDialects(t *testing.T) {
	full := status(429, "", "Retry-After: 1")
	n := newNet()
	n.On("a", full)
	n.On("b", status(500, ""))
	tr := balance(t, n, to("https://a/ai", spillover.OpenAI, "other"), to("https://b", spillover.Azure, "third", priority(2), apiVersion("1")), to("https://c", spillover.AzureV1, "", priority(3)))
	for _, path := range []string{chatPath, "/v1/chat/completions?a=b", "/openai/v1/responses"} {
		req := newChat(t, path)
		req.Header["x-by-hand"] = []string{"1"}
		before, target, header, body := *req, *req.URL, req.Header.Clone(), req.Body
		send(t, tr, req)
		require.Equal(t, before.Method, req.Method)
		require.Equal(t, before.Host, req.Host)
		require.Equal(t, before.ContentLength, req.ContentLength)
		require.Same(t, before.URL, req.URL)
		require.Equal(t, target, *req.URL)
		require.Equal(t, header, req.Header)
		require.Equal(t, body, req.Body)
	}
}

func TestErrorsAndAnswersContainNoSecrets(t *testing.T) {
	const caller, key, entra, query = "SECRET-caller", "SECRET-key", "SECRET-token", "SECRET-query"
	const text = `{"error":{"message":"Incorrect API key","code":"invalid_api_key"}}`
	token := func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(context.Context) (string, error) { return entra, nil }
	}
	own := func(b *spillover.Backend) { b.APIKey = key }
	backends := []spillover.Backend{azure("a", own), azure("b", token, priority(2)), azure("c", own, priority(3))}
	for name, answer := range map[string]roundTripFunc{
		"200": status(200, "{}"), "401": status(401, text), "429": status(429, "", "Retry-After: 1"), "500": status(500, ""),
		"400": status(400, text), "none": broken(errors.New("reset")), "neither": func(*http.Request) (*http.Response, error) { return nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			tr := balance(t, answer, backends...)
			req := newChat(t, chatPath+"&code="+query)
			req.Header = http.Header{"Authorization": {"Bearer " + caller}, "api-key": {caller}}
			resp, err := tr.RoundTrip(req)
			told := fmt.Sprintf("%v %+v %#v %+v", err, err, err, tr.Status())
			if resp != nil {
				told += fmt.Sprintf("%v %s", resp.Header, read(t, resp))
			}
			require.NotContains(t, told, "SECRET")
		})
	}
}

func TestConfigErrorsContainNoSecrets(t *testing.T) {
	b := azure("a", func(b *spillover.Backend) {
		b.APIKey, b.URL = "SECRET key\n", "https://user:SECRET@h/?code=SECRET#SECRET"
		b.Token = func(context.Context) (string, error) { return "SECRET", nil }
		b.APIVersion = "" // is told as it is: it is no secret
	})
	for _, target := range []string{b.URL, "https://user:SECRET@h:port", "user:SECRET@h", "https://[SECRET", "https://h/%zzSECRET"} {
		b.URL = target
		_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{b, b}})
		require.Error(t, err)
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "SECRET", target)
	}
}

// A program that logs its client or its configuration must not log its keys.
func TestStringFormsContainNoSecrets(t *testing.T) {
	b := azure("a", func(b *spillover.Backend) { b.APIKey = "SECRET" })
	withUser := b
	withUser.URL = "https://me:SECRET@h/?code=SECRET"
	noURL := b
	noURL.URL = "https://me:SECRET@h:port/"
	tr := balance(t, newNet(), b)
	client := http.Client{Transport: tr}
	for _, v := range []any{tr, b, &b, withUser, noURL, spillover.Config{Backends: []spillover.Backend{b, withUser}}, []spillover.Backend{b}, tr.Status(), client, &client, spillover.RetryClient(tr, 1)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			require.NotContains(t, fmt.Sprintf(verb, v), "SECRET", "%T %s", v, verb)
		}
	}
	require.Equal(t, "spillover.Transport(a)", tr.String())
}

func TestSpilloverHeadersOfTheServiceAreReplaced(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "", "Retry-After: 1"))
	n.On(host("b"), status(200, "{}", "x-spillover-backend: inner", "X-Spillover-Attempts: 7", "X-Ratelimit-Remaining-Tokens: 5"))
	resp, _ := ask(t, balance(t, n, azure("a"), azure("b", priority(2))))
	require.Equal(t, []string{"b"}, resp.Header["X-Spillover-Backend"])
	require.Equal(t, []string{"2"}, resp.Header["X-Spillover-Attempts"])
	require.Equal(t, "5", resp.Header.Get("X-Ratelimit-Remaining-Tokens"), "what one backend has left is passed on as it is")

	n.On(host("b"), status(400, `"mine"`))
	tr := balance(t, n, azure("b"))
	resp, body := ask(t, tr)
	require.Equal(t, `"mine"`, body)
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
}

// Requests that create state are not sent twice once they may have been received.
func TestStateIsMadeOnce(t *testing.T) {
	for name, c := range map[string]struct {
		answer roundTripFunc
		sends  int
	}{
		"500":     {status(500, `"boom"`), 1},
		"reset":   {broken(errors.New("reset")), 1},
		"429":     {status(429, "", "Retry-After: 1"), 2},
		"refused": {broken(dialError), 2},
	} {
		for _, path := range []string{"/openai/files?api-version=1", "/openai/v1/batches", "/v1/vector_stores", "/v1/threads/t/runs"} {
			n := newNet()
			n.On(host("a"), c.answer)
			tr := balance(t, n, azure("a"), azure("b", priority(2)))
			resp, err := tr.RoundTrip(posts(t, http.MethodPost, "https://foo.example"+path, `{}`))
			require.Equal(t, c.sends, n.Sends(), name+" "+path)
			require.Equal(t, name == "reset", err != nil)
			if name == "500" {
				require.Equal(t, `"boom"`, read(t, resp))
			}
		}
	}
}

var dialError = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}

// A path that a server may resolve to another one reaches no backend that
// serves certain models alone.
func TestDotSegmentsAreRefused(t *testing.T) {
	for _, path := range []string{
		"/openai/deployments/m/../secret/chat/completions", "/openai/deployments/m/%2e%2e/secret/chat/completions", "/openai/deployments/m/%2E./secret/chat/completions",
		"/openai/deployments/m/./chat/completions", "/openai/deployments/m/a%2f..%2f..%2fsecret/chat/completions", "/openai/deployments/m/..%5csecret",
		"/openai/deployments/../m/chat/completions", "/v1/../v1/chat/completions", "/v1/files/..", "/..", "/v1/chat/completions/.",
	} {
		n := newNet()
		tr := balance(t, n, azure("a", serves("m")), azure("b", serves("secret")))
		req := newChat(t, "/")
		req.URL.Path, req.URL.RawPath = wire.SplitEscapedPath(path)
		resp, _ := send(t, tr, req)
		require.Equal(t, 404, resp.StatusCode, path)
		require.Zero(t, n.Sends(), path)
	}
	for _, path := range []string{"/openai/deployments/gpt-4.1/chat/completions", "/openai/deployments/a%2F..%2Fb/chat/completions", "/openai/deployments/..x/chat/completions"} {
		n := newNet()
		req := newChat(t, "/")
		req.URL.Path, req.URL.RawPath = wire.SplitEscapedPath(path)
		resp, _ := send(t, balance(t, n, azure("a")), req)
		require.Equal(t, 200, resp.StatusCode, path)
		require.Equal(t, path, n.Last().Path)
	}
}

// Of several prefixes in a path the one that is nearest to the operation counts.
func TestPrefixNearestToTheOperation(t *testing.T) {
	for in, want := range map[string]string{
		"/openai/v1/v1/chat/completions":                            "/v1/chat/completions",
		"/v1/v1/responses":                                          "/v1/responses",
		"/openai/openai/v1/responses":                               "/v1/responses",
		"/openai/chat/completions":                                  "/v1/chat/completions",
		"/openai/team/v1/chat/completions":                          "/v1/chat/completions",
		"/v1/tenant/openai/deployments/m/chat/completions":          "/v1/chat/completions",
		"/v1/tenant/openai/v1/embeddings":                           "/v1/embeddings",
		"/openai/v1/openai/deployments/m/embeddings":                "/v1/embeddings",
		"/api/v1/projects/openai/v1/files/file-1":                   "/v1/files/file-1",
		"/v1/files/v1":                                              "/v1/files/v1",
		"/v1/files/openai/content":                                  "/v1/files/openai/content",
		"/v1/models/openai":                                         "/v1/models/openai",
		"/openai/deployments/v1/chat/completions":                   "/v1/chat/completions",
		"/openai/deployments/openai/chat/completions":               "/v1/chat/completions",
		"/v1/decisions":                                             "/v1/decisions",
		"/decisions":                                                "/v1/decisions",
		"/live/sessions":                                            "/v1/live/sessions",
		"/agents/agent_1":                                           "/v1/agents/agent_1",
		"/vaults/vault_1/credentials":                               "/v1/vaults/vault_1/credentials",
		"/openai/v1/telepathy/t_1":                                  "/v1/telepathy/t_1",
		"/team/v1/telepathy/t_1":                                    "/v1/telepathy/t_1",
		"/openai/team/v1/telepathy/t_1":                             "/v1/telepathy/t_1",
		"/telepathy/t_1":                                            "/telepathy/t_1",
		"/v1/organization/usage/completions":                        "/v1/organization/usage/completions",
		"/openai/v1/responses/resp_1/an_action_of_tomorrow":         "/v1/responses/resp_1/an_action_of_tomorrow",
		"/api/projects/v1/openai/v1/responses":                      "/v1/responses",
		"/openai/v1/fine_tuning/checkpoints/ft:a:b::c/permissions/": "/v1/fine_tuning/checkpoints/ft:a:b::c/permissions",
	} {
		got := arrives(t, to("https://h", spillover.OpenAI, ""), http.MethodPost, "https://foo.example"+in, `{"model":"m"}`)
		require.Equal(t, want, got.Path, in)
	}
}

func findModel(text []byte) (model string, at wire.Span, found bool) {
	w := wire.BodyScanner{Fields: wire.UnknownSpec.Models}
	w.ReadJSON(text, "", nil)
	return w.Info.Model, w.Info.ModelSpan, w.Info.HasModel
}

func TestOnlyTheDeploymentSegmentOfAPathIsReplaced(t *testing.T) {
	for _, name := range []string{"openai", "deployments", "chat", "completions", "a%2Fb", "v1"} {
		n := newNet()
		tr := balance(t, n, azure("a", func(b *spillover.Backend) {
			b.URL += "/openai-chat"
			b.Models = []spillover.Model{{Name: strings.ReplaceAll(name, "%2F", "/"), Deployment: "x/y"}}
		}))
		send(t, tr, newChat(t, "/chat/openai/deployments/"+name+"/chat/completions?api-version=1"))
		require.Equal(t, "/openai-chat/openai/deployments/x%2Fy/chat/completions", n.Seen[0].Path, name)
	}
}

// A dialect is a row of one table: its paths, its credential and its configuration
// follow from it.
func TestDialectIsARowOfTheTable(t *testing.T) {
	all := wire.Dialects
	defer func() { wire.Dialects = all }()
	wire.Dialects = append(slices.Clip(all), wire.DialectSpec{
		Name: "inference", Prefix: "/inference", DeploymentInPath: true, APIVersion: wire.OptionalAPIVersion,
		KeyHeader: "X-Api-Key", Credentials: "inference", Provider: "inference",
	})
	b := spillover.Backend{Name: "new", URL: "https://h/base", Dialect: "inference", APIKey: "secret-1", APIVersion: "7", Models: []spillover.Model{{Name: "m", Deployment: "theirs"}}}
	got := arrives(t, b, http.MethodPost, "https://foo.example/v1/chat/completions", `{"model":"m"}`, "Authorization: Bearer callers")
	require.Equal(t, "/base/inference/deployments/theirs/chat/completions", got.Path)
	require.Equal(t, "api-version=7", got.Query)
	require.Equal(t, "secret-1", got.Header.Get("X-Api-Key"))
	require.Empty(t, got.Header.Get("Authorization"))

	_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{{URL: "https://h", Dialect: "telepathy"}}})
	require.ErrorContains(t, err, `must be one of "azure", "azure-v1", "openai", "inference"`)
}
