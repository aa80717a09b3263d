package spillover_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
	"github.com/spillover-go/spillover/internal/wiretest"
)

// Gateways and other services spell errors in ways of their own: flat, with a
// status instead of a code, or with the status beside the error.
var spelledErrors = map[string]struct {
	event  string
	status int
}{
	"API Management":         {dataEvent(`{"statusCode":429,"message":"Rate limit is exceeded. Try again in 50 seconds."}`), 429},
	"API Management, 401":    {dataEvent(`{ "statusCode": 401, "message": "Access denied due to missing subscription key.", "activityId": "x" }`), 401},
	"an object of that kind": {dataEvent(`{"object":"error","message":"m","type":"InternalServerError","param":null,"code":500}`), 500},
	"flat, a number":         {dataEvent(`{"code":429,"message":"m"}`), 429},
	"flat, a numeral":        {dataEvent(`{"code":"429","message":"m"}`), 429},
	"flat, a type":           {dataEvent(`{"message":"m","type":"rate_limit_error","param":null,"code":null}`), 429},
	"flat, code alone":       {dataEvent(`{"code":"rate_limit_exceeded"}`), 429},
	"flat, of Responses":     {testnet.ResponseEvent("response.error", `,"code":"rate_limit_exceeded","message":"m"`), 429},
	"status beside":          {dataEvent(`{"type":"error","status":429,"error":{"message":"m"}}`), 429},
	"status_code beside":     {dataEvent(`{"error":{"message":"m"},"status_code":429}`), 429},
	"a word and a status":    {dataEvent(`{"statusCode":503,"error":"Service Unavailable","message":"m"}`), 503},
	"status inside":          {dataEvent(`{"error":{"statusCode":429,"message":"m"}}`), 429},
	"a word":                 {dataEvent(`{"error":"Too many"}`), 500},
	"failed, beside":         {testnet.ResponseEvent("response.failed", `,"error":{"code":"rate_limit_exceeded","message":"m"}`), 429},
	"nothing":                {"event: error\ndata: null\n\n", 500},
	"over two lines":         {"event: error\ndata: {\"type\":\"error\",\ndata: \"code\":\"rate_limit_exceeded\"}\n\n", 429},
}

func TestErrorsOfAnySpellingMoveOn(t *testing.T) {
	for name, test := range spelledErrors {
		for form, pieces := range map[string][]any{
			"whole":        {test.event},
			"behind":       {": hi\n\n", testnet.ResponseCreated(9), test.event},
			"CR LF":        {strings.ReplaceAll(test.event, "\n", "\r\n")},
			"CR":           {strings.ReplaceAll(test.event, "\n", "\r")},
			"cut":          {strings.TrimRight(test.event, "\n")},
			"in bytes":     inBytes(test.event),
			"without type": {http.Header{"Content-Type": nil}, test.event},
			"gzip":         {http.Header{"Content-Encoding": {"gzip"}}, wiretest.Compress(t, "gzip", test.event)[0]},
		} {
			t.Run(name+"/"+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("one"), testnet.Plays(t, pieces...))
					n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
					tr := streamPair(t, n)
					resp, body := send(t, tr, sayingAlso(t, responsesPath, `,"stream":true`))
					require.Equal(t, "two", servedBy(resp))
					require.Equal(t, testnet.WholeChat, body)
					require.Equal(t, test.status, streamState(t, tr, "one").LastFailure.Status)
				})
			})
		}
	}
}

// After content the same errors are the caller's, and are noted all the same.
func TestErrorsOfAnySpellingAreNotedAfterContent(t *testing.T) {
	const first = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n"
	for name, test := range spelledErrors {
		for form, pieces := range map[string][]any{
			"apart":    {first, test.event},
			"together": {first + test.event},
			"in bytes": append([]any{first}, inBytes(test.event)...),
		} {
			t.Run(name+"/"+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("one"), testnet.Plays(t, pieces...))
					tr := streamPair(t, n)
					_, body := send(t, tr, sayingAlso(t, responsesPath, `,"stream":true`))
					require.Equal(t, first+test.event, body)
					require.Equal(t, test.status, streamState(t, tr, "one").LastFailure.Status)
				})
			})
		}
	}
}

func inBytes(text string) (pieces []any) {
	for i := range len(text) {
		pieces = append(pieces, text[i:i+1])
	}
	return pieces
}

// A response that failed may be cut within the echo of the request.
func TestErrorBeforeAnEchoThatIsCut(t *testing.T) {
	first := testnet.ResponseEvent("response.output_text.delta", `,"delta":"a"`)
	failed := testnet.ResponseEvent("response.failed", `,"response":{"error":{"code":"rate_limit_exceeded"},"instructions":"`+strings.Repeat("x", wire.MaxEvent)+`"}`)
	n := newNet()
	n.On(host("one"), testnet.Plays(t, first, failed))
	tr := streamPair(t, n)
	_, body := send(t, tr, newChat(t, responsesPath))
	require.Equal(t, first+failed, body)
	require.Equal(t, "429 rate_limit_exceeded", streamState(t, tr, "one").Reason)
}

// The request's own mistakes are the caller's, whatever says so.
func TestErrorsAboutTheRequestInOtherWords(t *testing.T) {
	for _, event := range []string{
		dataEvent(`{"error":{"message":"m","type":null,"param":"prompt","code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}`),
		dataEvent(`{"error":{"message":"m","inner_error":{"code":"ResponsibleAIPolicyViolation"}}}`),
		dataEvent(`{"error":{"code":"token_limit_exceeded","message":"m"}}`),
		dataEvent(`{"error":{"code":"context_limit_exceeded","message":"m"}}`),
		dataEvent(`{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}`),
		dataEvent(`{"statusCode":400,"message":"m"}`),
	} {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, event))
		tr := streamPair(t, n)
		_, body := send(t, tr, newChat(t, responsesPath))
		require.Equal(t, event, body)
		require.Equal(t, 1, n.Sends())
		require.Zero(t, streamState(t, tr, "one").Failed, event)
	}
}

// What merely looks like an error is the answer.
func TestWhatIsNoError(t *testing.T) {
	for _, event := range []string{
		`{"choices":[{"delta":{"content":"a"}}],"error":""}`, `{"choices":[{"delta":{"content":"a"}}],"error":false}`, `{"choices":[{"delta":{"content":"a"}}],"error":{}}`,
		`{"choices":[{"delta":{"content":"a"}}],"code":500,"message":"ok"}`,
		`{"type":"response.code_interpreter_call_code.done","item_id":"ci_1","code":"500"}`, `{"type":"response.code_interpreter_call_code.done","code":"print(1)"}`,
		`{"type":"response.output_item.done","item":{"type":"mcp_call","error":{"type":"mcp","code":500,"message":"x"},"name":"f","arguments":"{}"}}`,
		`{"code":200,"message":"success","data":{"text":"x"}}`, `{"code":"ok","text":"x"}`, `{"status":"error","text":"x"}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, dataEvent(event), time.Hour, dataEvent(event)+testnet.DoneEvent))
			tr := streamPair(t, n)
			begun := time.Now()
			resp, err := tr.RoundTrip(newChat(t, responsesPath))
			require.NoError(t, err)
			require.Zero(t, time.Since(begun), event)
			require.Equal(t, dataEvent(event)+dataEvent(event)+testnet.DoneEvent, read(t, resp))
			require.Zero(t, streamState(t, tr, "one").LastFailure)
		})
	}
}

// JSON that has no text in it keeps a connection, and says so of no error.
func TestJSONWithoutTextIsNotContent(t *testing.T) {
	refusal := testnet.ChatError(`{"code":"429","message":"m"}`)
	for _, beat := range []string{"null", "0", "true", `""`, "[]", `{"choices":[{"delta":{"content":""}}],"error":""}`, `{"choices":[],"error":{}}`, `{"type":"status","message":"queued","code":null}`} {
		n := newNet()
		n.On(host("one"), testnet.Plays(t, dataEvent(beat), refusal))
		n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
		tr := streamPair(t, n)
		_, body := send(t, tr, newChat(t, chatPath))
		require.Equal(t, testnet.WholeChat, body, beat)
		require.Equal(t, 429, streamState(t, tr, "one").LastFailure.Status)
	}
}

// A JSON answer in the place of a stream is the caller's, unless it is an error
// or breaks off.
func TestJSONInThePlaceOfAStream(t *testing.T) {
	long := `,"pad":"` + strings.Repeat("x", spillover.WorthReadingLimit) + `"` // so that it is not known what is asked for
	for _, test := range []struct {
		contentType, body, path, also string
		moves                         bool
	}{
		{"application/json", `{"error":{"code":"429","message":"m"}}`, chatPath, `,"stream":true`, true},
		{"application/json; charset=utf-8", `{"statusCode":429,"message":"Rate limit is exceeded."}`, chatPath, `,"stream":true`, true},
		{"application/json", `{"id":"x","choices":[`, chatPath, `,"stream":true`, true},
		{"application/json", `{"error":{"code":"429","message":"m"}}`, chatPath, "", false},
		{"application/json", `{"id":"x","choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}`, chatPath, `,"stream":true`, false},
		{"application/json", `{"id":"x","choices":[{"message":{"content":"a"}}]}`, chatPath, `,"stream":true`, false},
		{"application/json", `{"object":"list","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":3}}`, embeddingsPath, `,"stream":true`, false},
		{"", `{"object":"list","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":3}}`, embeddingsPath, long, false},
		{"text/plain", "id: 5 please", transcriptionPath, long, false},
		{"text/plain", "data: hello", transcriptionPath, long, false},
	} {
		for _, hold := range []bool{false, true} {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, http.Header{"Content-Type": {test.contentType}}, test.body))
			n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
			tr := streamPair(t, n, func(cfg *spillover.Config) { cfg.HoldStreams = hold })
			resp, body := send(t, tr, sayingAlso(t, test.path, test.also))
			require.Equal(t, test.moves, servedBy(resp) == "two", "%+v", test.body)
			if !test.moves {
				require.Equal(t, test.body, body)
				require.Zero(t, streamState(t, tr, "one").Failed)
			}
		}
	}
}

// Whatever a stream is made of, it is read in a time that grows with its length.
func TestHostileStreamsAreReadInLinearTime(t *testing.T) {
	for name, text := range map[string]func(size int) string{
		"lines of data": func(size int) string { return strings.Repeat("data\n", size/5) + "\n" },
		"open usages":   func(size int) string { return testnet.TokenChunk("a") + "data: " + strings.Repeat(`"usage":{`, size/9) },
		"open errors":   func(size int) string { return testnet.TokenChunk("a") + "data: " + strings.Repeat(`"error":{`, size/9) },
	} {
		t.Run(name, func(t *testing.T) {
			took := func(size int) time.Duration {
				var times []time.Duration
				for range 5 {
					n := newNet()
					n.On(host("one"), testnet.Plays(t, text(size)+"\n\n"+testnet.DoneEvent))
					n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
					buffer := make([]byte, wire.MaxEvent)
					begun := time.Now()
					drain(t, streamPair(t, n), newChat(t, chatPath), buffer)
					times = append(times, time.Since(begun))
				}
				return slices.Min(times) // what else runs makes it longer, and nothing shorter
			}
			small, large := took(32<<10), took(wire.MaxEvent)
			require.Less(t, large, 8*4*(small+time.Millisecond), fmt.Sprint(small, large))
		})
	}
}

// JSON that has begun is not waited for longer than IdleTimeout, as any answer.
func TestJSONInThePlaceOfAStreamFallsSilent(t *testing.T) {
	for _, begun := range []string{`{"id":"x","choices":[{"message":{"content":"a"`, `{"error":{"message":"m`} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, http.Header{"Content-Type": {"application/json"}}, time.Second, begun, time.Second, " ", time.Hour, "}"))
			n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
			from := time.Now()
			_, body := send(t, streamPair(t, n, streamTimeouts(20*time.Second, 2*time.Second)), sayingAlso(t, chatPath, `,"stream":true`))
			require.Equal(t, testnet.WholeChat, body)
			require.Equal(t, 4*time.Second, time.Since(from))
		})
	}
}
