package spillover_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/doctest"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

// throttling is three deployments that ask for times of their own, in
// milliseconds, and answer after that.
func throttling(t testing.TB, n *fakeNet, a, b, c string) *spillover.Transport {
	n.On(host("a"), status(429, "", "retry-after-ms: "+a), status(200, "{}"))
	n.On(host("b"), status(429, "", "retry-after-ms: "+b), status(200, "{}"))
	n.On(host("c"), status(429, "", "retry-after-ms: "+c), status(200, "{}"))
	return balance(t, n, azure("a"), azure("b"), azure("c"))
}

func TestRequestIsRefusedUnsentWhileAllAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := throttling(t, n, "44000", "4000", "7000")
		ask(t, tr)
		require.Equal(t, 3, n.Sends())

		resp, body := ask(t, tr)
		require.Equal(t, 3, n.Sends(), "nothing is sent")
		require.Equal(t, http.StatusTooManyRequests, resp.StatusCode)
		require.Equal(t, http.Header{
			"Content-Type":            {"application/json"},
			"Retry-After":             {"4"},
			"Retry-After-Ms":          {"4000"},
			"X-Spillover-Synthesized": {"true"},
			"X-Spillover-Attempts":    {"0"},
			"X-Spillover-Backend":     {""},
		}, resp.Header)
		require.Equal(t, `{"error":{"message":"All 3 deployments of m are unavailable; the soonest is b in 4.00s. Please retry after 4 seconds.",`+
			`"type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`, body)
	})
}

// The sentence is right for any number of deployments, with a model and without one.
func TestRefusalNamesTheNumberOfDeployments(t *testing.T) {
	limited := status(429, "{}", "Retry-After: 4")
	spent := status(429, `{"error":{"code":"insufficient_quota"}}`)
	for _, c := range []struct {
		deployments int
		answer      roundTripFunc
		request     string
		want        string
	}{
		{1, limited, "POST /openai/deployments/m/chat/completions", "The only deployment of m is unavailable; a can be asked again in 4.00s. Please retry after 4 seconds."},
		{2, limited, "POST /openai/deployments/m/chat/completions", "Both deployments of m are unavailable; the soonest is a in 4.00s. Please retry after 4 seconds."},
		{3, limited, "POST /openai/deployments/m/chat/completions", "All 3 deployments of m are unavailable; the soonest is a in 4.00s. Please retry after 4 seconds."},
		{1, limited, "GET /openai/models", "The only deployment is unavailable; a can be asked again in 4.00s. Please retry after 4 seconds."},
		{2, limited, "GET /openai/models", "Both deployments are unavailable; the soonest is a in 4.00s. Please retry after 4 seconds."},
		{1, spent, "POST /openai/deployments/m/chat/completions", "The only deployment of m is out of quota or refuses its credential. Retrying will not help."},
		{2, spent, "POST /openai/deployments/m/chat/completions", "Both deployments of m are out of quota or refuse their credentials. Retrying will not help."},
		{3, spent, "POST /openai/deployments/m/chat/completions", "All 3 deployments of m are out of quota or refuse their credentials. Retrying will not help."},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			var backends []spillover.Backend
			for i, name := range []string{"a", "b", "c"}[:c.deployments] {
				n.On(host(name), c.answer)
				backends = append(backends, azure(name, priority(i+1)))
			}
			tr := balance(t, n, backends...)
			send(t, tr, with(t, c.request))
			_, body := send(t, tr, with(t, c.request))
			require.Equal(t, c.want, testnet.APIError(t, body).Message)
		})
	}
}

func TestRetryAfterIsRoundedUpToWholeSeconds(t *testing.T) {
	for hint, want := range map[string][2]string{
		"1200":   {"2", "1200"},
		"1000":   {"1", "1000"},
		"1001":   {"2", "1001"},
		"999.5":  {"1", "1000"},
		"20":     {"1", "20"},
		"1":      {"1", "1"},
		"0.0001": {"1", "1"},
		"59999":  {"60", "59999"},
		"999999": {"60", "60000"},
	} {
		synctest.Test(t, func(t *testing.T) {
			tr := throttling(t, newNet(), hint, "60000", "60000")
			resp, _ := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, want, [2]string{resp.Header.Get("Retry-After"), resp.Header.Get("Retry-After-Ms")}, hint)
			require.Equal(t, "3", resp.Header.Get("X-Spillover-Attempts"))
			require.NotContains(t, resp.Header, "X-Should-Retry")
		})
	}
}

func TestDeploymentWhoseThrottleEndedIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "", "Retry-After: 1"), status(200, `"recovered"`))
		n.On(host("b"), func(req *http.Request) (*http.Response, error) {
			time.Sleep(1200 * time.Millisecond)
			return status(429, "", "Retry-After: 9")(req)
		})
		resp, body := ask(t, balance(t, n, azure("a"), azure("b", priority(2))))
		require.Equal(t, `"recovered"`, body)
		require.Equal(t, "a", servedBy(resp))
		require.Equal(t, "3", resp.Header.Get("X-Spillover-Attempts"))
	})
}

func TestRetryAfterCountsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := throttling(t, newNet(), "44000", "4000", "7000")
		ask(t, tr)
		for _, want := range [][2]string{{"4", "4000"}, {"3", "2790"}, {"2", "1580"}, {"1", "370"}} {
			resp, body := ask(t, tr)
			require.Equal(t, want, [2]string{resp.Header.Get("Retry-After"), resp.Header.Get("Retry-After-Ms")})
			require.Contains(t, body, "Please retry after "+want[0]+" seconds.")
			time.Sleep(1210 * time.Millisecond)
		}
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "b", servedBy(resp))
	})
}

func TestSynthesizedAnswerIsAWellFormedResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := throttling(t, newNet(), "5000", "5000", "5000")
		ask(t, tr)
		req := newChat(t, chatPath)
		closed := &testnet.CloseCounter{Reader: strings.NewReader("{}")}
		req.Body, req.GetBody, req.ContentLength = closed, nil, 2
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, 1, closed.Closes)
		require.Same(t, req, resp.Request)
		require.Equal(t, "429 Too Many Requests", resp.Status)
		require.Equal(t, "HTTP/1.1", resp.Proto)
		require.True(t, resp.ProtoAtLeast(1, 1))
		body := read(t, resp)
		require.EqualValues(t, len(body), resp.ContentLength)
		e := testnet.APIError(t, body)
		require.Equal(t, "rate_limit_error", e.Type)
		require.Equal(t, "rate_limit_exceeded", e.Code)
		require.Nil(t, e.Param)

		// It can be passed on, as a reverse proxy does.
		resp, err = tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		var wire bytes.Buffer
		require.NoError(t, resp.Write(&wire))
		require.Contains(t, wire.String(), "\r\nRetry-After-Ms: 5000\r\n")
	})
}

// The last answer that says more than "not now" is the caller's.
func TestServerErrorIsReturnedRatherThanThrottle(t *testing.T) {
	const text = `{"error":{"message":"boom","code":"internal"}}`
	for attempts, order := range map[string][2]roundTripFunc{
		"2": {status(429, "", "Retry-After: 30"), status(503, text, "X-Mine: yes")},
		"3": {status(503, text, "X-Mine: yes"), status(429, "", "Retry-After: 30")}, // twice to a
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), order[0])
			n.On(host("b"), order[1])
			resp, body := ask(t, balance(t, n, azure("a"), azure("b", priority(2))))
			require.Equal(t, 503, resp.StatusCode)
			require.Equal(t, text, body)
			require.Equal(t, "yes", resp.Header.Get("X-Mine"))
			require.Equal(t, attempts, resp.Header.Get("X-Spillover-Attempts"))
			require.NotContains(t, resp.Header, "X-Spillover-Synthesized")
		})
	}
}

// Deployments that would refuse this very request again, or that do not take
// our credential, are not what the caller should be sent back to in a moment:
// either they answer, or the time is that of the one that is throttled.
func TestRetryAfterIgnoresDeploymentsThatWouldRefuseAgain(t *testing.T) {
	for name, other := range map[string]roundTripFunc{
		"too large": status(429, `{"error":{"message":"Request too large for m: Limit 1, Requested 2.","code":"rate_limit_exceeded"}}`),
		"key":       status(401, `{"error":{"message":"Access denied","code":"401"}}`),
		"quota":     status(429, `{"error":{"message":"You exceeded your quota","type":"insufficient_quota","code":"insufficient_quota"}}`),
	} {
		for state, again := range map[string]bool{"at once": false, "already": true} {
			t.Run(name+"/"+state, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("a"), status(429, "", "Retry-After: 30"))
					n.On(host("b"), other)
					tr := balance(t, n, azure("a"), azure("b", priority(2)))
					resp, body := ask(t, tr)
					if again {
						resp, body = ask(t, tr)
					}
					if resp.Header.Get("X-Spillover-Synthesized") == "" {
						require.Equal(t, "b", servedBy(resp))
						return
					}
					require.Equal(t, "30", resp.Header.Get("Retry-After"), body)
				})
			})
		}
	}
}

func TestRetryAfterIsTheSoonestOfAllDeployments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		resp, body := ask(t, throttling(t, n, "9000", "8000", "2500"))
		require.Equal(t, 3, n.Sends())
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "3", resp.Header.Get("Retry-After"))
		require.Equal(t, "2500", resp.Header.Get("Retry-After-Ms"))
		require.Contains(t, body, "the soonest is c in 2.50s")
	})
}

// With one of them throttled it is the service's own word that shuts the pool.
func TestRequestIsRefusedWhenSomeAreEjectedAndTheRestThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(401, ""))
		n.On(host("b"), status(200, "{}"), status(429, "", "Retry-After: 40"))
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		ask(t, tr) // a is out for some 5 s, with b's answer against it
		ask(t, tr) // b throttles
		before := n.Sends()
		resp, body := ask(t, tr)
		require.Equal(t, before, n.Sends())
		require.Equal(t, 429, resp.StatusCode)
		require.Contains(t, body, "the soonest is a in ")
		require.NotContains(t, resp.Header, "X-Should-Retry")
	})
}

func TestThrottleOfOneModelLeavesOthersOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "", "Retry-After: 30"), status(429, "", "Retry-After: 2"))
		tr := balance(t, n, azure("a"))
		chat := func(model string) *http.Response {
			resp, _ := send(t, tr, newChat(t, "/openai/deployments/"+model+"/chat/completions"))
			return resp
		}
		require.Equal(t, "30", chat("m").Header.Get("Retry-After"))
		require.Equal(t, "2", chat("other").Header.Get("Retry-After"))
		require.Equal(t, 2, n.Sends(), "a throttle of one model says nothing of another")
		require.Equal(t, "30", chat("m").Header.Get("Retry-After"))
	})
}

// A retry does not help when the quota is spent: the one case of X-Should-Retry.
func TestHopeless(t *testing.T) {
	spent := status(429, `{"error":{"message":"no credits","type":"insufficient_quota","code":"insufficient_quota"}}`, "Retry-After: 1")

	t.Run("the real answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), spent)
			n.On(host("b"), spent)
			resp, body := ask(t, balance(t, n, azure("a"), azure("b")))
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, "insufficient_quota", testnet.APIError(t, body).Code)
			require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"))
		})
	})

	// The first is known to be spent when the second is, too.
	t.Run("one after the other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), spent)
			n.On(host("b"), status(200, "{}"), spent)
			tr := balance(t, n, azure("a"), azure("b", priority(2)))
			ask(t, tr)
			require.InDelta(t, 5*time.Minute, left(t, tr, "a"), float64(time.Minute))
			require.Contains(t, statusOf(t, tr, "a").Reason, "insufficient_quota")
			for range 2 {
				resp, body := ask(t, tr)
				require.Equal(t, 429, resp.StatusCode)
				require.Equal(t, "insufficient_quota", testnet.APIError(t, body).Code, body)
				if resp.Header.Get("X-Spillover-Synthesized") != "" {
					require.Equal(t, "false", resp.Header.Get("X-Should-Retry"))
				}
			}
		})
	})

	// What the answer says once all are known to be out.
	t.Run("all known", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), spent)
			n.On(host("b"), spent)
			tr := balance(t, n, azure("a"), azure("b"))
			ask(t, tr)
			resp, body := ask(t, tr)
			require.Equal(t, 2, n.Sends(), "nothing more is sent")
			require.Equal(t, "false", resp.Header.Get("X-Should-Retry"))
			soonest := min(left(t, tr, "a"), left(t, tr, "b"))
			require.InDelta(t, 5*time.Minute, soonest, float64(time.Minute))
			require.Equal(t, fmt.Sprint(math.Ceil(soonest.Seconds())), resp.Header.Get("Retry-After"))
			e := testnet.APIError(t, body)
			require.Equal(t, "insufficient_quota", e.Type)
			require.Equal(t, "insufficient_quota", e.Code)
			require.Contains(t, e.Message, "Both deployments of m are out of quota")
		})
	})

	t.Run("one merely throttled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), spent)
			n.On(host("b"), status(200, "{}"), status(429, "", "Retry-After: 7"))
			tr := balance(t, n, azure("a"), azure("b", priority(2)))
			ask(t, tr)
			resp, _ := ask(t, tr)
			require.Equal(t, "7", resp.Header.Get("Retry-After"))
			require.NotContains(t, resp.Header, "X-Should-Retry")
		})
	})
}

// If every candidate refuses the credential the caller gets the last such answer.
func TestAllRefuseTheCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(401, `"a"`))
		n.On(host("b"), status(403, `"b"`))
		tr := balance(t, n, azure("a"), azure("b", priority(2)))
		for range 3 {
			resp, body := ask(t, tr)
			require.Equal(t, 403, resp.StatusCode)
			require.Equal(t, `"b"`, body)
			require.Equal(t, "b", servedBy(resp))
		}
	})
}

// MaxAttempts bounds failures: it is no reason to be told to wait for what is
// throttled while another deployment would answer.
func TestDeadBackendsDoNotUseUpTheAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, open := range []bool{true, false} {
			n := newNet()
			n.On(host("a"), broken(refused))
			n.On(host("b"), broken(refused))
			n.On(host("c"), status(429, "{}", "Retry-After: 9"))
			n.On(host("d"), status(429, "{}", "Retry-After: 7"))
			if open {
				n.On(host("d"), ok200)
			}
			tr := configured(t, spillover.Config{Base: n, MaxAttempts: 2, Backends: []spillover.Backend{azure("c"), azure("a", priority(2)), azure("b", priority(3)), azure("d", priority(4))}})
			resp, _ := ask(t, tr)
			require.Equal(t, map[bool]int{true: 200, false: 429}[open], resp.StatusCode)
			require.Equal(t, map[bool]string{true: "d", false: ""}[open], servedBy(resp))
			require.Equal(t, 4, n.Sends())
		}
	})
}

func TestNoAnswerAtAll(t *testing.T) {
	n := newNet()
	reset, eof := errors.New("reset by peer"), io.ErrUnexpectedEOF
	n.On(host("a"), broken(reset))
	n.On(host("b"), broken(eof))
	resp, err := balance(t, n, azure("a"), azure("b", priority(2))).RoundTrip(newChat(t, chatPath))
	require.Nil(t, resp)
	require.ErrorIs(t, err, reset)
	require.ErrorIs(t, err, eof)
	require.EqualError(t, err, "spillover: no answer for m: a: reset by peer; a: reset by peer; b: unexpected EOF")
	var final net.Error
	require.ErrorAs(t, err, &final)
	require.False(t, final.Timeout())
	require.False(t, final.Temporary())
}

func TestUnknownModel(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a", serves("gpt-4o", "o3")), azure("b", serves("gpt-4o", "ada")))
	for _, req := range []*http.Request{
		newChat(t, chatPath),
		newChat(t, "/openai/v1/chat/completions"),
		newChat(t, "/v1/chat/completions"),
	} {
		resp, body := send(t, tr, req)
		require.Equal(t, "404 Not Found", resp.Status)
		require.Same(t, req, resp.Request)
		require.Equal(t, http.Header{
			"Content-Type":            {"application/json"},
			"X-Spillover-Synthesized": {"true"},
			"X-Spillover-Attempts":    {"0"},
			"X-Spillover-Backend":     {""},
		}, resp.Header)
		require.Equal(t, `{"error":{"message":"No backend serves the model m. Available: ada, gpt-4o, o3.",`+
			`"type":"invalid_request_error","param":"model","code":"model_not_found"}}`, body)
	}
	require.Zero(t, n.Sends())
}

// Neither the caller's name nor ours makes an answer of any length.
func TestUnknownModelIsBrief(t *testing.T) {
	var models []string
	for i := range 60 {
		models = append(models, "model-"+strings.Repeat("x", i+1))
	}
	tr := balance(t, newNet(), azure("a", serves(models...)))
	_, body := send(t, tr, newChat(t, "/openai/deployments/"+strings.Repeat("é", 5000)+"/chat/completions"))
	message := testnet.APIError(t, body).Message
	require.Contains(t, message, " and 10 more.")
	require.Contains(t, message, strings.Repeat("é", 50)+"….")
}

// docs/failover.md shows the response.
func TestRateLimitedResponseInDocs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("eastus"), status(429, "", "Retry-After-Ms: 9000"))
		n.On(host("westus"), status(429, "", "Retry-After-Ms: 3210"))
		resp, body := ask(t, balance(t, n, azure("eastus"), azure("westus")))
		var text strings.Builder
		text.WriteString("```\nHTTP/1.1 " + resp.Status + "\n")
		for _, name := range []string{"Retry-After", "Retry-After-Ms", "X-Spillover-Synthesized"} {
			text.WriteString(name + ": " + resp.Header.Get(name) + "\n")
		}
		doctest.Section(t, "docs/failover.md", "rate limited", text.String()+"\n"+body+"\n```\n")
	})
}

// Our own judgement never shuts a pool: the one that is due first is asked.
func TestSoonestEjectedDeploymentIsAskedWhenAllAreEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := balance(t, n, azure("a"), azure("b"), azure("c", priority(2)))
		out := map[string]time.Duration{"a": 8 * time.Second, "b": 4 * time.Second, "c": 6 * time.Second}
		for d := range spillover.DeploymentsOf(tr, "m") {
			n.On(host(d.BackendName()), status(500, `"bad"`))
			now := time.Now()
			for i := range 5 { // the fifth failure ejects it for 8 s
				at := now.Add(time.Duration(i-65) * time.Second)
				d.Fail(now.Add(out[d.BackendName()]-8*time.Second), health.FailedAttempt{Sent: at, Seen: at, Cause: health.ServerFailure, Reason: "500"}, 0.5)
			}
		}
		for i := range 3 {
			resp, body := ask(t, tr)
			require.Equal(t, 500, resp.StatusCode)
			require.Equal(t, `"bad"`, body)
			require.Equal(t, i+1, n.Sends())
		}

		for d := range spillover.DeploymentsOf(tr, "m") {
			n.On(host(d.BackendName()), status(200, "{}"))
		}
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
		require.True(t, statusOf(t, tr, servedBy(resp)).Available)
	})
}
