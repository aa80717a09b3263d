package spillover

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

// What is the caller's own is no id, whatever it looks like and wherever it is.
func TestCallersDataIsNoProtocol(t *testing.T) {
	for _, body := range []string{
		`POST /v1/responses {"model":"m","prompt":{"variables":{"order_id":"batch_2026","file_id":"file-1","x":{"file_id":"file-1"}}}}`,
		`POST /v1/responses {"model":"m","metadata":{"id":"file-1","conversation":"file-1"}}`,
		`POST /v1/responses {"model":"m","text":{"format":{"schema":{"properties":{"file_id":{"id":"file-1"}}}}}}`,
		`POST /v1/responses {"model":"m","tools":[{"type":"function","parameters":{"file_ids":["file-1"],"vector_store_ids":["file-1"]}}]}`,
		`POST /v1/responses {"model":"m","tools":[{"type":"file_search","filters":{"key":"file_id","value":"file-1"}}]}`,
		`POST /v1/responses {"model":"m","input":[{"type":"function_call","call_id":"file-1","id":"file-1","arguments":"{\"file_id\":\"file-1\"}"}]}`,
		`POST /v1/responses {"model":"m","input":[{"type":"message","id":"file-1","role":"user","content":"file-1"}]}`,
		`POST /v1/responses {"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"file-1","id":"file-1"}]}]}`,
		`POST /v1/responses {"model":"m","user":"file-1","safety_identifier":"file-1"}`,
		`POST /v1/chat/completions {"model":"m","metadata":{"file_id":"file-1"},"messages":[{"role":"user","content":"\"file_id\":\"file-1\""}]}`,
		`POST /v1/chat/completions {"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"file-1","function":{"arguments":"{\"file_id\":\"file-1\"}"}}]}]}`,
		`POST /v1/moderations {"model":"m","input":"file-1","file_id":"file-1"}`,
		`POST /v1/vector_stores {"name":"x","metadata":{"file_ids":["file-1"]},"attributes":{"file_id":"file-1"}}`,
		`POST /v1/embeddings {"model":"m","input":"x","file_id":"file-1"}`,
	} {
		n := newNet()
		tr := steady(balance(t, n, azure("a"), azure("b")))
		tr.stored.Put(time.Now(), wire.ObjectID{ID: "file-1"}, tr.table().backends[1].resource)
		tr.stored.Put(time.Now(), wire.ObjectID{ID: "batch_2026"}, tr.table().backends[1].resource)
		resp, _ := send(t, tr, with(t, body))
		require.Equal(t, "a", servedBy(resp), body)
		n.On(host("a"), status(429, "{}"))
		resp, _ = send(t, tr, with(t, body))
		require.Equal(t, "b", servedBy(resp), "bound to nobody: %s", body)
	}
}

// An answer that echoes the caller's data moves no object that is known.
func TestEchoMovesNothing(t *testing.T) {
	for _, answer := range []string{
		`{"id":"resp_9","metadata":{"file_id":"file-1","id":"file-1"}}`,
		`{"id":"resp_9","tools":[{"vector_store_ids":["file-1"],"file_ids":["file-1"]}],"file_id":"file-1"}`,
		`{"id":"file-1"}`, `{"data":[{"id":"file-1"}]}`,
		`{"id":"resp_9","prompt":{"variables":{"file_id":"file-1"}},"instructions":[{"id":"file-1"}]}`,
	} {
		for _, contentType := range []string{"application/json", "text/event-stream"} {
			n := newNet()
			tr := steady(balance(t, n, azure("a"), azure("b")))
			tr.stored.Put(time.Now(), wire.ObjectID{ID: "file-1"}, tr.table().backends[1].resource)
			if contentType != "application/json" {
				answer = "data: {\"type\":\"response.created\",\"response\":" + answer + "}\n\ndata: {\"type\":\"response.completed\",\"response\":" + answer + "}\n\n"
			}
			n.On(host("a"), testnet.Content(contentType, answer))
			resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m"}`))
			require.Equal(t, "a", servedBy(resp))
			resp, _ = send(t, tr, with(t, "GET /v1/files/file-1"))
			require.Equal(t, "b", servedBy(resp), answer)
		}
	}
}

// A home that has not what it is asked for is followed by a search, whose
// success moves the object; if nobody has it, what the home said is the answer.
func TestWrongHomeIsLeft(t *testing.T) {
	n := newNet()
	tr := steady(balance(t, n, azure("a"), azure("b"), azure("c", priority(2))))
	n.On(host("a"), status(404, testnet.NotFound))
	n.On(host("b"), status(404, `{"error":{"message":"no file of b"}}`))
	tr.stored.Put(time.Now(), wire.ObjectID{ID: "file-1"}, tr.table().backends[1].resource)
	for _, sends := range []int{3, 4} {
		resp, _ := send(t, tr, with(t, "GET /v1/files/file-1"))
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "c", servedBy(resp))
		require.Equal(t, sends, n.Sends())
	}
	n.On(host("c"), status(404, testnet.NotFound))
	tr.stored.Put(time.Now(), wire.ObjectID{ID: "file-2"}, tr.table().backends[1].resource)
	resp, text := send(t, tr, with(t, "GET /v1/files/file-2"))
	require.Equal(t, 404, resp.StatusCode)
	require.Contains(t, text, "no file of b")
	require.Equal(t, "b", servedBy(resp))
	n.On(host("c"), status(429, "{}"))
	resp, text = send(t, tr, with(t, "GET /v1/files/file-2"))
	require.Equal(t, 404, resp.StatusCode, "that another one is throttled changes nothing")
	require.Contains(t, text, "no file of b")
	for d := range tr.table().nameless.all {
		require.Zero(t, d.failed.Load())
		require.Zero(t, d.InFlight.Load())
	}
}

// That something is not there may be said as a 400, and of what only the body
// names.
func TestNotFoundIsAskedAround(t *testing.T) {
	say := func(code int, message, c string) roundTripFunc {
		return status(code, fmt.Sprintf(`{"error":{"message":%q,"type":"invalid_request_error","param":null,"code":%s}}`, message, c))
	}
	for use, no := range map[string]roundTripFunc{
		`POST /v1/responses {"model":"m","tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}`:                         say(400, "Vector store with id [vs_1] not found.", "null"),
		`POST /v1/batches {"input_file_id":"file-1"}`:                                                                           say(400, "The file file-1 does not exist.", `"invalid_request"`),
		`POST /v1/threads/thread_1/runs {"assistant_id":"asst_1"}`:                                                              say(400, "No assistant found with id 'asst_1'.", "null"),
		`POST /v1/chat/completions {"model":"m","messages":[{"role":"user","content":[{"file":{"file_id":"file-1"}}]}]}`:        say(400, "File not found", `"file_not_found"`),
		`POST /v1/responses {"model":"m","input":[{"id":"msg_1","type":"message","role":"assistant","content":[]}]}`:            say(404, "Item with id 'msg_1' not found.", "null"),
		`POST /v1/responses {"model":"m","prompt":{"id":"pmpt_1"}}`:                                                             say(404, "Prompt with id 'pmpt_1' not found.", "null"),
		`POST /v1/responses {"model":"m","tools":[{"type":"mcp","connector_id":"connector_x1"}]}`:                               say(404, "Connector 'connector_x1' does not exist", "null"),
		`POST /v1/responses {"model":"m","prompt":{"id":"pmpt_2","variables":{"f":{"type":"input_file","file_id":"file-77"}}}}`: say(404, "File 'file-77' could not be found.", "null"),
	} {
		t.Run(use, func(t *testing.T) {
			n := newNet()
			tr := six(t, n)
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				n.On(host(name), no)
			}
			resp, _ := send(t, tr, with(t, use))
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "f", servedBy(resp))
			n.On(host("f"), no)
			resp, text := send(t, tr, with(t, use))
			require.Contains(t, []int{400, 404}, resp.StatusCode)
			require.Contains(t, text, "invalid_request_error", "nobody has it: it is the caller's to see")
			require.Empty(t, resp.Header.Get("X-Spillover-Synthesized"))
			for _, r := range tr.table().all() {
				for d := range r.all {
					require.True(t, d.accepts(time.Now()))
					require.Zero(t, d.failed.Load(), "and nobody is to blame")
				}
			}
		})
	}
	// What is the caller's own mistake is answered by the first.
	for use, no := range map[string]roundTripFunc{
		`POST /v1/responses {"model":"m","tool_choice":{"name":"get_weather"}}`:                         say(400, "Tool choice 'get_weather' not found in 'tools' parameter.", "null"),
		`POST /v1/responses {"model":"m","previous_response_id":"resp_1","tool_choice":"get_weather"}`:  say(400, "Tool choice 'get_weather' not found in 'tools' parameter.", "null"),
		`POST /v1/chat/completions {"model":"m","messages":[]}`:                                         say(400, "Invalid 'messages': empty array.", `"empty_array"`),
		`POST /v1/responses {"model":"m","tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}`: say(400, "Invalid 'tools[0].vector_store_ids': too few.", "null"),
	} {
		n := newNet()
		tr := six(t, n)
		n.On(host("a"), no)
		resp, _ := send(t, tr, with(t, use))
		require.Equal(t, 400, resp.StatusCode, use)
		require.Equal(t, 1, n.Sends(), use)
	}
}

// Its maker may not find a response at first.
func TestMakerIsAskedOnceMore(t *testing.T) {
	const notPrevious = `{"error":{"message":"Previous response with id 'resp_1' not found.","type":"invalid_request_error","param":"previous_response_id","code":"previous_response_not_found"}}`
	const use = `POST /v1/responses {"model":"m","previous_response_id":"resp_1"}`
	n := newNet()
	tr := steady(balance(t, n, azure("a"), azure("b"), azure("c")))
	tr.stored.Put(time.Now(), wire.ObjectID{ID: "resp_1"}, tr.table().backends[1].resource)
	n.On(host("a"), status(400, notPrevious))
	n.On(host("c"), status(400, notPrevious))
	n.On(host("b"), status(400, notPrevious), status(200, "{}"))
	resp, _ := send(t, tr, with(t, use))
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, 2, n.Sends())
	n.On(host("b"), status(400, notPrevious))
	resp, text := send(t, tr, with(t, use))
	require.Equal(t, 400, resp.StatusCode)
	require.Equal(t, notPrevious, text)
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, 2+4, n.Sends(), "its maker twice, each of the others once")
}

// A backend that is renamed is the resource that it was; one that is gone
// leaves nothing of itself, its key least of all.
func TestResourceOutlivesItsEntry(t *testing.T) {
	n := newNet()
	tr := steady(balance(t, n, azure("a"), azure("b")))
	tr.stored.Put(time.Now(), wire.ObjectID{ID: "resp_1"}, tr.table().backends[1].resource)
	renamed := azure("b")
	renamed.Name = "b2"
	require.NoError(t, tr.Reconfigure(Config{Base: n, Backends: []Backend{azure("a"), renamed}}))
	resp, _ := send(t, tr, with(t, "GET /v1/responses/resp_1"))
	require.Equal(t, "b2", servedBy(resp))

	gone := make(chan struct{})
	runtime.AddCleanup(tr.table().backends[1], func(c chan struct{}) { close(c) }, gone)
	require.NoError(t, tr.Reconfigure(Config{Base: n, Backends: []Backend{azure("a")}}))
	require.NotNil(t, tr.stored.Find(time.Now(), "resp_1"))
	require.Eventually(t, func() bool {
		runtime.GC()
		select {
		case <-gone:
			return true
		default:
			return false
		}
	}, 10*time.Second, time.Millisecond)
}

// Items have a list of their own.
func TestItemsDoNotPushResponsesOut(t *testing.T) {
	n := newNet()
	tr := steady(balance(t, n, azure("a"), azure("b")))
	serial := 0
	n.On(host("a"), func(req *http.Request) (*http.Response, error) {
		serial++
		var items []string
		for i := range 5 {
			items = append(items, fmt.Sprintf(`{"id":"x%d_%d","type":"message"}`, i, serial))
		}
		return status(200, fmt.Sprintf(`{"id":"resp_%d","output":[%s]}`, serial, strings.Join(items, ",")))(req)
	})
	for range 2500 {
		send(t, tr, with(t, `POST /v1/responses {"model":"m"}`))
	}
	require.NotNil(t, tr.stored.Find(time.Now(), "resp_1"))
	require.NotNil(t, tr.stored.Find(time.Now(), "x4_2500"))
	known, items := tr.stored.Len()
	require.Equal(t, 5000, items)
	require.Equal(t, 2500, known)
}

// Names that callers make up are bounded in number and length.
func TestLongModelNamesAreNotKept(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(404, `{"error":{"code":"DeploymentNotFound"}}`))
	tr := balance(t, n, azure("a"))
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range 30 {
		send(t, tr, with(t, `POST /v1/responses {"model":"`+fmt.Sprint(i)+strings.Repeat("m", 1<<20)+`"}`))
		n.Seen = nil
	}
	require.Less(t, heap()-before, int64(3<<20))
	require.Empty(t, *tr.table().routes.Load())
	runtime.KeepAlive(tr)
}

// What was made up gives way to a model that is served.
func TestServedModelGetsARouteOfItsOwn(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	for i := range maxRoutes {
		tr.table().find(fmt.Sprint("made-up-", i))
	}
	require.Same(t, tr.table().otherModels, tr.table().find("gpt"))
	resp, _ := send(t, tr, newChat(t, "/openai/deployments/gpt/chat/completions?api-version=1"))
	require.Equal(t, 200, resp.StatusCode)
	require.NotSame(t, tr.table().otherModels, tr.table().find("gpt"))
	require.Len(t, *tr.table().routes.Load(), 1)
}

// Models that were served keep their routes. Whoever comes then shares one, and
// is looked after again now and then.
func TestServedModelsKeepTheirRoutes(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	asksFor := func(model string) {
		resp, _ := send(t, tr, newChat(t, "/openai/deployments/"+model+"/chat/completions?api-version=1"))
		require.Equal(t, 200, resp.StatusCode)
	}
	own := func(model string) bool { return tr.table().find(model) != tr.table().otherModels }
	for i := range maxRoutes {
		asksFor(fmt.Sprint("m-", i))
	}
	for i := range 10 {
		asksFor(fmt.Sprint("n-", i))
		require.False(t, own(fmt.Sprint("n-", i)))
		require.True(t, own(fmt.Sprint("m-", i)))
	}
	asksFor(strings.Repeat("x", wire.MaxModelName+1))
	require.Len(t, *tr.table().routes.Load(), maxRoutes)
	require.Equal(t, uint64(11), tr.table().otherModels.tiers[0].members[0].served.Load())
	var shared uint64
	for _, d := range tr.Status().Tiers[0].Backends[0].Deployments {
		if d.Model == manyModels {
			shared = d.Served
		}
	}
	require.EqualValues(t, 11, shared)
}

// Files and sound in base64 are no text.
func TestEstimateOfFilesAndSound(t *testing.T) {
	base64 := strings.Repeat("JVBERi0x", 1<<17) // 1 MiB
	for name, c := range map[string]struct {
		body string
		most int64
	}{
		"a document as a data URL": {`{"model":"m","input":[{"content":[{"type":"input_file","file_data":"data:application/pdf;base64,` + base64 + `"}]}]}`, 10_000},
		"a document alone":         {`{"model":"m","input":[{"content":[{"type":"input_file","file_data": "` + base64 + `"}]}]}`, 10_000},
		"sound":                    {`{"model":"m","messages":[{"content":[{"type":"input_audio","input_audio":{"format":"wav","data":"` + base64 + `"}}]}]}`, 1_000},
		"sound as a data URL":      {`{"model":"m","messages":[{"content":[{"input_audio":{"data":"data:audio/mp3;base64,` + base64 + `"}}]}]}`, 1_000},
		"a video":                  {`{"model":"m","input":"data:video/mp4;base64,` + base64 + `"}`, 10_000},
	} {
		tokens := tokensOf(t, "/v1/responses", c.body, nil)
		require.Less(t, tokens, c.most, name)
		require.Greater(t, tokens, int64(wire.DefaultOutputTokens+100), name)
	}
	require.InDelta(t, (1<<20)/4, tokensOf(t, "/v1/responses", `{"model":"m","input":"`+base64+`"}`, nil), 1000, "what is not said to be one is text")
	require.InDelta(t, (1<<20)*3/16, tokensOf(t, "/v1/responses", `{"model":"m","input":"data:text/plain;base64,`+base64+`"}`, nil), 1000, "as text that is encoded")
}

// Stateless operations are sent there once more and then fail over; the others are not
// sent again once they may have been carried out.
func TestNewOperationsMoveOn(t *testing.T) {
	for line, sends := range map[string]int{
		`POST /v1/decisions {"model":"m","input":"x"}`: 3, `POST /decisions {"model":"m"}`: 3,
		`POST /v1/vaults {}`: 1, `POST /v1/agents {"model":"m"}`: 1, `POST /v1/live/sessions {"session":{"model":"m"}}`: 1, `POST /v1/telepathy {}`: 1, `GET /v1/telepathy`: 3,
	} {
		n := newNet()
		n.On(host("a"), status(500, "{}"))
		send(t, steady(balance(t, n, azure("a"), azure("b", priority(2)))), with(t, line))
		require.Equal(t, sends, n.Sends(), line)
	}
	// Its usage is read, too.
	n := newNet()
	n.On(host("a"), status(200, `{"answers":[],"usage":{"input_tokens":7,"output_tokens":2}}`))
	tr := balance(t, n, azure("a"))
	send(t, tr, with(t, `POST /v1/decisions {"model":"m"}`))
	require.EqualValues(t, 7, DeploymentOf(t, tr, "a").input.Load())
}
