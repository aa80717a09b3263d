package spillover

import (
	"context"
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

	"github.com/spillover-go/spillover/internal/wire"
)

// warned are the records of requests that fail.
func (l *listener) warned() (records []string) {
	for _, r := range l.log() {
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
			n.on(host("first"), c.first)
			n.on(host("second"), c.second)
			l, tr := overheard(t, firstOf(n))
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
			require.Equal(t, told(1), l.warned(), name)
			for range 6 {
				time.Sleep(9 * time.Second)
				try()
			}
			require.Empty(t, l.warned(), name)
			time.Sleep(6 * time.Second)
			if try(); name != "two causes" { // of which one is out meanwhile
				require.Equal(t, told(7), l.warned(), name)
			}
			require.NoError(t, tr.Close())
		})
	}
}

// What nothing was sent for has a cause, too: why all of them are out.
func TestWarningOfAPoolThatIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), status(429, `{"error":{"code":"insufficient_quota","message":"You exceeded your current quota"}}`))
		l, tr := overheard(t, Config{Base: n, Backends: []Backend{azure("a", serves("m"))}})
		for range 3 {
			resp, _ := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, []string{"backends:[a],model:m,reason:429 insufficient_quota,status:429,code:insufficient_quota,error:You exceeded your current quota,requests:1"}, l.warned())
			time.Sleep(time.Minute)
		}
		require.Equal(t, 1, n.sends())
	})
}

// A record of many backends names some of them, and says how many more there are.
func TestWarningOfManyBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		var backends []Backend
		for i := range mostNames + 4 {
			backends = append(backends, azure(fmt.Sprint("b", i), serves("m"), priority(i+1)))
			n.on(host(fmt.Sprint("b", i)), status(401, `{"error":{"code":"401","message":"no"}}`))
		}
		l, tr := overheard(t, Config{Base: n, Backends: backends, MaxAttempts: len(backends)})
		ask(t, tr)
		require.Equal(t, []string{"backends:[b0,b1,b2,b3,b4,b5,b6,b7,b8,b9,b10,b11,b12,b13,b14,b15],more_backends:4,model:m,reason:401,status:401,error:no,requests:1"}, l.warned())
	})
}

// A service that makes codes up fills neither memory nor the log.
func TestWarningsAreBounded(t *testing.T) {
	var w warnings
	now, told := time.Now(), 0
	for i := range 10_000 {
		if _, due := w.take(now.Add(time.Duration(i)*time.Millisecond), fmt.Sprint("500 made_up_", i)); due {
			told++
		}
	}
	require.LessOrEqual(t, len(w.causes), maxCauses+1)
	require.Equal(t, maxCauses+1, told)
	now = now.Add(2 * time.Minute)
	requests, due := w.take(now, "500 made_up_0")
	require.True(t, due)
	require.Equal(t, 1, requests)
	requests, due = w.take(now, "another")
	require.True(t, due)
	require.Equal(t, 1, requests)
	require.LessOrEqual(t, len(w.causes), maxCauses+1)
}

// The cause is in Status, the log and the error, and nothing secret is.
func TestCauseOfAnAttemptThatWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		jwt := "eyJ0eXAiOiJKV1Qi.eyJhdWQiOiJodHRw.c2lnbmF0dXJl"
		n.on(host("b"), broken(&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "b.openai.azure.com"}}))
		n.on(host("c"), broken(errors.New("proxyconnect tcp: EOF, http://user:hunter2@proxy.example")))
		l, tr := overheard(t, Config{Base: n, Backends: []Backend{
			azure("a", func(b *Backend) {
				b.APIKey, b.Token = "", func(context.Context) (string, error) {
					return "", errors.New("AADSTS7000215: Invalid client secret provided\nclient_secret=hunter2&grant_type=x Bearer " + jwt)
				}
			}),
			azure("b", priority(2)), azure("c", priority(3)),
		}})
		_, err := tr.RoundTrip(newChat(t, chatPath))
		require.Error(t, err)
		a, b, c := at(t, tr, "a").LastFailure, at(t, tr, "b").LastFailure, at(t, tr, "c").LastFailure
		require.Equal(t, Failure{time.Now(), 0, "no token", "token: AADSTS7000215: Invalid client secret provided client_secret=***&grant_type=x Bearer ***"}, a)
		require.Equal(t, Failure{time.Now(), 0, "no connection", "dial tcp: lookup b.openai.azure.com: no such host"}, b)
		require.Equal(t, "proxyconnect tcp: EOF, http://***@proxy.example", c.Cause)
		require.Equal(t, b, tr.Status().Tiers[1].Backends[0].LastFailure)
		records := strings.Join(l.log(), "\n")
		for _, f := range []Failure{a, b, c} {
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
		n.on(host(h), func(req *http.Request) (*http.Response, error) {
			return status(401, `{"error":{"message":"Incorrect API key provided: `+req.Header.Get("Api-Key")+strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")+`, sk-abc***xyz."}}`)(req)
		})
	}
	l, tr := overheard(t, Config{Base: n, Backends: []Backend{
		azure("a", func(b *Backend) { b.APIKey = "swordfish" }),
		azure("b", func(b *Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) { return "tokenfish", nil }
		}),
	}})
	ask(t, tr)
	ask(t, tr)
	text := strings.Join(l.log(), "\n") + fmt.Sprintf("%+v", tr.Status())
	require.Contains(t, text, "Incorrect API key provided: ***")
	require.NotContains(t, text, "fish")
	require.NotContains(t, text, "xyz")
}

// A failure after the beginning of an answer is the last one, too.
func TestLastFailureOfABrokenStream(t *testing.T) {
	n := newNet()
	n.on(host("a"), func(req *http.Request) (*http.Response, error) {
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
	require.Equal(t, "answer broke off", at(t, tr, "a").LastFailure.Reason)
	require.Equal(t, Failure{}, at(t, balance(t, newNet(), azure("a", serves("m"))), "a").LastFailure)
}

type cutReader struct{ err error }

func (r cutReader) Read([]byte) (int, error) { return 0, r.err }

func TestPresentable(t *testing.T) {
	for text, want := range map[string]string{
		"dial tcp: lookup my-very-long-resource-name-1234567890.openai.azure.com: no such host":          "",
		"dial tcp 10.0.0.1:443: connect: connection refused":                                             "",
		"tls: failed to verify certificate: x509: certificate signed by unknown authority":               "",
		"The model gpt-4o-realtime-preview-2024-12-17 does not exist":                                    "",
		"open /var/run/secrets/azure/tokens/azure-identity-token: no such file":                          "",
		"AADSTS700016: Application with identifier '11111111-2222-3333-4444-555555555555' was not found": "",
		"token: no identity": "",
		"Requests have exceeded token rate limit. See https://aka.ms/oai/quotaincrease": "",
		"Incorrect API key provided: sk-abc***xyz. You can find it":                     "Incorrect API key provided: *** You can find it",
		"key 0123456789abcdef0123456789abcdef is wrong":                                 "key *** is wrong",
		"api-key=short&x=1":                            "api-key=***&x=1",
		`{"client_secret": "a b", "access_token":"x"}`: `{"client_secret": "*** b", "access_token":"***"}`,
		"it was secret-answer":                         "it was ***",
		"Authorization: Bearer abc":                    "Authorization: Bearer ***",
		"secret abc8Q~dEfGh.IjKlMnOp_QrStUvWxYz12":     "secret ***",
		"ghp_16C7e42F292c6912E7710c838347Ae178B4a":     "***",
		"a\r\nb\x00c\tüd":                              "a b?c ?d",
		strings.Repeat("word ", 100):                   strings.Repeat("word ", 50) + "wor...",
	} {
		if want == "" {
			want = text
		}
		require.Equal(t, want, presentable(text), text)
	}
}

func FuzzPresentable(f *testing.F) {
	for _, s := range []string{"plain", "Bearer x", "client_secret=abcd", strings.Repeat("x", 5000) + " swordfish", "sword\x00fish", "//a@b@c", "swordswordfishfish", "ключ=swordfish"} {
		f.Add(s, "swordfish")
	}
	f.Fuzz(func(t *testing.T, text, secret string) {
		shown := presentable(text, secret)
		require.LessOrEqual(t, len(shown), maxDetail)
		require.True(t, wire.IsPrintableASCII(shown), "%q", shown)
		if len(secret) >= 4 && wire.IsPrintableASCII(secret) && !strings.ContainsAny(secret, " *?.") {
			require.NotContains(t, presentable(text+secret+text, secret), secret)
			require.NotContains(t, presentable("key: "+secret+" "+text, secret), secret)
		}
		const key = "sk-proj-0123456789abcdefABCDEF0123456789"
		require.NotContains(t, presentable(text+" "+key+" "+text), key)
	})
}
