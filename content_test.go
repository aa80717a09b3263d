package spillover_test

import (
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
	"github.com/spillover-go/spillover/internal/wire"
)

// sayingAlso is a request whose body says more than that of newChat.
func sayingAlso(t testing.TB, path, members string) *http.Request {
	text := `{"model":"m","input":"hi"` + members + `}`
	req := newChat(t, path)
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	return req
}

const (
	imagesPath        = "/openai/v1/images/generations"
	speechPath        = "/openai/v1/audio/speech"
	transcriptionPath = "/openai/v1/audio/transcriptions"
)

func dataEvent(data string) string { return "data: " + data + "\n\n" }

// What only announces, repeats or keeps a connection is held: an error behind
// it still fails over.
func TestWhatCarriesNothingIsNotContent(t *testing.T) {
	refusal := testnet.ResponseEvent("error", `,"error":`+azureThrottle)
	for name, events := range map[string]string{
		"keepalive":              testnet.ResponseEvent("keepalive", ""),
		"ping":                   "event: ping\ndata: {\"type\":\"ping\"}\n\n",
		"ping, bare":             "event: ping\ndata: ping\n\n",
		"ping, empty":            "event: ping\ndata: {}\n\n",
		"heartbeat":              testnet.ResponseEvent("response.heartbeat", `,"timestamp":"2026-11-20T10:00:00Z"`),
		"heartbeat, for people":  `data: {"type":"status","message":"still working"}` + "\n\n",
		"heartbeat that echoes":  testnet.ResponseEvent("response.in_progress", `,"response":{"id":"resp_1","instructions":"x","output":[],"text":{"format":{"type":"text"}}}`),
		"comment":                ": OPENROUTER PROCESSING\n\n",
		"item, no summary":       testnet.ResponseEvent("response.output_item.added", `,"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[]}`),
		"item, encrypted so far": testnet.ResponseEvent("response.output_item.added", `,"output_index":0,"item":{"id":"rs_1","type":"reasoning","encrypted_content":"gAAA","summary":[]}`),
		"item, no content":       testnet.ResponseEvent("response.output_item.added", `,"item":{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","phase":"commentary","content":[]}`),
		"item, no code":          testnet.ResponseEvent("response.output_item.added", `,"item":{"id":"ci_1","type":"code_interpreter_call","status":"in_progress","code":"","container_id":"cntr_1","outputs":null}`),
		"item, no picture":       testnet.ResponseEvent("response.output_item.added", `,"item":{"id":"ig_1","type":"image_generation_call","status":"in_progress","result":null}`),
		"item, no tools":         testnet.ResponseEvent("response.output_item.added", `,"item":{"id":"mcpl_1","type":"mcp_list_tools","server_label":"docs","tools":[]}`),
		"item, done and empty":   testnet.ResponseEvent("response.output_item.done", `,"item":{"id":"rs_1","type":"reasoning","summary":[]}`),
		"part":                   testnet.ResponseEvent("response.content_part.added", `,"item_id":"msg_1","part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}`),
		"summary part":           testnet.ResponseEvent("response.reasoning_summary_part.added", `,"item_id":"rs_1","summary_index":0,"part":{"type":"summary_text","text":""}`),
		"delta":                  testnet.ResponseEvent("response.output_text.delta", `,"item_id":"msg_1","delta":"","logprobs":[{"token":"x"}],"obfuscation":"Wq3"`),
		"compacting":             testnet.ResponseEvent("compaction.compacting", `,"item_id":"cmp_1"`),
		"searching":              testnet.ResponseEvent("response.web_search_call.searching", `,"item_id":"ws_1","output_index":0`),
		"listing":                testnet.ResponseEvent("response.mcp_list_tools.in_progress", `,"item_id":"mcpl_1"`),
		"limits":                 `data: {"type":"codex.rate_limits","plan_type":"pro","rate_limits":{"primary":{"name":"5h"}}}` + "\n\n",
		"not yet known":          testnet.ResponseEvent("response.hologram.started", `,"item_id":"holo_1","status":"queued"`),
		"role":                   testnet.RoleChunk,
		"no choices":             testnet.AzureFirst,
		"usage":                  testnet.UsageChunk,
		"reason, empty":          dataEvent(`{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":""}]}`),
		"reason, null in quotes": dataEvent(`{"choices":[{"index":0,"delta":{"content":null},"finish_reason":"null"}]}`),
		"call without a name":    dataEvent(`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function"}]}}]}`),
		"audio announced":        dataEvent(`{"choices":[{"delta":{"audio":{"id":"audio_1","transcript":""}}}]}`),
		"filter":                 dataEvent(`{"choices":[{"index":0,"delta":{},"content_filter_results":{"hate":{"severity":"safe"}}}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("one"), testnet.Plays(t, http.Header{"Retry-After": {"4"}}, testnet.ResponseCreated(9), time.Second, events, time.Second, refusal))
				n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
				tr := streamPair(t, n)
				resp, body := send(t, tr, newChat(t, responsesPath))
				require.Equal(t, "two", servedBy(resp))
				require.Equal(t, testnet.WholeChat, body)
				require.Equal(t, 4*time.Second, out(streamState(t, tr, "one")))
			})
		})
	}
}

// What carries something is the caller's the moment it comes.
func TestWhatCarriesSomethingIsNotHeld(t *testing.T) {
	for name, test := range map[string]struct{ path, event string }{
		"text":               {responsesPath, testnet.ResponseEvent("response.output_text.delta", `,"item_id":"msg_1","delta":" ","obfuscation":"x"`)},
		"refusal":            {responsesPath, testnet.ResponseEvent("response.refusal.delta", `,"delta":"No"`)},
		"reasoning":          {responsesPath, testnet.ResponseEvent("response.reasoning_summary_text.delta", `,"delta":"Hm"`)},
		"arguments":          {responsesPath, testnet.ResponseEvent("response.function_call_arguments.delta", `,"delta":"{"`)},
		"call":               {responsesPath, testnet.ResponseEvent("response.output_item.added", `,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":""}`)},
		"code":               {responsesPath, testnet.ResponseEvent("response.code_interpreter_call_code.delta", `,"delta":"import"`)},
		"MCP":                {responsesPath, testnet.ResponseEvent("response.mcp_call_arguments.done", `,"arguments":"{}"`)},
		"part":               {responsesPath, testnet.ResponseEvent("response.content_part.done", `,"part":{"type":"output_text","text":"hi"}`)},
		"picture":            {responsesPath, testnet.ResponseEvent("response.image_generation_call.partial_image", `,"partial_image_b64":"iVBO"`)},
		"search, done":       {responsesPath, testnet.ResponseEvent("response.output_item.done", `,"item":{"id":"ws_1","type":"web_search_call","action":{"type":"search","query":"q"}}`)},
		"click, done":        {responsesPath, testnet.ResponseEvent("response.output_item.done", `,"item":{"id":"cu_1","type":"computer_call","call_id":"c","action":{"type":"click","x":1,"y":2}}`)},
		"wait, done":         {responsesPath, testnet.ResponseEvent("response.output_item.done", `,"item":{"id":"cu_1","type":"computer_call","call_id":"c","actions":[{"type":"wait"}]}`)},
		"reasoning, done":    {responsesPath, testnet.ResponseEvent("response.output_item.done", `,"item":{"id":"rs_1","type":"reasoning","encrypted_content":"gAAA","summary":[]}`)},
		"shell":              {responsesPath, testnet.ResponseEvent("response.shell_call_output_content.delta", `,"delta":{"stdout":"x","stderr":""}`)},
		"not yet known":      {responsesPath, testnet.ResponseEvent("response.hologram.delta", `,"hologram":"x"`)},
		"no JSON":            {responsesPath, "event: new\ndata: hello\n\n"},
		"broken JSON":        {responsesPath, dataEvent(`{"type":"response.created"`)},
		"chat":               {chatPath, testnet.TokenChunk("a")},
		"the second choice":  {chatPath, dataEvent(`{"choices":[{"index":0,"delta":{"content":""}},{"index":1,"delta":{"content":"a"}}]}`)},
		"call of a function": {chatPath, dataEvent(`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]}}]}`)},
		"chat's reasoning":   {chatPath, dataEvent(`{"choices":[{"delta":{"role":"assistant","content":"","reasoning_content":"Hm"}}]}`)},
		"chat's audio":       {chatPath, dataEvent(`{"choices":[{"delta":{"audio":{"id":"audio_1","data":"UklG"}}}]}`)},
		"reason":             {chatPath, testnet.LastChunk},
		"whole message":      {chatPath, dataEvent(`{"choices":[{"message":{"role":"assistant","content":"a"},"finish_reason":null}]}`)},
		"completion":         {completionsPath, dataEvent(`{"choices":[{"text":"a","finish_reason":null}]}`)},
		"partial image":      {imagesPath, dataEvent(`{"type":"image_generation.partial_image","b64_json":"iVBO","size":"1024x1024"}`)},
		"speech":             {speechPath, dataEvent(`{"type":"speech.audio.delta","audio":"UklG"}`)},
		"transcript":         {transcriptionPath, dataEvent(`{"type":"transcript.text.delta","delta":"hi"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				rest := "rest\n\n" + testnet.DoneEvent
				n.On(host("one"), testnet.Plays(t, test.event, time.Hour, rest))
				begun := time.Now()
				resp, err := streamPair(t, n).RoundTrip(newChat(t, test.path))
				require.NoError(t, err)
				require.Zero(t, time.Since(begun))
				require.Equal(t, test.event+rest, read(t, resp))
			})
		})
	}
}

// HeaderTimeout runs until the first content, however lively what comes before.
func TestHeartbeatsDoNotExtendHeaderTimeout(t *testing.T) {
	for name, beat := range map[string]string{"keepalive": testnet.ResponseEvent("keepalive", ""), "comment": ": hi\n\n", "role": testnet.RoleChunk} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pieces := []any{testnet.ResponseCreated(9)}
				for range 100 {
					pieces = append(pieces, time.Second, beat)
				}
				n := newNet()
				n.On(host("one"), testnet.Plays(t, pieces...))
				n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
				tr := streamPair(t, n, streamTimeouts(20*time.Second, 0))
				begun := time.Now()
				resp, _ := send(t, tr, newChat(t, responsesPath))
				require.Equal(t, "two", servedBy(resp))
				require.Equal(t, 20*time.Second, time.Since(begun))
				require.EqualValues(t, 1, streamState(t, tr, "one").Failed)
			})
		})
	}
}

// IdleTimeout is about content, too: heartbeats behind it do not extend it, with
// HoldStreams neither.
func TestHeartbeatsDoNotExtendIdleTimeout(t *testing.T) {
	for name, test := range map[string]struct {
		path, first, beat string
	}{
		"keepalive":   {responsesPath, testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`), testnet.ResponseEvent("keepalive", "")},
		"comment":     {chatPath, testnet.TokenChunk("a"), ": hi\n\n"},
		"empty delta": {chatPath, testnet.TokenChunk("a"), dataEvent(`{"choices":[{"index":0,"delta":{}}]}`)},
	} {
		for _, hold := range []bool{false, true} {
			t.Run(fmt.Sprint(name, hold), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					pieces := []any{test.first, 900 * time.Millisecond, test.first}
					for range 100 {
						pieces = append(pieces, 300*time.Millisecond, test.beat)
					}
					n := newNet()
					n.On(host("one"), testnet.Plays(t, pieces...))
					n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
					tr := streamPair(t, n, streamTimeouts(0, time.Second), func(cfg *spillover.Config) { cfg.HoldStreams = hold })
					begun := time.Now()
					resp, err := tr.RoundTrip(newChat(t, test.path))
					require.NoError(t, err)
					body, err := testnet.ReadAll(t, resp)
					require.Equal(t, 1900*time.Millisecond, time.Since(begun))
					require.EqualValues(t, 1, streamState(t, tr, "one").Failed)
					if hold {
						require.NoError(t, err)
						require.Equal(t, testnet.WholeChat, body)
						return
					}
					require.ErrorIs(t, err, spillover.ErrIdleTimeout)
					require.Equal(t, 1, n.Sends())
				})
			})
		}
	}
}

// A caller who reads slowly does not make heartbeats a silence.
func TestSlowReadersOfHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		text := testnet.TokenChunk("a") + strings.Repeat(": hi\n\n", 20) + testnet.TokenChunk("b") + testnet.DoneEvent
		pieces := []any{}
		for line := range strings.SplitAfterSeq(text, "\n\n") {
			pieces = append(pieces, line)
		}
		n.On(host("one"), testnet.Plays(t, pieces...))
		tr := streamPair(t, n, streamTimeouts(time.Second, time.Second))
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		got, p := "", make([]byte, 64)
		for err == nil {
			time.Sleep(time.Minute)
			var k int
			k, err = resp.Body.Read(p)
			got += string(p[:k])
		}
		require.Equal(t, io.EOF, err)
		require.Equal(t, text, got)
	})
}

// HoldStreams: a reason that is none does not complete an answer.
func TestHoldStreamsNeedsARealFinishReason(t *testing.T) {
	for _, reason := range []string{`""`, `"null"`, `null`} {
		n := newNet()
		half := dataEvent(`{"choices":[{"index":0,"delta":{"content":"half"},"finish_reason":` + reason + `}]}`)
		n.On(host("one"), testnet.Plays(t, half))
		n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
		_, body := ask(t, streamPair(t, n, holdStreams))
		require.Equal(t, testnet.WholeChat, body, reason)
	}
}

// HoldStreams holds streams of every kind until they are whole, and hands over
// whole what ends in a way that nobody knows.
func TestHoldStreamsOfOtherOperations(t *testing.T) {
	picture := dataEvent(`{"type":"image_generation.completed","b64_json":"iVBO"}`)
	partial := dataEvent(`{"type":"image_generation.partial_image","b64_json":"iVBO"}`)
	speech := dataEvent(`{"type":"speech.audio.delta","audio":"UklG"}`)
	for name, test := range map[string]struct {
		path, text string
		whole      bool
	}{
		"pictures":        {imagesPath, partial + picture + partial + picture, true},
		"half a picture":  {imagesPath, partial, false},
		"one of two":      {imagesPath, partial + picture + partial, false},
		"speech":          {speechPath, speech + dataEvent(`{"type":"speech.audio.done","usage":{"input_tokens":1}}`), true},
		"half a speech":   {speechPath, speech, false},
		"transcript":      {transcriptionPath, dataEvent(`{"type":"transcript.text.delta","delta":"a"}`) + dataEvent(`{"type":"transcript.text.done","text":"a"}`), true},
		"half transcript": {transcriptionPath, dataEvent(`{"type":"transcript.text.delta","delta":"a"}`), false},
		"of a new kind":   {speechPath, dataEvent(`{"type":"sound","wave":"UklG"}`), true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, test.text))
			n.On(host("two"), testnet.Plays(t, "data: two\n\n"))
			resp, body := send(t, streamPair(t, n, holdStreams), newChat(t, test.path))
			if test.whole {
				require.Equal(t, test.text, body)
				return
			}
			require.Equal(t, "two", servedBy(resp))
		})
	}
}

// The streams of all operations that leave nothing behind fail over alike.
func TestStreamsOfEveryStatelessOperationAreJudged(t *testing.T) {
	for path, first := range map[string]string{
		imagesPath:                "",
		"/openai/v1/images/edits": dataEvent(`{"type":"image_edit.partial_image","b64_json":"iVBO"}`),
		speechPath:                dataEvent(`{"type":"speech.audio.delta","audio":"UklG"}`),
		transcriptionPath:         dataEvent(`{"type":"transcript.text.delta","delta":"hi"}`),
	} {
		refusal := testnet.ChatError(`{"code":"rate_limit_exceeded","message":"Please retry after 7 seconds."}`)
		for name, end := range map[string]any{"error": refusal, "break": io.ErrUnexpectedEOF, "end": ""} {
			t.Run(path+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("one"), testnet.Plays(t, dataEvent(`{"type":"keepalive"}`), time.Second, end))
					n.On(host("two"), testnet.Plays(t, "data: two\n\n"))
					tr := streamPair(t, n)
					resp, _ := send(t, tr, newChat(t, path))
					require.Equal(t, "two", servedBy(resp), "before content it fails over")
					one := streamState(t, tr, "one")
					require.EqualValues(t, map[string]int{"error": 1, "break": 2, "end": 2}[name], one.Failed+one.Throttled, "after a broken stream it is sent there twice")
					if first == "" || end != refusal {
						return
					}
					n.On(host("one"), testnet.Plays(t, first, refusal))
					tr = streamPair(t, n)
					_, body := send(t, tr, newChat(t, path))
					require.Equal(t, first+refusal, body, "after content it is passed")
					require.Equal(t, 7*time.Second, out(streamState(t, tr, "one")), "and cools the deployment down")
				})
			})
		}
	}
}

// Audio that is not in events is no stream.
func TestPlainAudioIsNotJudged(t *testing.T) {
	for _, contentType := range []string{"audio/mpeg", "application/octet-stream", ""} {
		n := newNet()
		audio := "ID3\x04" + strings.Repeat("\x00\xffdata: {\"error\":{}}\n\n", 100)
		n.On(host("one"), status(200, audio, "Content-Type: "+contentType))
		n.On(host("one"), func(req *http.Request) (*http.Response, error) {
			resp, err := status(200, audio)(req)
			resp.Header = http.Header{"Content-Type": {contentType}}
			return resp, err
		})
		_, body := send(t, streamPair(t, n, holdStreams), sayingAlso(t, speechPath, ""))
		require.Equal(t, audio, body)
		require.Equal(t, 1, n.Sends())
	}
}

// Gateways leave out what type a stream is, or answer with a plain error.
func TestStreamsWithoutAContentTypeAreJudged(t *testing.T) {
	refusal := `{"error":{"code":"429","message":"Please retry after 6 seconds."}}`
	for name, test := range map[string]struct {
		contentType string
		pieces      []any
	}{
		"none":                    {"", []any{testnet.AzureFirst + testnet.RoleChunk, dataEvent(refusal)}},
		"text":                    {"text/plain; charset=utf-8", []any{dataEvent(refusal)}},
		"byte by byte":            {"", []any{"d", "a", "ta: ", refusal, "\n", "\n"}},
		"named":                   {"application/octet-stream", []any{"event: error\n" + dataEvent(refusal)}},
		"comment first":           {"", []any{": hi\n\n", dataEvent(refusal)}},
		"plain JSON":              {"", []any{refusal}},
		"plain JSON, as a stream": {"text/event-stream", []any{refusal}},
		"the same, in two reads":  {"Text/Event-Stream;charset=utf-8", []any{refusal[:20], refusal[20:] + "\n"}},
		"a mark first":            {"text/event-stream", []any{"\ufeff" + dataEvent(refusal)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("one"), testnet.Plays(t, append([]any{http.Header{"Content-Type": {test.contentType}}}, test.pieces...)...))
				n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
				tr := streamPair(t, n)
				resp, _ := send(t, tr, sayingAlso(t, chatPath, `,"stream":true`))
				require.Equal(t, "two", servedBy(resp))
				require.Equal(t, 6*time.Second, out(streamState(t, tr, "one")))
			})
		})
	}
	// What is well is passed as it comes, and JSON whole.
	for _, text := range []string{testnet.WholeChat, `{"choices":[{"message":{"content":"a"}}]}`, `{"data":[]}`, "d", "", "plain words"} {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, http.Header{"Content-Type": {""}}, text))
		n.On(host("two"), status(200, "two"))
		_, body := send(t, streamPair(t, n), sayingAlso(t, chatPath, `,"stream":false`))
		require.Equal(t, text, body)
	}
}

// Where nothing says that an answer is a stream, what only begins like one is
// the caller's whole: a text is no protocol.
func TestTextThatBeginsLikeEvents(t *testing.T) {
	contentType, form := writeForm(t, hostileFile, modelField)
	for _, text := range []string{"Hello there.", "", "\n", ":) said the speaker", "id: 7", "data:", "event: party\n\nretry: never\n\n", "{laughs} well", "{}", `{"text":""}`, "da", "\ufeffid"} {
		for _, header := range []http.Header{{"Content-Type": {"text/plain; charset=utf-8"}}, {"Content-Type": {""}}, {"Content-Type": {""}, "Retry-After": {"3"}}} {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, header, text))
			n.On(host("two"), status(200, "two"))
			tr := streamPair(t, n)
			resp, body := send(t, tr, formRequest(t, transcriptionPath, contentType, form))
			require.Equal(t, "one", servedBy(resp), text)
			require.Equal(t, text, body)
			harmlessAt(t, tr, "one")
		}
	}
	// What was asked for as a stream and has none of it did break off.
	for _, text := range []string{"", "\r\n", ": hi\n\n", "id: 7\n\n"} {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, http.Header{"Content-Type": {""}}, text))
		n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
		resp, _ := send(t, streamPair(t, n), sayingAlso(t, chatPath, `,"stream":true`))
		require.Equal(t, "two", servedBy(resp), text)
	}
	// What is neither is the caller's.
	for _, text := range []string{"plain words", "dat", "<html>"} {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, http.Header{"Content-Type": {"text/plain"}}, text))
		_, body := send(t, streamPair(t, n), sayingAlso(t, chatPath, `,"stream":true`))
		require.Equal(t, text, body)
	}
}

// A request that can be sent once only is not held: its caller needs the id.
func TestBackgroundStreamsAreHandedOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		created := strings.Replace(testnet.ResponseCreated(9), "resp_1", "resp_background", 1)
		n.On(host("one"), testnet.Plays(t, created, 45*time.Second, testnet.ResponseEvent("response.queued", ""), 45*time.Second, io.ErrUnexpectedEOF))
		tr := streamPair(t, n, holdStreams, streamTimeouts(20*time.Second, 10*time.Second))
		begun := time.Now()
		resp, err := tr.RoundTrip(sayingAlso(t, responsesPath, `,"background":true,"stream":true`))
		require.NoError(t, err)
		require.Zero(t, time.Since(begun))
		body, err := testnet.ReadAll(t, resp)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "a queue is no silence")
		require.Equal(t, created+testnet.ResponseEvent("response.queued", ""), body)
		require.Equal(t, 1, n.Sends())

		get, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://foo.openai.azure.com/openai/v1/responses/resp_background", nil)
		require.NoError(t, err)
		n.On(host("one"), status(200, `{}`))
		n.On(host("two"), status(404, `{}`))
		time.Sleep(time.Minute)
		resp, _ = send(t, tr, get)
		require.Equal(t, "one", servedBy(resp), "the id is remembered")
	})
}

// What refuses one before anything was made of it still fails over.
func TestBackgroundStreamRefusedAtOnce(t *testing.T) {
	n := newNet()
	n.On(host("one"), testnet.Plays(t, testnet.ResponseEvent("error", `,"error":`+azureThrottle)))
	n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
	resp, _ := send(t, streamPair(t, n), sayingAlso(t, responsesPath, `,"background":true,"stream":true`))
	require.Equal(t, "two", servedBy(resp))
}

// JSON that breaks off, or is none, is the caller's to see.
func TestBrokenEventsAreContent(t *testing.T) {
	for _, data := range []string{`{"a`, `{"type"`, `{"type"}`, `{"type":`, `{"type":"x"`, `{"error`, `{"choices":[{"delta":{"content":"`, `{"x" "y"}`, `[1`, `nul`, `"`, `{"choices":[`, `{"choices":{}}`} {
		kind, problem := wire.ClassifyEvent(nil, []byte(data))
		require.Equal(t, wire.Content, kind, data)
		require.Nil(t, problem)
		n := newNet()
		n.On(host("one"), testnet.Plays(t, testnet.AzureFirst, dataEvent(data)))
		n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
		resp, body := send(t, streamPair(t, n), newChat(t, chatPath))
		require.Equal(t, "one", servedBy(resp), data)
		require.Equal(t, testnet.AzureFirst+dataEvent(data), body)
	}
}

// Errors with a code that nobody knows are about the request, which was accepted.
func TestStreamErrorsAboutTheRequest(t *testing.T) {
	for _, code := range []string{"cyber_policy", "moderation_blocked", "content_policy_violation", "unsupported_parameter", "string_above_max_length",
		"invalid_function_parameters", "too_many_images", "generation_rejected", "unsupported_sample_rate"} {
		for form, event := range map[string]string{
			"failed": testnet.ResponseEvent("response.failed", `,"response":{"error":{"code":"`+code+`","message":"m"}}`),
			"flat":   "event: error\n" + dataEvent(`{"type":"error","code":"`+code+`","message":"m","param":null}`),
		} {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, testnet.ResponseCreated(9), event))
			tr := streamPair(t, n)
			_, body := send(t, tr, newChat(t, responsesPath))
			require.Equal(t, testnet.ResponseCreated(9)+event, body, code+form)
			require.Equal(t, 1, n.Sends())
			one := streamState(t, tr, "one")
			require.True(t, one.Available)
			require.Zero(t, one.Failed)
		}
	}
}

// An error after content counts, however long what echoes the request behind it.
func TestErrorAfterContentIsCountedHoweverLongTheEcho(t *testing.T) {
	echo := `"instructions":"` + strings.Repeat("x", 40<<10) + `"`
	first := testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`)
	refused := testnet.ResponseEvent("error", `,"error":`+azureThrottle)
	failedFirst := testnet.ResponseEvent("response.failed", `,"response":{"error":{"code":"rate_limit_exceeded"},`+echo+`}`)
	failedLast := testnet.ResponseEvent("response.failed", `,"response":{`+echo+`,"error":{"code":"rate_limit_exceeded"}}`)
	for name, events := range map[string]string{"both": refused + failedLast, "error before": failedFirst, "error behind": failedLast, "spaced": strings.ReplaceAll(failedFirst, `":`, `" : `)} {
		for _, size := range []int{64, 4 << 10, 1 << 20} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					pieces := []any{http.Header{"Retry-After": {"4"}}, first}
					for rest := events; rest != ""; {
						k := min(size, len(rest))
						pieces, rest = append(pieces, rest[:k]), rest[k:]
					}
					n.On(host("one"), testnet.Plays(t, pieces...))
					tr := streamPair(t, n)
					resp, err := tr.RoundTrip(newChat(t, responsesPath))
					require.NoError(t, err)
					body, err := io.ReadAll(resp.Body)
					require.NoError(t, err)
					require.True(t, first+events == string(body))
					one := streamState(t, tr, "one")
					require.Equal(t, 4*time.Second, out(one))
					for range 3 {
						_, err = resp.Body.Read(make([]byte, 1))
						require.Equal(t, io.EOF, err)
					}
					require.NoError(t, resp.Body.Close())
					require.Equal(t, one, streamState(t, tr, "one"), "reading on counts nothing again")
				})
			})
		}
	}
}

// SDKs close a stream as soon as they have read its error.
func TestErrorAfterContentCountsOnceAlthoughTheCallerCloses(t *testing.T) {
	n := newNet()
	n.On(host("one"), testnet.Plays(t, testnet.TokenChunk("a"), testnet.ChatError(serverError), testnet.Forever{}))
	tr := streamPair(t, n)
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.NoError(t, err)
	_, err = io.ReadFull(resp.Body, make([]byte, len(testnet.TokenChunk("a")+testnet.ChatError(serverError))))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	_, err = resp.Body.Read(make([]byte, 1))
	require.Error(t, err)
	require.EqualValues(t, 1, streamState(t, tr, "one").Failed)
}

// The end of an event is searched for once, however the event arrives.
func TestLongEventsAreReadInLinearTime(t *testing.T) {
	took := func(length, size int) time.Duration {
		text := dataEvent(`{"type":"image_generation.completed","b64_json":"` + strings.Repeat("A", length) + `"}`)
		least := time.Hour
		for range 5 {
			n := newNet()
			n.On(host("one"), func(req *http.Request) (*http.Response, error) {
				resp, err := status(200, "")(req)
				resp.Header.Set("Content-Type", "text/event-stream")
				r := strings.NewReader(text)
				resp.Body = io.NopCloser(testnet.ReaderFunc(func(p []byte) (int, error) { return r.Read(p[:min(len(p), size)]) }))
				return resp, err
			})
			begun := time.Now()
			_, body := send(t, streamPair(t, n, holdStreams), newChat(t, imagesPath))
			least = min(least, time.Since(begun))
			require.True(t, body == text)
		}
		return least
	}
	// Quadratic it would be 50 times as long for each byte.
	require.Less(t, took(7<<20, 4<<10), 10*56*took(128<<10, 4<<10))
	require.Less(t, took(240<<10, 64), 10*16*took(15<<10, 64))
	require.Less(t, took(240<<10, 64), 10*took(240<<10, 4<<10))
}

// An answer without a body has ended when it is handed over.
func TestAnswerWithoutABodyIsNotInFlight(t *testing.T) {
	n := newNet()
	n.On(host("one"), func(req *http.Request) (*http.Response, error) {
		resp, err := status(204, "")(req)
		resp.Body = http.NoBody
		return resp, err
	})
	tr := streamPair(t, n)
	resp, err := tr.RoundTrip(newChat(t, chatPath))
	require.NoError(t, err)
	require.Equal(t, http.NoBody, resp.Body)
	require.Zero(t, streamsInFlight(tr))
	require.EqualValues(t, 1, streamState(t, tr, "one").Served)
}

// What a service claims to have counted stays within reason.
func TestUsageBeyondReason(t *testing.T) {
	n := newNet()
	n.On(host("one"), status(200, `{"usage":{"prompt_tokens":9223372036854775807,"completion_tokens":9223372036854775807}}`))
	tr := streamPair(t, n)
	for range 20 {
		ask(t, tr)
	}
	one := streamState(t, tr, "one")
	require.Equal(t, int64(20*wire.MaxTokenCount), one.InputTokens)
	require.Equal(t, int64(20*wire.MaxTokenCount), one.OutputTokens)
}

// The quick look at an event that comes after the first content agrees with the
// thorough one.
func TestQuickLookAtContent(t *testing.T) {
	for _, event := range []string{
		testnet.TokenChunk("a"), testnet.TokenChunk(""), testnet.TokenChunk(`"`), testnet.RoleChunk, testnet.LastChunk, testnet.UsageChunk, testnet.AzureFirst, ": \"delta\":\"x\"\n\n",
		testnet.ResponseEvent("response.output_text.delta", `,"delta":"x"`), testnet.ResponseEvent("response.output_text.delta", `,"delta":""`),
		testnet.ResponseEvent("response.shell_call_output_content.delta", `,"delta":{"stdout":"x"}`), testnet.ResponseEvent("keepalive", ""),
		testnet.ResponseEvent("x", `,"sum_delta":3,"note":""`), dataEvent(`{"choices":[{"delta":{"content":null}}]}`), dataEvent(`{"choices":[{"delta": {"content": "a"}}]}`),
		dataEvent(`{"choices":[{"delta":{"content":"","reasoning_content":"a"}}]}`), dataEvent(`{"type":"speech.audio.delta","audio":"UklG"}`), dataEvent("null"), "data: hello\n\n",
	} {
		tone, _ := wire.ClassifyEvent(wire.ParseEvent([]byte(event)))
		require.Equal(t, tone == wire.Content, spillover.HasContent([]byte(event)), event)
	}
}
