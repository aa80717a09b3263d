package spillover_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
	"github.com/spillover-go/spillover/internal/testnet"
)

// The cause of a failure is the description of the span's status: of the attempt's
// span, and of the request's if that failed, too.
func TestSpansHaveTheCauseOfAFailure(t *testing.T) {
	noToken := func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(context.Context) (string, error) { return "", errors.New("no managed identity") }
	}
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "first.example"}}
	certificate := errors.New("tls: failed to verify certificate: x509: certificate signed by unknown authority")
	deadline := func(req *http.Request) *http.Request {
		ctx, cancel := context.WithTimeout(req.Context(), 3*time.Second)
		time.AfterFunc(time.Hour, cancel)
		return req.WithContext(ctx)
	}
	for name, c := range map[string]struct {
		first, second roundTripFunc
		change        func(*spillover.Backend)
		request       func(*http.Request) *http.Request
		want          []string // of the request and its attempts
	}{
		"no token, another answers": {first: status(200, "{}"), second: status(200, "{}"), change: noToken, want: []string{"", "token: no managed identity", ""}},
		"no token, no connection": {second: broken(dial), change: noToken, want: []string{
			"spillover: no answer for m: first: token: no managed identity; second: dial tcp: lookup first.example: no such host",
			"token: no managed identity", "dial tcp: lookup first.example: no such host"}},
		"TLS": {first: broken(&net.OpError{Op: "remote error", Err: certificate}), second: status(200, "{}"), want: []string{"", "remote error: " + certificate.Error(), ""}},
		"wrong keys": {first: status(401, `{"error":{"message":"Access denied"}}`), second: status(401, `{"error":{"message":"Access denied, too"}}`),
			want: []string{"first: Access denied; second: Access denied, too", "Access denied", "Access denied, too"}},
		"no text":        {first: status(500, ""), second: status(502, "<html>"), want: []string{"first: 500; first: 500; second: 502", "", "", ""}},
		"a client error": {first: status(400, `{"error":{"message":"your prompt: hi"}}`), want: []string{"", ""}},
		"rate limits":    {first: status(429, `{"error":{"message":"slow down"}}`), second: status(429, `{}`), want: []string{"", "slow down", ""}},
		"a silent one":   {first: hung, request: deadline, want: []string{"spillover: first has not answered for 3s: context deadline exceeded", ""}},
		"an unknown model": {request: func(req *http.Request) *http.Request {
			req.URL.Path = "/openai/deployments/x/chat/completions"
			return req
		}, want: []string{""}},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("first"), c.first)
			n.On(host("second"), c.second)
			change := func(*spillover.Backend) {}
			if c.change != nil {
				change = c.change
			}
			l, tr := listened(t, firstOf(n, change))
			req := newChat(t, chatPath)
			if c.request != nil {
				req = c.request(req)
			}
			if resp, err := tr.RoundTrip(req); err == nil {
				read(t, resp)
			}
			var got []string
			for _, s := range l.EndedSpans(t) {
				got = append(got, s.Description)
				require.True(t, s.Description == "" || s.Status == codes.Error, name)
			}
			require.Equal(t, c.want, got, name)
		})
	}
}

// An attempt without a token has a span although nothing was sent: it began when the
// token was asked for.
func TestSpanOfAnAttemptWithoutAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, tr := listened(t, firstOf(newNet(), func(b *spillover.Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) {
				time.Sleep(2 * time.Second)
				return "", errors.New("no")
			}
		}))
		began := time.Now()
		ask(t, tr)
		span := l.EndedSpans(t)[1]
		require.Equal(t, map[string]any{
			"http.request.method": "POST", "server.address": host("first"), "server.port": int64(443), "url.full": "https://" + host("first"),
			"spillover.backend": "first", "spillover.tier": int64(1), "spillover.deployment": "m", "error.type": "no_token",
		}, span.Attributes())
		require.Equal(t, began, span.Began)
		require.Equal(t, 2*time.Second, span.Ended[0].Sub(began))
		require.Equal(t, int64(1), l.Spans[0].Attributes()["spillover.attempts"], "sends")
	})
}

// Whatever a service, a proxy or a credential says: what is shown of it is printable,
// short and without a secret.
func TestShownTextsAreSafeProperties(t *testing.T) {
	secrets := []string{"key-of-backend", "token-of-entra", "key-of-caller", "bearer-of-caller", "value-of-header", "key-in-query", "password-of-proxy", "query-of-url"}
	const sent = "{sent}" // stands for the credentials that the service was sent
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{sent, secrets[2], secrets[3], secrets[5]}),
		rapid.SampledFrom([]string{"https://me:" + secrets[6] + "@proxy.example/", "https://x.example/a?q=" + secrets[7], "Bearer " + secrets[3], "\r\n", "\x00", "ü", " ", strings.Repeat("long ", 60)}),
		rapid.StringN(0, 8, 40),
	)
	rapid.Check(t, func(rt *rapid.T) {
		text := strings.Join(rapid.SliceOfN(piece, 1, 12).Draw(rt, "text"), " ")
		kind := rapid.IntRange(0, 9).Draw(rt, "kind")
		repeated := rapid.IntRange(0, 3).Draw(rt, "credential that is the code and in the ID")
		answer := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			credentials := req.Header.Get("Api-Key") + " " + strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ") + " " + req.Header.Get("X-Team")
			quoted := strings.ReplaceAll(text, sent, credentials)
			code := append(strings.Fields(credentials), "", "", "")[repeated]
			body, err := json.Marshal(map[string]any{"error": map[string]string{"message": quoted, "code": code}})
			require.NoError(rt, err)
			id := "X-Request-Id: id-of-" + code
			switch kind {
			case 0:
				return nil, errors.New(quoted)
			case 1:
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New(quoted)}
			case 2:
				return testnet.EventStream(0, string(body))(req)
			case 3:
				return testnet.EventStream(0, contentEvent, string(body))(req)
			}
			return status([]int{401, 403, 404, 408, 429, 500}[kind-4], string(body), id)(req)
		})
		noToken := rapid.Bool().Draw(rt, "no token")
		l := telemetrytest.New()
		cfg := withListener(l, spillover.Config{Base: answer, Backends: []spillover.Backend{
			azure("a", func(b *spillover.Backend) { b.APIKey, b.Headers = secrets[0], map[string]string{"X-Team": secrets[4]} }),
			azure("b", func(b *spillover.Backend) {
				b.APIKey, b.Token = "", func(context.Context) (string, error) {
					if noToken {
						return "", errors.New(strings.ReplaceAll(text, sent, ""))
					}
					return secrets[1], nil
				}
			}, priority(2)),
		}})
		cfg.Logger = l.LoggerAt(slog.LevelDebug)
		tr, err := spillover.New(cfg)
		require.NoError(rt, err)
		defer tr.Close()
		var shown []string
		for range 3 {
			req := newChat(t, chatPath+"&key="+secrets[5])
			req.Header.Set("Api-Key", secrets[2])
			req.Header.Set("Authorization", "Bearer "+secrets[3])
			resp, err := tr.RoundTrip(req)
			if err != nil {
				shown = append(shown, err.Error())
				continue
			}
			if _, err = testnet.ReadAll(t, resp); err != nil {
				shown = append(shown, err.Error())
			}
		}
		shown = append(shown, l.Log()...)
		for _, s := range l.EndedSpans(t) {
			require.LessOrEqual(rt, len(s.Description), 256)
			shown = append(shown, s.Description, fmt.Sprint(s.Attributes()))
		}
		for _, tier := range tr.Status().Tiers {
			for _, b := range tier.Backends {
				require.LessOrEqual(rt, len(b.LastFailure.Cause), 256)
				shown = append(shown, b.LastFailure.Cause, fmt.Sprintf("%+v", b))
			}
		}
		for _, s := range shown {
			for _, secret := range secrets {
				require.NotContains(rt, s, secret)
			}
			for _, r := range s {
				require.True(rt, r >= ' ' && r <= '~', "%q", s)
			}
		}
	})
}

// After a deadline the error names what the time was spent on, and what had failed
// before; it is still the context's error, under an http.Client as well.
func TestDeadlineErrorNamesEveryAttempt(t *testing.T) {
	slowToken := func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }
	}
	for want, change := range map[string]func(*spillover.Backend){
		"spillover: second has not answered for 3s; no answer before: first: reset; first: reset": func(*spillover.Backend) {},
		"spillover: second has no token for 3s; no answer before: first: reset; first: reset":     slowToken,
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("first"), func(*http.Request) (*http.Response, error) {
				time.Sleep(time.Second)
				return nil, errors.New("reset")
			})
			n.On(host("second"), hung)
			cfg := firstOf(n)
			change(&cfg.Backends[1])
			_, tr := listened(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := (&http.Client{Transport: tr}).Do(newChat(t, chatPath).WithContext(ctx))
			require.ErrorContains(t, err, want+": context deadline exceeded")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			var failed *url.Error
			require.ErrorAs(t, err, &failed)
			require.True(t, failed.Timeout())
		})
	}
}

// A proxy that refuses a connection is named as what it is, and nothing was sent: the
// request fails over whatever it is.
func TestRefusalOfAProxyIsNoConnection(t *testing.T) {
	for _, code := range []int{407, 502} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		defer proxy.Close()
		address, err := url.Parse(proxy.URL)
		require.NoError(t, err)
		address.User = url.UserPassword("me", "hunter2")
		l, tr := listened(t, spillover.Config{Backends: []spillover.Backend{azure("a", serves("m"))}})
		own := spillover.BaseOf(tr).(*http.Transport)
		own.Proxy = http.ProxyURL(address)
		_, err = tr.RoundTrip(newChat(t, chatPath))
		cause := fmt.Sprintf("proxyconnect tcp: the proxy answered %d %s", code, http.StatusText(code))
		require.EqualError(t, err, "spillover: no answer for m: a: "+cause)
		f := statusOf(t, tr, "a").LastFailure
		require.Equal(t, "no connection", f.Reason)
		require.Equal(t, cause, f.Cause)
		require.Equal(t, []string{"backends:[a],model:m,reason:no connection,error:" + cause + ",requests:1"}, warned(l))
		require.NoError(t, tr.Close())
	}
}
