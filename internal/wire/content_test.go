package wire

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Ids, numbers and states do not make an event content. One text in it does.
func TestPayloadAloneMakesContent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		books := rapid.SliceOf(rapid.SampledFrom([]string{
			`"id":"x_1"`, `"item_id":"x"`, `"output_index":3`, `"sequence_number":7`, `"status":"queued"`, `"created_at":"now"`, `"obfuscation":"abc"`,
			`"item":{"id":"x","type":"message","role":"assistant","content":[]}`, `"part":{"type":"text","text":""}`, `"done":false`, `"nothing":null`,
			`"usage":{"note":"x"}`, `"logprobs":[{"token":"x"}]`, `"response":{"instructions":"x","output":[{"text":"x"}]}`, `"service_tier":"auto"`,
		})).Draw(t, "books")
		payload := rapid.SampledFrom([]string{
			`"delta":"x"`, `"text":"x"`, `"item":{"content":[{"type":"output_text","text":"x"}]}`, `"audio":"x"`, `"b64_json":"x"`, `"later":[[{"a":"\"" }]]`,
		}).Draw(t, "payload")
		event := func(members []string) []byte {
			return []byte(`{"type":"response.x",` + strings.Join(append(members, `"n":1`), ",") + `}`)
		}
		tone, _ := ClassifyEvent(nil, event(books))
		require.Equal(t, Preamble, tone)
		at := rapid.IntRange(0, len(books)).Draw(t, "at")
		with := append(append(append([]string{}, books[:at]...), payload), books[at:]...)
		tone, _ = ClassifyEvent(nil, event(with))
		require.Equal(t, Content, tone)
	})
}

func TestCompletionTracker(t *testing.T) {
	for name, c := range map[string]struct {
		events []string
		want   bool
	}{
		"nothing":             {nil, true},
		"a choice":            {[]string{`{"choices":[{"index":0,"delta":{"content":"a"}}]}`}, false},
		"a choice that ended": {[]string{`{"choices":[{"index":0,"delta":{"content":"a"}}]}`, `{"choices":[{"index":0,"finish_reason":"stop"}]}`}, true},
		"no real reason":      {[]string{`{"choices":[{"index":0,"finish_reason":""}]}`, `{"choices":[{"finish_reason":"null"}]}`}, false},
		"one of two":          {[]string{`{"choices":[{"index":0,"finish_reason":"stop"},{"index":1}]}`}, false},
		"choices, not a list": {[]string{`{"choices":{}}`}, true},
		"a response":          {[]string{`{"type":"response.output_text.delta","delta":"a"}`}, false},
		"an image":            {[]string{`{"type":"image_generation.partial_image"}`}, false},
		"a completed image":   {[]string{`{"type":"image_generation.partial_image"}`, `{"type":"image_generation.completed"}`}, true},
		"a message":           {[]string{`{"type":"message_start","message":{}}`, `{"type":"content_block_delta","delta":{"text":"a"}}`, `{"type":"message_delta","delta":{"stop_reason":"end_turn"}}`}, false},
		"a whole message":     {[]string{`{"type":"message_start","message":{}}`, `{"type":"message_stop"}`}, true},
		"another type":        {[]string{`{"type":"thread.run.created"}`}, true},
	} {
		var tracker CompletionTracker
		for _, event := range c.events {
			kind, _ := ClassifyEvent(nil, []byte(event))
			tracker.Add(kind, []byte(event), false)
		}
		require.Equal(t, c.want, tracker.Complete(), name)
	}
}

// A finished item may be an action without any text.
func TestActionIsContent(t *testing.T) {
	for item, want := range map[string]bool{
		`{"action":{"x":1}}`: true, `{"actions":[{"x":1}]}`: true, `{"action":{}}`: false, `{"actions":[]}`: false, `{"action":"click"}`: false,
	} {
		require.Equal(t, want, CarriesContent([]byte(item), true), item)
	}
	require.False(t, CarriesContent([]byte(`{"action":{"x":1}}`), false), "not finished")
	require.True(t, CarriesContent([]byte(`{"encrypted_content":"gAAA"}`), true))
	require.False(t, CarriesContent([]byte(`{"encrypted_content":"gAAA"}`), false))
}

// Text that breaks off carries nothing that a caller could use.
func TestCutTextCarriesNoContent(t *testing.T) {
	for _, text := range []string{`{"a":"b`, `{"a`, `{"a":`, `{"a": `, `{"usage":{"a":1`, `{"id":"x"`} {
		require.False(t, CarriesContent([]byte(text), true), text)
	}
	require.True(t, CarriesContent([]byte(`{"a":"b"`), true))
}

func TestElementsEndWhereTheTextBreaksOff(t *testing.T) {
	for text, want := range map[string]int{`[1,2,3]`: 3, `[1,2`: 1, `[1,"a`: 1, `[]`: 0, `{}`: 0, ``: 0, `[1 2]`: 1} {
		n := 0
		for range elements([]byte(text)) {
			n++
		}
		require.Equal(t, want, n, text)
	}
	for first := range elements([]byte(`[1,2]`)) {
		require.Equal(t, "1", string(first))
		break
	}
}
