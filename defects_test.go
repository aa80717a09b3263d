package spillover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/objects"

	"github.com/spillover-go/spillover/internal/health"
)

// Defects of other load balancers. The comment on each test names the defect
// that it rules out.

// inTime runs a test in virtual time over a pool of a, b and c, where a comes
// first.
func inTime(t *testing.T, f func(t *testing.T, n *fakeNet, tr *Transport)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		f(t, n, steady(balance(t, n, azure("a"), azure("b"), azure("c"))))
	})
}

// outFor is how long a backend's deployment of the model m is left alone.
func outFor(tr *Transport, backend string) time.Duration {
	for d := range tr.table().find("m").all {
		if until, _, _ := d.closed(time.Now()); d.backend.name == backend && !until.IsZero() {
			return time.Until(until)
		}
	}
	return 0
}

// Headers are ignored; flat 10 s.
func TestThrottleLastsAsLongAsTheHeaderSays(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		n.on(host("a"), status(429, "{}", "retry-after-ms: 20"))
		ask(t, tr)
		require.Equal(t, 20*time.Millisecond, outFor(tr, "a"))
	})
}

// Header text crashes, or is silently missed.
func TestUnusableRetryAfterFallsBackToTheDefault(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"soon": 10, "1e400": 60, "NaN": 10, "0x10": 10, "-3": 10, "2.5": 2500, "99999999999999999999": 60, "": 10, "1h": 10, "3, 4": 4,
	} {
		inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
			n.on(host("a"), status(429, "{}", "Retry-After: "+value))
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
			if want < 1000 {
				want *= 1000
			}
			require.Equal(t, want*time.Millisecond, outFor(tr, "a"), value)
		})
	}
}

// The reset of the wrong dimension is read.
func TestResetOfTheExhaustedDimensionIsUsed(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		n.on(host("a"), status(429, "{}", "x-ratelimit-remaining-requests: 9", "x-ratelimit-reset-requests: 1s",
			"x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 7s"))
		ask(t, tr)
		require.Equal(t, 7*time.Second, outFor(tr, "a"))
	})
}

// There is no upper bound: Azure has said 86400.
func TestLongRetryAfterIsCapped(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		n.on(host("a"), status(429, "{}", "Retry-After: 86400"))
		ask(t, tr)
		require.Equal(t, time.Minute, outFor(tr, "a"))
	})
}

// The request is changed in place: prefixes accumulate, keys leak.
func TestFailoverStartsFromTheUnchangedRequest(t *testing.T) {
	n := newNet()
	n.on(host("a"), status(429, "{}"))
	n.on(host("b"), status(500, "{}"))
	based := func(b *Backend) { b.URL += "/base" }
	tr := steady(balance(t, n, azure("a", based), azure("b", based), azure("c", based)))
	req := newChat(t, chatPath)
	before := req.Clone(t.Context())
	send(t, tr, req)
	require.Equal(t, before.URL, req.URL)
	require.Equal(t, before.Header, req.Header)
	require.Equal(t, before.Host, req.Host)
	require.Len(t, n.seen, 3)
	for i, s := range n.seen {
		require.Equal(t, "/base/openai/deployments/m/chat/completions", s.path)
		require.Equal(t, []string{"key-" + string(rune('a'+i))}, s.header["Api-Key"])
	}
}

// Both credentials are forwarded.
func TestOnlyOneCredentialIsSent(t *testing.T) {
	n := newNet()
	n.on(host("a"), status(429, "{}"))
	tr := balance(t, n, azure("a"), Backend{URL: "https://api.openai.com/v1", APIKey: "sk", Priority: 2})
	req := newChat(t, chatPath)
	req.Header.Set("Authorization", "Bearer the caller's")
	send(t, tr, req)
	require.Equal(t, []string{"key-a"}, n.seen[0].header["Api-Key"])
	require.NotContains(t, n.seen[0].header, "Authorization")
	require.Equal(t, []string{"Bearer sk"}, n.seen[1].header["Authorization"])
	require.NotContains(t, n.seen[1].header, "Api-Key")
}

// Retry-After is negative or zero.
func TestSynthesizedRetryAfterIsAlwaysPositive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), status(429, "{}", "retry-after-ms: 10"), status(200, "{}"))
		tr := balance(t, n, azure("a"))
		resp, _ := ask(t, tr)
		require.Equal(t, "1", resp.Header.Get("Retry-After"))
		require.Equal(t, "10", resp.Header.Get("Retry-After-Ms"))
		time.Sleep(10*time.Millisecond - 1)
		resp, _ = ask(t, tr)
		require.Equal(t, "1", resp.Header.Get("Retry-After-Ms"))
		time.Sleep(1)
		resp, _ = ask(t, tr)
		require.Equal(t, 200, resp.StatusCode, "it is free again: nobody is refused")
	})
}

// Retry-After is constant, or as long as at first.
func TestSynthesizedRetryAfterShrinksWithTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), status(429, "{}", "Retry-After: 10"))
		tr := balance(t, n, azure("a"))
		for _, left := range []string{"10", "7", "4", "1"} {
			resp, _ := ask(t, tr)
			require.Equal(t, left, resp.Header.Get("Retry-After"))
			time.Sleep(3 * time.Second)
		}
	})
}

// A 5xx is masked as 429, and the innocent are refused after a poisoned request.
func TestServerErrorOfAFailingRequestIsReturnedAndHarmsNobody(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		for _, name := range []string{"a", "b", "c"} {
			n.on(host(name), status(500, "poison"), status(200, "{}"))
		}
		resp, text := ask(t, tr)
		require.Equal(t, 500, resp.StatusCode)
		require.Equal(t, "poison", text)
		for range 3 {
			resp, _ = ask(t, tr)
			require.Equal(t, "a", servedBy(resp))
		}
	})
}

// A network error bubbles up.
func TestNetworkErrorsFailOver(t *testing.T) {
	for _, err := range []error{noConnection, cutOff, io.EOF, io.ErrUnexpectedEOF, errors.New("boom")} {
		inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
			n.on(host("a"), broken(err))
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
		})
	}
}

// Timeouts cool the pool, or are retried at the same backend.
func TestTimeoutFailsOverToAnotherBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		impatient := func(b *Backend) { b.HeaderTimeout = time.Second }
		tr := steady(balance(t, n, azure("a", impatient), azure("b", impatient)))
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, 1, n.sends(host("a")))
		require.Zero(t, outFor(tr, "b"))
		require.LessOrEqual(t, outFor(tr, "a"), 3*time.Second)
	})
}

// A 400 is sent twice, and counted as a failure.
func TestBadRequestIsSentOnceAndNotCounted(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		n.on(host("a"), status(400, azureFilter))
		for i := range 5 {
			resp, text := ask(t, tr)
			require.Equal(t, 400, resp.StatusCode)
			require.Equal(t, azureFilter, text)
			require.Equal(t, i+1, n.sends())
		}
		require.Zero(t, outFor(tr, "a"))
	})
}

// A caller who leaves is counted as a failure.
func TestCallersTimeoutIsNotCountedAgainstTheDeployment(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		n.on(host("a"), func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		require.Equal(t, 5, n.sends(host("a")))
		require.Zero(t, outFor(tr, "a"))
		require.False(t, tr.table().find("m").tiers[0].members[0].Troubled())
	})
}

// What was reserved is never given back, or twice.
func TestInFlightIsReleasedOnceHoweverAStreamEnds(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		d := tr.table().find("m").tiers[0].members[0]
		n.on(host("a"), answers("text/event-stream", "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: {\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":-1},\"choices\":[]}\n\ndata: [DONE]\n\n"))
		for _, end := range []func(*http.Response, context.CancelFunc){
			func(resp *http.Response, _ context.CancelFunc) { _, _ = io.ReadAll(resp.Body) },
			func(resp *http.Response, _ context.CancelFunc) { resp.Body.Close(); resp.Body.Close() },
			func(_ *http.Response, leave context.CancelFunc) { leave() }, // and never closed
			func(resp *http.Response, leave context.CancelFunc) {
				leave()
				_, _ = io.ReadAll(resp.Body)
				resp.Body.Close()
			},
		} {
			ctx, leave := context.WithCancel(t.Context())
			resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
			require.NoError(t, err)
			require.EqualValues(t, 1, d.InFlight.Load())
			end(resp, leave)
			synctest.Wait()
			require.Zero(t, d.InFlight.Load())
			leave()
		}
		require.Zero(t, d.input.Load())
		require.Zero(t, d.output.Load())
	})
}

// The one that just failed is asked again.
func TestFailedDeploymentIsNotAskedAgainByTheSameRequest(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		for _, name := range []string{"a", "b", "c"} {
			n.on(host(name), status(500, "{}"))
		}
		ask(t, tr)
		for _, name := range []string{"a", "b", "c"} {
			require.Equal(t, 1, n.sends(host(name)))
		}
	})
}

// Retries of SDKs are nested, and repeat requests that cannot succeed.
func TestSpentQuotaSetsShouldRetryFalse(t *testing.T) {
	n := newNet()
	for _, name := range []string{"a", "b"} {
		n.on(host(name), status(429, errorBody("insufficient_quota", "")))
	}
	tr := balance(t, n, azure("a"), azure("b"))
	ask(t, tr)
	resp, _ := ask(t, tr)
	require.Equal(t, "false", resp.Header.Get("X-Should-Retry"))
}

// A whole stream is buffered.
func TestStreamIsNotBuffered(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		r, w := io.Pipe()
		n.on(host("a"), func(req *http.Request) (*http.Response, error) {
			resp, err := answers("text/event-stream", "")(req)
			resp.Body = r
			return resp, err
		})
		const first = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"
		go func() { _, _ = io.WriteString(w, first) }()
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		got := make([]byte, len(first))
		_, err = io.ReadFull(resp.Body, got)
		require.NoError(t, err, "it is here though the stream goes on")
		require.Equal(t, first, string(got))
		require.NoError(t, resp.Body.Close())
	})
}

// A stream that broke off is begun anew: its content comes twice.
func TestBrokenStreamIsNotRestarted(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		const first = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"
		n.on(host("a"), func(req *http.Request) (*http.Response, error) {
			resp, err := answers("text/event-stream", "")(req)
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(first), brokenBody{nil, cutOff}))
			return resp, err
		})
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, cutOff.Err)
		require.Equal(t, first, string(text))
		require.Equal(t, 1, n.sends())
	})
}

// A 429 inside a stream is not noticed.
func TestThrottleInsideAStreamFailsOver(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		n.on(host("a"), answers("text/event-stream", "event: response.created\ndata: {\"type\":\"response.created\"}\n\n"+
			"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"too_many_requests\",\"code\":\"rate_limit_exceeded\",\"message\":\"Please try again in 4s.\"}}\n\n"))
		resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m","stream":true}`))
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, 4*time.Second, outFor(tr, "a"))
	})
}

// Shared state is not synchronised: for -race to find.
func TestConcurrentUseIsRaceFree(t *testing.T) {
	n := newNet()
	n.on(host("a"), status(429, "{}", "retry-after-ms: 1"), status(500, "{}"), status(401, azureKey), broken(noConnection), status(200, responseText))
	tr := balance(t, n, azure("a"), azure("b"), azure("c", priority(2)))
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 20 {
				resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m"}`))
				require.Equal(t, 200, resp.StatusCode)
				tr.Status()
			}
		})
	}
	all.Wait()
}

// Neither an answer nor an error.
func TestRandomFailuresReturnEitherAnswerOrError(t *testing.T) {
	n := newNet()
	kinds := []roundTripFunc{status(429, "{}"), status(500, "{}"), broken(cutOff), status(404, "{}"), broken(nil), status(200, "{}"), status(408, "")}
	for _, name := range []string{"a", "b"} {
		n.on(host(name), func(req *http.Request) (*http.Response, error) { return kinds[rand.IntN(len(kinds))](req) })
	}
	tr := balance(t, n, azure("a"), azure("b"))
	for range 200 {
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.True(t, (resp == nil) != (err == nil))
	}
}

// A host is throttled where a deployment is.
func TestThrottleClosesADeploymentAndNotItsHost(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		n.on(host("a"), status(429, "{}"), status(200, "{}"))
		ask(t, tr)
		resp, _ := send(t, tr, newChat(t, strings.Replace(chatPath, "/m/", "/other/", 1)))
		require.Equal(t, "a", servedBy(resp))
		resp, _ = ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
	})
}

// A later, shorter word overwrites.
func TestShorterThrottleDoesNotReplaceALongerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		waits := []string{"30", "2"}
		n.on(host("a"), func(req *http.Request) (*http.Response, error) {
			i := len(n.seen) - 1
			time.Sleep(time.Duration(1+i) * time.Second)
			return status(429, "{}", "Retry-After: "+waits[i])(req)
		})
		tr := balance(t, n, azure("a"))
		go func() { _, _ = tr.RoundTrip(newChat(t, chatPath)) }()
		synctest.Wait()
		ask(t, tr)
		require.Equal(t, 29*time.Second, outFor(tr, "a"))
	})
}

// The wall clock is read: a step of it would shorten or stretch every wait.
func TestThrottleKeepsTheMonotonicClockReading(t *testing.T) {
	n := newNet()
	n.on(host("a"), status(429, "{}"))
	tr := balance(t, n, azure("a"))
	ask(t, tr)
	d := tr.table().find("m").tiers[0].members[0]
	until, _, _ := d.Closed(time.Now())
	require.Contains(t, until.String(), " m=+", "a time with a reading of the monotonic clock")
}

// A name is replaced wherever the path has it.
func TestOnlyTheDeploymentSegmentOfAPathIsReplaced(t *testing.T) {
	for _, name := range []string{"openai", "deployments", "chat", "completions", "a%2Fb", "v1"} {
		n := newNet()
		tr := balance(t, n, azure("a", func(b *Backend) {
			b.URL += "/openai-chat"
			b.Models = []Model{{Name: strings.ReplaceAll(name, "%2F", "/"), Deployment: "x/y"}}
		}))
		send(t, tr, newChat(t, "/chat/openai/deployments/"+name+"/chat/completions?api-version=1"))
		require.Equal(t, "/openai-chat/openai/deployments/x%2Fy/chat/completions", n.seen[0].path, name)
	}
}

// The body of a failed answer is not closed, or drained without a bound.
func TestFailedAnswerIsDrainedUpToALimitAndClosed(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		var read, closed atomic.Int64
		n.on(host("a"), func(req *http.Request) (*http.Response, error) {
			resp, err := status(500, "")(req)
			resp.Body = endlessBody{&read, &closed}
			return resp, err
		})
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		require.LessOrEqual(t, read.Load(), int64(2*errorBodyLimit))
		require.EqualValues(t, 1, closed.Load())
	})
}

type endlessBody struct{ read, closed *atomic.Int64 }

func (b endlessBody) Read(p []byte) (int, error) { b.read.Add(int64(len(p))); return len(p), nil }
func (b endlessBody) Close() error               { b.closed.Add(1); return nil }

// Keys appear in logs.
func TestKeysAreNeverPrinted(t *testing.T) {
	var logged bytes.Buffer
	log.SetOutput(&logged)
	defer log.SetOutput(os.Stderr)
	n := newNet()
	for _, name := range []string{"a", "b", "c"} {
		n.on(host(name), broken(cutOff))
	}
	tr := balance(t, n, azure("a"), azure("b"), azure("c"))
	_, err := tr.RoundTrip(newChat(t, chatPath))
	require.Error(t, err)
	for _, text := range []string{err.Error(), logged.String(), fmt.Sprintf("%v %+v %#v", tr, tr, tr), fmt.Sprintf("%+v %#v", tr.Status(), tr.Status()), fmt.Sprintf("%+v %#v", azure("a"), azure("a"))} {
		require.NotContains(t, text, "key-")
		require.NotContains(t, text, "example API key")
	}
}

// One that was refused its key never comes back.
func TestDeploymentComesBackAfterItsKeyIsAccepted(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		n.on(host("a"), status(401, azureKey), status(401, azureKey), status(200, "{}"))
		for range 5 {
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp), "out, and probed by one that is served all the same")
			if n.sends(host("a")) == 2 {
				break
			}
			time.Sleep(7 * time.Second)
		}
		time.Sleep(15 * time.Second)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	})
}

// There is a candidate, yet "no capacity".
func TestOnlyOpenDeploymentOfManyIsFound(t *testing.T) {
	n := newNet()
	var backends []Backend
	for i := range 50 {
		backends = append(backends, azure(fmt.Sprintf("b%d", i)))
	}
	tr := balance(t, n, backends...)
	for d := range tr.table().find("m").all {
		if d.backend.name != "b37" {
			d.Refuse(time.Now(), health.Refusal{Wait: time.Hour, ByChance: true, Reason: "429"}, 0)
		}
	}
	for range 100 {
		resp, _ := ask(t, tr)
		require.Equal(t, "b37", servedBy(resp))
	}
}

// Figures are declared and never recorded; health is wrong when all are down.
func TestStatusReportsEveryThrottledDeployment(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		for _, name := range []string{"a", "b", "c"} {
			n.on(host(name), status(429, "{}"))
		}
		ask(t, tr)
		for _, b := range tr.Status().Tiers[0].Backends {
			require.Len(t, b.Deployments, 1)
			require.False(t, b.Deployments[0].Available)
			require.EqualValues(t, 1, b.Deployments[0].Throttled)
			require.NotEmpty(t, b.Deployments[0].Reason)
		}
	})
}

// An Entra token is fetched once for ever. (Caching it until it expires is left
// to the TokenFunc.)
func TestTokenIsRequestedInEachAttempt(t *testing.T) {
	n := newNet()
	asked := 0
	tr := balance(t, n, azure("a", func(b *Backend) {
		b.APIKey, b.Token = "", func(context.Context) (string, error) { asked++; return fmt.Sprint("token-", asked), nil }
	}))
	for i := range 3 {
		ask(t, tr)
		require.Equal(t, []string{fmt.Sprint("Bearer token-", i+1)}, n.seen[i].header["Authorization"])
	}
}

// The body is held back though nothing else comes.
func TestLastErrorBodyIsReturnedWhole(t *testing.T) {
	for _, answer := range []roundTripFunc{status(500, azureServer), status(401, azureServer), status(408, azureServer), status(404, azureServer), status(400, azureServer)} {
		inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
			for _, name := range []string{"a", "b", "c"} {
				n.on(host(name), answer)
			}
			resp, text := ask(t, tr)
			require.Equal(t, azureServer, text)
			require.EqualValues(t, len(azureServer), resp.ContentLength)
		})
	}
}

// The README's examples do not parse. (interop compiles them.)
func TestREADMEExamplesParse(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := strings.Split(string(text), "```go\n")[1:]
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		code, _, ok := strings.Cut(block, "```")
		require.True(t, ok)
		_, whole := parser.ParseFile(token.NewFileSet(), "", code, 0)
		_, body := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc f() {\n"+code+"\n}", 0)
		_, declarations := parser.ParseFile(token.NewFileSet(), "", "package p\n"+code, 0)
		require.True(t, whole == nil || body == nil || declarations == nil, "%v in\n%s", body, code)
	}
}

// Budgets are off by one.
func TestMaxAttemptsIsExact(t *testing.T) {
	for attempts := 1; attempts <= 4; attempts++ {
		n := newNet()
		var backends []Backend
		for i := range 5 {
			n.on(host(fmt.Sprint("b", i)), status(500, "{}"))
			backends = append(backends, azure(fmt.Sprint("b", i)))
		}
		resp, _ := ask(t, configured(t, Config{Base: n, Backends: backends, MaxAttempts: attempts}))
		require.Equal(t, attempts, n.sends())
		require.Equal(t, fmt.Sprint(attempts), resp.Header.Get("X-Spillover-Attempts"))
	}
}

// The work of a request grows with the number of deployments.
func TestRandomDrawsDoNotGrowWithDeployments(t *testing.T) {
	var draws [2]int
	for i, size := range []int{10, 1000} {
		var backends []Backend
		for b := range size {
			backends = append(backends, azure(fmt.Sprint("b", b)))
		}
		tr := balance(t, nop{}, backends...)
		tr.random = func() uint64 { draws[i]++; return rand.Uint64() }
		for range 100 {
			ask(t, tr)
		}
	}
	require.Less(t, draws[1], 2*draws[0])
	require.LessOrEqual(t, draws[1], 100*4, "one for its luck, two draws, and now and then another")
}

// The main strategy is untested: spilling over from a full PTU and back.
func TestFullPTUSpillsOverAndTrafficReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("ptu"), status(200, "{}"), status(429, azurePTU, "retry-after-ms: 40"), status(200, "{}"))
		n.on(host("east"), status(200, "{}"), status(429, azureTokens, "Retry-After: 1"), status(200, "{}"))
		tr := balance(t, n, azure("ptu"), azure("east", priority(2)), azure("west", priority(3)))
		for _, want := range []string{"ptu", "east", "west"} {
			resp, _ := ask(t, tr)
			require.Equal(t, want, servedBy(resp))
		}
		time.Sleep(50 * time.Millisecond)
		resp, _ := ask(t, tr)
		require.Equal(t, "ptu", servedBy(resp))
	})
}

// What keeps a caller at one place is not scoped, never ends, and never returns.
func TestStoredObjectRoutingIsScopedAndExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tr := learnt(t, `POST /v1/responses {"model":"m"}`, "application/json", responseText)
		n.on(host("b"), status(429, "{}", "retry-after-ms: 1000"), status(200, "{}"))
		resp, _ := send(t, tr, with(t, usesOfResponse[6]))
		require.Equal(t, 429, resp.StatusCode)
		time.Sleep(time.Second)
		resp, _ = send(t, tr, with(t, usesOfResponse[6]))
		require.Equal(t, "b", servedBy(resp), "it returns")
		resp, _ = ask(t, tr)
		require.Equal(t, "a", servedBy(resp), "it keeps nobody else")
		time.Sleep(objects.KeptFor + time.Second)
		resp, _ = send(t, tr, with(t, usesOfResponse[6]))
		require.Equal(t, "a", servedBy(resp), "it ends")
	})
}

// A breaker counts a 429 as a failure.
func TestThrottlesDoNotEjectADeployment(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *Transport) {
		n.on(host("a"), status(429, "{}", "retry-after-ms: 1"))
		for range 20 {
			ask(t, tr)
			time.Sleep(time.Second)
		}
		require.Greater(t, n.sends(host("a")), 5, "it is asked again each time, if later each time")
		require.Zero(t, failures(&tr.table().find("m").tiers[0].members[0].State))
	})
}

// Attempts are as many as there are backends.
func TestAttemptsAreCappedByDefault(t *testing.T) {
	n := newNet()
	var backends []Backend
	for i := range 30 {
		n.on(host(fmt.Sprint("b", i)), status(500, "{}"))
		backends = append(backends, azure(fmt.Sprint("b", i)))
	}
	ask(t, balance(t, n, backends...))
	require.Equal(t, 3, n.sends())
}

// Redirects, proxies and connection limits cannot be set.
func TestRedirectPolicyStaysWithTheClient(t *testing.T) {
	asked := 0
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		asked++
		return redirect(307, "/elsewhere")(req)
	})
	client := &http.Client{
		Transport:     balance(t, base, azure("a")),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(newChat(t, chatPath))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 307, resp.StatusCode)
	require.Equal(t, 1, asked)
}
