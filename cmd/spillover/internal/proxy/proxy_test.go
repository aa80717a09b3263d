package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
	"github.com/spillover-go/spillover/internal/wire"
)

// A network is what the backends get, and what they answer.
type network struct {
	mu     sync.Mutex
	got    []string // dumps of requests
	answer func(*http.Request) *http.Response
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	dump, err := httputil.DumpRequest(r, true)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.got = append(n.got, r.URL.String()+"\n"+string(dump))
	n.mu.Unlock()
	if n.answer != nil {
		return n.answer(r), nil
	}
	return response(200, `{"object":"chat.completion","choices":[]}`), nil
}

func (n *network) dumps() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.got, "\n\n")
}

func response(status int, body string, header ...string) *http.Response {
	resp := &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
	for i := 0; i+1 < len(header); i += 2 {
		resp.Header.Set(header[i], header[i+1])
	}
	return resp
}

var pool = []spillover.Backend{
	{Name: "azure", URL: "https://a.openai.azure.com", APIKey: "azure-key", Tags: []string{"region=eu"}},
	{Name: "openai", URL: "https://api.openai.com", APIKey: "openai-key", Priority: 2, Tags: []string{"region=us"}},
}

func newProxy(t require.TestingT, n *network, o proxy.Options, entries string, backends ...spillover.Backend) *proxy.Proxy {
	if backends == nil {
		backends = pool
	}
	lb, err := spillover.New(spillover.Config{Base: n, Backends: backends})
	require.NoError(t, err)
	o.Transport = lb
	o.StatusPage = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the page") })
	p := proxy.New(o)
	if entries != "" {
		set, err := keys.Parse([]byte("keys:\n" + entries))
		require.NoError(t, err)
		p.SetKeys(set)
	}
	return p
}

func entry(key, more string) string {
	return fmt.Sprintf("  - {name: test, sha256: %s%s}\n", keys.Sum(key), more)
}

const secret = "sk-spillover-ABCDEFGHIJKLMNOPQRSTUVWXYZ"

const adminKey = "sk-spillover-other"

const chat = `{"model":"gpt-4o","messages":[]}`

// ask sends a request whose header is given as pairs.
func ask(h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "localhost"
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	defer func() {
		if err := recover(); err != nil && err != http.ErrAbortHandler {
			panic(err)
		}
	}()
	h.ServeHTTP(w, r)
	return w
}

// code is the code of an error in the form of OpenAI's API.
func code(t require.TestingT, w *httptest.ResponseRecorder) string {
	var body struct {
		Error struct{ Message, Type, Code string }
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body.String())
	require.NotEmpty(t, body.Error.Message)
	require.NotEmpty(t, body.Error.Type)
	return body.Error.Code
}

func TestKeyIsAcceptedWhereClientsPutIt(t *testing.T) {
	for _, header := range [][]string{
		{"Authorization", "Bearer " + secret}, {"Authorization", "bearer  " + secret}, {"Api-Key", secret}, {"X-Api-Key", secret},
		{"Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key." + secret},
	} {
		n := &network{}
		w := ask(newProxy(t, n, proxy.Options{}, entry(secret, "")), "POST", "/v1/chat/completions", chat, header...)
		require.Equal(t, 200, w.Code, header)
		require.NotContains(t, n.dumps(), secret)
		require.Contains(t, n.dumps(), "azure-key")
	}
	n := &network{}
	w := ask(newProxy(t, n, proxy.Options{}, entry(secret, "")), "POST", "/v1/chat/completions?api-key="+secret, chat)
	require.Equal(t, 200, w.Code)
	require.NotContains(t, n.dumps(), secret)
}

func TestWithoutAValidKeyNothingIsSent(t *testing.T) {
	for _, header := range [][]string{
		nil, {"Authorization", "Bearer " + secret + "x"}, {"Authorization", secret}, {"Authorization", "Basic " + secret}, {"Api-Key", ""},
		{"Api-Key", secret[1:]}, {"Cookie", "key=" + secret}, {"X-Api-Key", strings.ToLower(secret)},
	} {
		n := &network{}
		p := newProxy(t, n, proxy.Options{}, entry(secret, ""))
		w := ask(p, "POST", "/v1/chat/completions", chat, header...)
		require.Equal(t, 401, w.Code, header)
		require.Equal(t, "invalid_api_key", code(t, w))
		require.Contains(t, w.Header().Get("WWW-Authenticate"), "Bearer")
		require.NotContains(t, w.Body.String(), secret)
		require.Empty(t, n.dumps())
		for _, path := range []string{"/status", "/metrics"} {
			require.Equal(t, 401, ask(p, "GET", path, "", header...).Code)
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			require.Equal(t, 200, ask(p, "GET", path, "", header...).Code)
		}
	}
}

func TestAdministrationNeedsAnAdminKey(t *testing.T) {
	p := newProxy(t, &network{}, proxy.Options{Metrics: http.NotFoundHandler()}, entry(secret, "")+strings.Replace(entry(adminKey, ", admin: true"), "test", "admin", 1))
	require.Equal(t, 403, ask(p, "GET", "/status", "", "Api-Key", secret).Code)
	w := ask(p, "GET", "/status", "", "Api-Key", adminKey)
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), "the page")
	r := httptest.NewRequest("GET", "/status", nil)
	r.SetBasicAuth("anybody", adminKey)
	w = httptest.NewRecorder()
	p.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code, "as browsers do")
	elsewhere := newProxy(t, &network{}, proxy.Options{AdminElsewhere: true}, "")
	require.Equal(t, 404, ask(elsewhere, "GET", "/status", "").Code)
	require.Equal(t, 200, ask(elsewhere.AdminHandler(), "GET", "/status", "").Code)
	require.Equal(t, 404, ask(elsewhere.AdminHandler(), "GET", "/v1/models", "").Code)
	require.Contains(t, ask(elsewhere.AdminHandler(), "GET", "/", "").Body.String(), "This address has /metrics, /status/, /healthz and /readyz.")
	guarded := newProxy(t, &network{}, proxy.Options{AdminElsewhere: true, AdminNeedsKey: true}, entry(secret, ""))
	require.Equal(t, 401, ask(guarded.AdminHandler(), "GET", "/status", "").Code)
	require.Equal(t, 403, ask(guarded.AdminHandler(), "GET", "/status", "", "Api-Key", secret).Code)
}

// Wherever a caller puts its key, no backend gets it.
func TestCallersKeyReachesNoBackend(t *testing.T) {
	names := []string{"Authorization", "Api-Key", "X-Api-Key", "Cookie", "Ocp-Apim-Subscription-Key", "Proxy-Authorization", "X-Goog-Api-Key", "X-Functions-Key",
		"OpenAI-Organization", "OpenAI-Project", "User-Agent", "Referer", "X-Request-Id", "X-Custom", "Traceparent", "Accept", "Content-Type", "Session_id",
		"Sec-WebSocket-Protocol", "Connection", "Te", "Trailer", "X-Forwarded-For", "X-Stainless-Lang", "Origin", "X-" + secret}
	rapid.Check(t, func(t *rapid.T) {
		n := &network{}
		n.answer = func(r *http.Request) *http.Response {
			if strings.Contains(r.URL.Host, "azure") {
				return response(429, `{"error":{"code":"429"}}`, "Retry-After", "1") // so that both backends are asked
			}
			return response(200, "{}")
		}
		var records bytes.Buffer
		p := newProxy(t, n, proxy.Options{Logger: slog.New(slog.NewTextHandler(&records, nil))}, entry(secret, ""))
		around := rapid.SampledFrom([]string{"%s", "Bearer %s", "a,openai-insecure-api-key.%s, b", "x%sx", "k=%s; l=m", "%s,%[1]s"})
		target := rapid.SampledFrom([]string{"/v1/chat/completions", "/openai/v1/responses", "/openai/deployments/gpt-4o/chat/completions", "/v1/files", "/v1/files/%s", "/v1/responses/a%%2F%s"}).Draw(t, "path")
		if strings.Contains(target, "%s") {
			target = fmt.Sprintf(target, secret)
		}
		query := rapid.SliceOfN(rapid.SampledFrom([]string{"api-key=%s", "API-KEY=%s", "key=%s", "api%%2Dkey=%s", "x=%s", "%s=x", "a=b", "model=%s", "x=a%%20%s", "bad=%%zz%s", "%s"}), 0, 3).Draw(t, "query")
		for i, q := range query {
			value := secret
			if rapid.Bool().Draw(t, "escaped") {
				value = strings.ReplaceAll(secret, "-", "%2D")
			}
			if query[i] = q; strings.Contains(q, "%") {
				query[i] = strings.ReplaceAll(fmt.Sprintf(q, value), "%!(EXTRA", "")
			}
		}
		if len(query) > 0 {
			target += "?" + strings.Join(query, "&")
		}
		body := rapid.StringMatching(`\{"model":"gpt-4o","x":"[a-zA-Z-]{0,40}`).Draw(t, "body")
		withKey := rapid.Bool().Draw(t, "in body")
		if withKey {
			body += secret
		} else {
			body += secret[:rapid.IntRange(0, len(secret)-1).Draw(t, "beginning")]
		}
		body += `"}`
		r := httptest.NewRequest("POST", target, &pieces{text: body, size: rapid.IntRange(1, len(body)).Draw(t, "piece")})
		r.ContentLength = -1
		if rapid.Bool().Draw(t, "with length") {
			r.ContentLength = int64(len(body))
		}
		r.Header.Set("Authorization", "Bearer "+secret)
		for range rapid.IntRange(0, 5).Draw(t, "headers") {
			r.Header.Add(rapid.SampledFrom(names).Draw(t, "name"), fmt.Sprintf(around.Draw(t, "value"), secret))
		}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		require.NotContains(t, strings.ToLower(n.dumps()), strings.ToLower(secret))
		require.NotContains(t, strings.ToLower(records.String()), strings.ToLower(secret))
		if withKey && w.Code == 200 {
			require.Fail(t, "a body with the key was served")
		}
		if w.Code == 200 {
			require.Contains(t, n.dumps(), body, "what is not the key arrives unchanged")
		}
	})
}

// Pieces are a body that arrives in pieces.
type pieces struct {
	text string
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.text == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.text)
	p.text = p.text[n:]
	return n, nil
}

func TestModelsOfAKey(t *testing.T) {
	form := func(fields ...string) (body, contentType string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for i := 0; i+1 < len(fields); i += 2 {
			_ = w.WriteField(fields[i], fields[i+1])
		}
		_ = w.Close()
		return b.String(), w.FormDataContentType()
	}
	good, goodType := form("model", "gpt-4o", "file", "x")
	bad, badType := form("model", "gpt-4o", "model", "o3")
	session, sessionType := form("sdp", "v=0", "session", `{"type":"realtime","model":"o3"}`)
	none, noneType := form("file", "model")
	for _, test := range []struct {
		method, target, body, contentType string
		want                              int
		code                              string
	}{
		{"POST", "/v1/chat/completions", `{"model":"gpt-4o"}`, "", 200, ""},
		{"POST", "/v1/chat/completions", `{"messages":[{"content":"model: o3"}],"model":"gpt-4o","metadata":{"model":1}}`, "application/json", 200, ""},
		{"POST", "/v1/chat/completions", `{"model":"o3"}`, "", 403, "model_not_allowed"},
		{"POST", "/v1/chat/completions", `{"model":"o3","model":"gpt-4o"}`, "", 403, "model_not_allowed"},
		{"POST", "/v1/chat/completions", `{"model":"gpt-4o","model":"o3"}`, "", 403, "model_not_allowed"},
		{"POST", "/v1/chat/completions", `{"model":"gpt-4o","mod\u0065l":"o3"}`, "", 403, "model_not_allowed"},
		{"POST", "/v1/chat/completions", `{"model":"gpt-4o","MODEL":"o3"}`, "", 403, "model_not_allowed"},
		{"POST", "/v1/responses", `{"model":"gpt-4o","tools":[{"type":"image_generation","model":"gpt-image-1"}]}`, "", 403, "model_not_allowed"},
		{"POST", "/v1/realtime/client_secrets", `{"session":{"model":"gpt-4o","audio":{"input":{"transcription":{"model":"whisper-1"}}}}}`, "", 403, "model_not_allowed"},
		{"POST", "/v1/chat/completions", `{"model":"gpt-4o"`, "", 400, "invalid_body"},
		{"POST", "/v1/chat/completions", `{"model":"gpt-4o"} {"model":"o3"}`, "", 403, "model_not_allowed"},
		{"POST", "/v1/chat/completions", "\x1f\x8b", "", 400, "invalid_body"},
		{"POST", "/v1/chat/completions", "", "", 403, "model_required"},
		{"POST", "/v1/batches", `{"input_file_id":"file-1"}`, "", 403, "model_required"},
		{"POST", "/openai/deployments/gpt-4o/chat/completions?api-version=1", `{}`, "", 200, ""},
		{"POST", "/openai/deployments/gpt-4o/chat/completions?api-version=1", `{"model":"o3"}`, "", 200, ""},
		{"POST", "/openai/deployments/gpt-4o/chat/completions?api-version=1", `{"messages":[{"model":"o3"}]}`, "", 403, "model_not_allowed"},
		{"POST", "/openai/deployments/gpt-4o/audio/transcriptions?api-version=1", bad, badType, 403, "model_not_allowed"},
		{"POST", "/openai/deployments/gpt-4o/threads/t/runs", `{"model":"o3"}`, "", 403, "model_not_allowed"},
		{"POST", "/openai/deployments/o3/chat/completions?api-version=1", `{"model":"gpt-4o"}`, "", 403, "model_not_allowed"},
		{"POST", "/openai/deployments/gpt%2D4o/chat/completions?api-version=1", `{}`, "", 200, ""},
		{"POST", "/openai/deployments/gpt-4o%2F..%2Fo3/chat/completions", `{}`, "", 400, "invalid_path"},
		{"POST", "/v1/audio/transcriptions", good, goodType, 200, ""},
		{"POST", "/v1/audio/transcriptions", bad, badType, 403, "model_not_allowed"},
		{"POST", "/v1/audio/transcriptions", none, noneType, 403, "model_required"},
		{"POST", "/v1/audio/transcriptions", good, "multipart/form-data", 400, "invalid_body"},
		{"POST", "/v1/audio/transcriptions", good, goodType + "; boundary=x", 400, "invalid_body"},
		{"POST", "/v1/realtime/calls", session, sessionType, 403, "model_not_allowed"},
		{"POST", "/v1/realtime/calls?model=gpt-4o", "v=0", "application/sdp", 200, ""},
		{"POST", "/v1/realtime/calls?model=gpt-4o&model=o3", "v=0", "application/sdp", 403, "model_not_allowed"},
		{"POST", "/v1/realtime/calls?model=gpt-4o", `{"session":{"model":"o3"}}`, "application/sdp", 403, "model_not_allowed"},
		{"POST", "/v1/realtime/client_secrets", `{"session":{"model":"gpt-4o"}}`, "", 200, ""},
		// A model where the operation does not look for one chooses nothing.
		{"POST", "/v1/batches", `{"input_file_id":"file-1","model":"gpt-4o","metadata":{"model":"gpt-4o"}}`, "", 403, "model_required"},
		{"POST", "/v1/batches?model=gpt-4o", `{"input_file_id":"file-1"}`, "", 403, "model_required"},
		{"POST", "/v1/batch%65s", `{"input_file_id":"file-1","model":"gpt-4o"}`, "", 403, "model_required"},
		{"POST", "/openai/V1/Batches", `{"input_file_id":"file-1","model":"gpt-4o"}`, "", 403, "model_required"},
		{"POST", "/openai/deployments/gpt-4o/batches", `{"input_file_id":"file-1"}`, "", 403, "model_required"},
		{"POST", "/v1/threads/t/runs", `{"assistant_id":"asst_1","metadata":{"model":"gpt-4o"}}`, "", 403, "model_required"},
		{"POST", "/v1/threads/t/runs", `{"assistant_id":"asst_1","model":null,"tools":[{"model":"gpt-4o"}]}`, "", 403, "model_required"},
		{"POST", "/v1/threads/t/runs", `{"` + strings.Repeat("x", 300) + `":{"model":"gpt-4o"}}`, "", 403, "model_required"},
		{"POST", "/v1/threads/t/runs", `{"assistant_id":"asst_1","model":"gpt-4o"}`, "", 200, ""},
		{"POST", "/v1/chat/completions?model=gpt-4o", `{}`, "", 403, "model_required"},
		{"POST", "/v1/chat/completions?model=gpt-4o", `{"model":"o3"}`, "application/sdp", 403, "model_not_allowed"},
		{"POST", "/v1/chat/completions", `{"model":"o3","x":"&model=gpt-4o"}`, "application/x-www-form-urlencoded", 403, "model_not_allowed"},
		{"POST", "/v1/files", good, goodType, 403, "model_required"},
		{"POST", "/v1/fine_tuning/jobs", `{"model":"gpt-4o","training_file":"file-1"}`, "", 200, ""},
		{"POST", "/v1/realtime/calls?model=gpt-4o&x=1;model=o3", "v=0", "application/sdp", 400, "invalid_query"},
		{"POST", "/models/chat/completions", `{"model":"o3"}`, "", 403, "model_not_allowed"},
		// Of a session for speech the service has a default, of one that transcribes there is one model.
		{"POST", "/v1/realtime/client_secrets", `{"session":{"type":"realtime","audio":{"input":{"transcription":{"model":"gpt-4o"}}}}}`, "", 403, "model_required"},
		{"POST", "/v1/realtime/client_secrets", `{"session":{"audio":{"input":{"transcription":{"model":"gpt-4o"}}}}}`, "", 403, "model_required"},
		{"POST", "/v1/realtime/client_secrets", `{"session":{"type":"transcription","type":null,"audio":{"input":{"transcription":{"model":"gpt-4o"}}}}}`, "", 403, "model_required"},
		{"POST", "/v1/realtime/client_secrets", `{"session":{"type":"transcription","audio":{"input":{"transcription":{"model":"gpt-4o"}}}}}`, "", 200, ""},
		{"POST", "/v1/realtime/client_secrets", `{"session":{"type":"realtime","model":"gpt-4o","audio":{"input":{"transcription":{"model":"gpt-4o"}}}}}`, "", 200, ""},
		{"POST", "/v1/realtime/sessions", `{"input_audio_transcription":{"model":"gpt-4o"}}`, "", 403, "model_required"},
		{"POST", "/v1/realtime/transcription_sessions", `{"input_audio_transcription":{"model":"gpt-4o"}}`, "", 200, ""},
		{"POST", "/v1/realtime/calls/c/accept", `{"type":"realtime","audio":{"input":{"transcription":{"model":"gpt-4o"}}}}`, "", 403, "model_required"},
		// Where an unknown operation reads its model is not known.
		{"POST", "/v1/unknown", `{"model":"gpt-4o"}`, "", 403, "unknown_operation"},
		{"POST", "/v1/unknown?model=gpt-4o", `{"model":"gpt-4o"}`, "", 403, "unknown_operation"},
		{"GET", "/v1/unknown", "", "", 403, "unknown_operation"},
		{"GET", "/v1/chat/completions/c/unknown", "", "", 403, "unknown_operation"},
		{"PUT", "/v1/chat/completions", `{"model":"gpt-4o"}`, "", 403, "unknown_operation"},
		{"PATCH", "/v1/assistants/a", `{"model":"gpt-4o"}`, "", 403, "unknown_operation"},
		{"OPTIONS", "/v1/chat/completions", "", "", 403, "unknown_operation"},
		{"POST", "/v1/responses/batch", `{"model":"gpt-4o","requests":[]}`, "", 403, "unknown_operation"},
		{"POST", "/v1/chat/completions/batch", `{"model":"gpt-4o","requests":[]}`, "", 403, "model_required"},
		{"POST", "/openai/deployments/gpt-4o/extensions/chat/completions", `{}`, "", 403, "unknown_operation"},
		{"POST", "/openai/deployments/gpt-4o/unknown", `{"model":"gpt-4o"}`, "", 403, "unknown_operation"},
		{"POST", "/models/unknown", `{"model":"gpt-4o"}`, "", 403, "unknown_operation"},
		{"POST", "/anthropic/v1/complete", `{"model":"gpt-4o"}`, "", 403, "unknown_operation"},
		{"POST", "/anthropic/v1/messages", `{"model":"gpt-4o"}`, "", 200, ""},
		{"POST", "/api/projects/p/unknown", `{"model":"gpt-4o"}`, "", 403, "unknown_operation"},
		{"GET", "/v1/files", "", "", 200, ""},
		{"DELETE", "/v1/models/ft:o3", "", "", 403, "model_not_allowed"},
		{"GET", "/v1/models/gpt-4o", "", "", 200, ""},
		{"GET", "/v1/models/o3", "", "", 404, "model_not_allowed"},
	} {
		n := &network{}
		p := newProxy(t, n, proxy.Options{}, entry(secret, ", models: [gpt-4o]"))
		w := ask(p, test.method, test.target, test.body, "Authorization", "Bearer "+secret, "Content-Type", test.contentType)
		require.Equal(t, test.want, w.Code, "%+v: %s", test, w.Body)
		if test.code != "" {
			require.Equal(t, test.code, code(t, w), "%+v", test)
			require.Empty(t, n.dumps())
		}
	}
	w := ask(newProxy(t, &network{}, proxy.Options{}, entry(secret, ", models: [gpt-4o]")), "GET", "/v1/models", "", "Api-Key", secret)
	require.JSONEq(t, `{"object":"list","data":[{"id":"gpt-4o","object":"model","created":0,"owned_by":"spillover"}]}`, w.Body.String())
	w = ask(newProxy(t, &network{}, proxy.Options{}, entry(secret, ", models: [gpt-4o]")), "POST", "/v1/chat/completions", chat, "Api-Key", secret, "Content-Encoding", "gzip")
	require.Equal(t, "invalid_body", code(t, w))
}

// Whatever the path is: a request that is sent names the model where the table of
// operations says that the service reads it.
func TestKeyWithModelsReachesKnownOperationsOnly(t *testing.T) {
	segments := []string{"chat", "completions", "responses", "batches", "batch", "embeddings", "audio", "speech", "threads", "runs", "realtime", "calls",
		"evals", "models", "files", "id", "unknown", "deployments", "gpt-4o", "v1", "openai", "anthropic", "messages", "%63hat", "Chat", "", "a%2Fb", "x;y"}
	rapid.Check(t, func(t *rapid.T) {
		method := rapid.SampledFrom([]string{"POST", "PUT", "PATCH", "OPTIONS", "GET", "DELETE", "HEAD"}).Draw(t, "method")
		root := rapid.SampledFrom([]string{"/v1/", "/openai/", "/openai/v1/", "/openai/deployments/gpt-4o/", "/models/", "/anthropic/", "/api/projects/p/"}).Draw(t, "root")
		target := root + strings.Join(rapid.SliceOfN(rapid.SampledFrom(segments), 1, 4).Draw(t, "path"), "/")
		n := &network{}
		w := ask(newProxy(t, n, proxy.Options{}, entry(secret, ", models: [gpt-4o]")), method, target, `{"model":"gpt-4o"}`, "Api-Key", secret)
		lower, err := url.PathUnescape(strings.ToLower(target))
		require.NoError(t, err)
		known := wire.ParsePath(target).Spec(method) != wire.UnknownSpec || wire.ParsePath(lower).Spec(method) != wire.UnknownSpec
		if !known {
			require.Empty(t, n.dumps(), target)
			require.GreaterOrEqual(t, w.Code, 400, target)
		}
	})
}

func TestHeadersSetClassTagsAndSession(t *testing.T) {
	for _, test := range []struct {
		name, entry string
		header      []string
		status      int
		backend     string
		class       string
	}{
		{"nothing", "", nil, 200, "azure", "interactive"},
		{"tags", "", []string{"X-Spillover-Tags", "region=us"}, 200, "openai", "interactive"},
		{"tags of the key", ", tags: [region=us]", nil, 200, "openai", "interactive"},
		{"tags of both", ", tags: [region=us]", []string{"X-Spillover-Tags", "region=eu"}, 400, "", "interactive"},
		{"class", "", []string{"X-Spillover-Class", "background"}, 200, "azure", "background"},
		{"class of the key", ", class: background", []string{"X-Spillover-Class", "interactive"}, 200, "azure", "background"},
		{"session", "", []string{"X-Spillover-Session", "a"}, 200, "azure", "interactive"},
		{"bad class", "", []string{"X-Spillover-Class", "urgent"}, 400, "", ""},
		{"two classes", "", []string{"X-Spillover-Class", "background", "X-Spillover-Class", "interactive"}, 400, "", ""},
		{"bad tags", "", []string{"X-Spillover-Tags", "a,,b"}, 400, "", ""},
		{"too many tags", "", []string{"X-Spillover-Tags", strings.Repeat("a,", 100) + "a"}, 400, "", ""},
		{"empty session", "", []string{"X-Spillover-Session", ""}, 400, "", ""},
		{"long session", "", []string{"X-Spillover-Session", strings.Repeat("x", 257)}, 400, "", ""},
		{"unknown", "", []string{"X-Spillover-Tag", "region=eu"}, 400, "", ""},
	} {
		var records bytes.Buffer
		n := &network{}
		p := newProxy(t, n, proxy.Options{Logger: slog.New(slog.NewJSONHandler(&records, nil))}, entry(secret, test.entry))
		w := ask(p, "POST", "/v1/chat/completions", chat, append([]string{"Api-Key", secret}, test.header...)...)
		require.Equal(t, test.status, w.Code, test.name)
		require.Equal(t, test.backend, w.Header().Get("X-Spillover-Backend"), test.name)
		var record struct{ Class, Key, Request_ID string }
		require.NoError(t, json.Unmarshal(records.Bytes(), &record), test.name)
		require.Equal(t, test.class, record.Class, test.name)
		require.Equal(t, "test", record.Key)
		require.Equal(t, w.Header().Get("X-Request-Id"), record.Request_ID)
		require.NotContains(t, n.dumps(), "X-Spillover-", test.name)
	}
}

func TestRequestIDIsKeptOrCreated(t *testing.T) {
	n := &network{answer: func(*http.Request) *http.Response { return response(200, "{}", "X-Request-Id", "req_service") }}
	p := newProxy(t, n, proxy.Options{}, "")
	for id, kept := range map[string]bool{"my-id_1.a:b": true, "": false, "a b": false, "a\"": false, strings.Repeat("a", 129): false, "ä": false} {
		w := ask(p, "POST", "/v1/chat/completions", chat, "X-Request-Id", id)
		got := w.Header().Values("X-Request-Id")
		require.Len(t, got, 1)
		require.Equal(t, kept, got[0] == id, id)
		require.NotEmpty(t, got[0])
		require.Equal(t, "req_service", w.Header().Get("X-Upstream-Request-Id"))
		require.Contains(t, n.dumps(), "X-Request-Id: "+got[0])
	}
}

func TestWhatIsNotForwarded(t *testing.T) {
	n := &network{}
	p := newProxy(t, n, proxy.Options{}, "")
	for _, method := range []string{"TRACE", "CONNECT", "TRACK", "PROPFIND"} {
		require.Equal(t, 405, ask(p, method, "/v1/models", "").Code, method)
	}
	for _, path := range []string{"/", "/v1", "/completion", "/chats/completions", "/admin/v1/models", "/metrics2", "//v1/models"} {
		w := ask(p, "GET", path, "")
		require.Equal(t, 404, w.Code, path)
		require.Equal(t, "unknown_url", code(t, w))
	}
	for _, path := range []string{"/v1/../admin", "/v1/%2e%2e/admin", "/openai/deployments/a/..%2fb/chat/completions", "/v1/a%5c..%5cb", "/v1/./models", "/v1/%252e%252e/admin"} {
		require.Equal(t, 400, ask(p, "GET", path, "").Code, path)
	}
	require.Empty(t, n.dumps())
	w := ask(p, "POST", "/v1/chat/completions?api-version=x&subscription-key=callers", chat, "X-Forwarded-For", "192.0.2.1", "Forwarded", "for=192.0.2.1", "X-Real-Ip", "192.0.2.1", "X-Forwarded-User", "192.0.2.1",
		"Cookie", "callers", "Authorization", "Bearer callers", "Connection", "X-Hop, Http2-Settings, close", "X-Hop", "callers", "Proxy-Authorization", "callers", "Upgrade", "h2c", "Http2-Settings", "callers",
		"X-Kept", "kept", "Expect", "100-continue")
	require.Equal(t, 200, w.Code)
	for _, absent := range []string{"192.0.2.", "callers", "X-Forwarded", "Upgrade", "Expect", "localhost"} {
		require.NotContains(t, n.dumps(), absent)
	}
	require.Contains(t, n.dumps(), "X-Kept: kept")
}

func TestServiceCannotSetWhatConcernsTheProxysHost(t *testing.T) {
	for location, want := range map[string]string{
		"https://a.openai.azure.com/openai/operations/x?api-version=1": "/openai/operations/x?api-version=1",
		"/openai/operations/x":                        "/openai/operations/x",
		"https://A.openai.azure.com/admin":            "",
		"https://store.blob.core.windows.net/x?sig=y": "https://store.blob.core.windows.net/x?sig=y",
		"http://%zz": "",
	} {
		n := &network{answer: func(*http.Request) *http.Response {
			return response(202, "{}", "Location", location, "Operation-Location", location, "Set-Cookie", "a=b", "Alt-Svc", "h3", "Strict-Transport-Security", "max-age=1")
		}}
		w := ask(newProxy(t, n, proxy.Options{}, ""), "POST", "/v1/chat/completions", chat)
		require.Equal(t, 202, w.Code)
		require.Equal(t, want, w.Header().Get("Location"), location)
		if strings.HasPrefix(want, "/") {
			want = "http://localhost" + want
		}
		require.Equal(t, want, w.Header().Get("Operation-Location"), location)
		for _, name := range []string{"Set-Cookie", "Alt-Svc", "Strict-Transport-Security"} {
			require.Empty(t, w.Header().Get(name))
		}
	}
}

func TestPagesOfOtherOriginsAreRefusedWithoutKeys(t *testing.T) {
	n := &network{}
	p := newProxy(t, n, proxy.Options{}, "")
	refuse := func(r *http.Request) int {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		return w.Code
	}
	r := httptest.NewRequest("POST", "http://127.0.0.1:8080/v1/chat/completions", strings.NewReader(chat))
	r.Header.Set("Origin", "https://evil.example")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	require.Equal(t, 403, refuse(r))
	r = httptest.NewRequest("GET", "http://evil.example/status", nil)
	require.Equal(t, 421, refuse(r))
	r = httptest.NewRequest("GET", "http://localhost/v1/realtime?model=m", nil)
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Origin", "https://evil.example")
	require.Equal(t, 403, refuse(r))
	require.Empty(t, n.dumps())
	require.Equal(t, 200, ask(p, "POST", "/v1/chat/completions", chat, "Origin", "http://localhost", "Sec-Fetch-Site", "same-origin").Code)
}

func TestBodyLimit(t *testing.T) {
	n := &network{}
	p := newProxy(t, n, proxy.Options{MaxBody: 100}, "")
	long := `{"model":"` + strings.Repeat("m", 100) + `"}`
	w := ask(p, "POST", "/v1/chat/completions", long)
	require.Equal(t, 413, w.Code)
	require.Equal(t, "request_too_large", code(t, w))
	r := httptest.NewRequest("POST", "http://localhost/v1/chat/completions", &pieces{text: long, size: 7})
	r.ContentLength = -1
	w = httptest.NewRecorder()
	p.ServeHTTP(w, r)
	require.Equal(t, 413, w.Code)
	require.Empty(t, n.dumps())
}

func TestCallersCredentialsArePassedOnlyIfWanted(t *testing.T) {
	open := spillover.Backend{Name: "open", URL: "https://api.openai.com"}
	for pass, want := range map[bool]bool{true: true, false: false} {
		n := &network{}
		p := newProxy(t, n, proxy.Options{PassCredentials: pass}, "", open)
		ask(p, "POST", "/v1/chat/completions", chat, "Authorization", "Bearer callers-own")
		require.Equal(t, want, strings.Contains(n.dumps(), "callers-own"))
	}
}

func TestErrorsAreInTheFormOfTheAPI(t *testing.T) {
	n := &network{answer: func(*http.Request) *http.Response { return response(500, `{"error":{}}`) }}
	p := newProxy(t, n, proxy.Options{}, "")
	require.Equal(t, 500, ask(p, "POST", "/v1/chat/completions", chat).Code, "the service's own")
	lb, err := spillover.New(spillover.Config{Base: failing{}, Backends: pool})
	require.NoError(t, err)
	var records bytes.Buffer
	w := ask(proxy.New(proxy.Options{Transport: lb, Logger: slog.New(slog.NewTextHandler(&records, nil))}), "POST", "/v1/chat/completions", chat)
	require.Equal(t, 502, w.Code)
	require.Equal(t, "no_answer", code(t, w))
	require.NotContains(t, w.Body.String(), "10.0.0.1")
	require.Contains(t, records.String(), "10.0.0.1")
	require.Contains(t, records.String(), "request_id="+w.Header().Get("X-Request-Id"))
}

// A deployment that is silent for too long is a 504. The time is virtual.
func TestSilentDeploymentsAreATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lb, err := spillover.New(spillover.Config{
			Backends: []spillover.Backend{{URL: "https://a.openai.azure.com", APIKey: "k", HeaderTimeout: 30 * time.Second}},
			Base: roundTrip(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, context.Cause(r.Context())
			}),
		})
		require.NoError(t, err)
		defer lb.Close()
		begun := time.Now()
		w := ask(proxy.New(proxy.Options{Transport: lb}), "POST", "/v1/chat/completions", chat)
		require.Equal(t, 504, w.Code)
		require.Equal(t, "timeout", code(t, w))
		require.GreaterOrEqual(t, time.Since(begun), 30*time.Second)
	})
}

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("dial 10.0.0.1: refused")
}

// A caller that leaves ends the attempt.
func TestCallerThatLeavesEndsTheAttempt(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan struct{})
	lb, err := spillover.New(spillover.Config{Backends: pool, Base: roundTrip(func(r *http.Request) (*http.Response, error) {
		leave()
		<-r.Context().Done()
		close(ended)
		return nil, r.Context().Err()
	})})
	require.NoError(t, err)
	var records bytes.Buffer
	p := proxy.New(proxy.Options{Transport: lb, Logger: slog.New(slog.NewTextHandler(&records, nil))})
	r := httptest.NewRequestWithContext(ctx, "POST", "http://localhost/v1/chat/completions", strings.NewReader(chat))
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { p.ServeHTTP(httptest.NewRecorder(), r) })
	<-ended
	require.Contains(t, records.String(), "status=499")
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A request that comes over a connection while the server closes it is lost. So connections
// end with a response before that.
func TestResponsesEndTheirConnectionsDuringADrain(t *testing.T) {
	p := newProxy(t, &network{}, proxy.Options{}, "")
	require.Empty(t, ask(p, "POST", "/v1/chat/completions", chat).Header().Get("Connection"))
	p.Drain()
	for _, target := range []string{"/v1/chat/completions", "/readyz", "/nothing"} {
		require.Equal(t, "close", ask(p, "POST", target, chat).Header().Get("Connection"), target)
	}
}

func TestAccessLogHasNoQuery(t *testing.T) {
	var records bytes.Buffer
	p := newProxy(t, &network{}, proxy.Options{Logger: slog.New(slog.NewTextHandler(&records, nil))}, "")
	ask(p, "POST", "/v1/chat/completions?"+url.Values{"api-key": {"callers-own"}}.Encode(), chat)
	require.Contains(t, records.String(), "path=/v1/chat/completions")
	require.NotContains(t, records.String(), "callers-own")
	require.Equal(t, 1, strings.Count(records.String(), "msg=request"))
	records.Reset()
	guarded := newProxy(t, &network{}, proxy.Options{Logger: slog.New(slog.NewTextHandler(&records, nil))}, entry(secret, ""))
	require.Equal(t, 401, ask(guarded, "GET", "/v1/files/"+secret, "").Code)
	require.Equal(t, 400, ask(guarded, "GET", "/v1/files/"+secret, "", "Api-Key", secret).Code)
	require.Equal(t, 401, ask(guarded, "GET", "/v1/"+secret, "").Code)
	require.Equal(t, 404, ask(guarded, "GET", "/"+secret, "").Code)
	require.Equal(t, 401, ask(guarded, "GET", "/status/"+secret, "").Code)
	require.Contains(t, records.String(), "path=/v1/…")
	require.Contains(t, records.String(), "path=/status/…")
	ask(guarded.AdminHandler(), "GET", "/status/status.json", "")
	require.Contains(t, records.String(), "path=/status/status.json")
	require.NotContains(t, records.String(), secret)
	records.Reset()
	for _, path := range []string{"/healthz", "/readyz"} {
		ask(p, "GET", path, "")
	}
	require.Empty(t, records.String())
}
