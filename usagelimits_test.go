package spillover_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

// limits gives a backend's model m limits of its own.
func limits(rpm, tpm int) func(*spillover.Backend) {
	return func(b *spillover.Backend) {
		b.Models = append(b.Models, spillover.Model{Name: "m", RPM: rpm, TPM: tpm})
	}
}

// usage20 is an answer that cost 20 tokens, and the same as a stream.
var (
	usage20  = status(200, `{"choices":[],"usage":{"prompt_tokens":13,"completion_tokens":7,"total_tokens":20}}`)
	stream20 = testnet.Content("text/event-stream", "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"+
		"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":13,\"completion_tokens\":7,\"total_tokens\":20}}\n\ndata: [DONE]\n\n")
)

// counted is the requests and tokens that a deployment of m has counted.
func counted(t testing.TB, tr *spillover.Transport, backend string) [2]int64 {
	requests, tokens := spillover.DeploymentOf(t, tr, backend).LocalLimits.Counted()
	return [2]int64{requests, tokens}
}

func TestReservationIsSettledByUsage(t *testing.T) {
	for name, test := range map[string]struct {
		answer roundTripFunc
		hold   bool
		want   int64
	}{
		"JSON":                  {answer: usage20, want: 20},
		"a stream":              {answer: stream20, want: 20},
		"a stream, held":        {answer: stream20, hold: true, want: 20},
		"the Responses API":     {answer: status(200, `{"usage":{"input_tokens":13,"output_tokens":7}}`), want: 20},
		"without usage":         {answer: status(200, `{}`), want: testnet.ChatTokens(t)},
		"a stream without":      {answer: testnet.Content("text/event-stream", "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n"), want: testnet.ChatTokens(t)},
		"no JSON":               {answer: testnet.Content("text/plain", `"usage":{"prompt_tokens":1}`), want: testnet.ChatTokens(t)},
		"a usage below nothing": {answer: status(200, `{"usage":{"prompt_tokens":-5,"completion_tokens":7}}`), want: 7},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			var tr *spillover.Transport
			n.On(host("a"), func(req *http.Request) (*http.Response, error) {
				require.Equal(t, [2]int64{1, testnet.ChatTokens(t)}, counted(t, tr, "a"), "reserved before it is sent")
				return test.answer(req)
			})
			tr = configured(t, spillover.Config{Base: n, HoldStreams: test.hold, Backends: []spillover.Backend{azure("a", limits(100, 100000))}})
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			require.NoError(t, err)
			require.Equal(t, [2]int64{1, testnet.ChatTokens(t)}, counted(t, tr, "a"), "and until it is read")
			read(t, resp)
			require.Equal(t, [2]int64{1, test.want}, counted(t, tr, "a"))
		})
	}
}

// A failed attempt costs no tokens, but counts as a request.
func TestFailedAttemptCountsAsARequestWithoutTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]roundTripFunc{
			"500": status(500, "{}"), "429": status(429, "{}"), "400": status(400, "{}"), "broken": broken(cutOff), "no connection": broken(noConnection),
			"a stream that is a refusal": testnet.Content("text/event-stream", "data: {\"error\":{\"code\":\"429\",\"message\":\"no\"}}\n\n"),
			"no answer in time":          hung,
		} {
			n := newNet()
			n.On(host("a"), answer)
			tr := balance(t, n, azure("a", limits(100, 100000), func(b *spillover.Backend) { b.HeaderTimeout = time.Second }), azure("b", priority(2)))
			ask(t, tr)
			sends := int64(1)
			if name == "500" || name == "broken" {
				sends = 2 // once more before it fails over
			}
			require.Equal(t, [2]int64{sends, 0}, counted(t, tr, "a"), name)
		}
	})
}

func TestCancelledRequestReleasesTokensOnlyBeforeTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), hung)
		tr := balance(t, n, azure("a", limits(100, 100000)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, [2]int64{1, 0}, counted(t, tr, "a"), "before the answer")

		// Of an answer that is given up the cost is not known.
		n.On(host("a"), usage20)
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, [2]int64{2, testnet.ChatTokens(t)}, counted(t, tr, "a"), "unread")
		ctx, cancel = context.WithCancel(t.Context())
		_, err = tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
		require.NoError(t, err)
		cancel()
		synctest.Wait()
		require.Equal(t, [2]int64{3, 2 * testnet.ChatTokens(t)}, counted(t, tr, "a"), "forgotten")
	})
}

// The one that is asked because all others failed is counted like any other.
func TestRequestToTheLastResortIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), usage20)
		tr := balance(t, n, azure("a", limits(100, 100000)))
		d := spillover.DeploymentOf(t, tr, "a")
		testnet.FailAt(&d.State, time.Now(), health.NoAnswer, "no answer", 0.5)
		resp, _ := ask(t, tr)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, [2]int64{1, 20}, counted(t, tr, "a"))
	})
}

// How many of 20 requests go to a until b takes over.
func TestLimitsSpillOverBeforeTheyAreExceeded(t *testing.T) {
	each := int(testnet.ChatTokens(t))
	for name, test := range map[string]struct{ rpm, tpm, want int }{
		"no limit":                    {0, 0, 20},
		"exactly N requests":          {6, 0, 6},
		"one":                         {1, 0, 1},
		"tokens":                      {0, 10 * each, 10},
		"to the last that fits":       {0, 10*each + each - 1, 10},
		"the smaller limit":           {12, 5 * each, 5},
		"a limit smaller than all":    {0, each / 2, 1},
		"more than there is to count": {1000, 1000 * each, 20},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			tr := balance(t, n, azure("a", limits(test.rpm, test.tpm)), azure("b", priority(2)))
			for range 20 {
				resp, _ := ask(t, tr)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"), "seen before it is sent")
			}
			require.Equal(t, test.want, n.Sends(host("a")))
		})
	}
}

// What an answer really cost makes room for more.
func TestActualUsageMakesRoomForMoreRequests(t *testing.T) {
	n := newNet()
	n.On(host("a"), usage20)
	each := int(testnet.ChatTokens(t))
	tr := balance(t, n, azure("a", limits(0, 10*20+each)), azure("b", priority(2)))
	for range 20 {
		ask(t, tr)
	}
	require.Equal(t, 11, n.Sends(host("a")))
}

func TestLimitsOfModelsAreSeparate(t *testing.T) {
	n := newNet()
	a := azure("a", limits(2, 0))
	a.Models = append(a.Models, spillover.Model{Name: "other", RPM: 3}, spillover.Model{Name: "free"})
	tr := balance(t, n, a, azure("b", priority(2)))
	for model, want := range map[string]int{"m": 2, "other": 3, "free": 10} {
		got := 0
		for range 10 {
			if resp, _ := send(t, tr, newChat(t, strings.Replace(chatPath, "/m/", "/"+model+"/", 1))); servedBy(resp) == "a" {
				got++
			}
		}
		require.Equal(t, want, got, model)
	}
}

func TestConcurrentRequestsAreAllCounted(t *testing.T) {
	n := newNet()
	n.On(host("a"), usage20)
	tr := balance(t, n, azure("a", limits(1000, 1000000)))
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() { ask(t, tr) })
	}
	all.Wait()
	require.Equal(t, [2]int64{10, 200}, counted(t, tr, "a"))
}

// The window ends, and answers that come after it are not counted in the next.
func TestLateAnswerDoesNotCountInTheNextWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(time.Minute+time.Second, usage20), usage20)
		tr := balance(t, n, azure("a", limits(1, 100000)), azure("b", priority(2)))
		var late sync.WaitGroup
		late.Go(func() {
			resp, _ := ask(t, tr)
			require.Equal(t, "a", servedBy(resp))
		})
		synctest.Wait()
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		time.Sleep(time.Minute - 1)
		resp, _ = ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		time.Sleep(1)
		resp, _ = ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
		require.Equal(t, [2]int64{1, 20}, counted(t, tr, "a"))
		late.Wait()
		require.Equal(t, [2]int64{1, 20}, counted(t, tr, "a"))
	})
}

// Whatever the content is, there is a sane estimate and no error.
func TestAnyBodyHasAnEstimate(t *testing.T) {
	for _, body := range []string{
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"data:,"}}]}]}`,
		`{"model":"m","messages":[{"role":"assistant","content":null}],"max_tokens":null}`,
		`{"model":"m","max_tokens":"many"}`, `{"model":"m","max_tokens":-1}`, `{"model":"m","max_tokens":99999999999999999999}`, `{"model":"m","max_tokens":1.5}`,
		`{`, `null`, `[]`, ``,
	} {
		n := newNet()
		tr := balance(t, n, azure("a", limits(100, 100000)))
		resp, _ := send(t, tr, with(t, "POST "+chatPath+" "+body))
		require.Equal(t, 200, resp.StatusCode, body)
		require.Equal(t, [2]int64{1, int64(len(body)/4) + wire.DefaultOutputTokens}, counted(t, tr, "a"), body)
	}
}

// What a request may cost counts before it is answered, by any name.
func TestMaxTokensIsReservedUnderEveryName(t *testing.T) {
	for _, key := range []string{"max_tokens", "max_completion_tokens", "max_output_tokens"} {
		n := newNet()
		tr := balance(t, n, azure("a", limits(0, 6000)), azure("b", priority(2)))
		body := fmt.Sprintf(`{"model":"m",%q:5000}`, key)
		resp, err := tr.RoundTrip(with(t, "POST "+chatPath+" "+body))
		require.NoError(t, err)
		require.Equal(t, "a", servedBy(resp))
		require.Equal(t, [2]int64{1, int64(len(body)/4) + 5000}, counted(t, tr, "a"), key)
		other, _ := send(t, tr, with(t, "POST "+chatPath+" "+body))
		require.Equal(t, "b", servedBy(other))
		resp.Body.Close()
	}
}

// Concurrent requests fill a limit exactly: not one more, and not one less.
func TestConcurrentRequestsFillALimitExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(time.Second, status(200, "{}")))
		tr := balance(t, n, azure("a", limits(25, 0)), azure("b", priority(2)))
		for window := 1; window <= 3; window++ {
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					resp, _ := ask(t, tr)
					require.Equal(t, 200, resp.StatusCode)
				})
			}
			all.Wait()
			require.Equal(t, 25*window, n.Sends(host("a")))
			time.Sleep(time.Minute)
		}
	})
}
