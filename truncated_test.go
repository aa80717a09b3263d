package spillover_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
	"github.com/spillover-go/spillover/internal/wiretest"
)

// choiceChunk is an event of one choice of several. An empty reason stands for null.
func choiceChunk(index int, text, reason string) string {
	end := "null"
	if reason != "" {
		end = `"` + reason + `"`
	}
	return dataEvent(fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","choices":[{"index":%d,"delta":{"content":%q},"finish_reason":%s}]}`, index, text, end))
}

// callChunk is a part of a tool call of the choice 0.
func callChunk(index int, arguments string) string {
	return dataEvent(fmt.Sprintf(`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":%d,"id":"call_%d","type":"function","function":{"name":"f","arguments":%q}}]},"finish_reason":null}]}`, index, index, arguments))
}

const (
	calledChunk   = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}` + "\n\n"
	filteredChunk = `data: {"choices":[{"content_filter_offsets":{"check_offset":44},"content_filter_results":{"hate":{"filtered":false}},"finish_reason":null,"index":0}],"created":0,"id":"","model":"","object":""}` + "\n\n"
)

// The events of Anthropic's messages.
const (
	messagesPath  = "/anthropic/v1/messages"
	messageStart  = "event: message_start\n" + `data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":1}}}` + "\n\n"
	messageText   = "event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}` + "\n\n"
	messageReason = "event: message_delta\n" + `data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":7}}` + "\n\n"
	messageStop   = "event: message_stop\n" + `data: {"type":"message_stop"}` + "\n\n"
	messagePing   = "event: ping\n" + `data: {"type": "ping"}` + "\n\n"
	messageBlock  = "event: content_block_start\n" + `data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}` + "\n\n"
)

// A streamEnd is a stream with content that ends regularly.
type streamEnd struct {
	path, events string
}

// truncatedStreams end in the middle.
var truncatedStreams = map[string]streamEnd{
	"chat":                        {chatPath, testnet.AzureFirst + testnet.RoleChunk + testnet.TokenChunk("a") + testnet.TokenChunk("b")},
	"chat, first content":         {chatPath, testnet.TokenChunk("a")},
	"chat without an index":       {chatPath, dataEvent(`{"choices":[{"delta":{"content":"a"}}]}`)},
	"chat, with spaces":           {chatPath, dataEvent(`{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}`)},
	"chat with usage":             {chatPath, testnet.TokenChunk("a") + testnet.UsageChunk},
	"chat, empty reason":          {chatPath, testnet.TokenChunk("a") + choiceChunk(0, "b", "null") + dataEvent(`{"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":""}]}`)},
	"one of two choices":          {chatPath, choiceChunk(0, "a", "") + choiceChunk(1, "b", "") + choiceChunk(0, "", "stop")},
	"the other of two":            {chatPath, choiceChunk(0, "a", "") + choiceChunk(1, "b", "") + choiceChunk(1, "", "stop") + testnet.UsageChunk},
	"two choices, one without":    {chatPath, choiceChunk(0, "", "") + choiceChunk(1, "", "") + choiceChunk(1, "b", "stop")},
	"one of twelve choices":       {chatPath, choiceChunk(0, "a", "stop") + choiceChunk(11, "b", "")},
	"one of many choices":         {chatPath, choiceChunk(3, "a", "stop") + choiceChunk(4096, "b", "")},
	"tool calls":                  {chatPath, callChunk(0, `{"a":`) + callChunk(0, `1}`) + callChunk(1, `{"a":`)},
	"a finish reason in the text": {chatPath, testnet.TokenChunk(`"finish_reason":"stop"`) + testnet.TokenChunk(`data: [DONE]`)},
	"cut in an event":             {chatPath, testnet.TokenChunk("a") + testnet.TokenChunk("b")[:90]},
	"cut in the finish reason":    {chatPath, testnet.TokenChunk("a") + strings.TrimRight(testnet.LastChunk, "}]\n")},
	"cut in [DONE]":               {chatPath, testnet.TokenChunk("a") + "data: [DON"},
	"comments at the end":         {chatPath, testnet.TokenChunk("a") + ": keep-alive\n\n"},
	"completion":                  {completionsPath, dataEvent(`{"choices":[{"text":"a","index":0,"logprobs":null,"finish_reason":null}]}`)},
	"response":                    {responsesPath, testnet.ResponseCreated(9) + testnet.ResponseEvent("response.output_text.delta", `,"output_index":0,"delta":"a"`)},
	"response, text done":         {responsesPath, testnet.ResponseCreated(9) + testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`) + testnet.ResponseEvent("response.output_text.done", `,"text":"a"`)},
	"cut in the last event": {responsesPath, testnet.ResponseCreated(9) + testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`) +
		strings.TrimSuffix(testnet.ResponseEvent("response.completed", `,"response":{"id":"resp_1","usage":{"input_tokens":11}}`), "}\n\n")},
	"message":                 {messagesPath, messageStart + messagePing + messageBlock + messageText},
	"message, with a reason":  {messagesPath, messageStart + messageBlock + messageText + messageReason},
	"cut in the message stop": {messagesPath, messageStart + messageText + messageReason + messageStop[:40]},
	"speech":                  {speechPath, dataEvent(`{"type":"speech.audio.delta","audio":"UklG"}`)},
	"transcript":              {transcriptionPath, dataEvent(`{"type":"transcript.text.delta","delta":"hi"}`)},
	"image":                   {imagesPath, dataEvent(`{"type":"image_generation.completed","b64_json":"iVBO"}`) + dataEvent(`{"type":"image_generation.partial_image","b64_json":"iVBO"}`)},
}

// completeStreams lack something that many services send, and nothing else.
var completeStreams = map[string]streamEnd{
	"chat":                     {chatPath, testnet.WholeChat},
	"without [DONE]":           {chatPath, strings.TrimSuffix(testnet.WholeChat, testnet.DoneEvent)},
	"without [DONE], compact":  {chatPath, testnet.TokenChunk("a") + testnet.LastChunk},
	"reason with the last":     {chatPath, choiceChunk(0, "a", "") + choiceChunk(0, "b", "length")},
	"reason, with spaces":      {chatPath, testnet.TokenChunk("a") + dataEvent(`{"choices": [{"delta": {}, "index" : 0, "finish_reason" : "stop"}]}`)},
	"without a reason":         {chatPath, testnet.TokenChunk("a") + testnet.DoneEvent},
	"filter after the reason":  {chatPath, testnet.TokenChunk("a") + testnet.LastChunk + filteredChunk},
	"filter, usage":            {chatPath, testnet.TokenChunk("a") + testnet.LastChunk + filteredChunk + testnet.UsageChunk},
	"two choices":              {chatPath, choiceChunk(0, "a", "") + choiceChunk(1, "b", "") + choiceChunk(0, "", "stop") + choiceChunk(1, "", "length")},
	"two choices, one event":   {chatPath, dataEvent(`{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"},{"index":1,"delta":{"content":"a"},"finish_reason":"stop"}]}`)},
	"choices from 1":           {chatPath, choiceChunk(1, "a", "") + choiceChunk(1, "", "stop")},
	"many choices":             {chatPath, choiceChunk(0, "a", "stop") + choiceChunk(11, "b", "") + choiceChunk(127, "b", "") + choiceChunk(11, "", "stop") + choiceChunk(127, "", "stop")},
	"tool calls":               {chatPath, callChunk(0, "{}") + callChunk(1, "{}") + callChunk(2, "{}") + calledChunk},
	"no blank line":            {chatPath, testnet.TokenChunk("a") + strings.TrimSpace(testnet.LastChunk)},
	"[DONE], no blank line":    {chatPath, testnet.TokenChunk("a") + "data: [DONE]"},
	"[DONE] without a space":   {chatPath, testnet.TokenChunk("a") + "data:[DONE]\n\n"},
	"[DONE] and a space":       {chatPath, testnet.TokenChunk("a") + "data: [DONE] \n\n"},
	"[DONE] with an id":        {chatPath, testnet.TokenChunk("a") + "data: [DONE]\nid: 9\n\n"},
	"comments":                 {chatPath, ": a\n\n" + testnet.TokenChunk("a") + ": b\n\n" + testnet.LastChunk + ": c\n\n"},
	"a comment in an event":    {chatPath, testnet.TokenChunk("a") + ": b\n" + strings.TrimSuffix(testnet.LastChunk, "\n") + ": c\n\n"},
	"usage that breaks off":    {chatPath, testnet.TokenChunk("a") + dataEvent(`{"choices":[],"usage":{`) + testnet.LastChunk},
	"completion":               {completionsPath, dataEvent(`{"choices":[{"text":"a","index":0,"finish_reason":null}]}`) + dataEvent(`{"choices":[{"text":"","index":0,"finish_reason":"stop"}]}`)},
	"response":                 {responsesPath, testnet.ResponseCreated(9) + testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`) + testnet.ResponseEvent("response.completed", `,"response":{}`)},
	"incomplete response":      {responsesPath, testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`) + testnet.ResponseEvent("response.incomplete", `,"response":{}`)},
	"response, no blank line":  {responsesPath, testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`) + strings.TrimSpace(testnet.ResponseEvent("response.completed", `,"response":{}`))},
	"response with [DONE]":     {responsesPath, testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`) + testnet.DoneEvent},
	"speech":                   {speechPath, dataEvent(`{"type":"speech.audio.delta","audio":"UklG"}`) + dataEvent(`{"type":"speech.audio.done"}`)},
	"transcript":               {transcriptionPath, dataEvent(`{"type":"transcript.text.delta","delta":"hi"}`) + dataEvent(`{"type":"transcript.text.done","text":"hi"}`)},
	"images":                   {imagesPath, strings.Repeat(dataEvent(`{"type":"image_generation.partial_image"}`)+dataEvent(`{"type":"image_generation.completed","b64_json":"iVBO"}`), 2)},
	"image":                    {imagesPath, dataEvent(`{"type":"image_generation.partial_image","b64_json":"iVBO"}`) + dataEvent(`{"type":"image_generation.completed","b64_json":"iVBO"}`)},
	"message":                  {messagesPath, messageStart + messagePing + messageBlock + messageText + messageReason + messageStop},
	"message without content":  {messagesPath, messageStart + messagePing + messageReason + messageStop},
	"message and pings":        {messagesPath, messageStart + messageText + messageReason + messageStop + messagePing},
	"message with [DONE]":      {messagesPath, messageStart + messageText + messageReason + testnet.DoneEvent},
	"message without a start":  {chatPath, "event: content_block_delta\n" + dataEvent(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}`)},
	"events that no one knows": {chatPath, "data: hello\n\n" + dataEvent(`{"text":"a"}`)},
}

// forms are how the same events may arrive.
func (s streamEnd) forms(t testing.TB) map[string][]any {
	pieces := func(texts ...string) (all []any) {
		for _, text := range texts {
			all = append(all, text)
		}
		return all
	}
	var small []string
	for piece := range slices.Chunk([]byte(s.events), 7) {
		small = append(small, string(piece))
	}
	return map[string][]any{
		"at once":      pieces(s.events),
		"by event":     pieces(strings.SplitAfter(s.events, "\n\n")...),
		"in pieces":    pieces(small...),
		"CR LF":        pieces(strings.SplitAfter(strings.ReplaceAll(s.events, "\n", "\r\n"), "\r\n\r\n")...),
		"CR":           pieces(strings.ReplaceAll(s.events, "\n", "\r")),
		"compressed":   append([]any{http.Header{"Content-Encoding": {"gzip"}}}, pieces(wiretest.Compress(t, "gzip", s.events)...)...),
		"without type": append([]any{http.Header{"Content-Type": {"text/plain"}}}, pieces(s.events)...),
	}
}

// A stream that ends regularly, but in the middle, ends with an error for the caller,
// who could not know it otherwise. It counts as a stream that breaks off. With
// HoldStreams it fails over.
func TestTruncatedStreamEndsWithAnError(t *testing.T) {
	for name, test := range truncatedStreams {
		for form, pieces := range test.forms(t) {
			t.Run(name+"/"+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for _, idle := range []time.Duration{0, time.Minute} {
						n := newNet()
						n.On(host("one"), testnet.Plays(t, pieces...))
						n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
						tr := streamPair(t, n, streamTimeouts(idle, idle))
						resp, err := tr.RoundTrip(streaming(t, test.path))
						require.NoError(t, err)
						require.Equal(t, "one", servedBy(resp))
						body, err := testnet.ReadAll(t, resp)
						require.ErrorIs(t, err, io.ErrUnexpectedEOF)
						require.ErrorContains(t, err, "spillover: the stream ended before it was complete")
						require.Equal(t, joined(pieces), body, "every byte is passed on")
						one := streamState(t, tr, "one")
						require.EqualValues(t, 1, one.Failed)
						require.Equal(t, "answer broke off", one.LastFailure.Reason)
						if test.path == chatPath {
							require.Equal(t, 1, testnet.Failures(heldAgainst(t, tr, "one")))
						}
						require.Zero(t, streamsInFlight(tr))
					}

					n := newNet()
					n.On(host("one"), testnet.Plays(t, pieces...))
					n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
					tr := streamPair(t, n, holdStreams)
					resp, body := send(t, tr, streaming(t, test.path))
					require.Equal(t, "two", servedBy(resp))
					require.Equal(t, testnet.WholeChat, body)
				})
			})
		}
	}
}

// A complete stream ends without an error, whatever it lacks.
func TestCompleteStreamEndsWithoutAnError(t *testing.T) {
	for name, test := range completeStreams {
		for form, pieces := range test.forms(t) {
			t.Run(name+"/"+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for _, change := range []func(*spillover.Config){holdStreams, streamTimeouts(0, 0), streamTimeouts(time.Minute, time.Minute)} {
						n := newNet()
						n.On(host("one"), testnet.Plays(t, pieces...))
						tr := streamPair(t, n, change)
						resp, body := send(t, tr, streaming(t, test.path))
						require.Equal(t, "one", servedBy(resp))
						require.Equal(t, joined(pieces), body)
						require.Zero(t, streamState(t, tr, "one").LastFailure)
						require.Zero(t, streamsInFlight(tr))
					}
				})
			})
		}
	}
}

// An event of which the beginning alone is examined, and events that no blank line
// separates, do not show whether the stream is complete.
func TestCompleteStreamOfLargeEventsEndsWithoutAnError(t *testing.T) {
	large := strings.Repeat("x", 2*wire.MaxEvent)
	for name, test := range map[string]streamEnd{
		"image, type last":    {imagesPath, dataEvent(`{"type":"image_edit.partial_image","b64_json":"iVBO"}`) + dataEvent(`{"b64_json":"`+large+`","type":"image_edit.completed"}`)},
		"images, type last":   {imagesPath, dataEvent(`{"b64_json":"`+large+`","type":"image_edit.partial_image"}`) + dataEvent(`{"b64_json":"`+large+`","type":"image_edit.completed"}`)},
		"response, type last": {responsesPath, testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`) + dataEvent(`{"response":{"text":"`+large+`"},"type":"response.completed"}`)},
		"chat in one event":   {chatPath, testnet.TokenChunk("a") + choiceChunk(0, large, "stop")},
		"chat in one line":    {chatPath, strings.ReplaceAll(strings.Repeat(testnet.TokenChunk("a"), 4000)+testnet.LastChunk, "\n\n", "\n")},
		"no blank line":       {chatPath, testnet.TokenChunk("a") + strings.TrimSpace(choiceChunk(0, large, "stop"))},
	} {
		t.Run(name, func(t *testing.T) {
			var pieces []any
			for piece := range slices.Chunk([]byte(test.events), 32<<10) {
				pieces = append(pieces, string(piece))
			}
			for _, change := range []func(*spillover.Config){holdStreams, streamTimeouts(0, 0)} {
				for _, pieces := range [][]any{pieces, {test.events}} {
					n := newNet()
					n.On(host("one"), testnet.Plays(t, pieces...))
					tr := streamPair(t, n, change)
					resp, body := send(t, tr, streaming(t, test.path))
					require.Equal(t, "one", servedBy(resp))
					require.Len(t, body, len(test.events))
					require.Zero(t, streamState(t, tr, "one").LastFailure)
				}
			}
		})
	}
}

// A truncated stream is noticed if its kind shows at the beginning of a large event.
func TestTruncatedStreamOfLargeEventsEndsWithAnError(t *testing.T) {
	n := newNet()
	n.On(host("one"), testnet.Plays(t, dataEvent(`{"type":"image_edit.partial_image","b64_json":"`+strings.Repeat("x", 2*wire.MaxEvent)+`"}`)))
	resp, err := streamPair(t, n).RoundTrip(streaming(t, imagesPath))
	require.NoError(t, err)
	_, err = testnet.ReadAll(t, resp)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// streaming is a request for a stream.
func streaming(t testing.TB, path string) *http.Request { return sayingAlso(t, path, `,"stream":true`) }

func joined(pieces []any) string {
	var b strings.Builder
	for _, piece := range pieces {
		if text, ok := piece.(string); ok {
			b.WriteString(text)
		}
	}
	return b.String()
}

// A passed stream ends with an error exactly if the same stream fails over when it is
// held.
func TestHeldAndPassedStreamsAgree(t *testing.T) {
	events := []string{
		testnet.AzureFirst, testnet.RoleChunk, testnet.TokenChunk("a"), testnet.LastChunk, testnet.UsageChunk, filteredChunk, testnet.DoneEvent, ": comment\n\n", "data: text\n\n", callChunk(1, "{}"), calledChunk,
		choiceChunk(0, "a", "stop"), choiceChunk(1, "a", ""), choiceChunk(1, "", "stop"), choiceChunk(2, "", ""), choiceChunk(12, "", "stop"),
		dataEvent(`{"choices":[{"text":"a"}]}`), dataEvent(`{"choices":[{"index":1,"delta":{}},{"index":0,"finish_reason":"stop"}]}`), dataEvent(`{"choices":{}}`),
		dataEvent(`{"choices": [{"finish_reason": "stop", "index": 3, "delta": {"content": "a"}}]}`), dataEvent(`{"usage":{"a`), dataEvent(`{"choices":[],"usage":{"a":`),
		testnet.ResponseCreated(9), testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`), testnet.ResponseEvent("response.completed", `,"response":{}`), testnet.ChatError(serverError),
		dataEvent(`{"type":"image_edit.partial_image","b64_json":"iVBO"}`), dataEvent(`{"type":"image_edit.completed","b64_json":"iVBO"}`),
	}
	rapid.Check(t, func(rt *rapid.T) {
		text := testnet.TokenChunk("first") + strings.Join(rapid.SliceOfN(rapid.SampledFrom(events), 0, 12).Draw(rt, "events"), "")
		if rapid.IntRange(0, 2).Draw(rt, "cut") == 0 {
			text = text[:rapid.IntRange(len(testnet.TokenChunk("first")), len(text)).Draw(rt, "length")]
		}
		text = strings.ReplaceAll(text, "\n", rapid.SampledFrom([]string{"\n", "\n", "\r\n", "\r"}).Draw(rt, "line end"))
		var pieces []any
		for piece := range slices.Chunk([]byte(text), rapid.SampledFrom([]int{1, 10, 100, 1000, 1 << 20}).Draw(rt, "piece")) {
			pieces = append(pieces, string(piece))
		}
		outcome := func(change func(*spillover.Config)) (by, body string, err error) {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, pieces...))
			n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
			resp, err := streamPair(t, n, change).RoundTrip(newChat(t, chatPath))
			require.NoError(rt, err)
			body, err = testnet.ReadAll(t, resp)
			return servedBy(resp), body, err
		}
		held, body, err := outcome(holdStreams)
		require.NoError(rt, err)
		idle := rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(rt, "idle")
		by, passed, err := outcome(streamTimeouts(idle, idle))
		require.Equal(rt, "one", by)
		require.Equal(rt, text, passed)
		failed := strings.Contains(passed, `"error":`) // the caller sees that
		require.True(rt, failed || (err != nil) == (held == "two"), "%v, and held: %s", err, held)
		if held == "one" {
			require.Equal(rt, text, body)
		}
	})
}

// What is not known to be a stream, or cannot be read, or was ended by the caller, is not
// judged.
func TestEndThatCannotBeJudged(t *testing.T) {
	cut := testnet.AzureFirst + testnet.RoleChunk + testnet.TokenChunk("a")
	compressed := wiretest.Compress(t, "gzip", cut, testnet.LastChunk)
	contentType, form := writeForm(t, hostileFile, modelField)
	for name, test := range map[string]struct {
		request *http.Request
		pieces  []any
	}{
		"text without a stream requested": {formRequest(t, transcriptionPath, contentType, form), []any{http.Header{"Content-Type": {"text/plain"}}, cut}},
		"unknown encoding":                {newChat(t, chatPath), []any{http.Header{"Content-Encoding": {"br"}}, cut}},
		"corrupt":                         {newChat(t, chatPath), []any{http.Header{"Content-Encoding": {"gzip"}}, compressed[0], "corrupt", compressed[1]}},
		"not compressed":                  {newChat(t, chatPath), []any{http.Header{"Content-Encoding": {"gzip"}}, cut}},
		"no stream":                       {newChat(t, chatPath), []any{http.Header{"Content-Type": {"application/json"}}, `{"choices":[{"index":0,"finish_reason":null}]}`}},
		"the items of a response":         {with(t, "GET /openai/v1/responses/resp_1/input_items "), []any{testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`)}},
		"a run":                           {with(t, `POST /openai/v1/threads/thread_1/runs {"assistant_id":"a","stream":true}`), []any{"event: thread.run.created\n" + dataEvent(`{"id":"run_1"}`)}},
	} {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, test.pieces...))
		tr := streamPair(t, n)
		_, body := send(t, tr, test.request)
		require.Equal(t, joined(test.pieces), body, name)
		require.Zero(t, streamState(t, tr, "one").LastFailure, name)
	}

	for _, left := range []int{0, 1, len(testnet.TokenChunk("b"))} {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, cut, testnet.TokenChunk("b")))
		tr := streamPair(t, n)
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		_, err = io.ReadFull(resp.Body, make([]byte, len(cut)+left))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Zero(t, streamState(t, tr, "one").LastFailure, "the caller has closed it")
	}
}

// The error comes with the last byte where the end does, and stays.
func TestErrorOfATruncatedStreamStays(t *testing.T) {
	for _, reader := range []func(io.Reader) io.Reader{iotest.DataErrReader, iotest.OneByteReader, iotest.HalfReader} {
		n := newNet()
		n.On(host("one"), func(req *http.Request) (*http.Response, error) {
			resp, err := testnet.Content("text/event-stream", "")(req)
			resp.Body = io.NopCloser(reader(strings.NewReader(testnet.TokenChunk("a") + testnet.TokenChunk("b"))))
			return resp, err
		})
		tr := streamPair(t, n)
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Equal(t, testnet.TokenChunk("a")+testnet.TokenChunk("b"), string(text))
		for range 2 {
			_, err = resp.Body.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
		require.NoError(t, resp.Body.Close())
		require.EqualValues(t, 1, streamState(t, tr, "one").Failed, "once")
	}
}

// A background response is delivered from its first event. If its stream ends before the
// response does, the caller gets an error.
func TestTruncatedStreamOfABackgroundResponse(t *testing.T) {
	created := testnet.ResponseCreated(9)
	for _, events := range []string{created, created + testnet.ResponseEvent("response.queued", `,"response":{}`), created + testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`)} {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, events))
		resp, err := streamPair(t, n).RoundTrip(sayingAlso(t, responsesPath, `,"stream":true,"background":true`))
		require.NoError(t, err)
		body, err := testnet.ReadAll(t, resp)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Equal(t, events, body)
	}
}

// The stream of a stored response is judged only by its end: an error in it is that of
// the stored response, not of the deployment.
func TestStreamOfAStoredResponse(t *testing.T) {
	created, delta := testnet.ResponseCreated(9), testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`)
	failed := testnet.ResponseEvent("response.failed", `,"response":{"error":{"code":"server_error","message":"m"}}`)
	for events, complete := range map[string]bool{
		created: false, created + delta: false, delta: false, created + delta + testnet.ResponseEvent("response.output_text.done", `,"text":"a"`): false,
		"": true, created + delta + testnet.ResponseEvent("response.completed", `,"response":{}`): true, testnet.ResponseEvent("response.incomplete", `,"response":{}`): true,
		created + failed: true, failed: true, created + delta + testnet.ChatError(serverError): true, delta + testnet.DoneEvent: true,
	} {
		for _, pieces := range [][]any{{events}, {events[:len(events)/2], events[len(events)/2:]}} {
			for _, change := range []func(*spillover.Config){holdStreams, streamTimeouts(time.Minute, time.Minute)} {
				n := newNet()
				n.On(host("one"), testnet.Plays(t, pieces...))
				tr := streamPair(t, n, change)
				resp, err := tr.RoundTrip(with(t, "GET /openai/v1/responses/resp_1?stream=true "))
				require.NoError(t, err)
				body, err := testnet.ReadAll(t, resp)
				require.Equal(t, events, body)
				require.Equal(t, 1, n.Sends(), "it is not held")
				if complete {
					require.NoError(t, err, events)
					require.Zero(t, streamState(t, tr, "one").LastFailure, events)
					continue
				}
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, events)
				require.Equal(t, "answer broke off", streamState(t, tr, "one").LastFailure.Reason)
			}
		}
	}
}

// In the stream of a stored response that is not complete at the service yet, each event
// ends a silence: there may be no content for a long time.
func TestStreamOfAQueuedResponseIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pieces := []any{testnet.ResponseCreated(9)}
		for range 5 {
			pieces = append(pieces, 40*time.Second, testnet.ResponseEvent("response.queued", `,"response":{}`), 40*time.Second, ": wait\n\n")
		}
		pieces = append(pieces, testnet.ResponseEvent("response.completed", `,"response":{}`))
		n := newNet()
		n.On(host("one"), testnet.Plays(t, pieces...))
		_, body := send(t, streamPair(t, n, streamTimeouts(time.Minute, time.Minute)), with(t, "GET /openai/v1/responses/resp_1?stream=true "))
		require.Equal(t, joined(pieces), body)
	})
}

// A resource that does not have a stored object has not failed: neither the search for
// the object nor its end is in Status.
func TestSearchForAnObjectIsNoFailure(t *testing.T) {
	missing := status(404, `{"error":{"type":"invalid_request_error","message":"Response with id 'resp_1' not found."}}`)
	for _, second := range []roundTripFunc{missing, status(200, `{"id":"resp_1"}`)} {
		n := newNet()
		n.On(host("one"), missing)
		n.On(host("two"), second)
		tr := streamPair(t, n)
		for range 2 {
			send(t, tr, with(t, "GET /openai/v1/responses/resp_1 "))
		}
		for _, tier := range tr.Status().Tiers {
			require.Zero(t, tier.Backends[0].LastFailure)
		}
	}
}

// A response without a stream that is cut after its header ends with an error, and the
// request is not sent again: a part of the response is with the caller.
func TestCutResponseWithoutAStream(t *testing.T) {
	const whole = `{"choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}`
	for _, chunked := range []bool{false, true} {
		for _, timeout := range []time.Duration{0, time.Minute} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if !chunked {
					w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
				}
				_, _ = io.WriteString(w, whole[:40])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}))
			defer server.Close()
			tr := configured(t, spillover.Config{Backends: []spillover.Backend{to(server.URL, spillover.OpenAI, "", func(b *spillover.Backend) { b.HeaderTimeout, b.IdleTimeout = timeout, timeout })}})
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			require.NoError(t, err)
			body, err := testnet.ReadAll(t, resp)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.Equal(t, whole[:40], body)
			require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
			require.Equal(t, "answer broke off", tr.Status().Tiers[0].Backends[0].Deployments[0].LastFailure.Reason)
			require.NoError(t, tr.Close())
		}
	}
}
