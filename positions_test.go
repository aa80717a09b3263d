package spillover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
	"github.com/spillover-go/spillover/internal/wiretest"
)

// calls is a pool of which only b serves m, and calls it m-east.
func callsMEast(t testing.TB, n *fakeNet, d Dialect) *Transport {
	return steady(balance(t, n, Backend{Name: "a", URL: "https://a", Dialect: d, APIKey: "k", Models: []Model{{Name: "other"}}},
		Backend{Name: "b", URL: "https://b", Dialect: d, APIKey: "l", Models: []Model{{Name: "m", Deployment: "m-east"}, {Name: "hear", Deployment: "hear-east"}}}))
}

func TestModelIsFoundAtItsPlace(t *testing.T) {
	for line, want := range map[string]string{
		`POST /v1/realtime/client_secrets {"session":{"type":"realtime","model":"m"}}`:                                                `{"session":{"type":"realtime","model":"m-east"}}`,
		`POST /v1/realtime/client_secrets {"expires_after":{},"session":{"audio":{"input":{"transcription":{"model":"m"}}}}}`:         `{"expires_after":{},"session":{"audio":{"input":{"transcription":{"model":"m-east"}}}}}`,
		`POST /v1/realtime/client_secrets {"session":{"audio":{"input":{"transcription":{"model":"hear"}}},"model":"m"}}`:             `{"session":{"audio":{"input":{"transcription":{"model":"hear-east"}}},"model":"m-east"}}`,
		`POST /v1/realtime/client_secrets {"session":{"model":"m","audio":{"input":{"transcription":{"model":"whisper-1"}}}}}`:        `{"session":{"model":"m-east","audio":{"input":{"transcription":{"model":"whisper-1"}}}}}`,
		`POST /v1/realtime/translations/client_secrets {"session":{"model":"m"}}`:                                                     `{"session":{"model":"m-east"}}`,
		`POST /v1/live/sessions {"transport":{"sdp":"x"},"session":{"instructions":"say \"model\":\"x\"","model":"m","store":false}}`: `{"transport":{"sdp":"x"},"session":{"instructions":"say \"model\":\"x\"","model":"m-east","store":false}}`,
		`POST /v1/live/sessions/live_1/accept {"session":{"type":"live","model":"m"}}`:                                                `{"session":{"type":"live","model":"m-east"}}`,
		`POST /v1/realtime/sessions {"voice":"x","model":"m","input_audio_transcription":{"model":"hear"}}`:                           `{"voice":"x","model":"m-east","input_audio_transcription":{"model":"hear-east"}}`,
		`POST /v1/realtime/transcription_sessions {"input_audio_transcription":{"model":"m"}}`:                                        `{"input_audio_transcription":{"model":"m-east"}}`,
		`POST /v1/agents/sessions {"agent":{"model":"m","instructions":""},"input":[]}`:                                               `{"agent":{"model":"m-east","instructions":""},"input":[]}`,
		`POST /v1/agents {"model":"m"}`:                                     `{"model":"m-east"}`,
		`POST /v1/decisions {"model":"m","input":"x","questions":[]}`:       `{"model":"m-east","input":"x","questions":[]}`,
		`POST /decisions {"input":{"model":"x"},"model":"m"}`:               `{"input":{"model":"x"},"model":"m-east"}`,
		`POST /v1/evals/eval_1/runs {"data_source":{"model":"m"}}`:          `{"data_source":{"model":"m-east"}}`,
		`POST /openai/v1/video/generations/jobs {"prompt":"x","model":"m"}`: `{"prompt":"x","model":"m-east"}`,
		`POST /v1/telepathy {"model":"m"}`:                                  `{"model":"m-east"}`,
		`POST /v1/chat/completions {"session":{"model":"x"},"model":"m"}`:   `{"session":{"model":"x"},"model":"m-east"}`,
	} {
		for _, d := range []Dialect{OpenAI, AzureV1} {
			n := newNet()
			resp, _ := send(t, callsMEast(t, n, d), with(t, line))
			require.Equal(t, "b", servedBy(resp), line)
			require.Equal(t, want, n.Last().Body)
			require.EqualValues(t, len(want), n.Last().Length)
		}
	}
}

func TestModelInTheQueryOfAPost(t *testing.T) {
	for _, d := range []Dialect{OpenAI, AzureV1, Azure} {
		n := newNet()
		tr := steady(balance(t, n, Backend{Name: "a", URL: "https://a", Dialect: d, APIKey: "k", Models: []Model{{Name: "other"}}},
			Backend{Name: "b", URL: "https://b", Dialect: d, APIKey: "l", Models: []Model{{Name: "m", Deployment: "m-east"}}}))
		req := with(t, "POST /v1/realtime/calls?x=%20&model=m v=0", "Content-Type: application/sdp")
		resp, _ := send(t, tr, req)
		require.Equal(t, "b", servedBy(resp))
		query, _, _ := strings.Cut(n.Last().Query, "&api-version=") // classic Azure has one of its own
		require.Equal(t, "x=%20&model=m-east", query)
		require.Equal(t, "v=0", n.Last().Body)
	}
	// In a list it is a filter.
	n := newNet()
	send(t, callsMEast(t, n, OpenAI), with(t, "GET /v1/chat/completions?model=m"))
	require.Equal(t, "model=m", n.Last().Query)
}

func TestModelOfForms(t *testing.T) {
	for _, path := range []string{"/v1/videos", "/v1/videos/edits", "/v1/videos/extensions", "/openai/v1/video/generations/jobs"} {
		contentType, text := writeForm(t, wiretest.Field("prompt", "a model of a ship"), hostileFile, modelField)
		got := formTo(t, AzureV1, path, contentType, text)
		at := strings.LastIndex(text, "\r\n\r\nm\r\n") + 4
		require.Equal(t, text[:at]+"n"+text[at+1:], got.Body, path)
	}
	// A call has its session as JSON in a part.
	contentType, text := writeForm(t, wiretest.Field("sdp", "v=0"), wiretest.Field("session", `{"type":"realtime","model":"m","audio":{"input":{"transcription":{"model":"x"}}}}`))
	got := formTo(t, OpenAI, "/v1/realtime/calls", contentType, text)
	require.Equal(t, strings.Replace(text, `"model":"m"`, `"model":"n"`, 1), got.Body)
}

func TestBaseModelIsNotRenamed(t *testing.T) {
	for _, line := range []string{
		`POST /v1/fine_tuning/jobs {"model":"m","training_file":"file-1"}`, `POST /openai/v1/fine_tuning/jobs {"training_file":"file-1","model":"m"}`,
		`POST /v1/fine_tuning/alpha/graders/run {"grader":{"model":"m"}}`,
	} {
		n := newNet()
		resp, _ := send(t, balance(t, n, to("https://h", AzureV1, "m-east")), with(t, line))
		require.Equal(t, 200, resp.StatusCode)
		_, body, _ := strings.Cut(strings.SplitN(line, " ", 2)[1], " ")
		require.Equal(t, body, n.Last().Body)
	}
}

// Classic Azure answers 400 to images whose body names a deployment.
func TestImagesOfClassicAzureNameTheDeploymentOnce(t *testing.T) {
	for in, want := range map[string]string{
		`{"prompt":"x","model":"m","n":1}`:   `{"prompt":"x","n":1}`,
		`{"model":"m","prompt":"x"}`:         `{"prompt":"x"}`,
		`{ "prompt":"x" , "model" : "m" }`:   `{ "prompt":"x"  }`,
		`{"model":"m"}`:                      `{}`,
		`{"prompt":"x"}`:                     `{"prompt":"x"}`,
		`{"prompt":"x","model":"gpt-image"}`: `{"prompt":"x","model":"gpt-image"}`,
	} {
		got := arrives(t, to("https://h", Azure, "m-east", apiVersion("1")), http.MethodPost, "https://foo.example/openai/deployments/m/images/generations", in)
		require.Equal(t, "/openai/deployments/m-east/images/generations", got.Path)
		require.Equal(t, want, got.Body)
		require.EqualValues(t, len(want), got.Length)
		require.True(t, json.Valid([]byte(got.Body)))
	}
	got := arrives(t, to("https://h", Azure, "m-east", apiVersion("1")), http.MethodPost, "https://foo.example/v1/images/generations", `{"model":"m","prompt":"x"}`)
	require.Equal(t, `{"prompt":"x"}`, got.Body)
	got = arrives(t, to("https://h", Azure, "m-east", apiVersion("1")), http.MethodPost, "https://foo.example/v1/embeddings", `{"model":"m","input":"x"}`)
	require.Equal(t, `{"model":"m","input":"x"}`, got.Body, "others take no offence")

	contentType, text := writeForm(t, otherField, modelField, wiretest.File("image", "a.png", "x"))
	form := formTo(t, Azure, "/v1/images/edits", contentType, text)
	parts, err := wiretest.ReadForm(contentType, form.Body)
	require.NoError(t, err)
	require.Equal(t, []wiretest.FormField{otherField, wiretest.File("image", "a.png", "x")}, parts)
	require.EqualValues(t, len(form.Body), form.Length)
}

// Ids of every kind are learnt from where they stand, and used where they stand.
func TestIDsByPlace(t *testing.T) {
	for create, test := range map[string]struct {
		answer string
		uses   []string
	}{
		`POST /v1/live/sessions {"session":{"model":"m"}}`:           {`{"session":{"id":"live_1"},"transport":{"sdp":"v"}}`, []string{"POST /v1/live/sessions/live_1/hangup", "GET /v1/live/sessions/live_1/content", "GET /v1/live/live_1"}},
		`POST /v1/realtime/client_secrets {"session":{"model":"m"}}`: {`{"value":"ek","session":{"id":"sess_1"}}`, []string{"GET /v1/telepathy/sess_1"}},
		`POST /v1/agents {"model":"m"}`:                              {`{"id":"agent_x","object":"agent"}`, []string{"GET /v1/agents/agent_x", `POST /v1/agents/sessions {"agent_id":"agent_x"}`}},
		`POST /v1/agents/sessions {}`:                                {`{"id":"sess_x"}`, []string{"GET /v1/agents/sessions/sess_x/events", `POST /v1/agents/sessions/sess_x/events {"events":[]}`}},
		`POST /v1/vaults {}`:                                         {`{"id":"vault_x"}`, []string{"GET /v1/vaults/vault_x/credentials", `POST /v1/agents {"model":"m","vault_ids":["vault_x"]}`}},
		`POST /openai/v1/video/generations/jobs {"model":"m"}`:       {`{"id":"task_1","generations":[{"id":"gen_1"}]}`, []string{"GET /openai/v1/video/generations/jobs/task_1", "GET /openai/v1/video/generations/gen_1/content/video"}},
		`POST /v1/audio/voices x`:                                    {`{"id":"voice_x"}`, []string{`POST /v1/audio/speech {"model":"m","voice":{"id":"voice_x"},"input":"hi"}`}},
		`POST /v1/audio/voice_consents x`:                            {`{"id":"cons_x"}`, []string{"GET /v1/audio/voice_consents/cons_x"}},
		`POST /v1/videos/characters x`:                               {`{"id":"char_x"}`, []string{"GET /v1/videos/characters/char_x"}},
		`POST /v1/videos {"model":"m"}`:                              {`{"id":"Vid 2"}`, nil},
		`POST /v1/videos {"model":"m","n":2}`:                        {`{"id":"video_2"}`, []string{`POST /v1/videos/edits {"video":{"id":"video_2"}}`, "POST /v1/videos/video_2/remix {}"}},
		`POST /v1/things {"model":"m"}`:                              {`{"id":"of-another-kind.7"}`, []string{"GET /v1/things/of-another-kind.7", "GET /v1/things/of-another-kind.7/parts"}},
		`POST /v1/chat/completions {"model":"m","store":true}`:       {`{"id":"chatcmpl-7"}`, []string{"GET /v1/chat/completions/chatcmpl-7", "GET /v1/chat/completions/chatcmpl-7/messages"}},
		`POST /v1/chat/completions {"model":"m","audio":{"voice":"x"}}`: {`{"choices":[{"message":{"audio":{"id":"audio_1","data":"x"}}}]}`, []string{
			`POST /v1/chat/completions {"model":"m","messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}`,
		}},
		`POST /v1/responses {"model":"m"}`: {`{"id":"resp_1","output":[{"id":"ig_1","type":"image_generation_call"},{"id":"ctc_1","type":"custom_tool_call"}]}`, []string{
			`POST /v1/responses {"model":"m","input":[{"type":"item_reference","id":"ig_1"}]}`, `POST /v1/responses {"model":"m","input":[{"id":"ctc_1"}]}`,
		}},
		`POST /v1/responses/compact {"model":"m"}`: {`{"id":"resp_2","output":[{"id":"cmp_1","type":"compaction","encrypted_content":"x"}]}`, []string{`POST /v1/responses {"model":"m","input":[{"encrypted_content":"x","id":"cmp_1","type":"compaction"}]}`}},
		`GET /v1/fine_tuning/jobs/ftjob-1`:         {`{"id":"ftjob-1","fine_tuned_model":"ft:gpt:org::1"}`, []string{"GET /v1/models/ft:gpt:org::1", "DELETE /v1/models/ft%3Agpt%3Aorg%3A%3A1"}},
		`POST /v1/conversations {}`:                {`{"id":"conv_2"}`, []string{"GET /v1/conversations/conv_2/items"}},
		`POST /v1/uploads/upload_1/complete {}`:    {`{"id":"upload_1","file":{"id":"file-9"}}`, []string{"GET /v1/files/file-9"}},
		`GET /v1/files?limit=2`:                    {`{"data":[{"id":"file-1"},{"id":"file-2"}],"last_id":"file-2"}`, []string{"GET /v1/files?after=file-2", "GET /v1/files/file-1"}},
	} {
		t.Run(create, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, tr := learnt(t, create, "application/json", test.answer)
				for _, use := range test.uses {
					resp, _ := send(t, tr, with(t, use))
					require.Equal(t, "b", servedBy(resp), use)
				}
			})
		})
	}
}

// A call is known by the Location of what was made, and by a parameter.
func TestIDsOfHeadersAndQueries(t *testing.T) {
	for _, header := range []string{"Location: /v1/realtime/calls/rtc_1", "Location: https://b.openai.azure.com/openai/v1/realtime/calls/rtc_1?x=y", "Openai-Call-Id: rtc_1", "X-Openai-Call-Id: rtc_1",
		"Location: %zz://\x7f|Openai-Call-Id: rtc_1"} {
		for _, code := range []int{200, 201} {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				tr := steady(balance(t, n, azure("a"), azure("b"), azure("c")))
				n.On(host("a"), status(429, "", "retry-after-ms: 1"), status(200, "{}"))
				n.On(host("b"), status(code, "v=0", strings.Split(header, "|")...), status(200, "{}"))
				resp, _ := send(t, tr, with(t, "POST /v1/realtime/calls?model=m v=0", "Content-Type: application/sdp"))
				require.Equal(t, "b", servedBy(resp))
				time.Sleep(time.Second)
				for _, use := range []string{"POST /v1/realtime/calls/rtc_1/hangup", `POST /v1/realtime/calls/rtc_1/accept {"model":"m"}`, "GET /v1/realtime?call_id=rtc_1"} {
					resp, _ = send(t, tr, with(t, use))
					require.Equal(t, "b", servedBy(resp), use)
				}
				req := with(t, "GET /v1/realtime?call_id=rtc_1", "Upgrade: websocket")
				resp, _ = send(t, tr, req)
				require.Equal(t, "b", servedBy(resp), "a socket beside the call")
			})
		}
	}
}

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
	n.On(host("a"), status(404, notFound))
	n.On(host("b"), status(404, `{"error":{"message":"no file of b"}}`))
	tr.stored.Put(time.Now(), wire.ObjectID{ID: "file-1"}, tr.table().backends[1].resource)
	for _, sends := range []int{3, 4} {
		resp, _ := send(t, tr, with(t, "GET /v1/files/file-1"))
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "c", servedBy(resp))
		require.Equal(t, sends, n.Sends())
	}
	n.On(host("c"), status(404, notFound))
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

// Entries of one resource have the same objects.
func TestEntriesOfOneResource(t *testing.T) {
	entry := func(name, url, key string, p int, d Dialect) Backend {
		return Backend{Name: name, URL: url, APIKey: key, Priority: p, Dialect: d}
	}
	const azureURL, gateway = "https://r.openai.azure.com", "https://gw.example/team"
	for name, test := range map[string]struct {
		ptu, standard Backend
		same          bool
	}{
		"a host of Azure":      {entry("ptu", azureURL, "k", 1, ""), entry("standard", azureURL, "k", 2, ""), true},
		"its other key":        {entry("ptu", azureURL, "k", 1, ""), entry("standard", azureURL, "l", 2, ""), true},
		"another dialect":      {entry("ptu", azureURL, "k", 1, Azure), entry("standard", azureURL+"/openai/v1", "k", 2, ""), true},
		"a gateway":            {entry("ptu", gateway, "k", 1, AzureV1), entry("standard", gateway, "k", 2, AzureV1), true},
		"another key of it":    {entry("ptu", gateway, "k", 1, AzureV1), entry("standard", gateway, "l", 2, AzureV1), false},
		"another path of it":   {entry("ptu", gateway, "k", 1, AzureV1), entry("standard", gateway+"2", "k", 2, AzureV1), false},
		"OpenAI":               {entry("ptu", "https://api.openai.com", "k", 1, ""), entry("standard", "https://api.openai.com/v1", "k", 2, ""), true},
		"another organization": {entry("ptu", "https://api.openai.com", "k", 1, ""), entry("standard", "https://api.openai.com/v1", "l", 2, ""), false},
		"another host":         {entry("ptu", azureURL, "k", 1, ""), entry("standard", "https://s.openai.azure.com", "k", 2, ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			test.ptu.Models = []Model{{Name: "m", Deployment: "m-ptu"}}
			test.standard.Models = []Model{{Name: "m", Deployment: "m-standard"}}
			cfg := Config{Base: n, Backends: []Backend{test.ptu, test.standard}}
			tr := steady(configured(t, cfg))
			answer := func(req *http.Request) (*http.Response, error) {
				text, err := io.ReadAll(req.Body)
				require.NoError(t, err)
				if strings.Contains(string(text), "second") && strings.Contains(string(text), "m-ptu") {
					return status(429, "{}", "Retry-After: 9")(req)
				}
				return status(200, `{"id":"resp_1","output":[{"type":"reasoning","id":"rs_1","encrypted_content":"x"}]}`)(req)
			}
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) { return answer(req) })
			cfg.Base = base
			require.NoError(t, tr.Reconfigure(cfg))
			resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m","input":"first"}`))
			require.Equal(t, "ptu", servedBy(resp))
			require.NoError(t, tr.Reconfigure(cfg), "and after it, too")
			for _, use := range []string{
				`POST /v1/responses {"model":"m","input":"second","previous_response_id":"resp_1"}`,
				`POST /v1/responses {"model":"m","input":[{"type":"reasoning","id":"rs_1","encrypted_content":"second"}]}`,
			} {
				resp, _ = send(t, tr, with(t, use))
				if test.same {
					require.Equal(t, 200, resp.StatusCode)
					require.Equal(t, "standard", servedBy(resp))
				} else {
					require.Equal(t, 429, resp.StatusCode)
				}
			}
		})
	}
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

// The model is found behind any amount of other text, and nothing of that is kept.
func TestModelBehind32MiB(t *testing.T) {
	size := replay.MaxBuffered + 3<<20
	if UnderRace {
		size = replay.MaxKept + 3<<20
	}
	filler := bytes.Repeat([]byte("all work and no play "), size/21)
	for name, c := range map[string]struct{ head, tail, want, path, contentType string }{
		"JSON":        {`{"input":"`, `","model":"m"}`, `","model":"m-east"}`, "/v1/responses", "application/json"},
		"JSON nested": {`{"x":"`, `","session":{"model":"m"}}`, `","session":{"model":"m-east"}}`, "/v1/realtime/client_secrets", "application/json"},
		"form": {"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n", "\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n",
			"\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm-east\r\n--b--\r\n", "/v1/audio/transcriptions", "multipart/form-data; boundary=b"},
	} {
		t.Run(name, func(t *testing.T) {
			getBody := func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(strings.NewReader(c.head), bytes.NewReader(filler), strings.NewReader(c.tail))), nil
			}
			var got string
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				text, err := io.ReadAll(req.Body)
				require.NoError(t, err)
				require.EqualValues(t, len(text), req.ContentLength)
				got = req.URL.Host + " " + string(text[len(c.head)+len(filler):])
				return status(200, "{}")(req)
			})
			tr := steady(balance(t, base, Backend{Name: "a", URL: "https://a", Dialect: OpenAI, APIKey: "k", Models: []Model{{Name: "other"}}},
				Backend{Name: "b", URL: "https://b", Dialect: OpenAI, APIKey: "l", Models: []Model{{Name: "m", Deployment: "m-east"}}}))
			body, err := getBody()
			require.NoError(t, err)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://foo.example"+c.path, body)
			require.NoError(t, err)
			req.Header.Set("Content-Type", c.contentType)
			req.GetBody, req.ContentLength = getBody, int64(len(c.head)+len(filler)+len(c.tail))
			resp, _ := send(t, tr, req)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "b "+c.want, got)
		})
	}
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

// Microsoft Foundry's own operations stay what they are.
func TestFoundryOperationsAreSentAsTheyCame(t *testing.T) {
	foundry := func(name string, p int) Backend {
		return Backend{Name: name, URL: "https://" + name + ".services.ai.azure.com", APIKey: "k", Priority: p, Models: []Model{{Name: "m", Deployment: "m-east"}}}
	}
	for _, line := range []string{
		`POST /models/chat/completions?api-version=2024-05-01-preview {"model":"m","messages":[]}`, `POST /models/embeddings?api-version=1 {"model":"m"}`,
		`POST /anthropic/v1/messages {"model":"claude","messages":[]}`, `POST /anthropic/v1/messages/count_tokens {"model":"claude"}`,
	} {
		for _, trouble := range []roundTripFunc{status(429, "{}"), status(500, "{}"), broken(cutOff)} {
			n := newNet()
			n.On("one.services.ai.azure.com", trouble)
			tr := steady(balance(t, n, azure("classic"), foundry("one", 1), foundry("two", 2)))
			resp, _ := send(t, tr, with(t, line))
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "two", servedBy(resp))
			require.Zero(t, n.Sends(host("classic")), "it has no such operation")
			_, rest, _ := strings.Cut(line, " ")
			target, body, _ := strings.Cut(rest, " ")
			for _, s := range n.Seen {
				got := s.Path
				if s.Query != "" {
					got += "?" + s.Query
				}
				require.Equal(t, target, got)
				require.Equal(t, body, s.Body)
			}
		}
	}
	// They are beside the projects of a resource, not below one.
	n := newNet()
	project := foundry("one", 1)
	project.URL += "/api/projects/p"
	for _, line := range []string{`POST /models/chat/completions?api-version=1 {"model":"m"}`, `POST /anthropic/v1/messages {"model":"claude"}`, `POST /v1/responses {"model":"m"}`} {
		send(t, balance(t, n, project), with(t, line))
	}
	require.Equal(t, []string{"/models/chat/completions", "/anthropic/v1/messages", "/api/projects/p/openai/v1/responses"}, []string{n.Seen[0].Path, n.Seen[1].Path, n.Seen[2].Path})
	// At the caller's own host, whatever that is called.
	n = newNet()
	tr := steady(balance(t, n, azure("classic"), Backend{Name: "own", URL: "https://foo.openai.azure.com", APIKey: "k", Priority: 2}))
	resp, _ := send(t, tr, with(t, `POST /models/chat/completions?api-version=1 {"model":"m"}`))
	require.Equal(t, "own", servedBy(resp))
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
	require.EqualValues(t, 7, deploymentOf(t, tr, "a").input.Load())
}
