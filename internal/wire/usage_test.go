package wire

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// naiveValues finds the values of a key in a whole JSON text with encoding/json.
func naiveValues(text, key string, limit int64) (found []string) {
	for {
		i := strings.Index(text, key)
		if i < 0 {
			return found
		}
		text = text[i+len(key):]
		d := json.NewDecoder(strings.NewReader(text))
		var value json.RawMessage
		if d.Decode(&value) != nil || d.InputOffset() > limit {
			continue
		}
		found, text = append(found, string(value)), text[d.InputOffset():]
	}
}

// The values do not depend on the size of the pieces, and in valid JSON they are those
// that encoding/json finds.
func FuzzUsage(f *testing.F) {
	for _, text := range []string{
		`{"usage":{"prompt_tokens":1},"x":"\"usage\":{}"}`, `{"usage": null, "a":[{"usage":12}]}`, `{"usage":"a\\"}`,
		`{"usage":{"usage":{"a":"a value that is too long to be one"}}}`, "\"usage\":\"usage\":1,", `"usage":`, `{"usage":` + strings.Repeat(" ", 30) + "1}",
		`data: {"id":"c","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}` + "\n\n" + `data: {"id":"c","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}` + "\n\ndata: [DONE]\n\n",
		`{"usage":[}{,"usage":{}}`, `"u"us"usage"usage":3 `,
	} {
		f.Add(text, uint8(1))
		f.Add(text, uint8(9))
	}
	const key, limit = `"usage":`, 24
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		collect := func(size int) (found []string) {
			w := FieldScanner{Keys: []ScannedField{{key, limit}}}
			for piece := range slices.Chunk([]byte(text), max(size, 1)) {
				for _, value := range w.Values(piece) {
					found = append(found, string(value))
					_, _ = ParseUsage(value)
				}
				require.LessOrEqual(t, len(w.rest), len(key)+limit, "it keeps no more than it needs")
			}
			return found
		}
		whole := collect(len(text))
		require.Equal(t, whole, collect(int(size)))
		if json.Valid([]byte(text)) {
			require.Equal(t, naiveValues(text, key, limit), whole)
		}
	})
}

// Nested values are each examined only once.
func TestNestedUsageIsReadInLinearTime(t *testing.T) {
	for _, piece := range []string{`"usage":{`, `"usage":[`, `{"usage":{"x":"y",`} {
		text := []byte(strings.Repeat(piece, 512<<10/len(piece)))
		w := FieldScanner{Keys: []ScannedField{{`"usage":`, 24}}}
		began := time.Now()
		for range w.Values(text) {
			require.Fail(t, "there is no value")
		}
		require.Less(t, time.Since(began), 2*time.Second, piece)
	}
}

func TestParseUsage(t *testing.T) {
	for text, want := range map[string]Usage{
		`{"prompt_tokens":11,"completion_tokens":7}`: {11, 7},
		`{"input_tokens":3,"output_tokens":2}`:       {3, 2},
		`{"prompt_tokens":9223372036854775807}`:      {Input: MaxTokenCount},
		`{"prompt_tokens":-5,"completion_tokens":1}`: {Output: 1},
		`{"type":"object"}`:                          {},
		`{"prompt_tokens":"many"}`:                   {},
		`null`:                                       {},
		``:                                           {},
	} {
		got, ok := ParseUsage([]byte(text))
		require.Equal(t, want, got, text)
		require.Equal(t, want != Usage{}, ok, text)
	}
}

// Whatever ClassifyEvent takes for a failure or for the end of the stream, and whatever
// changes what a CompletionTracker knows, FieldScanner notices.
func TestNotableEventsAreNoticed(t *testing.T) {
	const first = `{"choices":[{"index":0,"delta":{"content":"a"}},{"index":2}]}`
	const response, image = `{"type":"response.created"}`, `{"type":"image_edit.partial_image"}`
	const message = `{"type":"message_start"}`
	for _, test := range []struct {
		before, event string
		want          bool
	}{
		{"", `data: {"error":{"code":"429"}}`, true},
		{"", `data: {"error" : "x"}`, true},
		{"", `data: {"error":null}`, false},
		{"", `data: {"type":"error","code":null}`, true},
		{"", `data: {"type":"response.failed"}`, true},
		{response, `data: {"type":"response.output_text.delta","output_index":0}`, false},
		{"", `data: {"object":"error"}`, true},
		{"", `data: {"object":"chat.completion.chunk"}`, false},
		{"", `data: {"code":"429"}`, true},
		{"", `data: {"statusCode":429}`, true},
		{"", `data: {"status_code":429}`, true},
		{"", `data: {"status":503,"message":"m"}`, true},
		{first, `data: {"status":503,"message":"m"}`, true},
		{first, `data: {"message":"m","status" : "503"}`, true},
		{first, `data: {"status":"completed"}`, false},
		{"", `data: {"code":null}`, false},
		{"", "event: error\ndata: m", true},
		{"", "event: message\ndata: m", false},

		{"", `data: {"choices":[{"delta":{"content":"a"}}]}`, true},
		{"", `data: {"choices" : []}`, true},
		{first, `data: {"choices":[{"delta":{"content":"a"}}]}`, false},
		{first, `data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}`, false},
		{first, `data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}`, false},
		{first, `data: {"choices":[{"index":2}]}`, false},
		{first, `data: {"choices":[{"index":1}]}`, true},
		{first, `data: {"choices":[{"index" : 1}]}`, true},
		{first, `data: {"choices":[{"index":20}]}`, true},
		{first, `data: {"choices":[{"index":0,"finish_reason":"stop"}]}`, true},
		{first, `data: {"choices":[{"index":0,"finish_reason" : "length"}]}`, true},
		{first, `data: {"choices":[{"index":0,"finish_reason":""}]}`, false},
		{"", `data: {"type":"response.created"}`, true},
		{response, `data: {"type":"response.completed"}`, true},
		{response, `data: {"type" : "response.incomplete"}`, true},
		{"", `data: {"type":"speech.audio.delta"}`, true},
		{image, `data: {"type":"image_edit.partial_image"}`, false},
		{image, `data: {"type":"image_edit.completed"}`, true},
		{"", `data: {"type":"message_start","message":{}}`, true},
		{message, `data: {"type":"content_block_delta","delta":{"text":"a"}}`, false},
		{message, `data: {"type":"message_delta"}`, false},
		{message, `data: {"type":"message_stop"}`, true},
	} {
		w := FieldScanner{Keys: UsageFields, Ends: new(CompletionTracker)}
		w.Ends.Add(Content, []byte(test.before), false)
		for range w.Values([]byte(test.event + "\n\n")) {
			require.Fail(t, "there is no usage")
		}
		require.Equal(t, test.want, w.Notable, test.event)
	}
}

// A usage that breaks off inside an event does not hide the events after it.
func TestBrokenUsageHidesNothing(t *testing.T) {
	for _, end := range []string{"\n\n", "\r\r", "\r\n\r\n"} {
		w := FieldScanner{Keys: UsageFields, Ends: new(CompletionTracker)}
		for range w.Values([]byte(`data: {"usage":{"a":` + end + `data: {"error":{}}` + end)) {
			require.Fail(t, "there is no usage")
		}
		require.True(t, w.Notable, "%q", end)
	}
}

func TestScanningStopsWhereTheCallerDoes(t *testing.T) {
	s := FieldScanner{Keys: UsageFields}
	n := 0
	for range s.Values([]byte(`{"usage":{"input_tokens":1}} {"usage":{"input_tokens":2}}`)) {
		n++
		break
	}
	require.Equal(t, 1, n)
}

// An event in which FieldScanner finds nothing notable is no failure, does not end the
// stream, and changes nothing of what is known of it. It need not be true of what no
// service writes: escaped keys, tabs, and data that is not JSON.
func FuzzNotable(f *testing.F) {
	const first = `{"choices":[{"index":0,"delta":{"content":"a"}},{"index":2}]}`
	for _, before := range []string{"", first, `{"type":"response.created"}`, `{"type":"image_edit.partial_image"}`} {
		for _, event := range []string{
			`data: {"error":{"code":"429"}}`, `data: {"error" : "x"}`, `data: {"type":"error","code":null}`, `data: {"type":"response.failed"}`, `data: {"object":"error"}`, `data: {"statusCode":429}`, "event: error\ndata: {}",
			`data: {"choices":[{"index":0,"finish_reason":"stop"}]}`, `data: {"choices" : [{"index" : 1}]}`, `data: {"type" : "response.incomplete"}`, `data: {"type":"speech.audio.delta"}`, "event:error\ndata:{\"message\":\"m\"}", `data: {"choices":null,"code":"a"}`,
			`{"status":503,"message":"m"}`, `data: {"type":"xError","message":""}`,
		} {
			f.Add(before, event, uint8(200))
			f.Add(before, event, uint8(0))
		}
	}
	f.Fuzz(func(t *testing.T, before, event string, size uint8) {
		event = strings.TrimRight(event, "\r\n")
		if !strings.HasSuffix(event, "}") || strings.ContainsAny(event, "\\\t") || strings.Contains(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(event), "\n\n") {
			return // the caller examines it anyway, or it is two
		}
		known := new(CompletionTracker)
		kind, _ := ClassifyEvent(nil, []byte(before))
		known.Add(kind, []byte(before), false)
		s := FieldScanner{Keys: UsageFields, Ends: known}
		for piece := range slices.Chunk([]byte(event+"\n\n"), 1+int(size)) {
			for range s.Values(piece) {
			}
		}
		if s.Notable || len(event) > int(size) { // pieces of an event are examined anyway
			return
		}
		name, data := ParseEvent([]byte(event + "\n\n"))
		if !json.Valid(data) {
			return
		}
		kind, _ = ClassifyEvent(name, data)
		require.NotEqual(t, Failure, kind, "%q", event)
		require.NotEqual(t, End, kind, "%q", event)
		after := *known
		after.Add(kind, data, false)
		require.Equal(t, *known, after, "%q", event)
	})
}
