package spillover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
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
	for name, change := range map[string]func(*spillover.Backend){
		"key":           func(*spillover.Backend) {},
		"key of OpenAI": func(b *spillover.Backend) { b.Dialect = spillover.OpenAI },
		"token": func(b *spillover.Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) { return "t", nil }
		},
		"key in a header": func(b *spillover.Backend) {
			b.APIKey, b.Headers = "", map[string]string{"ocp-apim-subscription-key": "own"}
		},
	} {
		for _, spell := range []func(string) string{strings.ToLower, strings.ToUpper, http.CanonicalHeaderKey} {
			n := newNet()
			send(t, balance(t, n, azure("a", change)), withCredential(t, spell))
			require.NotContains(t, fmt.Sprint(n.Seen[0].Header), "callers", name)
			require.NotContains(t, n.Seen[0].Query, "callers", name)
			require.Contains(t, n.Seen[0].Query+"&", "a=%20&", name)
			require.Equal(t, "stays", n.Seen[0].Header.Get("OpenAI-Beta"))
			require.Equal(t, "stays", n.Seen[0].Header.Get("Traceparent"))
			require.Equal(t, "stays", n.Seen[0].Header.Get("X-Ms-Client-Request-Id"))
			require.Equal(t, []string{"realtime, openai-beta.realtime-v1"}, n.Seen[0].Header["Sec-WebSocket-Protocol"])
		}
	}
}

// One without is sent the caller's, in its own form, with what belongs to it.
func TestCallersCredentialIsPassedOn(t *testing.T) {
	for d, dropped := range map[spillover.Dialect]string{spillover.Azure: "Authorization", spillover.OpenAI: "Api-Key"} {
		n := newNet()
		req := withCredential(t, http.CanonicalHeaderKey)
		send(t, balance(t, n, azure("a", func(b *spillover.Backend) { b.APIKey, b.Dialect = "", d })), req)
		for _, name := range callersCredential {
			if name == dropped {
				require.Empty(t, n.Seen[0].Header.Get(name), "%s: %s", d, name)
			} else {
				require.Equal(t, "callers", n.Seen[0].Header.Get(name), "%s: %s", d, name)
			}
		}
		require.Contains(t, n.Seen[0].Query, "subscription-key=callers")
		require.Equal(t, req.Header["Sec-WebSocket-Protocol"], n.Seen[0].Header["Sec-WebSocket-Protocol"])
	}
}

func TestBackendHeaders(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "{}"))
	own := map[string]string{"openai-organization": "org", "X-Custom": "a b"}
	tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.Headers = own }), azure("b", priority(2)))
	own["x-custom"] = "changed later"
	req := newChat(t, chatPath)
	req.Header["x-custom"] = []string{"callers", "more"}
	before := req.Header.Clone()
	send(t, tr, req)
	require.Equal(t, before, req.Header)
	require.Equal(t, []string{"a b"}, n.Seen[0].Header["X-Custom"])
	require.NotContains(t, n.Seen[0].Header, "x-custom")
	require.Equal(t, []string{"org"}, n.Seen[0].Header["Openai-Organization"])
	require.Equal(t, []string{"key-a"}, n.Seen[0].Header["Api-Key"])
	require.Equal(t, []string{"callers", "more"}, n.Seen[1].Header["x-custom"], "nothing of an earlier attempt is left")
	require.NotContains(t, n.Seen[1].Header, "X-Custom")

	// An account, as a header may say, is not a credential: the caller's goes along.
	n = newNet()
	send(t, balance(t, n, azure("a", func(b *spillover.Backend) { b.APIKey, b.Headers = "", map[string]string{"OpenAI-Project": "p"} })), newChat(t, chatPath))
	require.Equal(t, []string{"example API key"}, n.Seen[0].Header["Api-Key"])
	require.Equal(t, []string{"p"}, n.Seen[0].Header["Openai-Project"])

	// Another account under the same key is another backend.
	other := azure("other", func(b *spillover.Backend) {
		b.URL, b.APIKey, b.Headers = "https://a.openai.azure.com", "key-a", map[string]string{"OpenAI-Project": "other"}
	})
	balance(t, n, azure("a"), other)
	other.Headers = nil
	_, err := spillover.New(spillover.Config{Base: n, Backends: []spillover.Backend{azure("a"), other}})
	require.ErrorContains(t, err, "already uses it for all models")

	// A new value may mend what an old one could not.
	n.On(host("a"), status(401, "{}"), status(200, "{}"))
	n.On(host("b"), status(200, "{}"))
	cfg := spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", func(b *spillover.Backend) { b.Headers = map[string]string{"X-Api-Key": "old"} }), azure("b", priority(2))}}
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
		b := azure("a", func(b *spillover.Backend) { b.Headers = map[string]string{name: value} })
		_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{b}})
		require.ErrorContains(t, err, `spillover: backend "a": Headers[`, "%q", name)
		require.NotContains(t, err.Error(), "secr")
	}
	_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{azure("a", func(b *spillover.Backend) { b.Headers = map[string]string{"x-a": "1", "X-A": "2"} })}})
	require.ErrorContains(t, err, "twice")
}

func TestBackendHeadersAreNotPrinted(t *testing.T) {
	cfg := spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("a", func(b *spillover.Backend) { b.Headers = map[string]string{"X-Api-Key": "secret-value"} })}}
	tr := configured(t, cfg)
	for _, v := range []any{cfg, &cfg, cfg.Backends, cfg.Backends[0], &cfg.Backends[0], tr, tr.Status()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			require.NotContains(t, fmt.Sprintf(verb, v), "secret-value")
		}
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
		n.On(host("a"), answer)
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
		ask := func(base http.RoundTripper, change ...func(*spillover.Backend)) (*http.Response, error) {
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
		plain(fmt.Sprint(testnet.APIError(t, read(t, resp)).Message))
		resp, err = ask(status(429, "{}", "Retry-After: 5"))
		require.NoError(t, err)
		plain(fmt.Sprint(testnet.APIError(t, read(t, resp)).Message))
	}
}

// A key that is the name of a variable was never put in.
func TestKeyThatNamesAVariable(t *testing.T) {
	for key, write := range map[string]string{
		"$PTU_KEY": "${PTU_KEY}", "${PTU_KEY}": "${PTU_KEY}", "$${PTU_KEY}": "${PTU_KEY}", "${PTU_KEY:-none}": "${PTU_KEY}", "${PTU_KEY": "${PTU_KEY}", "$(PTU_KEY)": "${PTU_KEY}",
		"%PTU_KEY%": "${PTU_KEY}", "os.environ/PTU_KEY": "${PTU_KEY}", "os.environ/": "${NAME}", "env.PTU_KEY": "${PTU_KEY}", "env:PTU_KEY": "${PTU_KEY}", "{{.Values.key}}": "${NAME}",
		"$hunter2": "${NAME}", // it may be a password all the same
	} {
		require.Equal(t, []string{`backend "a": APIKey: is the name of a variable, not a key: in a file write ` + write + `, in a program use os.Getenv`},
			mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", func(b *spillover.Backend) { b.APIKey = key })}}), key)
	}
	for _, key := range []string{"sk-proj-a_b-c", "k", "$", "$1", "a$PTU_KEY", "PTU_KEY", "os.environ", "%41", "{}", "env"} {
		require.Empty(t, mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", func(b *spillover.Backend) { b.APIKey = key })}}), key)
	}
}

// A backend whose key a template left out is no backend for callers' keys.
func TestLoadNullKey(t *testing.T) {
	for _, text := range []string{"backends: [{url: h, api_key: }]", "backends: [{url: h, api_key: null}]", `{"backends": [{"url": "h", "api_key": null}]}`, "backends: [{url: h, api_key: ''}]", "backends: [{url: h, api_key: '${EMPTY:-}'}]"} {
		_, err := spillover.Load(testnet.WriteFile(t, "c.yaml", text))
		require.ErrorContains(t, err, "api_key: is empty: leave it out if callers send their own credentials", text)
	}
	_, err := spillover.Load(testnet.WriteFile(t, "c.yaml", "backends: [{url: h}]"))
	require.NoError(t, err)
}

// A caller who sends no credential at all is one like the others.
func TestCallerWithoutCredentialHarmsNobody(t *testing.T) {
	for name, refusal := range map[string]roundTripFunc{
		"401": status(401, wrongKey), "401 without a body": status(401, ""), "no role": status(403, lacksRole), "no quota": status(429, noQuota), "unpaid": status(402, "{}"),
	} {
		for _, second := range []string{"", "key"} {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), func(req *http.Request) (*http.Response, error) {
					if req.Header.Get("Api-Key") == "" {
						return refusal(req)
					}
					return ok200(req)
				})
				tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.APIKey = "" }), azure("b", priority(2), func(b *spillover.Backend) { b.APIKey = second }))
				for range 5 {
					req := newChat(t, chatPath)
					req.Header.Del("api-key")
					resp, _ := send(t, tr, req)
					require.Equal(t, "b", servedBy(resp), name)
					resp, _ = send(t, tr, chats(t, "good"))
					require.Equal(t, "a", servedBy(resp), name)
				}
				require.True(t, statusOf(t, tr, "a").Available, name)
				require.Less(t, n.Sends(host("a")), 8, "%s: it is known of those without", name)
			})
		}
	}
}

// Callers are told apart by whatever credential a backend without its own gets: the wrong
// key of one does not keep the others away.
func TestCallersAreToldApartByEachCredential(t *testing.T) {
	for name, sign := range map[string]func(r *http.Request, key string){
		"subscription key": func(r *http.Request, key string) { r.Header.Set("Ocp-Apim-Subscription-Key", key) },
		"any spelling":     func(r *http.Request, key string) { r.Header["x-api-key"] = []string{key} },
		"project": func(r *http.Request, key string) {
			r.Header.Set("Authorization", "Bearer k")
			r.Header.Set("OpenAI-Project", key)
		},
		"key in the query":  func(r *http.Request, key string) { r.URL.RawQuery += "&subscription-key=" + key },
		"Azure's key there": func(r *http.Request, key string) { r.URL.RawQuery += "&api%2Dkey=" + key },
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			wrong := false
			n.On(host("a"), func(req *http.Request) (*http.Response, error) {
				if wrong {
					return status(401, wrongKey)(req)
				}
				return ok200(req)
			})
			tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.APIKey = "" }), azure("b", priority(2)))
			for i := range 5 {
				for _, key := range []string{"bad", "good"} {
					req := newChat(t, chatPath)
					req.Header.Del("api-key")
					sign(req, key)
					wrong = key == "bad"
					resp, _ := send(t, tr, req)
					require.Equal(t, map[string]string{"bad": "b", "good": "a"}[key], servedBy(resp), "%s %d", name, i)
				}
			}
			require.Less(t, n.Sends(host("a")), 9, "%s: the wrong one is known", name)
		})
	}
}

// What a base adds to one header does not change another one.
func TestHeadersOfAnAttemptAreIndependent(t *testing.T) {
	own := map[string]string{"X-A": "a", "X-B": "b", "X-C": "c"}
	n := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		for name := range own {
			req.Header.Add(name, "more")
		}
		req.Header.Add("Api-Key", "more")
		for name, value := range own {
			require.Equal(t, []string{value, "more"}, req.Header[name])
		}
		require.Equal(t, []string{"key-a", "more"}, req.Header["Api-Key"])
		return ok200(req)
	})
	send(t, balance(t, n, azure("a", func(b *spillover.Backend) { b.Headers = own })), newChat(t, chatPath))
}

// A server that wants no credential, and is throttled, is throttled for all.
func TestThrottledServerWithoutCredentialsIsInStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 30"))
		tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.APIKey = "" }))
		req := newChat(t, chatPath)
		req.Header.Del("api-key")
		send(t, tr, req)
		require.Equal(t, 30*time.Second, left(t, tr, "a"))
		require.False(t, statusOf(t, tr, "a").Available)
	})
}

// A browser's WebSocket has no headers of its own: Azure's realtime API takes
// the key in the query. It is the caller's credential there as elsewhere.
func TestCallersKeyInTheQuery(t *testing.T) {
	for name, c := range map[string]struct {
		b    spillover.Backend
		want string
	}{
		"a backend with a key":       {azure("a"), "api-version=v&deployment=m"},
		"OpenAI without one":         {spillover.Backend{Name: "a", URL: "https://api.openai.com"}, "model=m"},
		"Azure without one, its own": {spillover.Backend{Name: "a", URL: "https://a.openai.azure.com"}, "api-version=v&API-key=callers&api%2Dkey=callers&deployment=m"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			req, err := http.NewRequest(http.MethodGet, "https://foo.openai.azure.com/openai/realtime?api-version=v&API-key=callers&api%2Dkey=callers&deployment=m", nil)
			require.NoError(t, err)
			req.Header.Set("Upgrade", "websocket")
			resp, err := balance(t, n, c.b).RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, c.want, n.Seen[0].Query)
		})
	}
}

// A token that is not to be had is no request's fault: it is held against a
// backend though no other one answers, as when all share one credential.
// A Token that returns neither a token nor an error is a mistake, which another backend
// makes up for.
func TestEmptyTokenIsNotSent(t *testing.T) {
	for _, token := range []string{"", "a\nb", "é"} {
		n := newNet()
		tr := balance(t, n, azure("a", func(b *spillover.Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) { return token, nil }
		}), azure("b", priority(2)))
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		require.Zero(t, n.Sends(host("a")))
		require.Equal(t, "no token", statusOf(t, tr, "a").Reason)
	}
}

func TestNoTokenAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, failing := newNet(), true
		token := func(b *spillover.Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) {
				if failing {
					return "", errors.New("no network")
				}
				return "token", nil
			}
		}
		tr := balance(t, n, azure("a", token), azure("b", token))
		for range 2 {
			_, err := tr.RoundTrip(newChat(t, chatPath))
			require.Error(t, err)
			for _, b := range tr.Status().Tiers[0].Backends {
				require.Len(t, b.Deployments, 1)
				require.False(t, b.Deployments[0].Available, b.Name)
				require.Equal(t, "no token", b.Deployments[0].Reason)
			}
		}
		require.Zero(t, n.Sends())
		failing = false
		ask(t, tr) // nothing but failures speaks against them: one is asked all the same
		time.Sleep(time.Minute)
		for range 10 {
			ask(t, tr)
		}
		for _, b := range tr.Status().Tiers[0].Backends {
			require.True(t, b.Deployments[0].Available, b.Name)
		}
	})
}

func TestOnlyOneCredentialIsSent(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "{}"))
	tr := balance(t, n, azure("a"), spillover.Backend{URL: "https://api.openai.com/v1", APIKey: "sk", Priority: 2})
	req := newChat(t, chatPath)
	req.Header.Set("Authorization", "Bearer the caller's")
	send(t, tr, req)
	require.Equal(t, []string{"key-a"}, n.Seen[0].Header["Api-Key"])
	require.NotContains(t, n.Seen[0].Header, "Authorization")
	require.Equal(t, []string{"Bearer sk"}, n.Seen[1].Header["Authorization"])
	require.NotContains(t, n.Seen[1].Header, "Api-Key")
}

func TestKeysAreNeverPrinted(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	n := newNet()
	for _, name := range []string{"a", "b", "c"} {
		n.On(host(name), broken(cutOff))
	}
	tr := balance(t, n, azure("a"), azure("b"), azure("c"))
	_, err := tr.RoundTrip(newChat(t, chatPath))
	require.Error(t, err)
	for _, text := range []string{err.Error(), logged.String(), fmt.Sprintf("%v %+v %#v", tr, tr, tr), fmt.Sprintf("%+v %#v", tr.Status(), tr.Status()), fmt.Sprintf("%+v %#v", azure("a"), azure("a"))} {
		require.NotContains(t, text, "key-")
		require.NotContains(t, text, "example API key")
	}
}

func TestDeploymentComesBackAfterItsKeyIsAccepted(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		n.On(host("a"), status(401, azureKey), status(401, azureKey), status(200, "{}"))
		for range 5 {
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp), "out, and probed by one that is served all the same")
			if n.Sends(host("a")) == 2 {
				break
			}
			time.Sleep(probeWait)
		}
		time.Sleep(probeWait)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	})
}

// Caching a token until it expires is left to the TokenFunc.
func TestTokenIsRequestedInEachAttempt(t *testing.T) {
	n := newNet()
	asked := 0
	tr := balance(t, n, azure("a", func(b *spillover.Backend) {
		b.APIKey, b.Token = "", func(context.Context) (string, error) { asked++; return fmt.Sprint("token-", asked), nil }
	}))
	for i := range 3 {
		ask(t, tr)
		require.Equal(t, []string{fmt.Sprint("Bearer token-", i+1)}, n.Seen[i].Header["Authorization"])
	}
}

const lacksRole = `{"error":{"code":"PermissionDenied","message":"The principal lacks the required data action Microsoft.CognitiveServices/accounts/OpenAI/responses/write."}}`

// asks is a request of a caller with a key of its own.
func asks(t testing.TB, path, body, key string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://any.openai.azure.com/openai/"+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Api-Key", key)
	return req
}

func chats(t testing.TB, key string) *http.Request {
	return asks(t, "deployments/m/chat/completions?api-version=1", `{"messages":[]}`, key)
}

func TestBackendHeadersFromAFile(t *testing.T) {
	parse := func(headers string) (spillover.Config, error) {
		text := "backends:\n  - name: a\n    url: https://a.openai.azure.com\n    api_key: k\n    headers: " + headers + "\n"
		return spillover.ParseConfig("f.yaml", []byte(text), func(name string) (string, bool) { return "secret-of-" + name, name == "KEY" })
	}
	cfg, err := parse("{Ocp-Apim-Subscription-Key: '${KEY}', X-A: text}")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"Ocp-Apim-Subscription-Key": "secret-of-KEY", "X-A": "text"}, cfg.Backends[0].Headers)
	for headers, want := range map[string]string{
		"text": "must be a mapping", "[a]": "must be a mapping", "{X-A: 1}": "must be text", "{X-A: {b: c}}": "must be text", "{X-A: '${NONE}'}": "NONE",
		"{X-A: }": "this is empty", "{X-A: null, X-B: b}": "this is empty", "{X-A: ''}": "is empty", "{X-A: '${EMPTY:-}'}": "is empty",
		"{Host: x}": `headers.Host: cannot be set`, "{X-A: '${KEY} '}": "headers.X-A: starts or ends with a space", "{X-A: a, X-A: b}": `duplicate key "X-A"`,
	} {
		_, err := parse(headers)
		var mistake *spillover.LoadError
		require.ErrorAs(t, err, &mistake, headers)
		require.Contains(t, err.Error(), want)
		require.Contains(t, mistake.Path, `backends["a"].headers`)
		require.NotContains(t, err.Error(), "secret")
	}
}

// No cool-down that can be configured makes a time overflow.
func TestMaxCooldownIsBounded(t *testing.T) {
	for _, most := range []time.Duration{math.MaxInt64, 100 * 365 * 24 * time.Hour, spillover.MostCooldown + 1} {
		_, err := spillover.New(spillover.Config{MaxCooldown: most, Backends: []spillover.Backend{azure("a")}})
		require.ErrorContains(t, err, "spillover: MaxCooldown: ")
		_, err = spillover.ParseConfig("f", fmt.Appendf(nil, "max_cooldown: %s\nbackends: [{url: a.example, api_key: k}]", most), nil)
		require.ErrorContains(t, err, "max_cooldown: ")
	}
	for _, hint := range []string{"9223372036", "9223372036854775807", "1e300", "99999999999999999999", "86400"} {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: "+hint))
		tr := configured(t, spillover.Config{Base: n, MaxCooldown: spillover.MostCooldown, Backends: []spillover.Backend{azure("a")}})
		resp, _ := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		seconds, err := time.ParseDuration(resp.Header.Get("Retry-After") + "s")
		require.NoError(t, err)
		require.Positive(t, seconds)
		require.LessOrEqual(t, seconds, 2*spillover.MostCooldown)
	}
}

func keyless(b *spillover.Backend) { b.APIKey = "" }

// A file that would have callers' keys sent in the place of a Token is refused.
func TestWatchKeepsCallersCredentials(t *testing.T) {
	withToken := func(name string) spillover.Backend { return azure(name, entra) }
	yaml := func(lines ...string) string {
		text := "backends:\n"
		for _, line := range lines {
			name, rest, _ := strings.Cut(line, " ")
			text += "- {name: " + name + ", url: \"https://" + name + ".openai.azure.com\"" + rest + "}\n"
		}
		return text
	}
	for name, c := range map[string]struct {
		before  []spillover.Backend
		file    string
		adjust  func(*spillover.Config)
		refused string // the backend
	}{
		"a renamed backend":              {before: []spillover.Backend{withToken("ptu"), azure("b")}, file: yaml("ptu1", "b , api_key: key"), refused: "ptu1"},
		"a new one beside it":            {before: []spillover.Backend{withToken("ptu")}, file: yaml("ptu", "new"), refused: "new"},
		"a key that is gone":             {before: []spillover.Backend{azure("a"), azure("b")}, file: yaml("a", "b , api_key: key"), refused: "a"},
		"renamed, with a Token":          {before: []spillover.Backend{withToken("ptu")}, file: yaml("ptu1"), adjust: func(cfg *spillover.Config) { entra(&cfg.Backends[0]) }},
		"renamed, with a key":            {before: []spillover.Backend{withToken("ptu")}, file: yaml("ptu1 , api_key: key")},
		"the same name":                  {before: []spillover.Backend{withToken("ptu")}, file: yaml("ptu , weight: 2")},
		"callers bring their own":        {before: []spillover.Backend{azure("a", keyless)}, file: yaml("b")},
		"one of them did so before":      {before: []spillover.Backend{withToken("ptu"), azure("a", keyless)}, file: yaml("ptu", "a")},
		"keys and callers', by the file": {before: []spillover.Backend{azure("a")}, file: yaml("a , api_key: key", "b")},
	} {
		synctest.Test(t, func(t *testing.T) {
			l, tr := listened(t, spillover.Config{Base: newNet(), Backends: c.before})
			before := tr.String()
			path := testnet.WriteFile(t, "c.yaml", c.file)
			ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
			defer cancel()
			require.Equal(t, context.DeadlineExceeded, tr.Watch(ctx, path, c.adjust))
			var records []string
			for _, r := range l.Log() {
				if strings.Contains(r, "configuration not loaded") {
					records = append(records, r)
				}
			}
			if c.refused == "" {
				require.Empty(t, records, name)
			} else {
				require.Equal(t, before, tr.String(), name)
				require.Len(t, records, 1, name)
				require.Contains(t, strings.ReplaceAll(records[0], `\`, ""), `api_key: is missing, and backend `+c.refused+` has no other credential: callers' own credentials would be sent to it`, name)
			}
			require.NoError(t, tr.Close())
		})
	}
}

// That callers' own keys are sent is said where other backends have one.
func TestCallersCredentialsAreToldOf(t *testing.T) {
	const remedy = ",remedy:set a credential, such as APIKey (api_key), APIKeyFile (api_key_file) or Auth (auth), unless callers are to bring their own"
	for name, c := range map[string]struct {
		backends []spillover.Backend
		want     []string
	}{
		"all have one":                {[]spillover.Backend{azure("a"), azure("b", entra)}, nil},
		"all are sent the callers'":   {[]spillover.Backend{azure("a", keyless), azure("b", keyless)}, nil},
		"one alone":                   {[]spillover.Backend{azure("a", keyless)}, nil},
		"a variable that was not set": {[]spillover.Backend{azure("a"), azure("b", keyless, priority(2))}, []string{"WARN,callers' credentials are sent,backend:b,tier:2" + remedy}},
		"beside a token":              {[]spillover.Backend{azure("a", keyless), azure("b", entra)}, []string{"WARN,callers' credentials are sent,backend:a,tier:1" + remedy}},
		"each by its name":            {[]spillover.Backend{azure("a", keyless), azure("b"), azure("c", keyless)}, []string{"WARN,callers' credentials are sent,backend:a,tier:1" + remedy, "WARN,callers' credentials are sent,backend:c,tier:1" + remedy}},
	} {
		l, tr := listened(t, spillover.Config{Base: newNet(), Backends: c.backends})
		require.Equal(t, c.want, l.Log(), name)
		require.NoError(t, tr.Close())
	}

	l, tr := listened(t, spillover.Config{Base: newNet(), Backends: []spillover.Backend{azure("a"), azure("b")}})
	for range 2 {
		cfg := spillover.ConfigOf(tr)
		cfg.Backends = []spillover.Backend{azure("a"), azure("b", keyless)}
		require.NoError(t, tr.Reconfigure(cfg))
	}
	require.Equal(t, []string{"WARN,callers' credentials are sent,backend:b,tier:1" + remedy, "INFO,reconfigured,backends:2,changed:[b: api_key]"}, l.Log(), "once")
	require.NoError(t, tr.Close())

	// A backend that is renamed and loses its only credential.
	for name, before := range map[string]spillover.Backend{
		"key": azure("a"), "token": azure("a", entra), "file": azure("a", withKeyFile(testnet.WriteFile(t, "key", "k"))), "auth": azure("a", withAuth("spillover-test")),
		"header": azure("a", keyless, func(b *spillover.Backend) { b.Headers = map[string]string{"X-Api-Key": "k"} }),
	} {
		l, tr := listened(t, spillover.Config{Base: newNet(), Backends: []spillover.Backend{before}})
		for range 2 {
			cfg := spillover.ConfigOf(tr)
			cfg.Backends = []spillover.Backend{azure("renamed", keyless)}
			require.NoError(t, tr.Reconfigure(cfg))
		}
		records := l.Log()
		require.Equal(t, "WARN,callers' credentials are sent,backend:renamed,tier:1"+remedy, records[0], name)
		require.NotContains(t, strings.Join(records[1:], "\n"), "credentials", "%s: once", name)
		require.NoError(t, tr.Close())
	}
}
