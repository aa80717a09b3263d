package spillover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
	"github.com/spillover-go/spillover/internal/wiretest"
)

func FuzzRetryAfter(f *testing.F) {
	for _, c := range testnet.Captures(f) {
		h := http.Header{}
		for name, value := range c.Headers {
			h.Set(name, value)
		}
		f.Add(c.Status, h.Get("Retry-After-Ms"), h.Get("Retry-After"), h.Get("Date"), h.Get("X-Ratelimit-Reset-Tokens"), h.Get("X-Ratelimit-Remaining-Tokens"), []byte(c.Body))
	}
	f.Add(429, "-1e400", "1e400, 5", "x", "1h2m3.4s", "-1", []byte("try again in 99999999999999999999h99m"))
	f.Fuzz(func(t *testing.T, status int, ms, s, date, reset, remaining string, body []byte) {
		h := http.Header{"Retry-After-Ms": {ms}, "Retry-After": {s}, "Date": {date}, "X-Rate-Limit-Reset-Tokens": {reset}, "X-Ratelimit-Reset-Tokens": {reset}, "X-Ratelimit-Remaining-Tokens": {remaining}}
		d := retryAfter(status, h, body, time.Unix(1_800_000_000, 0))
		require.GreaterOrEqual(t, d, time.Duration(0))
		require.GreaterOrEqual(t, prose(body), time.Duration(0))
		left, err := strconv.ParseInt(remaining, 10, 64)
		whole := func(s string) time.Duration { // 0 if it is no number of moderate size
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil {
				return 0
			}
			return time.Duration(n)
		}
		switch {
		case whole(ms) > 0:
			require.Equal(t, whole(ms)*time.Millisecond, d)
		case strings.ContainsAny(ms, "0123456789"): // it may be a number in another form
		case whole(s) > 0:
			require.Equal(t, whole(s)*time.Second, d)
		case s != "":
		case status != http.StatusTooManyRequests:
			require.Zero(t, d)
		case whole(reset) > 0 && err != nil:
			require.Equal(t, min(whole(reset)*time.Second, time.Minute), d)
		case reset == "", err == nil && left > 0 && left < 1<<31:
			require.Equal(t, prose(body), retryAfter(status, h, body, time.Time{}), "no limit is used up")
		}
	})
}

func FuzzSplice(f *testing.F) {
	for i, s := range wiretest.JSONTexts() {
		f.Add([]byte(s), []string{"m-east", `"\`, "", "\x00\u2028é", "\xff"}[i%5], i, i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, text []byte, name string, size int, inPath bool) {
		path := "/v1/responses"
		if inPath {
			path = chatPath
		}
		req := newChat(t, path)
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
		r := &request{Request: req, body: replay.New(req.Body)}
		require.NoError(t, r.read())
		change, err := r.edits(&deployment{backend: &backend{dialect: wire.SpecOf(AzureV1)}}, name)
		require.NoError(t, err)
		want := string(text)
		for _, s := range slices.Backward(change[:]) {
			want = want[:s.At.From] + s.Text + want[s.At.To:]
		}
		if len(text) > 0 {
			require.EqualValues(t, len(want), r.body.EditedLength(change))
		}

		if edited, ok := r.body.InMemory(change); ok {
			require.Equal(t, want, string(edited))
		}
		// However it is read, where it is not in memory: its length is not told.
		body := replay.New(io.NopCloser(bytes.NewReader(text)))
		require.NoError(t, body.Prepare(req.GetBody, -1))
		var a replay.Attempt
		require.NoError(t, body.Open(&a, change))
		var got []byte
		p := make([]byte, 1+uint(size)%9)
		for {
			n, err := a.Read(p)
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
		require.Equal(t, want, string(got))

		var before, after map[string]any
		if json.Unmarshal(text, &before) != nil || before == nil || name == "" {
			return
		}
		require.NoError(t, json.Unmarshal(got, &after))
		_, named := before["model"].(string)
		if _, there := before["model"]; named || inPath && !there {
			require.Equal(t, string([]rune(name)), after["model"])
		}
		delete(before, "model")
		delete(after, "model")
		require.Equal(t, before, after)
	})
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{
		chatPath, "//openai//deployments//m//chat/completions", "/openai/deployments/my%20dep%2Fft:1/embeddings?a=%20&api-version=1&b", "/openai/deployments/m", "/openai/deployments",
		"/openai/v1/responses?api-version=preview", "/v1/files/f/content", "/v1", "/prefix/v1/models", "/models/chat/completions", "/chat/completions", "/", "", "/openai/deployments/%25/x%2f..",
		"/openai/deployments/chat/chat/completions", "/v1/openai/deployments/x/y", "/openai/files?api-version=1&API-VERSION=2&&", "/*", "/api/projects/p/openai/v1/x",
	} {
		for _, name := range []string{"", "m", "a/b c", "ü%", "."} {
			f.Add(s, name, "2025-01-01")
		}
	}
	f.Fuzz(func(t *testing.T, target, name, version string) {
		u, err := url.Parse("https://foo.example/" + strings.TrimPrefix(target, "/"))
		if err != nil {
			return
		}
		if name == "." || name == ".." {
			return // no request with such a name is sent
		}
		in := wire.ParsePath(u.EscapedPath())
		for _, base := range []string{"", "/ai", "/a%2Fi"} {
			for _, d := range []Dialect{Azure, AzureV1, OpenAI} {
				b := &backend{base: base, dialect: wire.SpecOf(d)}
				if d == Azure {
					b.apiVersion = url.QueryEscape(version)
				}
				path := b.path(in, name)
				require.True(t, strings.HasPrefix(path, base+"/"), path)
				plain, raw := wire.SplitEscapedPath(path)
				sent := url.URL{Scheme: "https", Host: "h", Path: plain, RawPath: raw}
				require.Equal(t, path, sent.EscapedPath(), "as it was made, it is sent")
				if in.Dialect == "" {
					require.Equal(t, base+u.EscapedPath(), path)
				}
				if d == Azure && in.Dialect != "" && in.NamesDeployment(name) {
					segment, _, _ := strings.Cut(strings.TrimPrefix(path, base+"/openai/deployments/"), "/")
					model, err := url.PathUnescape(segment)
					require.NoError(t, err)
					require.Equal(t, name, model)
					require.Equal(t, name, wire.ParsePath(path).Model, "and it is read again as what it was")
				}
				require.Equal(t, others(u.RawQuery), others(b.query(in, u.RawQuery)))
				if b.apiVersion != "" && in.Dialect != "" {
					require.Equal(t, []string{b.apiVersion}, versions(b.query(in, u.RawQuery)))
				}
			}
		}
	})
}

// others are the parts of a query but for api-version.
func others(query string) (parts []string) {
	for part := range strings.SplitSeq(query, "&") {
		if name, _, _ := strings.Cut(part, "="); part != "" && !strings.EqualFold(name, "api-version") {
			parts = append(parts, part)
		}
	}
	return parts
}

func versions(query string) (found []string) {
	for part := range strings.SplitSeq(query, "&") {
		if name, value, _ := strings.Cut(part, "="); strings.EqualFold(name, "api-version") {
			found = append(found, value)
		}
	}
	return found
}

func FuzzJudge(f *testing.F) {
	for _, c := range testnet.Captures(f) {
		f.Add(c.Status, c.Headers["Retry-After"], []byte(c.Body), "chat/completions")
	}
	for _, body := range []string{`{"error":null}`, `{"error":[]}`, `{"error":"text"}`, `{"error":{"code":429.5e3}}`, `{"error":{"code":{"a":1}}}`, `{"error":{"code":"a\nb"}}`, `[]`, `{"code":"x"}`} {
		f.Add(404, "", []byte(body), "files")
	}
	f.Fuzz(func(t *testing.T, status int, after string, body []byte, op string) {
		o := judge(status, http.Header{"Retry-After": {after}}, body, op, time.Unix(1_800_000_000, 0))
		require.True(t, wire.IsPrintableASCII(o.reason) && len(o.reason) < 100, o.reason)
		require.GreaterOrEqual(t, o.wait, time.Duration(0))
		if status < 400 {
			require.Equal(t, outcome{verdict: served}, o)
		}
		if status >= 500 {
			require.Equal(t, failed, o.verdict)
		}
		require.Equal(t, o.verdict == failed, o.cause != health.NoFailure)
	})
}

// A fuzzAnswer is what a deployment answers in FuzzAnswer.
type fuzzAnswer struct {
	code   int
	header string // lines
	body   string
	err    error // instead of a response
}

func (a fuzzAnswer) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.err != nil {
		return nil, a.err
	}
	resp, err := status(a.code, a.body)(req)
	if strings.Contains(a.header, "Content-Type:") {
		resp.Header.Del("Content-Type")
	}
	for line := range strings.Lines(a.header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		resp.Header.Add(name, strings.TrimSpace(value))
	}
	return resp, err
}

// Whatever a deployment answers, the caller gets one answer: that one unchanged, or that
// of another deployment. No header of a service passes for one of the transport's. The
// credential that was sent is in nothing else, whatever the answer repeats.
func FuzzAnswer(f *testing.F) {
	const (
		secret  = "key-one"
		healthy = 1 << iota // the other deployment is
		hold
		breaks
	)
	for _, c := range testnet.Captures(f) {
		var header strings.Builder
		for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
			fmt.Fprintf(&header, "%s: %s\n", name, c.Headers[name])
		}
		f.Add(c.Status, header.String(), []byte(c.Body), uint8(0), uint8(0), uint8(healthy))
	}
	for i, header := range []string{
		"Content-Type: text/event-stream", "Content-Type: text/event-stream;;\nContent-Encoding: gzip", "Location: //two/", "Location: %",
		"X-Spillover-Backend: two\nX-Spillover-Synthesized: true\nx-spillover-attempts: -1\nx-spillover-model: x\nX-Spillover-Waited-Ms: 1\nx-Spillover-: y", "Retry-After: 1e9\nretry-after-ms: NaN", "X-Should-Retry: false",
		"azure-openai-deployment-utilization: 1e400%\nx-ratelimit-remaining-tokens: -1\nx-ratelimit-limit-requests: 99999999999999999999", "Transfer-Encoding: x\nTrailer: a",
	} {
		for _, status := range []int{200, 204, 302, 400, 401, 408, 429, 503} {
			f.Add(status, header, []byte(`{"id":"resp_1","usage":{"total_tokens":1e3},"error":{"code":"x"}}`), uint8(i), uint8(i), uint8(healthy|hold*(i%2)))
		}
	}
	f.Add(200, "Content-Type: text/event-stream", []byte(testnet.TokenChunk("a")), uint8(0), uint8(0), uint8(healthy)) // a truncated stream
	for credential := range uint8(4) {
		for _, message := range []string{"wrong key: key-one", "key-\u0000one", "key\u002done", "kkey-oneey-one"} {
			for _, status := range []int{400, 401, 404, 409, 429, 503} {
				f.Add(status, "x-request-id: key-one\nRetry-After: 1", []byte(`{"error":{"code":"key-one","message":"`+message+`"}}`), uint8(0), credential, uint8(0))
			}
		}
		f.Add(200, "apim-request-id: a key-one", []byte("{}"), uint8(0), credential, uint8(0))
		f.Add(503, "", []byte("reset after Bearer key-one"), uint8(0), credential, uint8(breaks))
		for _, whole := range []uint8{0, hold} {
			for _, begins := range []string{"", testnet.TokenChunk("a")} {
				f.Add(200, "Content-Type: text/event-stream", []byte(begins+`data: {"error":{"code":"key-one","status":503,"message":"key-one"}}`+"\n\n"), uint8(0), credential, whole)
			}
		}
	}
	paths := []string{chatPath, "/v1/responses", "/v1/files", "/v1/responses/resp_1", "/v1/models", "/v1/embeddings", "/other"}
	credentials := []func(*Backend){
		func(b *Backend) { b.APIKey = secret },
		func(b *Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) { return secret, nil }
		},
		func(b *Backend) { b.Headers = map[string]string{"X-Gateway": secret} },
		func(b *Backend) { b.APIKey = "" }, // the caller's
	}
	f.Fuzz(func(t *testing.T, code int, header string, body []byte, path, credential, how uint8) {
		if code < 200 || code > 599 {
			code = 200 + int(uint(code)%400)
		}
		answer := fuzzAnswer{code: code, header: header, body: string(body)}
		if how&breaks != 0 {
			answer.err = errors.New(answer.body)
		}
		synctest.Test(t, func(t *testing.T) { // and leaves no goroutine
			n := newNet()
			n.On(host("one"), answer.RoundTrip)
			n.On(host("two"), answer.RoundTrip)
			if how&healthy != 0 {
				n.On(host("two"), status(200, `{"object":"healthy"}`))
			}
			with := func(b *Backend) {
				b.IdleTimeout = time.Minute
				credentials[int(credential)%len(credentials)](b)
			}
			l := telemetrytest.New()
			cfg := withListener(l, Config{Base: n, HoldStreams: how&hold != 0, Backends: []Backend{azure("one", with), azure("two", with, priority(2))}})
			cfg.Logger = l.LoggerAt(slog.LevelDebug)
			tr := configured(t, cfg)
			defer tr.Close()
			var trail Trail
			req := newChat(t, paths[int(path)%len(paths)])
			req.Header.Set("api-key", "callers-"+secret)
			checks := tr.Check
			if tr.setup.Load().table.backends[0].usesCallerCredential() {
				req.Header.Set("api-key", secret)
				checks = func(context.Context) []CheckResult { return nil } // it is not sent
			}
			began := time.Now()
			resp, err := tr.RoundTrip(req.WithContext(WithTrail(req.Context(), &trail)))
			if err != nil {
				require.Error(t, answer.err, "no connection has failed")
				require.NotContains(t, err.Error(), secret)
			} else {
				checkAnswer(t, resp, answer, how&healthy != 0, n)
			}
			require.Zero(t, time.Since(began), "it waits for nothing")
			require.Zero(t, streamsInFlight(tr))
			time.Sleep(time.Hour)
			recovered := fuzzAnswer{code: 200, header: header, body: `{"object":"healthy"}`}
			n.On(host("one"), recovered.RoundTrip)
			if resp, err := tr.RoundTrip(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			l.Collect()
			explained, err := tr.Explain(newChat(t, chatPath))
			require.NoError(t, err)
			shown, err := json.Marshal([]any{tr.Status(), checks(t.Context()), trail, explained, l.Log()})
			require.NoError(t, err)
			require.NotContains(t, string(shown), secret)
			for _, span := range l.EndedSpans(t) {
				require.NotContains(t, span.Description+fmt.Sprint(span.Attributes()), secret)
			}
			require.NotContains(t, fmt.Sprint(l.Measured), secret)
		})
	})
}

// checkAnswer checks what a caller gets where deployment one answers so, and two as well
// unless it is healthy.
func checkAnswer(t *testing.T, resp *http.Response, answer fuzzAnswer, healthy bool, n *fakeNet) {
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "a truncated stream")
		require.Equal(t, "text/event-stream", wire.MediaType(resp.Header))
	}
	require.NoError(t, resp.Body.Close())
	switch {
	case servedBy(resp) == "":
		require.Equal(t, "true", resp.Header.Get("X-Spillover-Synthesized"))
		require.True(t, json.Valid(text))
	case servedBy(resp) == "two" && healthy:
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, `{"object":"healthy"}`, string(text))
	default:
		require.NoError(t, answer.err)
		require.Equal(t, answer.code, resp.StatusCode)
		require.Equal(t, answer.body, string(text))
		require.Empty(t, resp.Header.Get("X-Spillover-Synthesized"))
	}
	for name := range resp.Header {
		require.True(t, !strings.HasPrefix(http.CanonicalHeaderKey(name), headerPrefix) || slices.Contains([]string{headerBackend, headerAttempts, headerSynthesized}, name), name)
	}
	require.Len(t, resp.Header.Values("X-Spillover-Backend"), 1)
	require.Equal(t, []string{strconv.Itoa(n.Sends(host("one"), host("two")))}, resp.Header.Values("X-Spillover-Attempts"))
}

// Whatever a service lists, no deployment is missing that it lists by name.
func FuzzModelList(f *testing.F) {
	for _, s := range []string{`{"data":[{"id":"m"},{"id":"models/n"}]}`, `{"data":[]}`, `{"data":null}`, `{"data":[{"id":"m:latest"}],"has_more":true}`, `[]`, `{"data":[{"id":1}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b := &backend{host: "llm.example", dialect: wire.SpecOf(OpenAI), models: map[string]Model{"m": {Deployment: "m"}, "x": {Deployment: "n"}}}
		count, missing, ok := b.readModels(text)
		var list struct{ Data []struct{ ID string } }
		if !ok {
			require.Zero(t, count)
			require.Empty(t, missing)
			return
		}
		require.NoError(t, json.Unmarshal(text, &list))
		require.Len(t, list.Data, count)
		require.Subset(t, []string{"m", "n"}, missing)
		for _, m := range list.Data {
			require.NotContains(t, missing, m.ID)
		}
	})
}
