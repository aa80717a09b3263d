package wire

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// splitEvent returns the length of the first complete event of a text, or 0.
func splitEvent(text []byte) int {
	var c eventSplitter
	n, whole := c.next(text)
	if !whole {
		return 0
	}
	return n
}

// splitAll returns the complete events of a text, and the rest.
func splitAll(text string) (events []string, rest string) {
	for {
		n := splitEvent([]byte(text))
		if n == 0 {
			return events, text
		}
		events, text = append(events, text[:n]), text[n:]
	}
}

func TestEventsEndAtBlankLines(t *testing.T) {
	tests := map[string]struct {
		text   string
		events []string
		rest   string
	}{
		"nothing":           {"", nil, ""},
		"LF":                {"data: 1\n\ndata: 2\n\n", []string{"data: 1\n\n", "data: 2\n\n"}, ""},
		"CRLF":              {"data: 1\r\n\r\ndata: 2\r\n\r\n", []string{"data: 1\r\n\r\n", "data: 2\r\n\r\n"}, ""},
		"CR":                {"data: 1\r\rdata: 2\r\r", []string{"data: 1\r\r"}, "data: 2\r\r"},
		"mixed":             {"event: a\rdata: 1\r\n\ndata: 2\n\r\n", []string{"event: a\rdata: 1\r\n\n", "data: 2\n\r\n"}, ""},
		"several lines":     {": hi\nevent: e\ndata: 1\ndata: 2\n\n", []string{": hi\nevent: e\ndata: 1\ndata: 2\n\n"}, ""},
		"unfinished line":   {"data: 1", nil, "data: 1"},
		"unfinished event":  {"data: 1\n", nil, "data: 1\n"},
		"half a CRLF":       {"data: 1\r\n\r", nil, "data: 1\r\n\r"},
		"blank lines first": {"\n\r\ndata: 1\n\n", []string{"\n", "\r\n", "data: 1\n\n"}, ""},
		"no event":          {"\n", []string{"\n"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			events, rest := splitAll(test.text)
			require.Equal(t, test.events, events)
			require.Equal(t, test.rest, rest)
		})
	}
}

// However a stream is split into reads, its events are the same and no byte is lost.
func TestEventsAreSplitHoweverTheyArrive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SampledFrom([]string{"", "", "data: {}", "data: [DONE]", ": comment", "event: error", "data:", "\xff", "\x00"})
		end := rapid.SampledFrom([]string{"\n", "\r\n", "\r"})
		var text strings.Builder
		for range rapid.IntRange(0, 20).Draw(t, "lines") {
			text.WriteString(line.Draw(t, "line") + end.Draw(t, "end"))
		}
		want, rest := splitAll(text.String())
		require.Equal(t, text.String(), strings.Join(want, "")+rest)

		var got []string
		held := ""
		for unread := text.String(); unread != ""; {
			n := rapid.IntRange(1, len(unread)).Draw(t, "read")
			var events []string
			events, held = splitAll(held + unread[:n])
			got, unread = append(got, events...), unread[n:]
		}
		require.Equal(t, want, got)
		require.Equal(t, rest, held)
	})
}

func TestParseEvent(t *testing.T) {
	tests := map[string]struct{ event, name, data string }{
		"data alone":      {"data: {}\n\n", "", "{}"},
		"no space":        {"data:{}\n\n", "", "{}"},
		"only one space":  {"data:  x\n\n", "", " x"},
		"a name":          {"event: error\ndata: {}\n\n", "error", "{}"},
		"name behind":     {"data: {}\r\nevent:error\r\n\r\n", "error", "{}"},
		"several lines":   {"data: 1\ndata: 2\rdata: 3\n\n", "", "1\n2\n3"},
		"comment":         {": data: 1\n\n", "", ""},
		"other fields":    {"id: 7\nretry: 10\ndatas: 1\ndata: 2\n\n", "", "2"},
		"no colon":        {"data\nevent\n\n", "", ""},
		"colon in value":  {"data: a:b\n\n", "", "a:b"},
		"no end":          {"data: {}", "", "{}"},
		"nothing but end": {"\n", "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			event := []byte(test.event)
			name, data := ParseEvent(event)
			require.Equal(t, []string{test.name, test.data}, []string{string(name), string(data)})
			require.Equal(t, test.event, string(event), "what was read is not changed")
		})
	}
}

func TestClassifyEvent(t *testing.T) {
	chunk := func(choice string) string { return `{"id":"1","choices":[` + choice + `]}` }
	tests := map[string]struct {
		name, data string
		want       EventKind
		problem    string
	}{
		// Comments, and what servers send to keep a connection.
		"nothing": {"", "", Preamble, ""},
		"spaces":  {"", "  ", Preamble, ""},

		"Azure's first":     {"", `{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}`, Preamble, ""},
		"the early filter":  {"", `{"choices":[],"prompt_annotations":[{"prompt_index":0}]}`, Preamble, ""},
		"choices null":      {"", `{"choices":null}`, Preamble, ""},
		"role":              {"", chunk(`{"index":0,"delta":{"role":"assistant"},"finish_reason":null}`), Preamble, ""},
		"role and nothing":  {"", chunk(`{"index":0,"delta":{"role":"assistant","content":"","refusal":null,"tool_calls":[]},"finish_reason":null}`), Preamble, ""},
		"role, null":        {"", chunk(`{"index":0,"delta":{"role":"assistant","content":null}}`), Preamble, ""},
		"role and content":  {"", chunk(`{"index":0,"delta":{"role":"assistant","content":"a"}}`), Content, ""},
		"content":           {"", chunk(`{"index":0,"delta":{"content":"a"},"finish_reason":null}`), Content, ""},
		"a space":           {"", chunk(`{"index":0,"delta":{"content":" "}}`), Content, ""},
		"the second choice": {"", chunk(`{"index":0,"delta":{}},{"index":1,"delta":{"content":"a"}}`), Content, ""},
		"tool calls":        {"", chunk(`{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]}}`), Content, ""},
		"function call":     {"", chunk(`{"index":0,"delta":{"function_call":{"name":"f","arguments":""}}}`), Content, ""},
		"refusal":           {"", chunk(`{"index":0,"delta":{"refusal":"No"}}`), Content, ""},
		"reasoning":         {"", chunk(`{"index":0,"delta":{"reasoning_content":"Hm"}}`), Content, ""},
		"finish only":       {"", chunk(`{"index":0,"delta":{},"finish_reason":"stop"}`), Content, ""},
		"filtered":          {"", chunk(`{"index":0,"delta":{},"finish_reason":"content_filter"}`), Content, ""},
		"filter offsets":    {"", chunk(`{"index":0,"finish_reason":null,"content_filter_results":{},"content_filter_offsets":{"check_offset":44}}`), Preamble, ""},
		"obfuscation":       {"", `{"choices":[{"index":0,"delta":{}}],"obfuscation":"abc"}`, Preamble, ""},
		"usage":             {"", `{"choices":[],"usage":{"prompt_tokens":1}}`, Preamble, ""},
		"completions":       {"", chunk(`{"text":"a","index":0,"finish_reason":null}`), Content, ""},
		"completions' none": {"", chunk(`{"text":"","index":0,"finish_reason":null}`), Preamble, ""},
		"completions' end":  {"", chunk(`{"text":"","index":0,"finish_reason":"stop"}`), Content, ""},
		"done":              {"", "[DONE]", End, ""},
		"done, spaced":      {"", " [DONE] ", End, ""},

		"response.created":     {"response.created", `{"type":"response.created","response":{"id":"resp_1","error":null}}`, Preamble, ""},
		"response.in_progress": {"response.in_progress", `{"type":"response.in_progress","response":{}}`, Preamble, ""},
		"response.queued":      {"response.queued", `{"type":"response.queued","response":{}}`, Preamble, ""},
		"output_item.added":    {"response.output_item.added", `{"type":"response.output_item.added","item":{}}`, Preamble, ""},
		"a delta":              {"response.output_text.delta", `{"type":"response.output_text.delta","delta":"a"}`, Content, ""},
		"response.completed":   {"response.completed", `{"type":"response.completed","response":{"error":null}}`, End, ""},
		"response.incomplete":  {"response.incomplete", `{"type":"response.incomplete","response":{}}`, End, ""},
		"one without a name":   {"", `{"type":"response.created"}`, Preamble, ""},
		"one yet unknown":      {"response.new", `{"type":"response.new"}`, Preamble, ""},

		"chat's error":        {"", `{"error":{"code":"429"}}`, Failure, `{"error":{"code":"429"}}`},
		"error, spaced":       {"", `{ "error" : {"code":"429"} }`, Failure, `{ "error" : {"code":"429"} }`},
		"an escaped key":      {"", `{"\u0065rror":{"code":"429"}}`, Failure, `{"\u0065rror":{"code":"429"}}`},
		"error as a text":     {"", `{"error":"overloaded"}`, Failure, `{"error":"overloaded"}`},
		"error null":          {"", `{"choices":[{"delta":{"content":"a"}}],"error":null}`, Content, ""},
		"error after choices": {"", `{"choices":[],"error":{"code":"500"}}`, Failure, `{"choices":[],"error":{"code":"500"}}`},
		"Responses' error":    {"error", `{"type":"error","error":{"type":"too_many_requests"},"sequence_number":1}`, Failure, `{"type":"error","error":{"type":"too_many_requests"},"sequence_number":1}`},
		"a flat one":          {"error", `{"type":"error","code":"rate_limit_exceeded","message":"m","param":null}`, Failure, `{"type":"error","code":"rate_limit_exceeded","message":"m","param":null}`},
		"flat, no name":       {"", `{"type":"error","code":"x"}`, Failure, `{"type":"error","code":"x"}`},
		"named alone":         {"error", `{"message":"m"}`, Failure, `{"message":"m"}`},
		"named, no JSON":      {"error", `overloaded`, Failure, `overloaded`},
		"response.failed":     {"response.failed", `{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error"}}}`, Failure, `{"code":"server_error"}`},
		"error in the text":   {"", chunk(`{"delta":{"content":"{\"error\":{\"code\":\"429\"}}"}}`), Content, ""},
		"error deeper down":   {"", `{"choices":[{"delta":{"content":"a"},"content_filter_results":{"error":{"code":"content_filter_error"}}}]}`, Content, ""},

		// What is not understood is the caller's to see.
		"no JSON":         {"", "hello", Content, ""},
		"malformed":       {"", `{"choices":[{"delta":{"content":"a"`, Content, ""},
		"malformed later": {"", `{"choices":7`, Content, ""},
		"a number":        {"", "7", Preamble, ""},
		"strange choices": {"", `{"choices":"none"}`, Content, ""},
		"strange delta":   {"", chunk(`{"delta":"a"}`), Content, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, problem := ClassifyEvent([]byte(test.name), []byte(test.data))
			require.Equal(t, test.want, got)
			require.Equal(t, test.problem == "", problem == nil)
			require.Equal(t, ParseError([]byte(test.problem)), ParseError(problem), "whatever is around the error")
		})
	}
}

// However a stream is split into reads, EventReader returns the events that a whole text has.
func TestEventReader(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"data: 1\n\n", "data: 2\r\n\r\n", ": x\n", "\n", "data: 3"})).Draw(t, "text"), "")
		want, rest := splitAll(text)
		var r EventReader
		var got []string
		for unread := text; unread != ""; {
			n := rapid.IntRange(1, len(unread)).Draw(t, "read")
			for event, split := range r.Events([]byte(unread[:n])) {
				require.Equal(t, split, len(r.Partial) > 0)
				got = append(got, string(event))
			}
			unread = unread[n:]
		}
		require.Equal(t, want, got)
		require.Equal(t, rest, string(r.Partial))
	})
}

// Of a long event EventReader keeps the beginning.
func TestLongEventIsCut(t *testing.T) {
	var r EventReader
	for range r.Events([]byte("data: " + strings.Repeat("x", 2*MaxEvent))) {
		require.Fail(t, "the event has not ended")
	}
	for event, split := range r.Events([]byte("x\n\ndata: 2\n\n")) {
		require.True(t, split)
		require.Len(t, event, MaxEvent)
		break
	}
	require.Empty(t, r.Partial)
}

// Gateways spell errors in ways of their own.
func TestErrorsWithoutAnErrorObject(t *testing.T) {
	for data, want := range map[string]EventKind{
		`{"object":"error","message":"m"}`:                       Failure,
		`{"statusCode":429,"message":"Rate limit is exceeded."}`: Failure,
		`{"status_code":"503"}`:                                  Failure,
		`{"code":"429"}`:                                         Failure,
		`{"code":"rate_limit_exceeded","param":null}`:            Failure,
		`{"type":"BadRequestError","message":"m","more":1}`:      Failure,
		`{"type":"rate_limit_error","code":"x","more":1}`:        Failure,
		`{"code":200,"message":"success","data":{"text":"x"}}`:   Content,
		`{"code":"ok","text":"x"}`:                               Content,
		`{"status":"error","text":"x"}`:                          Content,
		`{"type":"response.failed"}`:                             Failure,
		`{"type":"response.failed","error":{"code":"x"}}`:        Failure,
		`{"type":"response.failed","response":{"error":null}}`:   Failure,
	} {
		kind, _ := ClassifyEvent(nil, []byte(data))
		require.Equal(t, want, kind, data)
	}
}

// A failed response may be cut off within the echo of the request.
func TestErrorOfATruncatedResponse(t *testing.T) {
	kind, problem := ClassifyEvent(nil, []byte(`{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded"},"instructions":"xxx`))
	require.Equal(t, Failure, kind)
	require.Equal(t, looseString("rate_limit_exceeded"), ParseError(problem).Code)

	kind, problem = ClassifyEvent(nil, []byte(`{"type":"response.failed","response" x`))
	require.Equal(t, Failure, kind)
	require.Equal(t, "{}", string(problem))
}
