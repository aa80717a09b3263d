package spillover_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
)

// warned are the records of requests that fail.
func warned(l *telemetrytest.Listener) (records []string) {
	for _, r := range l.Log() {
		if rest, ok := strings.CutPrefix(r, "WARN,requests fail,"); ok {
			records = append(records, rest)
		}
	}
	return records
}

// Each cause is told once a minute, with how many requests failed of it.
func TestFailingRequestsAreToldOf(t *testing.T) {
	const key = `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}`
	const version = `{"error":{"code":"404","message":"Resource not found"}}`
	for name, c := range map[string]struct {
		first, second roundTripFunc
		want          []string
	}{
		"all keys are wrong": {status(401, key), status(401, key),
			[]string{"backends:[first,second],model:m,reason:401,status:401,error:Access denied due to invalid subscription key or wrong API endpoint.,requests:"}},
		"all answer 500": {status(500, `{"error":{"code":"server_error","message":"The server had an error"}}`), status(500, `{"error":{"code":"server_error","message":"The server had an error"}}`),
			[]string{"backends:[first,second],model:m,reason:500 server_error,status:500,code:server_error,error:The server had an error,requests:"}},
		"no api-version": {status(404, version), status(404, version), []string{"backends:[first,second],model:m,reason:404,status:404,error:Resource not found,requests:"}},
		"a 400 about it": {status(400, `{"error":{"code":"MissingApiVersionParameter","message":"The api-version query parameter is required"}}`), status(200, "{}"),
			[]string{"backends:[first],model:m,reason:400 MissingApiVersionParameter,status:400,code:MissingApiVersionParameter,error:The api-version query parameter is required,requests:"}},
		"one key is wrong, the other is throttled": {status(401, key), status(429, "", "Retry-After: 1"),
			[]string{"backends:[first],model:m,reason:401,status:401,error:Access denied due to invalid subscription key or wrong API endpoint.,requests:"}},
		"all refuse connections": {broken(refused), broken(refused), []string{"backends:[first,second],model:m,reason:no connection,error:dial tcp: connection refused,requests:"}},
		"no certificate is trusted": {broken(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), broken(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}),
			[]string{"backends:[first,second],model:m,reason:no connection,error:tls: failed to verify certificate: x509: certificate signed by unknown authority,requests:"}},
		"none answers in time": {broken(spillover.ErrHeaderTimeout), broken(spillover.ErrHeaderTimeout), []string{"backends:[first,second],model:m,reason:no answer in time,error:" + spillover.ErrHeaderTimeout.Error() + ",requests:"}},
		"two causes": {status(401, key), broken(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("lookup first.example: no such host")}),
			[]string{"backends:[first],model:m,reason:401,status:401,error:Access denied due to invalid subscription key or wrong API endpoint.,requests:",
				"backends:[second],model:m,reason:no connection,error:dial tcp: lookup first.example: no such host,requests:"}},
		"HTML of a proxy":          {status(502, "<html>secret</html>", "Content-Type: text/html"), status(502, "<html>"), []string{"backends:[first,second],model:m,reason:502,status:502,requests:"}},
		"the caller's own mistake": {status(400, `{"error":{"code":"content_filter","message":"hi"}}`), status(200, "{}"), nil},
		"one of them answers":      {status(500, ""), status(200, "{}"), nil},
		"both are throttled":       {status(429, "", "Retry-After: 1"), status(429, "", "Retry-After: 1"), nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("first"), c.first)
			n.On(host("second"), c.second)
			l, tr := listened(t, firstOf(n))
			try := func() {
				if resp, err := tr.RoundTrip(newChat(t, chatPath)); err == nil {
					read(t, resp)
				}
			}
			told := func(requests int) (records []string) {
				for _, w := range c.want {
					records = append(records, fmt.Sprint(w, requests))
				}
				return records
			}
			try()
			require.Equal(t, told(1), warned(l), name)
			for range 6 {
				time.Sleep(9 * time.Second)
				try()
			}
			require.Empty(t, warned(l), name)
			time.Sleep(6 * time.Second)
			if try(); name != "two causes" { // of which one is out meanwhile
				require.Equal(t, told(7), warned(l), name)
			}
			require.NoError(t, tr.Close())
		})
	}
}

// A deadline that ends while a deployment is silent is a failed request, and the
// record names the deployment. A caller who leaves, or has no time, shows nothing.
func TestDeadlineOfASilentDeploymentIsWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), hangs(nil))
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("ptu", serves("m"))}})
		try := func(timeout time.Duration, end error) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			if end != nil {
				ctx, cancel = context.WithCancel(t.Context())
				time.AfterFunc(timeout, cancel)
			}
			defer cancel()
			_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
			require.Error(t, err)
		}
		try(5*time.Second, nil)
		try(30*time.Second, context.Canceled)
		require.Empty(t, warned(l))
		require.Zero(t, statusOf(t, tr, "ptu").LastFailure)
		try(30*time.Second, nil)
		require.Equal(t, []string{"backends:[ptu],model:m,reason:no answer in time,error:ptu has not answered for 30s,requests:1"}, warned(l))
		require.Equal(t, spillover.Failure{time.Now(), 0, "no answer in time", "ptu has not answered for 30s"}, statusOf(t, tr, "ptu").LastFailure)
		require.True(t, statusOf(t, tr, "ptu").Available)
		try(30*time.Second, nil)
		require.Empty(t, warned(l), "once a minute")
		require.NoError(t, tr.Close())
	})
}

// Nobody has set a key: the callers' own is refused everywhere, and the record says it.
func TestWarningOfAPoolWithoutKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(401, `{"error":{"code":"401","message":"Access denied"}}`))
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m"), func(b *spillover.Backend) { b.APIKey = "" })}})
		ask(t, tr)
		records := warned(l)
		require.Len(t, records, 1)
		require.Contains(t, records[0], "remedy:set a credential")
	})
}

// What nothing was sent for has a cause, too: why all of them are out.
func TestWarningOfAPoolThatIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, `{"error":{"code":"insufficient_quota","message":"You exceeded your current quota"}}`))
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m"))}})
		for range 3 {
			resp, _ := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, []string{"backends:[a],model:m,reason:429 insufficient_quota,status:429,code:insufficient_quota,error:You exceeded your current quota,requests:1"}, warned(l))
			time.Sleep(time.Minute)
		}
		require.Equal(t, 1, n.Sends())
	})
}

// The cause is in Status, the log and the error, and nothing secret is.
func TestCauseOfAnAttemptThatWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		jwt := "eyJ0eXAiOiJKV1Qi.eyJhdWQiOiJodHRw.c2lnbmF0dXJl"
		n.On(host("b"), broken(&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "b.openai.azure.com"}}))
		n.On(host("c"), broken(errors.New("proxyconnect tcp: EOF, http://user:hunter2@proxy.example")))
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{
			azure("a", func(b *spillover.Backend) {
				b.APIKey, b.Token = "", func(context.Context) (string, error) {
					return "", errors.New("AADSTS7000215: Invalid client secret provided\nclient_secret=hunter2&grant_type=x Bearer " + jwt)
				}
			}),
			azure("b", priority(2)), azure("c", priority(3)),
		}})
		_, err := tr.RoundTrip(newChat(t, chatPath))
		require.Error(t, err)
		a, b, c := statusOf(t, tr, "a").LastFailure, statusOf(t, tr, "b").LastFailure, statusOf(t, tr, "c").LastFailure
		require.Equal(t, spillover.Failure{time.Now(), 0, "no token", "token: AADSTS7000215: Invalid client secret provided client_secret=***&grant_type=x Bearer ***"}, a)
		require.Equal(t, spillover.Failure{time.Now(), 0, "no connection", "dial tcp: lookup b.openai.azure.com: no such host"}, b)
		require.Equal(t, "proxyconnect tcp: EOF, http://***@proxy.example", c.Cause)
		require.Equal(t, b, tr.Status().Tiers[1].Backends[0].LastFailure)
		records := strings.Join(l.Log(), "\n")
		for _, f := range []spillover.Failure{a, b, c} {
			require.Contains(t, records, "reason:"+f.Reason)
			require.Contains(t, records, "error:"+f.Cause)
			require.Contains(t, err.Error(), f.Cause)
		}
		for _, text := range []string{records, err.Error(), fmt.Sprintf("%+v", tr.Status())} {
			require.NotContains(t, text, "hunter2")
			require.NotContains(t, text, "eyJ")
		}
	})
}

// A key that a service quotes is nowhere, whatever it looks like.
func TestQuotedKeyIsMasked(t *testing.T) {
	n := newNet()
	for _, h := range []string{"a", "b"} {
		n.On(host(h), func(req *http.Request) (*http.Response, error) {
			return status(401, `{"error":{"message":"Incorrect API key provided: `+req.Header.Get("Api-Key")+strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")+`, sk-abc***xyz."}}`)(req)
		})
	}
	l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{
		azure("a", func(b *spillover.Backend) { b.APIKey = "swordfish" }),
		azure("b", func(b *spillover.Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) { return "tokenfish", nil }
		}),
	}})
	ask(t, tr)
	ask(t, tr)
	text := strings.Join(l.Log(), "\n") + fmt.Sprintf("%+v", tr.Status())
	require.Contains(t, text, "Incorrect API key provided: ***")
	require.NotContains(t, text, "fish")
	require.NotContains(t, text, "xyz")
}

// A caller's key is masked however it is spelled where the caller sends it.
func TestQuotedKeyOfACallerIsMasked(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"a protocol": func(r *http.Request) {
			r.Header.Set("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.swordfish")
		},
		"a protocol, spelled": func(r *http.Request) {
			r.Header["Sec-WebSocket-Protocol"] = []string{"OpenAI-Insecure-API-Key.swordfish"}
		},
		"a query":                        func(r *http.Request) { r.URL.RawQuery += "&API-Key=swordfish" },
		"a query, escaped":               func(r *http.Request) { r.URL.RawQuery += "&api%2Dkey=sword%66ish" },
		"a query that Go does not parse": func(r *http.Request) { r.URL.RawQuery += "&a=%zz&b;c&key=swordfish;x" },
		"a header":                       func(r *http.Request) { r.Header["x-api-KEY"] = []string{"swordfish"} },
		"a tab":                          func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer\tswordfish"} },
	} {
		n := newNet()
		n.On(host("a"), status(401, `{"error":{"message":"wrong: swordfish;x swordfish"}}`))
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a")}})
		req := newChat(t, chatPath)
		change(req)
		send(t, tr, req)
		text := strings.Join(l.Log(), "\n") + fmt.Sprintf("%+v", tr.Status())
		require.Contains(t, text, "wrong: ***", name)
		require.NotContains(t, text, "swordfish", name)
	}
}

// A failure after the beginning of an answer is the last one, too.
func TestLastFailureOfABrokenStream(t *testing.T) {
	n := newNet()
	n.On(host("a"), func(req *http.Request) (*http.Response, error) {
		resp, err := status(200, "", "Content-Type: text/event-stream")(req)
		resp.ContentLength = -1
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"), cutReader{io.ErrUnexpectedEOF}))
		return resp, err
	})
	tr := balance(t, n, azure("a"))
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.NoError(t, err)
	_, _ = io.ReadAll(resp.Body)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "answer broke off", statusOf(t, tr, "a").LastFailure.Reason)
	require.Equal(t, spillover.Failure{}, statusOf(t, balance(t, newNet(), azure("a", serves("m"))), "a").LastFailure)
}

type cutReader struct{ err error }

func (r cutReader) Read([]byte) (int, error) { return 0, r.err }
