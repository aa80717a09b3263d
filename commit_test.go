package spillover_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// What breaks after its first content is the caller's to see, is blamed,
// and is never begun again.
func TestStreamBrokenAfterContentIsNotRestarted(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
	for name, cause := range map[string]error{"cut": io.ErrUnexpectedEOF, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				begins := testnet.AzureFirst + testnet.RoleChunk + testnet.TokenChunk("one")
				n.On(host("one"), testnet.Plays(t, begins, time.Second, cause))
				n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
				tr := streamPair(t, n)
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				body, err := testnet.ReadAll(t, resp)
				require.ErrorIs(t, err, cause)
				require.Equal(t, begins, body)
				require.Equal(t, 1, n.Sends(), "nothing is sent again")
				_, err = resp.Body.Read(make([]byte, 1))
				require.Error(t, err)

				one := streamState(t, tr, "one")
				require.Equal(t, []uint64{1, 1}, []uint64{one.Served, one.Failed})
				require.Zero(t, out(one), "the first is ignored")
				require.Equal(t, "answer broke off", testnet.LastReason(heldAgainst(t, tr, "one")))
				require.Zero(t, streamsInFlight(tr))
				resp, err = tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				_, err = testnet.ReadAll(t, resp)
				require.ErrorIs(t, err, cause)
				one = streamState(t, tr, "one")
				require.Equal(t, 2*time.Second, out(one))
				require.Equal(t, "answer broke off", one.Reason)
				resp, _ = ask(t, tr)
				require.Equal(t, "two", servedBy(resp))
			})
		})
	}
}

// An event of which only a part came is no content: nothing of it can be used,
// and another deployment has the whole of it.
func TestStreamBrokenBeforeContentFailsOver(t *testing.T) {
	for name, pieces := range map[string][]any{
		"within the first":            {testnet.AzureFirst[:30], io.ErrUnexpectedEOF},
		"within the role":             {testnet.AzureFirst + testnet.RoleChunk[:40], io.ErrUnexpectedEOF},
		"within the first content":    {testnet.AzureFirst + testnet.RoleChunk + testnet.TokenChunk("one")[:90], io.ErrUnexpectedEOF},
		"within a response":           {testnet.ResponseCreated(1000)[:500], io.ErrUnexpectedEOF},
		"within the role, by EOF":     {testnet.AzureFirst + testnet.RoleChunk[:40]},
		"within content, by EOF":      {testnet.AzureFirst + testnet.RoleChunk + testnet.TokenChunk("one")[:90]},
		"within a name":               {"event: response.cre", io.ErrUnexpectedEOF},
		"behind the preamble":         {testnet.AzureFirst + testnet.RoleChunk, io.ErrUnexpectedEOF},
		"behind the preamble, by EOF": {testnet.AzureFirst + testnet.RoleChunk},
		"at once":                     {io.ErrUnexpectedEOF},
		"at once, by EOF":             {},
		"after a comment":             {": hi\n\n", io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			for _, hold := range []bool{false, true} {
				n := newNet()
				n.On(host("one"), testnet.Plays(t, pieces...))
				n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
				tr := streamPair(t, n, func(cfg *spillover.Config) { cfg.HoldStreams = hold })
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				body, err := testnet.ReadAll(t, resp)
				require.NoError(t, err)
				require.Equal(t, testnet.WholeChat, body)
				require.Equal(t, "two", servedBy(resp))
				one := streamState(t, tr, "one")
				require.EqualValues(t, 2, one.Failed, "sent there twice")
				require.Equal(t, 1, testnet.Failures(heldAgainst(t, tr, "one")), "which counts once")
				require.Equal(t, "answer broke off", testnet.LastReason(heldAgainst(t, tr, "one")))
				require.Zero(t, streamsInFlight(tr))
			}
		})
	}
}

const (
	azureThrottle = `{"type":"too_many_requests","code":"rate_limit_exceeded","headers":{"x-ms-fe-error":"true"},"message":"Your requests to m for m in swedencentral have exceeded rate limit.","param":null}`
	serverError   = `{"message":"The server had an error while processing your request.","type":"server_error","param":null,"code":null}`
)

// An error event before content moves the request on, and says of the
// deployment what its status would have said. With HoldStreams that is so after
// content too.
func TestErrorEventBeforeContentCountsAsItsStatus(t *testing.T) {
	header := func(line string) http.Header {
		name, value, _ := strings.Cut(line, ": ")
		return http.Header{name: {value}}
	}
	refused := testnet.ResponseEvent("error", `,"error":`+azureThrottle) + testnet.ResponseEvent("response.failed", `,"response":{"error":{"code":"rate_limit_exceeded"}}`)
	tests := map[string]struct {
		path      string
		pieces    []any
		throttled uint64
		failed    uint64
		out       time.Duration
		reason    string
	}{
		"Azure's throttle": {responsesPath, []any{header("Retry-After: 4"), testnet.ResponseCreated(10), refused}, 1, 0, 4 * time.Second, "429 rate_limit_exceeded"},
		"behind 46 KB":     {responsesPath, []any{header("Retry-After: 4"), testnet.ResponseCreated(46 << 10), refused}, 1, 0, 4 * time.Second, "429 rate_limit_exceeded"},
		"without a time":   {responsesPath, []any{testnet.ResponseCreated(10), refused}, 1, 0, 10 * time.Second, "429 rate_limit_exceeded"},
		"failed alone":     {responsesPath, []any{header("Retry-After: 4"), testnet.ResponseCreated(10), testnet.ResponseEvent("response.failed", `,"response":{"error":{"code":"rate_limit_exceeded","message":"m"}}`)}, 1, 0, 4 * time.Second, "429 rate_limit_exceeded"},
		"a flat one":       {responsesPath, []any{testnet.ResponseCreated(10), "event: error\n" + `data: {"type":"error","code":"rate_limit_exceeded","message":"Please try again in 3s.","param":null}` + "\n\n"}, 1, 0, 3 * time.Second, "429 rate_limit_exceeded"},
		"chat's":           {chatPath, []any{testnet.AzureFirst + testnet.RoleChunk, testnet.ChatError(`{"code":"429","message":"… have exceeded token rate limit … Please retry after 6 seconds."}`)}, 1, 0, 6 * time.Second, "429"},
		"completions'":     {completionsPath, []any{testnet.AzureFirst, testnet.ChatError(`{"code":"429","message":"Please retry after 6 seconds."}`)}, 1, 0, 6 * time.Second, "429"},
		"no capacity":      {chatPath, []any{20 * time.Second, testnet.ChatError(`{"type":"too_many_requests","code":"no_capacity","message":"… Please retry after 20 seconds."}`)}, 1, 0, 20 * time.Second, "429 no_capacity"},
		"a full PTU":       {chatPath, []any{header("Retry-After-Ms: 20"), testnet.AzureFirst, testnet.ChatError(`{"type":"too_many_requests","code":"rate_limit_reached"}`)}, 1, 0, 20 * time.Millisecond, "429 rate_limit_reached"},
		"OpenAI's":         {chatPath, []any{testnet.ChatError(`{"type":"tokens","code":"rate_limit_exceeded","message":"… Please try again in 44ms."}`)}, 1, 0, 44 * time.Millisecond, "429 rate_limit_exceeded"},
		"headers inside":   {responsesPath, []any{header("Retry-After: 9"), testnet.ResponseEvent("error", `,"error":{"type":"tokens","code":"rate_limit_exceeded","headers":{"retry-after":"1","retry-after-ms":"15"}}`)}, 1, 0, 15 * time.Millisecond, "429 rate_limit_exceeded"},
		"slow down":        {chatPath, []any{testnet.ChatError(`{"type":"rate_limit_error","code":"slow_down"}`)}, 1, 0, 10 * time.Second, "429 slow_down"},
		"quota":            {chatPath, []any{header("Retry-After: 1"), testnet.RoleChunk, testnet.ChatError(`{"type":"insufficient_quota","code":"insufficient_quota"}`)}, 0, 1, 5 * time.Minute, "429 insufficient_quota"},
		"too large":        {chatPath, []any{testnet.ChatError(`{"type":"tokens","code":"rate_limit_exceeded","message":"Request too large for m: Limit 30000, Requested 30601."}`)}, 0, 0, 0, ""},
		"500":              {chatPath, []any{testnet.AzureFirst + testnet.RoleChunk, testnet.ChatError(serverError)}, 0, 2, 0, ""},
		"500 of Responses": {responsesPath, []any{testnet.ResponseCreated(9), testnet.ResponseEvent("response.failed", `,"response":{"error":{"code":"server_error","message":"m"}}`)}, 0, 2, 0, ""},
		// It failed, whatever it does not say.
		"failed without a word": {responsesPath, []any{testnet.ResponseCreated(9), testnet.ResponseEvent("response.failed", `,"response":{"status":"failed"}`)}, 0, 2, 0, ""},
		"failed, null":          {responsesPath, []any{testnet.ResponseCreated(9), testnet.ResponseEvent("response.failed", `,"response":{"error":null}`)}, 0, 2, 0, ""},
		"503":                   {chatPath, []any{testnet.ChatError(`{"type":"service_unavailable_error","code":"server_is_overloaded"}`)}, 0, 2, 0, ""},
		"503 with a time":       {chatPath, []any{header("Retry-After: 2"), testnet.ChatError(`{"type":"service_unavailable_error","code":"server_is_overloaded"}`)}, 0, 1, 2 * time.Second, "503 server_is_overloaded"},
		"404":                   {chatPath, []any{testnet.ChatError(`{"code":"DeploymentNotFound","message":"m"}`)}, 0, 1, 5 * time.Second, "404 DeploymentNotFound"},
		"404 of v1":             {responsesPath, []any{testnet.ResponseEvent("error", `,"error":{"type":"invalid_request_error","code":null,"headers":{"x-ms-fe-error":"true"},"message":"Could not find an existing deployment to match the model in the request"}`)}, 0, 1, 5 * time.Second, "404"},
		"401":                   {chatPath, []any{testnet.ChatError(`{"type":"invalid_request_error","code":"invalid_api_key"}`)}, 0, 1, 5 * time.Second, "401 invalid_api_key"},
		"408":                   {chatPath, []any{testnet.ChatError(`{"code":"Timeout","message":"The operation was timeout."}`)}, 0, 0, 0, ""},
		"of another resource":   {responsesPath, []any{testnet.ResponseEvent("error", `,"error":{"type":"invalid_request_error","code":"invalid_encrypted_content"}`)}, 0, 0, 0, ""},
		"no JSON":               {chatPath, []any{"event: error\ndata: upstream died\n\n"}, 0, 2, 0, ""},
		"no blank line":         {chatPath, []any{strings.TrimSpace(testnet.ChatError(serverError))}, 0, 2, 0, ""},
		"nothing but a header":  {responsesPath, []any{header("Retry-After: 4"), testnet.ResponseCreated(9)}, 1, 0, 4 * time.Second, "429"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, hold := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					if hold && name != "nothing but a header" {
						first := testnet.TokenChunk("lost")
						if test.path == responsesPath {
							first = testnet.ResponseEvent("response.output_text.delta", `,"delta":"lost"`)
						}
						test.pieces = append([]any{first}, test.pieces...)
					}
					n := newNet()
					n.On(host("one"), testnet.Plays(t, test.pieces...))
					n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
					tr := streamPair(t, n, func(cfg *spillover.Config) { cfg.HoldStreams = hold })
					resp, body := send(t, tr, newChat(t, test.path))
					require.Equal(t, testnet.WholeChat, body)
					require.Equal(t, "two", servedBy(resp))
					require.Equal(t, fmt.Sprint(1+max(1, test.throttled+test.failed)), resp.Header.Get("X-Spillover-Attempts"), "after a 5xx it is sent there twice")
					one := streamState(t, tr, "one")
					require.Equal(t, []uint64{test.throttled, test.failed}, []uint64{one.Throttled, one.Failed})
					require.Equal(t, test.out, out(one))
					require.Equal(t, test.reason, one.Reason)
					require.Zero(t, one.Served)
					require.Zero(t, one.InputTokens+one.OutputTokens, "nothing was read by anyone")
					require.Zero(t, streamsInFlight(tr))
				})
			}
		})
	}
}

// What is held has a bound, beyond which the stream is the caller's.
func TestPreambleIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		created, failure := testnet.ResponseCreated(spillover.MaxPreamble), testnet.ResponseEvent("error", `,"error":`+azureThrottle)
		var pieces []any
		for piece := range slices.Chunk([]byte(created), 4<<10) {
			pieces = append(pieces, string(piece))
		}
		n.On(host("one"), testnet.Plays(t, append(pieces, time.Hour, failure)...))
		tr := streamPair(t, n)
		begun := time.Now()
		resp, err := tr.RoundTrip(newChat(t, responsesPath))
		require.NoError(t, err)
		require.Zero(t, time.Since(begun), "it is not held any longer")
		require.Equal(t, "one", servedBy(resp))
		require.True(t, created+failure == read(t, resp))
		require.Equal(t, time.Hour, time.Since(begun))
		require.Zero(t, streamsInFlight(tr))
	})
}

// However small the events are that have no content.
func TestManyEventsWithoutContentAreNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		comments := strings.Repeat(": keep-alive\n\n", spillover.MaxPreamble/1000)
		pieces := []any{testnet.AzureFirst}
		for held := 0; held <= spillover.MaxPreamble; held += len(comments) {
			pieces = append(pieces, comments)
		}
		n.On(host("one"), testnet.Plays(t, append(pieces, time.Hour, testnet.TokenChunk("a"), testnet.DoneEvent)...))
		tr := streamPair(t, n)
		begun := time.Now()
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Zero(t, time.Since(begun), "they are not held any longer")
		require.Contains(t, read(t, resp), "[DONE]")
	})
}

// What counts is the status.
func TestStreamOfAnErrorStatusIsJudgedByItsStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		answer := testnet.Plays(t, testnet.ChatError(`{"code":"429","message":"Please retry after 6 seconds."}`))
		n.On(host("one"), func(req *http.Request) (*http.Response, error) {
			resp, err := answer(req)
			resp.StatusCode = 429
			return resp, err
		})
		n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
		tr := streamPair(t, n)
		resp, _ := ask(t, tr)
		require.Equal(t, "two", servedBy(resp))
		require.Equal(t, 6*time.Second, out(streamState(t, tr, "one")))
	})
}

// HeaderTimeout runs until the first content, whatever came before.
func TestHeaderTimeoutRunsUntilContent(t *testing.T) {
	for name, pieces := range map[string][]any{
		"no header":       nil,
		"header alone":    {testnet.Forever{}},
		"preamble":        {testnet.AzureFirst, testnet.Forever{}},
		"preamble, often": {testnet.AzureFirst, 400 * time.Millisecond, testnet.RoleChunk, 400 * time.Millisecond, ": hi\n\n", 400 * time.Millisecond, testnet.TokenChunk("late"), testnet.DoneEvent},
		"half an event":   {testnet.AzureFirst + testnet.TokenChunk("half")[:50], testnet.Forever{}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, hold := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("one"), testnet.Plays(t, pieces...))
					if pieces == nil {
						n.On(host("one"), func(req *http.Request) (*http.Response, error) {
							<-req.Context().Done()
							return nil, req.Context().Err()
						})
					}
					n.On(host("two"), testnet.Plays(t, 900*time.Millisecond, testnet.WholeChat))
					tr := streamPair(t, n, streamTimeouts(time.Second, 0), func(cfg *spillover.Config) { cfg.HoldStreams = hold })
					begun := time.Now()
					resp, body := ask(t, tr)
					require.Equal(t, 1900*time.Millisecond, time.Since(begun), "each attempt has its own")
					require.Equal(t, "two", servedBy(resp))
					require.Equal(t, testnet.WholeChat, body)
					require.Equal(t, "no answer in time", testnet.LastReason(heldAgainst(t, tr, "one")))
					require.Zero(t, streamsInFlight(tr))
				})
			}
		})
	}
}

// IdleTimeout: a silence after content ends the caller's read, and is blamed.
func TestIdleTimeoutAfterCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		begins := testnet.AzureFirst + testnet.RoleChunk + testnet.TokenChunk("a")
		n.On(host("one"), testnet.Plays(t, begins, 900*time.Millisecond, testnet.TokenChunk("b"), testnet.Forever{}))
		n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
		tr := streamPair(t, n, streamTimeouts(500*time.Millisecond, time.Second))
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		begun := time.Now()
		body, err := testnet.ReadAll(t, resp)
		require.Equal(t, begins+testnet.TokenChunk("b"), body)
		require.Equal(t, 1900*time.Millisecond, time.Since(begun))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		one := streamState(t, tr, "one")
		require.EqualValues(t, 1, one.Failed)
		require.Equal(t, 1, testnet.Failures(heldAgainst(t, tr, "one")))
		require.Zero(t, one.InFlight)
		require.Equal(t, 1, n.Sends())
	})
}

// HoldStreams: whatever breaks is begun anew, and its caller sees one whole stream.
func TestHoldStreams(t *testing.T) {
	begins := testnet.AzureFirst + testnet.RoleChunk + testnet.TokenChunk("lost")
	responses := testnet.ResponseCreated(9) + testnet.ResponseEvent("response.output_text.delta", `,"delta":"lost"`)
	tests := map[string]struct {
		pieces []any
		reason string
		after  time.Duration
	}{
		"cut":                   {[]any{begins, io.ErrUnexpectedEOF}, "answer broke off", 0},
		"cut, all but the end":  {[]any{begins + testnet.LastChunk, io.ErrUnexpectedEOF}, "answer broke off", 0},
		"cut in an event":       {[]any{begins + testnet.TokenChunk("x")[:70], io.ErrUnexpectedEOF}, "answer broke off", 0},
		"ended early":           {[]any{begins}, "answer broke off", 0},
		"Responses ended early": {[]any{responses}, "answer broke off", 0},
		"stalled":               {[]any{begins, 5 * time.Second, testnet.TokenChunk("x"), testnet.Forever{}}, "no answer in time", 15 * time.Second},
		"stalled behind a half": {[]any{begins + testnet.TokenChunk("x")[:70], testnet.Forever{}}, "no answer in time", 10 * time.Second},
		"error in the middle":   {[]any{begins, testnet.ChatError(`{"code":"429","message":"Please retry after 6 seconds."}`)}, "429", 0},
		// Of two choices one has ended: the other is missing.
		"one of two choices": {[]any{begins +
			`data: {"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":null}]}` + "\n\n" +
			`data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"}, "answer broke off", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("one"), testnet.Plays(t, test.pieces...))
				n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
				tr := streamPair(t, n, holdStreams, streamTimeouts(time.Second, 10*time.Second))
				begun := time.Now()
				resp, body := ask(t, tr)
				require.Equal(t, testnet.WholeChat, body)
				require.Equal(t, "two", servedBy(resp))
				require.Equal(t, test.after, time.Since(begun))
				require.Equal(t, test.reason, cmp.Or(streamState(t, tr, "one").Reason, testnet.LastReason(heldAgainst(t, tr, "one"))))
				require.Zero(t, streamsInFlight(tr))
				two := streamState(t, tr, "two")
				require.Equal(t, []int64{11, 7}, []int64{two.InputTokens, two.OutputTokens})
			})
		})
	}
}

// HoldStreams has a bound, beyond which the stream is the caller's.
func TestHoldStreamsHasABound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		begins, comment := testnet.TokenChunk("a"), ": "+strings.Repeat("x", 64<<10)+"\n\n"
		pieces := []any{begins}
		for range spillover.MaxHeld >> 16 {
			pieces = append(pieces, comment)
		}
		n.On(host("one"), testnet.Plays(t, append(pieces, time.Hour, io.ErrUnexpectedEOF)...))
		n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
		tr := streamPair(t, n, holdStreams)
		begun := time.Now()
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Zero(t, time.Since(begun))
		body, err := testnet.ReadAll(t, resp)
		require.Equal(t, io.ErrUnexpectedEOF, err)
		require.True(t, body == begins+strings.Repeat(comment, spillover.MaxHeld>>16))
		require.Equal(t, time.Hour, time.Since(begun))
		require.Equal(t, 1, n.Sends())
	})
}

// Streams that break before content everywhere leave an error with all causes.
func TestBrokenStreamsEverywhere(t *testing.T) {
	n := newNet()
	n.On(host("one"), testnet.Plays(t, testnet.AzureFirst, io.ErrUnexpectedEOF))
	n.On(host("two"), testnet.Plays(t, testnet.AzureFirst+testnet.RoleChunk))
	tr := streamPair(t, n)
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.Nil(t, resp)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorIs(t, err, spillover.ErrUnfinished)
	require.Zero(t, streamsInFlight(tr))
}
