package spillover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wire"
)

// callersCredential is all that may belong to one.
var callersCredential = []string{
	"Authorization", "Api-Key", "OpenAI-Organization", "OpenAI-Project", "x-api-key", "Ocp-Apim-Subscription-Key",
	"X-Goog-Api-Key", "x-functions-key", "Proxy-Authorization", "Cookie",
}

const callersQuery = "api-version=1&subscription-key=callers&API-Key=callers&key=callers&a=%20"

func withCredential(t testing.TB, spell func(string) string) *http.Request {
	req := newChat(t, "/openai/deployments/m/chat/completions?"+callersQuery)
	for _, name := range callersCredential {
		req.Header[spell(name)] = []string{"callers"}
	}
	req.Header["Sec-WebSocket-Protocol"] = []string{"realtime, openai-insecure-api-key.callers, openai-organization.callers,openai-project.callers, openai-beta.realtime-v1"}
	for _, name := range []string{"Openai-Beta", "Traceparent", "X-Ms-Client-Request-Id", "User-Agent"} {
		req.Header.Set(name, "stays")
	}
	return req
}

// A backend with a credential of its own is sent nothing of the caller's.
func TestCallersCredentialIsDropped(t *testing.T) {
	for name, change := range map[string]func(*Backend){
		"key":           func(*Backend) {},
		"key of OpenAI": func(b *Backend) { b.Dialect = OpenAI },
		"token": func(b *Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) { return "t", nil }
		},
		"key in a header": func(b *Backend) {
			b.APIKey, b.Headers = "", map[string]string{"ocp-apim-subscription-key": "own"}
		},
	} {
		for _, spell := range []func(string) string{strings.ToLower, strings.ToUpper, http.CanonicalHeaderKey} {
			n := newNet()
			send(t, balance(t, n, azure("a", change)), withCredential(t, spell))
			require.NotContains(t, fmt.Sprint(n.seen[0].header), "callers", name)
			require.NotContains(t, n.seen[0].query, "callers", name)
			require.Contains(t, n.seen[0].query+"&", "a=%20&", name)
			require.Equal(t, "stays", n.seen[0].header.Get("OpenAI-Beta"))
			require.Equal(t, "stays", n.seen[0].header.Get("Traceparent"))
			require.Equal(t, "stays", n.seen[0].header.Get("X-Ms-Client-Request-Id"))
			require.Equal(t, []string{"realtime, openai-beta.realtime-v1"}, n.seen[0].header["Sec-WebSocket-Protocol"])
		}
	}
}

// One without is sent the caller's, in its own form, with what belongs to it.
func TestCallersCredentialIsPassedOn(t *testing.T) {
	for d, dropped := range map[Dialect]string{Azure: "Authorization", OpenAI: "Api-Key"} {
		n := newNet()
		req := withCredential(t, http.CanonicalHeaderKey)
		send(t, balance(t, n, azure("a", func(b *Backend) { b.APIKey, b.Dialect = "", d })), req)
		for _, name := range callersCredential {
			if name == dropped {
				require.Empty(t, n.seen[0].header.Get(name), "%s: %s", d, name)
			} else {
				require.Equal(t, "callers", n.seen[0].header.Get(name), "%s: %s", d, name)
			}
		}
		require.Contains(t, n.seen[0].query, "subscription-key=callers")
		require.Equal(t, req.Header["Sec-WebSocket-Protocol"], n.seen[0].header["Sec-WebSocket-Protocol"])
	}
}

func TestBackendHeaders(t *testing.T) {
	n := newNet()
	n.on(host("a"), status(429, "{}"))
	own := map[string]string{"openai-organization": "org", "X-Custom": "a b"}
	tr := balance(t, n, azure("a", func(b *Backend) { b.Headers = own }), azure("b", priority(2)))
	own["x-custom"] = "changed later"
	req := newChat(t, chatPath)
	req.Header["x-custom"] = []string{"callers", "more"}
	before := req.Header.Clone()
	send(t, tr, req)
	require.Equal(t, before, req.Header)
	require.Equal(t, []string{"a b"}, n.seen[0].header["X-Custom"])
	require.NotContains(t, n.seen[0].header, "x-custom")
	require.Equal(t, []string{"org"}, n.seen[0].header["Openai-Organization"])
	require.Equal(t, []string{"key-a"}, n.seen[0].header["Api-Key"])
	require.Equal(t, []string{"callers", "more"}, n.seen[1].header["x-custom"], "nothing of an earlier attempt is left")
	require.NotContains(t, n.seen[1].header, "X-Custom")

	// An account, as a header may say, is not a credential: the caller's goes along.
	n = newNet()
	send(t, balance(t, n, azure("a", func(b *Backend) { b.APIKey, b.Headers = "", map[string]string{"OpenAI-Project": "p"} })), newChat(t, chatPath))
	require.Equal(t, []string{"example API key"}, n.seen[0].header["Api-Key"])
	require.Equal(t, []string{"p"}, n.seen[0].header["Openai-Project"])

	// Another account under the same key is another backend.
	other := azure("other", func(b *Backend) {
		b.URL, b.APIKey, b.Headers = "https://a.openai.azure.com", "key-a", map[string]string{"OpenAI-Project": "other"}
	})
	balance(t, n, azure("a"), other)
	other.Headers = nil
	_, err := New(Config{Base: n, Backends: []Backend{azure("a"), other}})
	require.ErrorContains(t, err, "already uses it for all models")

	// A new value may mend what an old one could not.
	n.on(host("a"), status(401, "{}"), status(200, "{}"))
	n.on(host("b"), status(200, "{}"))
	cfg := Config{Base: n, Backends: []Backend{azure("a", func(b *Backend) { b.Headers = map[string]string{"X-Api-Key": "old"} }), azure("b", priority(2))}}
	tr = configured(t, cfg)
	ask(t, tr)
	require.False(t, statusOf(t, tr, "a").Available)
	cfg.Backends[0].Headers = map[string]string{"X-Api-Key": "new"}
	require.NoError(t, tr.Reconfigure(cfg))
	require.True(t, statusOf(t, tr, "a").Available)
}

func TestBackendHeadersMistakes(t *testing.T) {
	for name, value := range map[string]string{
		"": "v", "a b": "v", "a:b": "v", "é": "v", "a\nb": "v", "Host": "v", "host": "v", "Connection": "v", "transfer-encoding": "v", "TE": "v",
		"Proxy-Authorization": "v", "Content-Length": "v", "content-type": "v", "Upgrade": "v", "Authorization": "v", "api-key": "v",
		"X-Spillover-Backend": "v", "X-A": "", "X-B": "secret\r\nX: y", "X-C": " secret", "X-D": "secr\u00e9t",
	} {
		b := azure("a", func(b *Backend) { b.Headers = map[string]string{name: value} })
		_, err := New(Config{Backends: []Backend{b}})
		require.ErrorContains(t, err, `spillover: backend "a": Headers: `, "%q", name)
		require.NotContains(t, err.Error(), "secr")
	}
	_, err := New(Config{Backends: []Backend{azure("a", func(b *Backend) { b.Headers = map[string]string{"x-a": "1", "X-A": "2"} })}})
	require.ErrorContains(t, err, "twice")
}

func TestBackendHeadersAreNotPrinted(t *testing.T) {
	cfg := Config{Base: newNet(), Backends: []Backend{azure("a", func(b *Backend) { b.Headers = map[string]string{"X-Api-Key": "secret-value"} })}}
	tr := configured(t, cfg)
	for _, v := range []any{cfg, &cfg, cfg.Backends, cfg.Backends[0], &cfg.Backends[0], tr, tr.Status()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			require.NotContains(t, fmt.Sprintf(verb, v), "secret-value")
		}
	}
}

func TestBackendHeadersFromAFile(t *testing.T) {
	parse := func(headers string) (Config, error) {
		text := "backends:\n  - name: a\n    url: https://a.openai.azure.com\n    api_key: k\n    headers: " + headers + "\n"
		return parseConfig("f.yaml", []byte(text), func(name string) (string, bool) { return "secret-of-" + name, name == "KEY" })
	}
	cfg, err := parse("{Ocp-Apim-Subscription-Key: '${KEY}', X-A: text, X-Null: }")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"Ocp-Apim-Subscription-Key": "secret-of-KEY", "X-A": "text"}, cfg.Backends[0].Headers)
	for headers, want := range map[string]string{
		"text": "must be a mapping", "[a]": "must be a mapping", "{X-A: 1}": "must be text", "{X-A: {b: c}}": "must be text", "{X-A: '${NONE}'}": "NONE",
		"{Host: x}": `"Host" cannot be set`, "{X-A: '${KEY} '}": `the value of "X-A"`, "{X-A: a, X-A: b}": `duplicate key "X-A"`,
	} {
		_, err := parse(headers)
		var mistake *LoadError
		require.ErrorAs(t, err, &mistake, headers)
		require.Contains(t, err.Error(), want)
		require.Contains(t, mistake.Path, `backends["a"].headers`)
		require.NotContains(t, err.Error(), "secret")
	}
}

// What only a Transport says of an answer no service can say.
func TestAnswersOfAServiceDoNotSpeakForUs(t *testing.T) {
	for _, answer := range []roundTripFunc{
		status(200, "{}", "X-Spillover-Synthesized: true", "X-Spillover-Waited-Ms: 5", "X-Spillover-Backend: other", "X-Spillover-New: 1", "X-Request-Id: r"),
		status(400, "{}", "X-Spillover-Synthesized: true", "X-Spillover-Waited-Ms: 5", "X-Request-Id: r"),
		func(req *http.Request) (*http.Response, error) {
			resp, err := status(200, "{}", "X-Request-Id: r")(req)
			resp.Header["x-spillover-synthesized"] = []string{"true"}
			return resp, err
		},
	} {
		n := newNet()
		n.on(host("a"), answer)
		resp, _ := ask(t, balance(t, n, azure("a")))
		require.Equal(t, "r", resp.Header.Get("X-Request-Id"))
		for name := range resp.Header {
			if strings.HasPrefix(strings.ToLower(name), "x-spillover-") {
				require.Contains(t, []string{"X-Spillover-Backend", "X-Spillover-Attempts"}, name)
			}
		}
		require.Equal(t, "a", servedBy(resp))
	}
}

// A caller's text forges no line of a log.
func TestCallersTextInErrorsIsTame(t *testing.T) {
	for _, model := range []string{"m\nlevel=ERROR", "m\x1b[31m", "m\u202eevil", "m\x00", strings.Repeat("\n", 300)} {
		body := fmt.Sprintf(`{"model":%s}`, wire.QuoteJSON(model))
		ask := func(base http.RoundTripper, change ...func(*Backend)) (*http.Response, error) {
			req := newChat(t, "/v1/chat/completions")
			req.Body, req.GetBody, req.ContentLength = io.NopCloser(strings.NewReader(body)), nil, int64(len(body))
			return balance(t, base, azure("a", change...)).RoundTrip(req)
		}
		plain := func(text string) {
			require.NotContains(t, text, "\n")
			for _, r := range text {
				require.True(t, r == '…' || r >= ' ' && r <= '~', "%q", text)
			}
		}
		_, err := ask(broken(errors.New("lost")))
		plain(err.Error())
		resp, err := ask(newNet(), serves("known"))
		require.NoError(t, err)
		require.Equal(t, 404, resp.StatusCode)
		plain(fmt.Sprint(apiErrorIn(t, read(t, resp)).Message))
		resp, err = ask(status(429, "{}", "Retry-After: 5"))
		require.NoError(t, err)
		plain(fmt.Sprint(apiErrorIn(t, read(t, resp)).Message))
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
		n.on(host("a"), status(429, "{}", "Retry-After: "+hint))
		tr := configured(t, Config{Base: n, MaxCooldown: mostCooldown, Backends: []Backend{azure("a")}})
		resp, _ := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		seconds, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s")
		require.NoError(t, err)
		require.Positive(t, seconds)
		require.LessOrEqual(t, seconds, 2*mostCooldown)
	}
}
