package spillover_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

const (
	noResponses = `{"error":{"code":"NotFound","message":"Responses API is not enabled in this region."}}`
	firewall    = "<html><body>Request blocked. Incident 4711.</body></html>"
)

// byPath answers by what the path ends in.
func byPath(answers map[string]roundTripFunc) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		for suffix, answer := range answers {
			if suffix != "" && strings.HasSuffix(req.URL.Path, suffix) {
				return answer(req)
			}
		}
		return ok200(req)
	}
}

// A deployment that lacks an operation, or refuses it, is skipped for that alone.
func TestRefusedOperationIsSkippedAlone(t *testing.T) {
	for name, refusal := range map[string]roundTripFunc{
		"no such operation": status(404, noResponses),
		"a missing role":    status(403, lacksRole),
		"a missing scope":   status(401, `{"error":{"code":"401","message":"Missing scopes: api.responses.write"}}`),
		"not supported":     status(400, `{"error":{"code":"OperationNotSupported","message":"The responses operation does not work with the specified model."}}`),
		"broken there":      status(500, `{"error":{"message":"sorry","type":"server_error"}}`),
		"no answer there":   broken(io.ErrUnexpectedEOF),
	} {
		for _, op := range []string{"responses", "responses/compact", "responses/input_tokens"} {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("ptu"), byPath(map[string]roundTripFunc{"/" + op: refusal}))
				version := func(b *spillover.Backend) { b.APIVersion = "2025-03-01" }
				tr := balance(t, n, azure("ptu", version), azure("payg", version, priority(2)))
				vain := 0
				for range 100 {
					resp, _ := send(t, tr, asks(t, op+"?api-version=1", `{"model":"m","input":"x"}`, ""))
					require.Equal(t, 200, resp.StatusCode, name)
					require.Equal(t, "payg", servedBy(resp), name)
					if resp.Header.Get("X-Spillover-Attempts") != "1" {
						vain++
					}
					resp, _ = ask(t, tr)
					require.Equal(t, "ptu", servedBy(resp), "%s of %s: chat keeps its PTU", name, op)
					require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
					time.Sleep(100 * time.Millisecond)
				}
				require.LessOrEqual(t, vain, 8, "%s of %s is not asked for again and again", name, op)
				s := statusOf(t, tr, "ptu")
				require.True(t, s.Available, name)
			})
		}
	}
}

// What is skipped for one operation is found in Status, and comes back.
func TestRefusedOperationIsInStatusAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), byPath(map[string]roundTripFunc{"/responses": status(404, noResponses)}))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		ask(t, tr)
		responses := func() *http.Request {
			return asks(t, "v1/responses", `{"model":"m","input":"x"}`, "")
		}
		resp, _ := send(t, tr, responses())
		require.Equal(t, "payg", servedBy(resp))
		s := statusOf(t, tr, "ptu")
		require.True(t, s.Available)
		require.Len(t, s.Operations, 1)
		require.Equal(t, "responses", s.Operations[0].Name)
		require.Equal(t, "404 NotFound", s.Operations[0].Reason)
		require.WithinRange(t, s.Operations[0].Until, time.Now().Add(4*time.Second), time.Now().Add(6*time.Second))

		n.On(host("ptu"), ok200)
		time.Sleep(probeWait)
		resp, _ = send(t, tr, responses())
		require.Equal(t, "ptu", servedBy(resp))
		require.Empty(t, statusOf(t, tr, "ptu").Operations)
	})
}

// The log says which operation it is, as long as there are others.
func TestRefusedOperationIsInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), byPath(map[string]roundTripFunc{"/responses": status(404, noResponses), "/holograms": status(401, wrongKey)}))
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("ptu", serves("m")), azure("payg", serves("m"), priority(2))}})
		responses := func() *http.Request { return asks(t, "v1/responses", `{"model":"m","input":"x"}`, "") }
		send(t, tr, responses())
		out := l.Log()
		require.Len(t, out, 1)
		require.NotContains(t, out[0], "operation:", "nothing else was ever served: it is as good as the whole")
		time.Sleep(time.Minute)
		ask(t, tr)
		l.Log()
		send(t, tr, responses())
		out = l.Log()
		require.Len(t, out, 2)
		for _, record := range out {
			require.Contains(t, record, ",operation:responses,")
		}
		// One that is not known shares a place with its like, and has no name.
		send(t, tr, asks(t, "v1/holograms", `{"model":"m"}`, ""))
		names := []string{}
		for _, o := range statusOf(t, tr, "ptu").Operations {
			names = append(names, o.Name)
		}
		require.ElementsMatch(t, []string{"", "responses"}, names)
	})
}

// A wrong key is wrong for every operation: each finds that out.
func TestWrongKeyMakesADeploymentUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), status(401, wrongKey))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		ask(t, tr)
		s := statusOf(t, tr, "ptu")
		require.False(t, s.Available)
		require.Equal(t, "401", s.Reason)
		require.Empty(t, s.Operations)
	})
}

// Something in front of a deployment refuses one prompt: that prompt goes
// elsewhere and nobody else's.
func TestFirewallRefusesOnePromptAlone(t *testing.T) {
	for _, code := range []int{403, 404} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("ptu"), func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("X-Evil") != "" {
					return status(code, firewall, "Content-Type: text/html")(req)
				}
				return ok200(req)
			})
			tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
			for i := range 600 {
				req := newChat(t, chatPath)
				if i%7 == 0 {
					req.Header.Set("X-Evil", "yes")
				}
				resp, _ := send(t, tr, req)
				require.Equal(t, map[bool]string{true: "payg", false: "ptu"}[i%7 == 0], servedBy(resp))
				time.Sleep(50 * time.Millisecond)
			}
			require.True(t, statusOf(t, tr, "ptu").Available)
		})
	}
}

// One that refuses everything is a fault of the deployment.
func TestFirewallThatRefusesEverythingEjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), status(403, firewall))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		for range 600 {
			time.Sleep(50 * time.Millisecond) // before, as the ejection may end in it
			resp, _ := ask(t, tr)
			require.Equal(t, "payg", servedBy(resp))
		}
		require.LessOrEqual(t, n.Sends(host("ptu")), 7)
		require.False(t, statusOf(t, tr, "ptu").Available)
	})
}

// What one caller's own credential is refused for is no concern of the others.
func TestCallersWithTheirOwnCredentialsDoNotHarmEachOther(t *testing.T) {
	for name, refusal := range map[string]roundTripFunc{
		"throttled":    status(429, `{"error":{"code":"429","message":"slow down"}}`, "Retry-After: 30"),
		"out of quota": status(429, noQuota),
		"a bad key":    status(401, wrongKey),
		"no role":      status(403, lacksRole),
		"unpaid":       status(402, "{}"),
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			own := func(b *spillover.Backend) { b.APIKey = "" }
			for _, name := range []string{"a", "b"} {
				n.On(host(name), func(req *http.Request) (*http.Response, error) {
					if req.Header.Get("Api-Key") == "bad" {
						return refusal(req)
					}
					return ok200(req)
				})
			}
			tr := balance(t, n, azure("a", own), azure("b", own, priority(2)))
			for range 20 {
				resp, _ := send(t, tr, chats(t, "bad"))
				require.GreaterOrEqual(t, resp.StatusCode, 400, name)
				resp, _ = send(t, tr, chats(t, "good"))
				require.Equal(t, 200, resp.StatusCode, name)
				require.Equal(t, "a", servedBy(resp), name)
				require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"), name)
				time.Sleep(100 * time.Millisecond)
			}
			require.True(t, statusOf(t, tr, "a").Available, name)
		})
	}
}

// The caller that is throttled is: what it was told is remembered for it alone.
func TestThrottledCallerIsToldWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 30"), ok200)
		tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.APIKey = "" }))
		send(t, tr, chats(t, "one"))
		resp, _ := send(t, tr, chats(t, "one"))
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "30", resp.Header.Get("Retry-After"))
		require.Equal(t, 1, n.Sends())
		resp, _ = send(t, tr, chats(t, "another"))
		require.Equal(t, 200, resp.StatusCode)
	})
}

// However many callers come, what is known of them stays within bounds.
func TestCallersAreBounded(t *testing.T) {
	const maxCallersKept = 1000
	n := newNet()
	n.On(host("a"), status(429, "{}", "Retry-After: 30"))
	tr := balance(t, n, azure("a", func(b *spillover.Backend) { b.APIKey = "" }))
	for i := range 3 * maxCallersKept {
		send(t, tr, chats(t, fmt.Sprint("caller ", i)))
	}
	sends := n.Sends()
	send(t, tr, chats(t, fmt.Sprint("caller ", 2*maxCallersKept)))
	require.Equal(t, sends, n.Sends(), "the last ones are known to be throttled")
	send(t, tr, chats(t, fmt.Sprint("caller ", 2*maxCallersKept-1)))
	require.Equal(t, sends+1, n.Sends(), "what is known of earlier ones is forgotten")
}

// A caller's own api-version that a backend does not have says nothing of it.
func TestUnknownAPIVersionOfACallerHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.RawQuery, "2099") {
				return status(404, `{"error":{"code":"404","message":"Resource not found"}}`)(req)
			}
			return ok200(req)
		})
		tr := balance(t, n, azure("ptu"), spillover.Backend{Name: "openai", URL: "https://api.openai.com", APIKey: "k", Priority: 2})
		for range 10 {
			resp, _ := send(t, tr, asks(t, "deployments/m/chat/completions?api-version=2099-01-01", "{}", ""))
			require.Equal(t, "openai", servedBy(resp))
			resp, _ = ask(t, tr)
			require.Equal(t, "ptu", servedBy(resp))
		}
	})
}

var errPoison = errors.New("reset by this very request")

// poisoned breaks the connection of every poisonous request, and answers others
// as a host does.
func poisoned(n http.RoundTripper) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("X-Poison") != "" {
			return nil, errPoison
		}
		return n.RoundTrip(req)
	}
}

// One request that fails everywhere ejects nobody, however large the pool.
func TestRequestThatFailsEverywhereEjectsNobody(t *testing.T) {
	for members := 1; members <= 8; members++ {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			backends := []spillover.Backend{azure("ptu")}
			for i := range members {
				backends = append(backends, azure(fmt.Sprint("payg", i), priority(2)))
			}
			tr := balance(t, poisoned(n), backends...)
			for range 20 {
				_, err := tr.RoundTrip(poison(t))
				require.ErrorIs(t, err, errPoison)
				for range 3 {
					resp, _ := ask(t, tr)
					require.Equal(t, "ptu", servedBy(resp), "%d in the second tier", members)
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
}

// Not even where one is throttled: the caller after it is served.
func TestPoisonAndOneThrottledDoNotCloseThePool(t *testing.T) {
	for poisonous := 1; poisonous <= 2; poisonous++ {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("ptu"), status(429, "{}", "Retry-After: 30"))
			tr := balance(t, poisoned(n), azure("ptu"), azure("a", priority(2)), azure("b", priority(2)), azure("c", priority(2)))
			ask(t, tr)
			for range poisonous {
				_, err := tr.RoundTrip(poison(t))
				require.Error(t, err)
				time.Sleep(10 * time.Millisecond)
			}
			for range 10 {
				resp, _ := ask(t, tr)
				require.Equal(t, 200, resp.StatusCode)
			}
		})
	}
}

// A 5xx with a time that every deployment gives to one request is about that
// request: the next one is served.
func TestServerErrorWithATimeFromEveryDeploymentHarmsNobody(t *testing.T) {
	for _, code := range []int{500, 503, 529} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			tr := balance(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("X-Poison") != "" {
					return status(code, `{"error":{"message":"overloaded"}}`, "Retry-After: 20")(req)
				}
				return n.RoundTrip(req)
			}), azure("a"), azure("b"), azure("c", priority(2)))
			resp, text := send(t, tr, poison(t))
			require.Equal(t, code, resp.StatusCode)
			require.Contains(t, text, "overloaded")
			resp, _ = ask(t, tr)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
		})
	}
}

// Where another deployment answers, the time is obeyed.
func TestServerErrorWithATimeCoolsOnceAnotherAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(503, "{}", "Retry-After: 20"))
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		ask(t, tr)
		require.Equal(t, 20*time.Second, left(t, tr, "a"))
	})
}

// The code says what is wrong, whatever the status.
func TestCodesAboutTheAccountOrTheDeploymentFailOver(t *testing.T) {
	for body, want := range map[string]struct {
		status int
		out    time.Duration
	}{
		testnet.ErrorBody("billing_hard_limit_reached", ""): {400, 5 * time.Minute},
		testnet.ErrorBody("billing_not_active", ""):         {403, 5 * time.Minute},
		testnet.ErrorBody("OperationNotSupported", ""):      {400, 5 * time.Second},
		testnet.ErrorBody("DeploymentNotFound", ""):         {400, 5 * time.Second},
		testnet.ErrorBody("model_not_found", ""):            {400, 5 * time.Second},
		testnet.ErrorBody("unknown_model", ""):              {400, 5 * time.Second},
		`{"message":"payment required"}`:                    {402, 5 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), status(want.status, body))
			tr := balance(t, n, azure("a"), azure("b", priority(2)))
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp), body)
			s := statusOf(t, tr, "a")
			require.False(t, s.Available, body)
			require.InEpsilon(t, want.out.Seconds(), time.Until(s.Until).Seconds(), 0.21, body)
		})
	}
	for _, body := range []string{testnet.ErrorBody("content_filter", ""), testnet.ErrorBody("context_length_exceeded", ""), testnet.ErrorBody("invalid_value", ""), "<html>", ""} {
		n := newNet()
		n.On(host("a"), status(400, body))
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		resp, text := ask(t, tr)
		require.Equal(t, 400, resp.StatusCode)
		require.Equal(t, body, text, "the caller's own mistake")
		unharmed(t, tr, "a")
		require.Zero(t, testnet.Failures(&spillover.DeploymentOf(t, tr, "a").State))
		require.False(t, spillover.DeploymentOf(t, tr, "a").BackendState().Troubled())
	}
}
