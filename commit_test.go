package spillover

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Each event is the caller's at the moment it was sent.
func TestEventsAreNotDelayed(t *testing.T) {
	for op, events := range map[string][]string{
		chatPath:        {azureFirst + roleChunk, tokenChunk("a"), tokenChunk("b"), lastChunk + doneEvent},
		completionsPath: {azureFirst, `data: {"choices":[{"text":"a"}]}` + "\n\n", `data: {"choices":[{"text":"b"}]}` + "\n\n", doneEvent},
		responsesPath: {responseCreated(9) + responseEvent("response.in_progress", "") + responseEvent("response.output_item.added", ""),
			responseEvent("response.output_text.delta", `,"delta":"a"`), responseEvent("response.output_text.delta", `,"delta":"b"`), responseEvent("response.completed", "")},
	} {
		synctest.Test(t, func(t *testing.T) {
			const gap = 100 * time.Millisecond
			n := newNet()
			n.on(host("one"), plays(t, events[0], gap, events[1], gap, events[2], gap, events[3]))
			begun := time.Now()
			resp, err := streamPair(t, n).RoundTrip(newChat(t, op))
			require.NoError(t, err)
			require.Equal(t, gap, time.Since(begun), "the answer is there with its first content")
			p := make([]byte, 4096)
			for i, want := range []string{events[0] + events[1], events[2], events[3]} {
				k, err := resp.Body.Read(p)
				require.NoError(t, err)
				require.Equal(t, want, string(p[:k]))
				require.Equal(t, time.Duration(i+1)*gap, time.Since(begun))
			}
			require.Empty(t, read(t, resp))
		})
	}
}

// Content that came together with the preamble, or in the middle of a read.
func TestContentWithinAReadIsNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := azureFirst + roleChunk + tokenChunk("a") + tokenChunk("b")[:20]
		n := newNet()
		n.on(host("one"), plays(t, text, time.Hour, tokenChunk("b")[20:], doneEvent))
		begun := time.Now()
		resp, err := streamPair(t, n).RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		p := make([]byte, 4096)
		k, err := resp.Body.Read(p)
		require.NoError(t, err)
		require.Equal(t, text, string(p[:k]))
		require.Zero(t, time.Since(begun))
		require.NoError(t, resp.Body.Close())
	})
}

// What a caller did not ask for is not asked for.
func TestUsageIsNotRequestedUnlessTheCallerAsks(t *testing.T) {
	n := newNet()
	n.on(host("one"), plays(t, wholeChat))
	const text = `{"stream":true,"messages":[]}`
	req := newChat(t, chatPath)
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	send(t, streamPair(t, n), req)
	require.Equal(t, text, n.seen[0].body)
}

// Bytes are the service's own: line endings, comments and all.
func TestStreamBytesAreIdentical(t *testing.T) {
	t.Parallel()
	crlf := strings.ReplaceAll(wholeChat, "\n", "\r\n")
	odd := ": keep-alive\n\n" + azureFirst + "id: 1\nretry: 10\n\n" + roleChunk + "data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"a\"}}]}\n\n" +
		":\r\n\n\n" + tokenChunk("\u2028ü\\\"") + "unknown: field\n\n" + doneEvent + "what is behind"
	for name, text := range map[string]string{
		"as it is": wholeChat, "CRLF": crlf, "CR": strings.ReplaceAll(wholeChat, "\n", "\r"), "odd": odd,
		"no blank line at the end": strings.TrimSuffix(wholeChat, "\n\n"), "a mark first": "\ufeff" + wholeChat,
		"responses": responseCreated(46<<10) + responseEvent("response.output_text.delta", `,"delta":"a"`) + responseEvent("response.completed", ""),
	} {
		for _, whole := range []bool{false, true} {
			for _, size := range []int{1, 7, 4096, 1 << 20} {
				var pieces []any
				for piece := range slices.Chunk([]byte(text), max(size, len(text)/300)) {
					pieces = append(pieces, string(piece))
				}
				n := newNet()
				n.on(host("one"), plays(t, pieces...))
				path := chatPath
				if name == "responses" {
					path = responsesPath
				}
				tr := streamPair(t, n, func(cfg *Config) { cfg.HoldStreams = whole })
				_, body := send(t, tr, newChat(t, path))
				require.True(t, body == text, "%s, hold %v, reads of %d", name, whole, size)
				require.Zero(t, streamsInFlight(tr))
				require.Equal(t, 1, n.sends())
			}
		}
	}
}

// What breaks after its first content is the caller's to see, is blamed,
// and is never begun again.
func TestStreamBrokenAfterContentIsNotRestarted(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
	for name, cause := range map[string]error{"cut": io.ErrUnexpectedEOF, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				begins := azureFirst + roleChunk + tokenChunk("one")
				n.on(host("one"), plays(t, begins, time.Second, cause))
				n.on(host("two"), plays(t, wholeChat))
				tr := streamPair(t, n)
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				body, err := readAll(t, resp)
				require.ErrorIs(t, err, cause)
				require.Equal(t, begins, body)
				require.Equal(t, 1, n.sends(), "nothing is sent again")
				_, err = resp.Body.Read(make([]byte, 1))
				require.Error(t, err)

				one := streamState(t, tr, "one")
				require.Equal(t, []uint64{1, 1}, []uint64{one.Served, one.Failed})
				require.Zero(t, one.out(), "the first is ignored")
				require.Equal(t, "answer broke off", lastReason(heldAgainst(t, tr, "one")))
				require.Zero(t, streamsInFlight(tr))
				resp, err = tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				_, err = readAll(t, resp)
				require.ErrorIs(t, err, cause)
				one = streamState(t, tr, "one")
				require.Equal(t, 2*time.Second, one.out())
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
		"within the first":            {azureFirst[:30], io.ErrUnexpectedEOF},
		"within the role":             {azureFirst + roleChunk[:40], io.ErrUnexpectedEOF},
		"within the first content":    {azureFirst + roleChunk + tokenChunk("one")[:90], io.ErrUnexpectedEOF},
		"within a response":           {responseCreated(1000)[:500], io.ErrUnexpectedEOF},
		"within the role, by EOF":     {azureFirst + roleChunk[:40]},
		"within content, by EOF":      {azureFirst + roleChunk + tokenChunk("one")[:90]},
		"within a name":               {"event: response.cre", io.ErrUnexpectedEOF},
		"behind the preamble":         {azureFirst + roleChunk, io.ErrUnexpectedEOF},
		"behind the preamble, by EOF": {azureFirst + roleChunk},
		"at once":                     {io.ErrUnexpectedEOF},
		"at once, by EOF":             {},
		"after a comment":             {": hi\n\n", io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			for _, hold := range []bool{false, true} {
				n := newNet()
				n.on(host("one"), plays(t, pieces...))
				n.on(host("two"), plays(t, wholeChat))
				tr := streamPair(t, n, func(cfg *Config) { cfg.HoldStreams = hold })
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				body, err := readAll(t, resp)
				require.NoError(t, err)
				require.Equal(t, wholeChat, body)
				require.Equal(t, "two", servedBy(resp))
				one := streamState(t, tr, "one")
				require.EqualValues(t, 1, one.Failed)
				require.Equal(t, "answer broke off", lastReason(heldAgainst(t, tr, "one")))
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
	refused := responseEvent("error", `,"error":`+azureThrottle) + responseEvent("response.failed", `,"response":{"error":{"code":"rate_limit_exceeded"}}`)
	tests := map[string]struct {
		path      string
		pieces    []any
		throttled uint64
		failed    uint64
		out       time.Duration
		reason    string
	}{
		"Azure's throttle": {responsesPath, []any{header("Retry-After: 4"), responseCreated(10), refused}, 1, 0, 4 * time.Second, "429 rate_limit_exceeded"},
		"behind 46 KB":     {responsesPath, []any{header("Retry-After: 4"), responseCreated(46 << 10), refused}, 1, 0, 4 * time.Second, "429 rate_limit_exceeded"},
		"without a time":   {responsesPath, []any{responseCreated(10), refused}, 1, 0, 10 * time.Second, "429 rate_limit_exceeded"},
		"failed alone":     {responsesPath, []any{header("Retry-After: 4"), responseCreated(10), responseEvent("response.failed", `,"response":{"error":{"code":"rate_limit_exceeded","message":"m"}}`)}, 1, 0, 4 * time.Second, "429 rate_limit_exceeded"},
		"a flat one":       {responsesPath, []any{responseCreated(10), "event: error\n" + `data: {"type":"error","code":"rate_limit_exceeded","message":"Please try again in 3s.","param":null}` + "\n\n"}, 1, 0, 3 * time.Second, "429 rate_limit_exceeded"},
		"chat's":           {chatPath, []any{azureFirst + roleChunk, chatError(`{"code":"429","message":"… have exceeded token rate limit … Please retry after 6 seconds."}`)}, 1, 0, 6 * time.Second, "429"},
		"completions'":     {completionsPath, []any{azureFirst, chatError(`{"code":"429","message":"Please retry after 6 seconds."}`)}, 1, 0, 6 * time.Second, "429"},
		"no capacity":      {chatPath, []any{20 * time.Second, chatError(`{"type":"too_many_requests","code":"no_capacity","message":"… Please retry after 20 seconds."}`)}, 1, 0, 20 * time.Second, "429 no_capacity"},
		"a full PTU":       {chatPath, []any{header("Retry-After-Ms: 20"), azureFirst, chatError(`{"type":"too_many_requests","code":"rate_limit_reached"}`)}, 1, 0, 20 * time.Millisecond, "429 rate_limit_reached"},
		"OpenAI's":         {chatPath, []any{chatError(`{"type":"tokens","code":"rate_limit_exceeded","message":"… Please try again in 44ms."}`)}, 1, 0, 44 * time.Millisecond, "429 rate_limit_exceeded"},
		"headers inside":   {responsesPath, []any{header("Retry-After: 9"), responseEvent("error", `,"error":{"type":"tokens","code":"rate_limit_exceeded","headers":{"retry-after":"1","retry-after-ms":"15"}}`)}, 1, 0, 15 * time.Millisecond, "429 rate_limit_exceeded"},
		"slow down":        {chatPath, []any{chatError(`{"type":"rate_limit_error","code":"slow_down"}`)}, 1, 0, 10 * time.Second, "429 slow_down"},
		"quota":            {chatPath, []any{header("Retry-After: 1"), roleChunk, chatError(`{"type":"insufficient_quota","code":"insufficient_quota"}`)}, 0, 1, 5 * time.Minute, "429 insufficient_quota"},
		"too large":        {chatPath, []any{chatError(`{"type":"tokens","code":"rate_limit_exceeded","message":"Request too large for m: Limit 30000, Requested 30601."}`)}, 0, 0, 0, ""},
		"500":              {chatPath, []any{azureFirst + roleChunk, chatError(serverError)}, 0, 1, 0, ""},
		"500 of Responses": {responsesPath, []any{responseCreated(9), responseEvent("response.failed", `,"response":{"error":{"code":"server_error","message":"m"}}`)}, 0, 1, 0, ""},
		// It failed, whatever it does not say.
		"failed without a word": {responsesPath, []any{responseCreated(9), responseEvent("response.failed", `,"response":{"status":"failed"}`)}, 0, 1, 0, ""},
		"failed, null":          {responsesPath, []any{responseCreated(9), responseEvent("response.failed", `,"response":{"error":null}`)}, 0, 1, 0, ""},
		"503":                   {chatPath, []any{chatError(`{"type":"service_unavailable_error","code":"server_is_overloaded"}`)}, 0, 1, 0, ""},
		"503 with a time":       {chatPath, []any{header("Retry-After: 2"), chatError(`{"type":"service_unavailable_error","code":"server_is_overloaded"}`)}, 0, 1, 2 * time.Second, "503 server_is_overloaded"},
		"404":                   {chatPath, []any{chatError(`{"code":"DeploymentNotFound","message":"m"}`)}, 0, 1, 5 * time.Second, "404 DeploymentNotFound"},
		"404 of v1":             {responsesPath, []any{responseEvent("error", `,"error":{"type":"invalid_request_error","code":null,"headers":{"x-ms-fe-error":"true"},"message":"Could not find an existing deployment to match the model in the request"}`)}, 0, 1, 5 * time.Second, "404"},
		"401":                   {chatPath, []any{chatError(`{"type":"invalid_request_error","code":"invalid_api_key"}`)}, 0, 1, 5 * time.Second, "401 invalid_api_key"},
		"408":                   {chatPath, []any{chatError(`{"code":"Timeout","message":"The operation was timeout."}`)}, 0, 0, 0, ""},
		"of another resource":   {responsesPath, []any{responseEvent("error", `,"error":{"type":"invalid_request_error","code":"invalid_encrypted_content"}`)}, 0, 0, 0, ""},
		"no JSON":               {chatPath, []any{"event: error\ndata: upstream died\n\n"}, 0, 1, 0, ""},
		"no blank line":         {chatPath, []any{strings.TrimSpace(chatError(serverError))}, 0, 1, 0, ""},
		"nothing but a header":  {responsesPath, []any{header("Retry-After: 4"), responseCreated(9)}, 1, 0, 4 * time.Second, "429"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, hold := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					if hold && name != "nothing but a header" {
						first := tokenChunk("lost")
						if test.path == responsesPath {
							first = responseEvent("response.output_text.delta", `,"delta":"lost"`)
						}
						test.pieces = append([]any{first}, test.pieces...)
					}
					n := newNet()
					n.on(host("one"), plays(t, test.pieces...))
					n.on(host("two"), plays(t, wholeChat))
					tr := streamPair(t, n, func(cfg *Config) { cfg.HoldStreams = hold })
					resp, body := send(t, tr, newChat(t, test.path))
					require.Equal(t, wholeChat, body)
					require.Equal(t, "two", servedBy(resp))
					require.Equal(t, "2", resp.Header.Get("X-Spillover-Attempts"))
					one := streamState(t, tr, "one")
					require.Equal(t, []uint64{test.throttled, test.failed}, []uint64{one.Throttled, one.Failed})
					require.Equal(t, test.out, one.out())
					require.Equal(t, test.reason, one.Reason)
					require.Zero(t, one.Served)
					require.Zero(t, one.InputTokens+one.OutputTokens, "nothing was read by anyone")
					require.Zero(t, streamsInFlight(tr))
				})
			}
		})
	}
}

// What is the caller's own mistake is handed over as it came.
func TestClientErrorInAStreamIsReturned(t *testing.T) {
	for name, events := range map[string]string{
		"content filter": azureFirst + chatError(`{"code":"content_filter","param":"prompt","type":null,"status":400,"message":"m"}`),
		"context length": chatError(`{"type":"invalid_request_error","code":"context_length_exceeded","message":"m"}`),
		"invalid":        responseCreated(9) + responseEvent("error", `,"error":{"type":"invalid_request_error","code":null,"message":"m"}`),
		"prompt":         responseCreated(9) + responseEvent("response.failed", `,"response":{"error":{"code":"invalid_prompt","message":"m"}}`),
		"image":          responseCreated(9) + responseEvent("response.failed", `,"response":{"error":{"code":"image_too_large","message":"m"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.on(host("one"), plays(t, events, "\n: behind it\n"))
			tr := streamPair(t, n)
			resp, body := send(t, tr, newChat(t, responsesPath))
			require.Equal(t, events+"\n: behind it\n", body)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, 1, n.sends())
			one := streamState(t, tr, "one")
			require.True(t, one.Available)
			require.Equal(t, []uint64{1, 0}, []uint64{one.Served, one.Failed})
			require.Zero(t, one.InFlight)
		})
	}
}

// What is held has a bound, beyond which the stream is the caller's.
func TestPreambleIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		created, failure := responseCreated(maxPreamble), responseEvent("error", `,"error":`+azureThrottle)
		var pieces []any
		for piece := range slices.Chunk([]byte(created), 4<<10) {
			pieces = append(pieces, string(piece))
		}
		n.on(host("one"), plays(t, append(pieces, time.Hour, failure)...))
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

// A caller who closes early, or leaves, says nothing of the deployment.
func TestStreamClosedByTheCallerIsNeutral(t *testing.T) {
	leaves := map[string]func(resp *http.Response, leave context.CancelFunc){
		"closes":               func(resp *http.Response, _ context.CancelFunc) { resp.Body.Close() },
		"closes twice":         func(resp *http.Response, _ context.CancelFunc) { resp.Body.Close(); resp.Body.Close() },
		"leaves and forgets":   func(_ *http.Response, leave context.CancelFunc) { leave() },
		"leaves, then closes":  func(resp *http.Response, leave context.CancelFunc) { leave(); resp.Body.Close() },
		"closes while reading": func(resp *http.Response, _ context.CancelFunc) { go resp.Body.Close(); _, _ = io.ReadAll(resp.Body) },
		"leaves while reading": func(resp *http.Response, leave context.CancelFunc) { go leave(); _, _ = io.ReadAll(resp.Body) },
	}
	for name, leave := range leaves {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.on(host("one"), plays(t, azureFirst+roleChunk+tokenChunk("a"), forever{}))
				tr := streamPair(t, n, streamTimeouts(time.Minute, time.Minute))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
				require.NoError(t, err)
				require.Equal(t, 1, streamsInFlight(tr))
				leave(resp, cancel)
				synctest.Wait()
				require.Zero(t, streamsInFlight(tr))
				one := streamState(t, tr, "one")
				require.True(t, one.Available)
				require.Zero(t, one.Failed)
				time.Sleep(time.Hour)
				require.Zero(t, streamState(t, tr, "one").Failed, "no timer is left")
			})
		})
	}
}

// The same before content has come, and the place of a probe is free again.
func TestCancellationBeforeContentReleasesTheProbe(t *testing.T) {
	for _, hold := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.on(host("one"),
				broken(io.ErrUnexpectedEOF),
				plays(t, azureFirst, time.Millisecond, roleChunk, forever{}),
				plays(t, wholeChat))
			n.on(host("two"), plays(t, wholeChat))
			tr := streamPair(t, n, func(cfg *Config) { cfg.HoldStreams = hold })
			ask(t, tr)
			time.Sleep(2 * time.Second) // until a probe is due

			cause := errors.New("enough")
			ctx, leave := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { leave(cause) })
			_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
			require.ErrorIs(t, err, cause)
			require.Zero(t, streamsInFlight(tr))
			one := streamState(t, tr, "one")
			require.EqualValues(t, 1, one.Failed, "the one of before")

			resp, _ := ask(t, tr)
			require.Equal(t, "one", servedBy(resp), "the next is the probe")
		})
	}
}

// What counts is the status.
func TestStreamOfAnErrorStatusIsJudgedByItsStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		answer := plays(t, chatError(`{"code":"429","message":"Please retry after 6 seconds."}`))
		n.on(host("one"), func(req *http.Request) (*http.Response, error) {
			resp, err := answer(req)
			resp.StatusCode = 429
			return resp, err
		})
		n.on(host("two"), plays(t, wholeChat))
		tr := streamPair(t, n)
		resp, _ := ask(t, tr)
		require.Equal(t, "two", servedBy(resp))
		require.Equal(t, 6*time.Second, streamState(t, tr, "one").out())
	})
}

// HeaderTimeout runs until the first content, whatever came before.
func TestHeaderTimeoutRunsUntilContent(t *testing.T) {
	for name, pieces := range map[string][]any{
		"no header":       nil,
		"header alone":    {forever{}},
		"preamble":        {azureFirst, forever{}},
		"preamble, often": {azureFirst, 400 * time.Millisecond, roleChunk, 400 * time.Millisecond, ": hi\n\n", 400 * time.Millisecond, tokenChunk("late"), doneEvent},
		"half an event":   {azureFirst + tokenChunk("half")[:50], forever{}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, hold := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.on(host("one"), plays(t, pieces...))
					if pieces == nil {
						n.on(host("one"), func(req *http.Request) (*http.Response, error) {
							<-req.Context().Done()
							return nil, req.Context().Err()
						})
					}
					n.on(host("two"), plays(t, 900*time.Millisecond, wholeChat))
					tr := streamPair(t, n, streamTimeouts(time.Second, 0), func(cfg *Config) { cfg.HoldStreams = hold })
					begun := time.Now()
					resp, body := ask(t, tr)
					require.Equal(t, 1900*time.Millisecond, time.Since(begun), "each attempt has its own")
					require.Equal(t, "two", servedBy(resp))
					require.Equal(t, wholeChat, body)
					require.Equal(t, "no answer in time", lastReason(heldAgainst(t, tr, "one")))
					require.Zero(t, streamsInFlight(tr))
				})
			}
		})
	}
}

// After the first content HeaderTimeout is over, with HoldStreams as well.
func TestHeaderTimeoutEndsWithContent(t *testing.T) {
	for _, hold := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.on(host("one"), plays(t, tokenChunk("a"), time.Hour, tokenChunk("b"), time.Hour, doneEvent))
			tr := streamPair(t, n, streamTimeouts(time.Second, 0), func(cfg *Config) { cfg.HoldStreams = hold })
			begun := time.Now()
			resp, body := ask(t, tr)
			require.Equal(t, tokenChunk("a")+tokenChunk("b")+doneEvent, body)
			require.Equal(t, 2*time.Hour, time.Since(begun))
			require.Equal(t, "one", servedBy(resp))
		})
	}
}

// When every deployment is silent the error tells that it was time.
func TestHeaderTimeoutEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("one"), plays(t, azureFirst, forever{}))
		n.on(host("two"), plays(t, forever{}))
		tr := streamPair(t, n, streamTimeouts(time.Second, 0))
		_, err := tr.RoundTrip(newChat(t, chatPath))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		require.Zero(t, streamsInFlight(tr))
	})
}

// IdleTimeout: a silence after content ends the caller's read, and is blamed.
func TestIdleTimeoutAfterCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		begins := azureFirst + roleChunk + tokenChunk("a")
		n.on(host("one"), plays(t, begins, 900*time.Millisecond, tokenChunk("b"), forever{}))
		n.on(host("two"), plays(t, wholeChat))
		tr := streamPair(t, n, streamTimeouts(500*time.Millisecond, time.Second))
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		begun := time.Now()
		body, err := readAll(t, resp)
		require.Equal(t, begins+tokenChunk("b"), body)
		require.Equal(t, 1900*time.Millisecond, time.Since(begun))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		one := streamState(t, tr, "one")
		require.EqualValues(t, 1, one.Failed)
		require.Equal(t, 1, failures(heldAgainst(t, tr, "one")))
		require.Zero(t, one.InFlight)
		require.Equal(t, 1, n.sends())
	})
}

// A caller who does not read is no silence of the deployment's.
func TestASlowReaderIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("one"), plays(t, tokenChunk("a"), tokenChunk("b"), tokenChunk("c"), doneEvent))
		tr := streamPair(t, n, streamTimeouts(time.Second, time.Second))
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		var got []byte
		p := make([]byte, 100)
		for err == nil {
			time.Sleep(time.Minute)
			var k int
			k, err = resp.Body.Read(p)
			got = append(got, p[:k]...)
		}
		require.Equal(t, io.EOF, err)
		require.Equal(t, tokenChunk("a")+tokenChunk("b")+tokenChunk("c")+doneEvent, string(got))
		require.Zero(t, streamState(t, tr, "one").Failed)
	})
}

// HoldStreams: whatever breaks is begun anew, and its caller sees one whole stream.
func TestHoldStreams(t *testing.T) {
	begins := azureFirst + roleChunk + tokenChunk("lost")
	responses := responseCreated(9) + responseEvent("response.output_text.delta", `,"delta":"lost"`)
	tests := map[string]struct {
		pieces []any
		reason string
		after  time.Duration
	}{
		"cut":                   {[]any{begins, io.ErrUnexpectedEOF}, "answer broke off", 0},
		"cut, all but the end":  {[]any{begins + lastChunk, io.ErrUnexpectedEOF}, "answer broke off", 0},
		"cut in an event":       {[]any{begins + tokenChunk("x")[:70], io.ErrUnexpectedEOF}, "answer broke off", 0},
		"ended early":           {[]any{begins}, "answer broke off", 0},
		"Responses ended early": {[]any{responses}, "answer broke off", 0},
		"stalled":               {[]any{begins, 5 * time.Second, tokenChunk("x"), forever{}}, "no answer in time", 15 * time.Second},
		"stalled behind a half": {[]any{begins + tokenChunk("x")[:70], forever{}}, "no answer in time", 10 * time.Second},
		"error in the middle":   {[]any{begins, chatError(`{"code":"429","message":"Please retry after 6 seconds."}`)}, "429", 0},
		// Of two choices one has ended: the other is missing.
		"one of two choices": {[]any{begins +
			`data: {"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":null}]}` + "\n\n" +
			`data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"}, "answer broke off", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.on(host("one"), plays(t, test.pieces...))
				n.on(host("two"), plays(t, wholeChat))
				tr := streamPair(t, n, holdStreams, streamTimeouts(time.Second, 10*time.Second))
				begun := time.Now()
				resp, body := ask(t, tr)
				require.Equal(t, wholeChat, body)
				require.Equal(t, "two", servedBy(resp))
				require.Equal(t, test.after, time.Since(begun))
				require.Equal(t, test.reason, cmp.Or(streamState(t, tr, "one").Reason, lastReason(heldAgainst(t, tr, "one"))))
				require.Zero(t, streamsInFlight(tr))
				two := streamState(t, tr, "two")
				require.Equal(t, []int64{11, 7}, []int64{two.InputTokens, two.OutputTokens})
			})
		})
	}
}

// HoldStreams: what is complete is handed over when it is, and without [DONE] too.
func TestHoldStreamsCommitsWhatIsWhole(t *testing.T) {
	tests := map[string][]any{
		"[DONE]":                  {wholeChat[:300], time.Second, wholeChat[300:]},
		"no [DONE]":               {tokenChunk("a"), time.Second, lastChunk},
		"no [DONE], usage":        {tokenChunk("a"), time.Second, lastChunk + usageChunk},
		"cut after [DONE]":        {tokenChunk("a"), time.Second, lastChunk + doneEvent},
		"completed":               {responseCreated(9), time.Second, responseEvent("response.completed", "")},
		"incomplete":              {responseCreated(9), time.Second, responseEvent("response.incomplete", "")},
		"content, filtered":       {azureFirst, time.Second, `data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}` + "\n\n"},
		"choices of another form": {`data: {"choices":"a","text":"b"}` + "\n\n", time.Second, lastChunk},
		"no choices, but text":    {`data: {"text":"b"}` + "\n\n", time.Second, lastChunk},
		"two choices": {`data: {"choices":[{"index":0,"text":"a"},{"index":1,"text":"b"}]}` + "\n\n", time.Second,
			`data: {"choices":[{"index":0,"text":"","finish_reason":"stop"},{"index":1,"text":"","finish_reason":"stop"}]}` + "\n\n"},
		"two choices, apart": {`data: {"choices":[{"index":0,"text":"a"}]}` + "\n\n" + `data: {"choices":[{"index":1,"text":"b"}]}` + "\n\n", time.Second,
			`data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}` + "\n\n" + `data: {"choices":[{"index":1,"text":"","finish_reason":"stop"}]}` + "\n\n"},
	}
	for name, pieces := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.on(host("one"), plays(t, pieces...))
				tr := streamPair(t, n, holdStreams, streamTimeouts(time.Minute, time.Minute))
				begun := time.Now()
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				require.Equal(t, time.Second, time.Since(begun), "when it is whole")
				require.Equal(t, pieces[0].(string)+pieces[2].(string), read(t, resp))
				require.Equal(t, "one", servedBy(resp))
				require.Equal(t, 1, n.sends())
				require.Zero(t, streamsInFlight(tr))
			})
		})
	}
}

// HoldStreams has a bound, beyond which the stream is the caller's.
func TestHoldStreamsHasABound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		begins, comment := tokenChunk("a"), ": "+strings.Repeat("x", 64<<10)+"\n\n"
		pieces := []any{begins}
		for range maxHeld >> 16 {
			pieces = append(pieces, comment)
		}
		n.on(host("one"), plays(t, append(pieces, time.Hour, io.ErrUnexpectedEOF)...))
		n.on(host("two"), plays(t, wholeChat))
		tr := streamPair(t, n, holdStreams)
		begun := time.Now()
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Zero(t, time.Since(begun))
		body, err := readAll(t, resp)
		require.Equal(t, io.ErrUnexpectedEOF, err)
		require.True(t, body == begins+strings.Repeat(comment, maxHeld>>16))
		require.Equal(t, time.Hour, time.Since(begun))
		require.Equal(t, 1, n.sends())
	})
}

// When all fail the last real answer is the caller's, a stream as it came, and
// what was not chosen is closed.
func TestLastRealAnswerIsAStream(t *testing.T) {
	for _, hold := range []bool{false, true} {
		n := newNet()
		n.on(host("one"), plays(t, azureFirst, chatError(serverError), "one"))
		n.on(host("two"), plays(t, azureFirst+roleChunk, chatError(serverError), "two", forever{}))
		tr := streamPair(t, n, func(cfg *Config) { cfg.HoldStreams = hold })
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, []string{"two", "2"}, []string{servedBy(resp), resp.Header.Get("X-Spillover-Attempts")})
		require.Equal(t, 200, resp.StatusCode)
		want := azureFirst + roleChunk + chatError(serverError) + "two"
		body := make([]byte, len(want))
		_, err = io.ReadFull(resp.Body, body)
		require.NoError(t, err)
		require.Equal(t, want, string(body))
		require.Equal(t, 1, streamsInFlight(tr), "its connection is in use until the caller closes it")
		require.NoError(t, resp.Body.Close())
		require.Zero(t, streamsInFlight(tr))
		for _, name := range []string{"one", "two"} {
			require.True(t, streamState(t, tr, name).Available, "the request is the suspect")
		}
	}
}

// An error event that stands for a throttle everywhere is the throttle's answer.
func TestThrottledStreamsEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("one"), plays(t, http.Header{"Retry-After": {"7"}}, responseCreated(9), responseEvent("error", `,"error":`+azureThrottle)))
		n.on(host("two"), plays(t, http.Header{"Retry-After": {"3"}}, responseCreated(9)))
		tr := streamPair(t, n)
		resp, body := send(t, tr, newChat(t, responsesPath))
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, []string{"3", "3000", "2", "true"}, []string{resp.Header.Get("Retry-After"), resp.Header.Get("Retry-After-Ms"),
			resp.Header.Get("X-Spillover-Attempts"), resp.Header.Get("X-Spillover-Synthesized")})
		require.Contains(t, body, "the soonest is two in 3.00s")
		require.Zero(t, streamsInFlight(tr))
	})
}

// Streams that break before content everywhere leave an error with all causes.
func TestBrokenStreamsEverywhere(t *testing.T) {
	n := newNet()
	n.on(host("one"), plays(t, azureFirst, io.ErrUnexpectedEOF))
	n.on(host("two"), plays(t, azureFirst+roleChunk))
	tr := streamPair(t, n)
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.Nil(t, resp)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorIs(t, err, errUnfinished)
	require.Zero(t, streamsInFlight(tr))
}

// The count that is told is the one that stands, from the stream that was
// handed over and no other.
func TestUsageIsCountedOnlyForTheReturnedStream(t *testing.T) {
	n := newNet()
	n.on(host("one"), plays(t, tokenChunk("a"), usageChunk, chatError(serverError)))
	n.on(host("two"), plays(t, wholeChat))
	tr := streamPair(t, n, holdStreams)
	ask(t, tr)
	require.Zero(t, streamState(t, tr, "one").OutputTokens)
	require.EqualValues(t, 7, streamState(t, tr, "two").OutputTokens)
}
