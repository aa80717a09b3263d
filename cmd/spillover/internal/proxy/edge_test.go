package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
)

// A page of another origin must not read what the backends' credentials give access to,
// although a browser sends a GET without asking first.
func TestPagesOfOtherOriginsCannotReadWithoutKeys(t *testing.T) {
	n := &network{answer: func(*http.Request) *http.Response {
		return response(200, "{}", "Access-Control-Allow-Origin", "*", "Access-Control-Expose-Headers", "X-Request-Id", "Access-Control-Allow-Headers", "*")
	}}
	p := newProxy(t, n, proxy.Options{}, "")
	for _, origin := range []string{"https://evil.example", "null", "http://localhost:3000", "http://%zz"} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "DELETE"} {
			w := ask(p, method, "/v1/files", "", "Origin", origin)
			require.Equal(t, 403, w.Code, "%s %s", method, origin)
			require.Equal(t, "cross_origin", code(t, w))
		}
	}
	require.Empty(t, n.dumps())
	require.Equal(t, 200, ask(p, "GET", "/v1/files", "", "Origin", "http://localhost").Code)
	for host, want := range map[string]int{"LocalHost:8080": 200, "a.localhost": 200, "[::1]:8080": 200, "127.0.0.1": 200, "": 200, "localhost.evil.example": 421, "evil-localhost": 421} {
		r := httptest.NewRequest("GET", "http://localhost/v1/files", nil)
		r.Host = host
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		require.Equal(t, want, w.Code, host)
	}
	// Neither does the service decide who may read responses of the proxy.
	for _, header := range [][]string{nil, {"Api-Key", secret}} {
		entries := ""
		if header != nil {
			entries = entry(secret, "")
		}
		w := ask(newProxy(t, n, proxy.Options{}, entries), "GET", "/v1/files", "", header...)
		require.Equal(t, 200, w.Code)
		for name := range w.Header() {
			require.False(t, strings.HasPrefix(name, "Access-Control-"), name)
		}
	}
}

// A page that sends a preflight gets an error in the form of the API, and no permission.
func TestPreflightIsNotAnsweredWithKeys(t *testing.T) {
	n := &network{}
	w := ask(newProxy(t, n, proxy.Options{}, entry(secret, "")), "OPTIONS", "/v1/chat/completions", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST")
	require.Equal(t, 401, w.Code)
	require.Equal(t, "invalid_api_key", code(t, w))
	require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
	require.Empty(t, n.dumps())
}

// A proxy in front, such as nginx, must not collect the events of a stream.
func TestEventStreamsAreNotToBeBuffered(t *testing.T) {
	for kind, want := range map[string]string{"text/event-stream": "no", "text/event-stream; charset=utf-8": "no", "application/json": ""} {
		n := &network{answer: func(*http.Request) *http.Response {
			return response(200, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n", "Content-Type", kind)
		}}
		w := ask(newProxy(t, n, proxy.Options{}, ""), "GET", "/v1/files", "")
		require.Equal(t, want, w.Header().Get("X-Accel-Buffering"), kind)
	}
}

// A proxy in front that ends TLS says so. Otherwise a client would send its key without TLS
// to the URL of an operation.
func TestURLsHaveTheSchemeOfTheCaller(t *testing.T) {
	n := &network{answer: func(*http.Request) *http.Response {
		return response(202, "{}", "Operation-Location", "https://a.openai.azure.com/openai/operations/x")
	}}
	p := newProxy(t, n, proxy.Options{}, "")
	for forwarded, want := range map[string]string{"https": "https", "HTTPS": "https", "http": "http", "": "http", "javascript": "http", "https, http": "https"} {
		header := []string{"X-Forwarded-Proto", forwarded}
		if forwarded == "" {
			header = nil
		}
		w := ask(p, "POST", "/v1/chat/completions", chat, header...)
		require.Equal(t, want+"://localhost/openai/operations/x", w.Header().Get("Operation-Location"), forwarded)
	}
}

// Clients are used with base URLs with and without /v1, with the dialects of Azure, and with
// a slash at the end.
func TestPathsThatClientsSend(t *testing.T) {
	for target, want := range map[string]string{
		"/v1/chat/completions":                            "https://api.openai.com/v1/chat/completions",
		"/v1/chat/completions/":                           "https://api.openai.com/v1/chat/completions",
		"/chat/completions":                               "https://api.openai.com/v1/chat/completions",
		"/openai/v1/chat/completions":                     "https://api.openai.com/v1/chat/completions",
		"/openai/v1/chat/completions?api-version=preview": "https://api.openai.com/v1/chat/completions",
		"/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21": "https://api.openai.com/v1/chat/completions",
		"/responses":     "https://api.openai.com/v1/responses",
		"/embeddings":    "https://api.openai.com/v1/embeddings",
		"/v1/embeddings": "https://api.openai.com/v1/embeddings",
	} {
		for _, header := range [][]string{{"Authorization", "Bearer " + secret}, {"Api-Key", secret}, {"Authorization", "Bearer " + secret, "Api-Key", "unused"}} {
			n := &network{}
			w := ask(newProxy(t, n, proxy.Options{}, entry(secret, ""), pool[1]), "POST", target, chat, header...)
			require.Equal(t, 200, w.Code, "%s: %s", target, w.Body)
			require.True(t, strings.HasPrefix(n.dumps(), want+"\n"), "%s: %s", target, n.dumps())
		}
		w := ask(newProxy(t, &network{}, proxy.Options{}, entry(secret, "")), "POST", target, chat)
		require.Equal(t, 401, w.Code)
		require.Equal(t, "invalid_api_key", code(t, w))
	}
	n := &network{}
	p := newProxy(t, n, proxy.Options{}, "", pool[1])
	for _, target := range []string{"/models", "/models/gpt-4o", "/v1/models", "/files/f/content"} {
		require.Equal(t, 200, ask(p, "GET", target, "").Code, target)
	}
	// A key that allows some models only is checked there, too.
	limited := newProxy(t, n, proxy.Options{}, entry(secret, ", models: [gpt-4o]"), pool[1])
	require.Equal(t, 403, ask(limited, "POST", "/chat/completions", `{"model":"o3"}`, "Api-Key", secret).Code)
	require.Equal(t, 403, ask(limited, "POST", "/batches", `{"model":"gpt-4o"}`, "Api-Key", secret).Code)
	require.Equal(t, 200, ask(limited, "POST", "/chat/completions", chat, "Api-Key", secret).Code)
	require.Contains(t, ask(limited, "GET", "/models", "", "Api-Key", secret).Body.String(), `"owned_by":"spillover"`)
}

// Whatever the proxy refuses, and wherever, the error has the form of the API.
func TestEveryErrorHasTheFormOfTheAPI(t *testing.T) {
	p := newProxy(t, &network{}, proxy.Options{MaxBody: 100, Metrics: http.NotFoundHandler()}, "")
	for _, test := range []struct {
		method, target, body string
		want                 int
	}{
		{"GET", "/", "", 404}, {"GET", "/favicon.ico", "", 404}, {"GET", "/debug/pprof/", "", 404}, {"GET", "/debug/vars", "", 404},
		{"GET", "/v2/chat/completions", "", 404}, {"TRACE", "/v1/models", "", 405},
		{"POST", "/metrics", "", 405}, {"DELETE", "/status", "", 405}, {"PUT", "/status/status.json", "", 405},
		{"POST", "/v1/chat/completions", strings.Repeat("x", 101), 413}, {"GET", "/v1/..", "", 400},
	} {
		w := ask(p, test.method, test.target, test.body)
		require.Equal(t, test.want, w.Code, "%+v", test)
		require.NotEmpty(t, code(t, w), "%+v", test)
		require.NotEmpty(t, w.Header().Get("X-Request-Id"))
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		if test.want == 405 {
			require.Contains(t, w.Header().Get("Allow"), "GET")
		}
	}
	w := ask(p.AdminHandler(), "GET", "/debug/pprof/", "")
	require.Equal(t, 404, w.Code)
	require.NotEmpty(t, code(t, w))
}

// What a client needs to wait as long as the service asks for reaches it.
func TestRateLimitReachesTheCaller(t *testing.T) {
	n := &network{answer: func(*http.Request) *http.Response {
		return response(429, `{"error":{"message":"m","type":"requests","code":"rate_limit_exceeded"}}`, "Retry-After", "7", "Retry-After-Ms", "7000", "X-Ratelimit-Remaining-Requests", "0")
	}}
	p := newProxy(t, n, proxy.Options{}, "", pool[0])
	for range 2 { // of the service, and of the transport
		w := ask(p, "POST", "/v1/chat/completions", chat)
		require.Equal(t, 429, w.Code)
		require.NotEmpty(t, code(t, w))
		require.Equal(t, "7", w.Header().Get("Retry-After"))
	}
}

// Probes of load balancers and of Kubernetes send no key, any host, and GET or HEAD.
func TestProbesNeedNothing(t *testing.T) {
	p := newProxy(t, &network{}, proxy.Options{}, entry(secret, ""))
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{"/healthz", "/readyz"} {
			r := httptest.NewRequest(method, path, nil)
			r.Host = "10.1.2.3:8080"
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			require.Equal(t, 200, w.Code)
		}
	}
}
