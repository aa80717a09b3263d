package spillover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/spillovertest"
)

func holdStreams(cfg *spillover.Config) { cfg.HoldStreams = true }

func streamTimeouts(header, idle time.Duration) func(*spillover.Config) {
	return func(cfg *spillover.Config) {
		for i := range cfg.Backends {
			cfg.Backends[i].HeaderTimeout, cfg.Backends[i].IdleTimeout = header, idle
		}
	}
}

// streamState is the state of a backend's one deployment.
func streamState(t testing.TB, tr *spillover.Transport, backend string) spillover.DeploymentStatus {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			if b.Name == backend {
				asked := slices.DeleteFunc(b.Deployments, func(d spillover.DeploymentStatus) bool {
					return len(b.Deployments) > 1 && d.Served+d.Failed+d.Throttled == 0
				})
				require.Len(t, asked, 1)
				return asked[0]
			}
		}
	}
	require.Fail(t, "no backend "+backend)
	return spillover.DeploymentStatus{}
}

func streamsInFlight(tr *spillover.Transport) (sum int) {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			for _, d := range b.Deployments {
				sum += d.InFlight
			}
		}
	}
	return sum
}

// What an answer costs is read as it passes.
func TestUsageIsReadFromAnswers(t *testing.T) {
	chat := `{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"x"}}],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":4}}}`
	completed := testnet.ResponseEvent("response.completed", `,"response":{"id":"resp_1","usage":{"input_tokens":11,"input_tokens_details":{"cached_tokens":0},"output_tokens":7,"total_tokens":18}}`)
	delta := testnet.ResponseEvent("response.output_text.delta", `,"delta":"x"`)
	tests := map[string]struct {
		path          string
		answer        func(*testing.T) roundTripFunc
		input, output int64
	}{
		"chat": {chatPath, func(*testing.T) roundTripFunc { return status(200, chat) }, 11, 7},
		"completions": {completionsPath, func(*testing.T) roundTripFunc {
			return status(200, `{"choices":[{"text":"x"}],"usage":{"completion_tokens":7,"prompt_tokens":11,"total_tokens":18}}`)
		}, 11, 7},
		"embeddings": {embeddingsPath, func(*testing.T) roundTripFunc {
			return status(200, `{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":11,"total_tokens":11}}`)
		}, 11, 0},
		"responses": {responsesPath, func(*testing.T) roundTripFunc {
			return status(200, `{"id":"resp_1","output":[],"usage":{"input_tokens":11,"output_tokens":7,"total_tokens":18},"metadata":{}}`)
		}, 11, 7},
		"a stream of chat": {chatPath, func(t *testing.T) roundTripFunc { return testnet.Plays(t, testnet.WholeChat) }, 11, 7},
		"a stream of completions": {completionsPath, func(t *testing.T) roundTripFunc {
			return testnet.Plays(t, `data: {"choices":[{"text":"x"}]}`+"\n\n", testnet.UsageChunk, testnet.DoneEvent)
		}, 11, 7},
		"a stream of responses": {responsesPath, func(t *testing.T) roundTripFunc {
			return testnet.Plays(t, testnet.ResponseCreated(10), delta, completed)
		}, 11, 7},
		// Of the events of Anthropic's messages the first has the input, the last the output.
		"a stream of messages": {"/anthropic/v1/messages", func(t *testing.T) roundTripFunc {
			return testnet.Plays(t, `data: {"type":"message_start","message":{"content":[],"usage":{"input_tokens":11,"output_tokens":1}}}`+"\n\n",
				`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}`+"\n\n",
				`data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}`+"\n\n", `data: {"type":"message_stop"}`+"\n\n")
		}, 11, 7},
		"none": {chatPath, func(t *testing.T) roundTripFunc {
			return testnet.Plays(t, testnet.TokenChunk("x"), testnet.LastChunk, testnet.DoneEvent)
		}, 0, 0},
		"spaced": {chatPath, func(*testing.T) roundTripFunc {
			return status(200, "{\n  \"usage\": {\n    \"prompt_tokens\": 11,\n    \"completion_tokens\": 7\n  }\n}")
		}, 11, 7},
		// Some services tell it with every chunk: the last word counts.
		"told more than once": {chatPath, func(t *testing.T) roundTripFunc {
			return testnet.Plays(t, `data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":11,"completion_tokens":1}}`+"\n\n", testnet.UsageChunk, testnet.DoneEvent)
		}, 11, 7},
		"null in the other chunks": {chatPath, func(t *testing.T) roundTripFunc {
			null := strings.Replace(testnet.TokenChunk("x"), `"finish_reason":null}]`, `"finish_reason":null}],"usage":null`, 1)
			return testnet.Plays(t, null, null, testnet.UsageChunk, testnet.DoneEvent)
		}, 11, 7},
		// null is no usage object: Azure's asynchronous filter annotates after the usage.
		"null after it": {chatPath, func(t *testing.T) roundTripFunc {
			return testnet.Plays(t, testnet.TokenChunk("x"), testnet.UsageChunk, `data: {"choices":[{"index":0,"finish_reason":null,"content_filter_results":{}}],"usage":null}`+"\n\n", testnet.DoneEvent)
		}, 11, 7},
		// A schema that is echoed may have a property of that name.
		"a schema after it": {responsesPath, func(*testing.T) roundTripFunc {
			return status(200, `{"usage":{"input_tokens":11,"output_tokens":7},"tools":[{"parameters":{"properties":{"usage":{"type":"string"}}}}]}`)
		}, 11, 7},
		"a model that writes JSON": {chatPath, func(t *testing.T) roundTripFunc {
			return testnet.Plays(t, testnet.TokenChunk(`{"usage":{"prompt_tokens":1000000,"completion_tokens":1000000}}`), testnet.UsageChunk,
				testnet.TokenChunk(`,"usage":{"prompt_tokens":1000000}`), testnet.DoneEvent)
		}, 11, 7},
		"numbers that make no sense": {chatPath, func(*testing.T) roundTripFunc {
			return status(200, `{"usage":{"prompt_tokens":-5,"completion_tokens":7}}`)
		}, 0, 7},
		"words": {chatPath, func(*testing.T) roundTripFunc { return status(200, `{"usage":{"prompt_tokens":"many"}}`) }, 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.On(host("one"), test.answer(t))
			tr := streamPair(t, n)
			send(t, tr, newChat(t, test.path))
			one := streamState(t, tr, "one")
			require.Equal(t, []int64{test.input, test.output}, []int64{one.InputTokens, one.OutputTokens})
			require.Zero(t, one.InFlight)
		})
	}
}

func TestUsageAddsUpOverRequests(t *testing.T) {
	n := newNet()
	n.On(host("one"), testnet.Plays(t, testnet.WholeChat))
	tr := streamPair(t, n)
	for range 3 {
		_, body := ask(t, tr)
		require.Equal(t, testnet.WholeChat, body)
	}
	one := streamState(t, tr, "one")
	require.Equal(t, []int64{33, 21}, []int64{one.InputTokens, one.OutputTokens})
}

// However the bytes arrive, and however the caller reads them.
func TestUsageInSplitReads(t *testing.T) {
	for size := 1; size < 40; size++ {
		var pieces []any
		for piece := range slices.Chunk([]byte(testnet.WholeChat), size) {
			pieces = append(pieces, string(piece))
		}
		n := newNet()
		n.On(host("one"), testnet.Plays(t, pieces...))
		tr := streamPair(t, n)
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		var got []byte
		for p := make([]byte, 41-size); err == nil; {
			var n int
			n, err = resp.Body.Read(p)
			got = append(got, p[:n]...)
		}
		require.Equal(t, io.EOF, err)
		require.Equal(t, testnet.WholeChat, string(got))
		one := streamState(t, tr, "one")
		require.Equal(t, []int64{11, 7}, []int64{one.InputTokens, one.OutputTokens}, "reads of %d", size)
	}
}

func TestTrailersAndProtocolPassThrough(t *testing.T) {
	n := newNet()
	answer := testnet.Plays(t, testnet.WholeChat)
	n.On(host("one"), func(req *http.Request) (*http.Response, error) {
		resp, err := answer(req)
		resp.Proto, resp.ProtoMajor, resp.ProtoMinor = "HTTP/2.0", 2, 0
		resp.Trailer = http.Header{"X-Checksum": {"1"}}
		return resp, err
	})
	resp, body := ask(t, streamPair(t, n))
	require.Equal(t, testnet.WholeChat, body)
	require.Equal(t, 2, resp.ProtoMajor)
	require.Equal(t, "1", resp.Trailer.Get("X-Checksum"))
	require.EqualValues(t, -1, resp.ContentLength)
}

// The stream of every operation that leaves nothing behind is judged; the
// others are what their service says.
func TestStreamsOfStatefulOperationsAreUntouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, op := range []string{"threads/thread_1/runs", "conversations/conv_1/items"} {
			n := newNet()
			text := testnet.ChatError(`{"code":"rate_limit_exceeded"}`)
			n.On(host("one"), testnet.Plays(t, time.Minute, text))
			tr := streamPair(t, n, holdStreams)
			begun := time.Now()
			resp, err := tr.RoundTrip(newChat(t, "/openai/v1/"+op))
			require.NoError(t, err)
			require.Zero(t, time.Since(begun), op)
			require.Equal(t, text, read(t, resp))
			require.Equal(t, 1, n.Sends(), op)
		}
	})
}

// A traffic is what many callers of a pool of four saw.
type traffic struct {
	mu                                   sync.Mutex
	whole, failed, refused, partial, odd int
	firsts                               []time.Duration // until the first content
}

// drive sends 100 requests a second for ten seconds, each with its number.
func (seen *traffic) drive(t *testing.T, tr *spillover.Transport) {
	var callers sync.WaitGroup
	for i := range 1000 {
		callers.Go(func() {
			begun := time.Now()
			req := newChat(t, chatPath)
			req.Header.Set("X-Number", fmt.Sprint(i))
			text := fmt.Sprintf(`{"messages":[{"role":"user","content":"%d"}],"model":"m","stream":true,"max_tokens":4}`, i)
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
			req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
			resp, err := tr.RoundTrip(req)
			first := time.Since(begun)
			if err != nil {
				seen.count(&seen.failed, first)
				return
			}
			body, err := testnet.ReadAll(t, resp)
			tokens := strings.Count(body, `"delta":{"content":"`)
			switch {
			case resp.StatusCode == 429:
				seen.count(&seen.refused, first)
			case resp.StatusCode != 200 || tokens == 0:
				seen.count(&seen.failed, first)
			case err != nil && tokens < 4:
				seen.count(&seen.partial, first)
			case tokens != 4 || strings.Count(body, "[DONE]") != 1 || strings.Count(body, `"role"`) != 1 || strings.Contains(body, `"error"`):
				seen.count(&seen.odd, first)
			default:
				seen.count(&seen.whole, first)
			}
		})
		time.Sleep(10 * time.Millisecond)
	}
	callers.Wait()
	require.Zero(t, streamsInFlight(tr))
	require.Zero(t, seen.odd, "an answer with something missing, or twice")
	require.Equal(t, 1000, seen.whole+seen.failed+seen.refused+seen.partial)
}

func (seen *traffic) count(what *int, first time.Duration) {
	seen.mu.Lock()
	defer seen.mu.Unlock()
	*what++
	seen.firsts = append(seen.firsts, first)
}

func (seen *traffic) p99() time.Duration {
	slices.Sort(seen.firsts)
	return seen.firsts[len(seen.firsts)*99/100]
}

// fourEqual are deployments that begin to write after 50 ms and end after 110 ms.
func fourEqual(t *testing.T, header time.Duration) (*spillover.Transport, []*spillovertest.Server) {
	cfg := spillover.Config{}
	var servers []*spillovertest.Server
	for i := range 4 {
		s := spillovertest.New(spillovertest.Config{Name: fmt.Sprintf("region%d", i), Seed: uint64(i), Deployments: []spillovertest.Deployment{
			{Name: "m", Latency: spillovertest.Latency{FirstToken: 50 * time.Millisecond, PerToken: 20 * time.Millisecond}}}})
		servers = append(servers, s)
		cfg.Backends = append(cfg.Backends, spillover.Backend{Name: s.Name, URL: s.URL, Dialect: spillover.Azure, APIKey: "k", HeaderTimeout: header})
	}
	cfg.Base = spillovertest.Network(servers...)
	return configured(t, cfg), servers
}

func numbered(every int) func(*http.Request) bool {
	return func(r *http.Request) bool {
		var i int
		_, err := fmt.Sscan(r.Header.Get("X-Number"), &i)
		return err == nil && i%every == 0
	}
}

func TestOneOfFourFailsItsStreams(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]spillovertest.Fault{
		"error event":        {Kind: spillovertest.KindError},
		"cut before content": {Kind: spillovertest.KindCut},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, servers := fourEqual(t, 0)
				servers[0].Set(fault)
				var seen traffic
				seen.drive(t, tr)
				require.Equal(t, 1000, seen.whole)
				require.Less(t, servers[0].Stats().Requests, 40)
			})
		})
	}
}

func TestOneOfFourHangs(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]spillovertest.Fault{
		"without a header": {Kind: spillovertest.KindSilent},
		"after its header": {Kind: spillovertest.KindStall},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, servers := fourEqual(t, time.Second)
				servers[0].Set(fault)
				var seen traffic
				seen.drive(t, tr)
				require.Equal(t, 1000, seen.whole)
				require.LessOrEqual(t, servers[0].Stats().Requests, 20, "12 to 17 in 1200 runs")
				require.Less(t, seen.p99(), 1200*time.Millisecond)
				t.Logf("%d reached it, p99 of the first content %v", servers[0].Stats().Requests, seen.p99())
			})
		})
	}
}

// A request that fails everywhere is itself the suspect.
func TestPoisonedRequestsHarmNobodyElse(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]spillovertest.Fault{
		"500 after a while": {Status: 500, Body: `{"error":{"code":"500","message":"x"}}`, Delay: 50 * time.Millisecond},
		"500 in the stream": {Kind: spillovertest.KindError, Body: `{"type":"server_error","code":null,"message":"x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, servers := fourEqual(t, 0)
				fault.Match = numbered(20)
				for _, s := range servers {
					s.Set(fault)
				}
				var seen traffic
				seen.drive(t, tr)
				require.Equal(t, 950, seen.whole, "the innocent are all served")
				require.Equal(t, 50, seen.failed, "each poisoned one fails")
			})
		})
	}
}

func TestStreamsCutAfterContentConcernOnlyTheirCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, servers := fourEqual(t, 0)
		for _, s := range servers {
			s.Set(spillovertest.Fault{Kind: spillovertest.KindCut, After: 2, Match: numbered(20)})
		}
		var seen traffic
		seen.drive(t, tr)
		require.Equal(t, 950, seen.whole)
		require.Equal(t, 50, seen.partial)
	})
}

// An error event that comes after content is the caller's to see, and counts as
// the status that it stands for.
func TestErrorEventAfterContentCountsAsItsStatus(t *testing.T) {
	const content = `data: {"choices":[{"delta":{"content":"hi"}}]}` + "\n\n"
	for _, c := range []struct {
		name, event string
		reason      string
		least, most time.Duration
	}{
		{"throttle", `data: {"error":{"code":"rate_limit_exceeded","message":"Please retry after 7 seconds."}}` + "\n\n", "429 rate_limit_exceeded", 7 * time.Second, 7 * time.Second},
		{"quota", `data: {"error":{"code":"insufficient_quota"}}` + "\n\n", "429 insufficient_quota", 4 * time.Minute, 6 * time.Minute},
		{"a fault with a time", `data: {"error":{"code":"server_error","headers":{"retry-after":"9"}}}` + "\n\n", "500 server_error", 9 * time.Second, 9 * time.Second},
		{"a fault with a time and a status", `data: {"error":{"status":503,"headers":{"Retry-After-Ms":"1500"}}}` + "\n\n", "503", 1500 * time.Millisecond, 1500 * time.Millisecond},
		{"a mistake of the caller", `data: {"error":{"code":"content_filter"}}` + "\n\n", "", 0, 0},
		{"[DONE] behind it", `data: {"error":{"code":"rate_limit_exceeded","message":"Please retry after 7 seconds."}}` + "\n\ndata: [DONE]\n\n", "429 rate_limit_exceeded", 7 * time.Second, 7 * time.Second},
		{"no blank line", `data: {"error":{"code":"rate_limit_exceeded","message":"Please retry after 7 seconds."}}`, "429 rate_limit_exceeded", 7 * time.Second, 7 * time.Second},
		{"long before", strings.Repeat(content, 500) + `data: {"error":{"code":"rate_limit_exceeded","message":"Please retry after 7 seconds."}}` + "\n\n", "429 rate_limit_exceeded", 7 * time.Second, 7 * time.Second},
		{"none", "data: [DONE]\n\n", "", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				stream := status(200, content+c.event)
				n.On(host("a"), func(req *http.Request) (*http.Response, error) {
					resp, err := stream(req)
					resp.Header.Set("Content-Type", "text/event-stream")
					return resp, err
				})
				tr := balance(t, n, azure("a"))
				_, text := ask(t, tr)
				require.Equal(t, content+c.event, text, "every byte is passed")
				got := statusOf(t, tr, "a")
				require.Equal(t, c.reason, got.Reason)
				if c.most > 0 {
					require.GreaterOrEqual(t, time.Until(got.Until), c.least)
					require.LessOrEqual(t, time.Until(got.Until), c.most)
				}
			})
		})
	}
}

// What a caller reads is what was sent, wherever the stream was split and
// whatever it says; what failed instead is not lost either.
func FuzzStream(f *testing.F) {
	for _, text := range []string{
		"", testnet.WholeChat, strings.ReplaceAll(testnet.WholeChat, "\n", "\r\n"), strings.ReplaceAll(testnet.WholeChat, "\n", "\r"),
		testnet.ResponseCreated(9) + testnet.ResponseEvent("error", `,"error":{"type":"too_many_requests"}`),
		testnet.ResponseEvent("response.failed", ""), "event: error\ndata: x", "data: {\"choices\":[{\"delta\":", ": hi\n\n\n\ndata\n",
		testnet.ChatError(`{"code":"content_filter","status":400,"headers":{"retry-after":"x"}}`), "\r\r\r\n\n", testnet.DoneEvent,
		testnet.AzureFirst + testnet.RoleChunk[:40],
	} {
		f.Add(text, uint8(7), false)
		f.Add(text, uint8(200), true)
	}
	f.Fuzz(func(t *testing.T, text string, size uint8, whole bool) {
		pieces := []any{}
		for piece := range slices.Chunk([]byte(text), max(int(size), 1)) {
			pieces = append(pieces, string(piece))
		}
		n := newNet()
		n.On(host("one"), testnet.Plays(t, pieces...))
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("one", func(b *spillover.Backend) { b.IdleTimeout = time.Hour })}, HoldStreams: whole})
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		if err == nil {
			body, err := io.ReadAll(resp.Body)
			if err != nil { // a truncated stream
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				require.False(t, strings.HasSuffix(text, "\n\n"+testnet.DoneEvent), "it is complete")
			}
			require.NoError(t, resp.Body.Close())
			if resp.Header.Get("X-Spillover-Synthesized") == "" {
				require.Equal(t, text, string(body))
			}
		}
		require.Zero(t, streamsInFlight(tr))
	})
}

// Each event is the caller's at the moment it was sent.
func TestEventsAreNotDelayed(t *testing.T) {
	for op, events := range map[string][]string{
		chatPath:        {testnet.AzureFirst + testnet.RoleChunk, testnet.TokenChunk("a"), testnet.TokenChunk("b"), testnet.LastChunk + testnet.DoneEvent},
		completionsPath: {testnet.AzureFirst, `data: {"choices":[{"text":"a"}]}` + "\n\n", `data: {"choices":[{"text":"b"}]}` + "\n\n", testnet.DoneEvent},
		responsesPath: {testnet.ResponseCreated(9) + testnet.ResponseEvent("response.in_progress", "") + testnet.ResponseEvent("response.output_item.added", ""),
			testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`), testnet.ResponseEvent("response.output_text.delta", `,"delta":"b"`), testnet.ResponseEvent("response.completed", "")},
	} {
		synctest.Test(t, func(t *testing.T) {
			const gap = 100 * time.Millisecond
			n := newNet()
			n.On(host("one"), testnet.Plays(t, events[0], gap, events[1], gap, events[2], gap, events[3]))
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
		text := testnet.AzureFirst + testnet.RoleChunk + testnet.TokenChunk("a") + testnet.TokenChunk("b")[:20]
		n := newNet()
		n.On(host("one"), testnet.Plays(t, text, time.Hour, testnet.TokenChunk("b")[20:], testnet.DoneEvent))
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
	n.On(host("one"), testnet.Plays(t, testnet.WholeChat))
	const text = `{"stream":true,"messages":[]}`
	req := newChat(t, chatPath)
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	send(t, streamPair(t, n), req)
	require.Equal(t, text, n.Seen[0].Body)
}

// Bytes are the service's own: line endings, comments and all.
func TestStreamBytesAreIdentical(t *testing.T) {
	t.Parallel()
	crlf := strings.ReplaceAll(testnet.WholeChat, "\n", "\r\n")
	odd := ": keep-alive\n\n" + testnet.AzureFirst + "id: 1\nretry: 10\n\n" + testnet.RoleChunk + "data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"a\"}}]}\n\n" +
		":\r\n\n\n" + testnet.TokenChunk("\u2028ü\\\"") + "unknown: field\n\n" + testnet.DoneEvent + "what is behind"
	for name, text := range map[string]string{
		"as it is": testnet.WholeChat, "CRLF": crlf, "CR": strings.ReplaceAll(testnet.WholeChat, "\n", "\r"), "odd": odd,
		"no blank line at the end": strings.TrimSuffix(testnet.WholeChat, "\n\n"), "a mark first": "\ufeff" + testnet.WholeChat,
		"responses": testnet.ResponseCreated(46<<10) + testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`) + testnet.ResponseEvent("response.completed", ""),
	} {
		for _, whole := range []bool{false, true} {
			for _, size := range []int{1, 7, 4096, 1 << 20} {
				var pieces []any
				for piece := range slices.Chunk([]byte(text), max(size, len(text)/300)) {
					pieces = append(pieces, string(piece))
				}
				n := newNet()
				n.On(host("one"), testnet.Plays(t, pieces...))
				path := chatPath
				if name == "responses" {
					path = responsesPath
				}
				tr := streamPair(t, n, func(cfg *spillover.Config) { cfg.HoldStreams = whole })
				_, body := send(t, tr, newChat(t, path))
				require.True(t, body == text, "%s, hold %v, reads of %d", name, whole, size)
				require.Zero(t, streamsInFlight(tr))
				require.Equal(t, 1, n.Sends())
			}
		}
	}
}

// What is the caller's own mistake is handed over as it came.
func TestClientErrorInAStreamIsReturned(t *testing.T) {
	for name, events := range map[string]string{
		"content filter": testnet.AzureFirst + testnet.ChatError(`{"code":"content_filter","param":"prompt","type":null,"status":400,"message":"m"}`),
		"context length": testnet.ChatError(`{"type":"invalid_request_error","code":"context_length_exceeded","message":"m"}`),
		"invalid":        testnet.ResponseCreated(9) + testnet.ResponseEvent("error", `,"error":{"type":"invalid_request_error","code":null,"message":"m"}`),
		"prompt":         testnet.ResponseCreated(9) + testnet.ResponseEvent("response.failed", `,"response":{"error":{"code":"invalid_prompt","message":"m"}}`),
		"image":          testnet.ResponseCreated(9) + testnet.ResponseEvent("response.failed", `,"response":{"error":{"code":"image_too_large","message":"m"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, events, "\n: behind it\n"))
			tr := streamPair(t, n)
			resp, body := send(t, tr, newChat(t, responsesPath))
			require.Equal(t, events+"\n: behind it\n", body)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, 1, n.Sends())
			one := streamState(t, tr, "one")
			require.True(t, one.Available)
			require.Equal(t, []uint64{1, 0}, []uint64{one.Served, one.Failed})
			require.Zero(t, one.InFlight)
		})
	}
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
				n.On(host("one"), testnet.Plays(t, testnet.AzureFirst+testnet.RoleChunk+testnet.TokenChunk("a"), testnet.Forever{}))
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
			n.On(host("one"),
				broken(io.ErrUnexpectedEOF), broken(io.ErrUnexpectedEOF), // sent there twice
				testnet.Plays(t, testnet.AzureFirst, time.Millisecond, testnet.RoleChunk, testnet.Forever{}),
				testnet.Plays(t, testnet.WholeChat))
			n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
			tr := streamPair(t, n, func(cfg *spillover.Config) { cfg.HoldStreams = hold })
			ask(t, tr)
			time.Sleep(2 * time.Second) // until a probe is due

			cause := errors.New("enough")
			ctx, leave := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { leave(cause) })
			_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
			require.ErrorIs(t, err, cause)
			require.Zero(t, streamsInFlight(tr))
			one := streamState(t, tr, "one")
			require.EqualValues(t, 2, one.Failed, "those of before")

			resp, _ := ask(t, tr)
			require.Equal(t, "one", servedBy(resp), "the next is the probe")
		})
	}
}

// After the first content HeaderTimeout is over, with HoldStreams as well.
func TestHeaderTimeoutEndsWithContent(t *testing.T) {
	for _, hold := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, testnet.TokenChunk("a"), time.Hour, testnet.TokenChunk("b"), time.Hour, testnet.DoneEvent))
			tr := streamPair(t, n, streamTimeouts(time.Second, 0), func(cfg *spillover.Config) { cfg.HoldStreams = hold })
			begun := time.Now()
			resp, body := ask(t, tr)
			require.Equal(t, testnet.TokenChunk("a")+testnet.TokenChunk("b")+testnet.DoneEvent, body)
			require.Equal(t, 2*time.Hour, time.Since(begun))
			require.Equal(t, "one", servedBy(resp))
		})
	}
}

// When every deployment is silent the error tells that it was time.
func TestHeaderTimeoutEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, testnet.AzureFirst, testnet.Forever{}))
		n.On(host("two"), testnet.Plays(t, testnet.Forever{}))
		tr := streamPair(t, n, streamTimeouts(time.Second, 0))
		_, err := tr.RoundTrip(newChat(t, chatPath))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		require.Zero(t, streamsInFlight(tr))
	})
}

// A caller who does not read is no silence of the deployment's.
func TestASlowReaderIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, testnet.TokenChunk("a"), testnet.TokenChunk("b"), testnet.TokenChunk("c"), testnet.DoneEvent))
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
		require.Equal(t, testnet.TokenChunk("a")+testnet.TokenChunk("b")+testnet.TokenChunk("c")+testnet.DoneEvent, string(got))
		require.Zero(t, streamState(t, tr, "one").Failed)
	})
}

// HoldStreams: what is complete is handed over when it is, and without [DONE] too.
func TestHoldStreamsCommitsWhatIsWhole(t *testing.T) {
	tests := map[string][]any{
		"[DONE]":                  {testnet.WholeChat[:300], time.Second, testnet.WholeChat[300:]},
		"no [DONE]":               {testnet.TokenChunk("a"), time.Second, testnet.LastChunk},
		"no [DONE], usage":        {testnet.TokenChunk("a"), time.Second, testnet.LastChunk + testnet.UsageChunk},
		"cut after [DONE]":        {testnet.TokenChunk("a"), time.Second, testnet.LastChunk + testnet.DoneEvent},
		"completed":               {testnet.ResponseCreated(9), time.Second, testnet.ResponseEvent("response.completed", "")},
		"incomplete":              {testnet.ResponseCreated(9), time.Second, testnet.ResponseEvent("response.incomplete", "")},
		"content, filtered":       {testnet.AzureFirst, time.Second, `data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}` + "\n\n"},
		"choices of another form": {`data: {"choices":"a","text":"b"}` + "\n\n", time.Second, testnet.LastChunk},
		"no choices, but text":    {`data: {"text":"b"}` + "\n\n", time.Second, testnet.LastChunk},
		"two choices": {`data: {"choices":[{"index":0,"text":"a"},{"index":1,"text":"b"}]}` + "\n\n", time.Second,
			`data: {"choices":[{"index":0,"text":"","finish_reason":"stop"},{"index":1,"text":"","finish_reason":"stop"}]}` + "\n\n"},
		"two choices, apart": {`data: {"choices":[{"index":0,"text":"a"}]}` + "\n\n" + `data: {"choices":[{"index":1,"text":"b"}]}` + "\n\n", time.Second,
			`data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}` + "\n\n" + `data: {"choices":[{"index":1,"text":"","finish_reason":"stop"}]}` + "\n\n"},
	}
	for name, pieces := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("one"), testnet.Plays(t, pieces...))
				tr := streamPair(t, n, holdStreams, streamTimeouts(time.Minute, time.Minute))
				begun := time.Now()
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				require.NoError(t, err)
				require.Equal(t, time.Second, time.Since(begun), "when it is whole")
				require.Equal(t, pieces[0].(string)+pieces[2].(string), read(t, resp))
				require.Equal(t, "one", servedBy(resp))
				require.Equal(t, 1, n.Sends())
				require.Zero(t, streamsInFlight(tr))
			})
		})
	}
}

// When all fail the last real answer is the caller's, a stream as it came, and
// what was not chosen is closed.
func TestLastRealAnswerIsAStream(t *testing.T) {
	for _, hold := range []bool{false, true} {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, testnet.AzureFirst, testnet.ChatError(serverError), "one"))
		n.On(host("two"), testnet.Plays(t, testnet.AzureFirst+testnet.RoleChunk, testnet.ChatError(serverError), "two", testnet.Forever{}))
		tr := streamPair(t, n, func(cfg *spillover.Config) { cfg.HoldStreams = hold })
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, []string{"two", "3"}, []string{servedBy(resp), resp.Header.Get("X-Spillover-Attempts")}, "twice to one")
		require.Equal(t, 200, resp.StatusCode)
		want := testnet.AzureFirst + testnet.RoleChunk + testnet.ChatError(serverError) + "two"
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
		n.On(host("one"), testnet.Plays(t, http.Header{"Retry-After": {"7"}}, testnet.ResponseCreated(9), testnet.ResponseEvent("error", `,"error":`+azureThrottle)))
		n.On(host("two"), testnet.Plays(t, http.Header{"Retry-After": {"3"}}, testnet.ResponseCreated(9)))
		tr := streamPair(t, n)
		resp, body := send(t, tr, newChat(t, responsesPath))
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, []string{"3", "3000", "2", "true"}, []string{resp.Header.Get("Retry-After"), resp.Header.Get("Retry-After-Ms"),
			resp.Header.Get("X-Spillover-Attempts"), resp.Header.Get("X-Spillover-Synthesized")})
		require.Contains(t, body, "the soonest is two in 3.00s")
		require.Zero(t, streamsInFlight(tr))
	})
}

// The count that is told is the one that stands, from the stream that was
// handed over and no other.
func TestUsageIsCountedOnlyForTheReturnedStream(t *testing.T) {
	n := newNet()
	n.On(host("one"), testnet.Plays(t, testnet.TokenChunk("a"), testnet.UsageChunk, testnet.ChatError(serverError)))
	n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
	tr := streamPair(t, n, holdStreams)
	ask(t, tr)
	require.Zero(t, streamState(t, tr, "one").OutputTokens)
	require.EqualValues(t, 7, streamState(t, tr, "two").OutputTokens)
}

func TestStreamIsNotBuffered(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		r, w := io.Pipe()
		n.On(host("a"), func(req *http.Request) (*http.Response, error) {
			resp, err := testnet.Content("text/event-stream", "")(req)
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

func TestThrottleInsideAStreamFailsOver(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		n.On(host("a"), testnet.Content("text/event-stream", "event: response.created\ndata: {\"type\":\"response.created\"}\n\n"+
			"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"too_many_requests\",\"code\":\"rate_limit_exceeded\",\"message\":\"Please try again in 4s.\"}}\n\n"))
		resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m","stream":true}`))
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, 4*time.Second, left(t, tr, "a"))
	})
}

// out is for how long a deployment is left alone.
func out(s spillover.DeploymentStatus) time.Duration {
	if s.Available {
		return 0
	}
	return time.Until(s.Until)
}

const (
	completionsPath = "/openai/deployments/m/completions?api-version=2024-10-21"
	embeddingsPath  = "/openai/deployments/m/embeddings?api-version=2024-10-21"
	responsesPath   = "/openai/v1/responses"
)

// A deployment that breaks off every stream is left alone longer each time: that
// a stream began well is no success.
func TestBreakingOffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), withBody(200, func(*http.Request) io.ReadCloser {
			return io.NopCloser(io.MultiReader(strings.NewReader("half"), testnet.BrokenBody{Err: io.ErrUnexpectedEOF}))
		}))
		tr := balance(t, n, azure("a"))
		tr.SetRandom(func() uint64 { return 1 << 63 }) // no jitter
		for i, out := range []time.Duration{0, 2, 4, 8, 16, 30, 30} {
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			require.NoError(t, err)
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			until := statusOf(t, tr, "a").Until
			if i == 0 {
				require.Zero(t, until, "the first is ignored")
				continue
			}
			require.Equal(t, out*time.Second, time.Until(until))
			time.Sleep(time.Until(until))
		}
	})
}
