package spillover_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/wiretest"
)

// calls is a pool of which only b serves m, and calls it m-east.
func callsMEast(t testing.TB, n *fakeNet, d spillover.Dialect) *spillover.Transport {
	return steady(balance(t, n, spillover.Backend{Name: "a", URL: "https://a", Dialect: d, APIKey: "k", Models: []spillover.Model{{Name: "other"}}},
		spillover.Backend{Name: "b", URL: "https://b", Dialect: d, APIKey: "l", Models: []spillover.Model{{Name: "m", Deployment: "m-east"}, {Name: "hear", Deployment: "hear-east"}}}))
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
		for _, d := range []spillover.Dialect{spillover.OpenAI, spillover.AzureV1} {
			n := newNet()
			resp, _ := send(t, callsMEast(t, n, d), with(t, line))
			require.Equal(t, "b", servedBy(resp), line)
			require.Equal(t, want, n.Last().Body)
			require.EqualValues(t, len(want), n.Last().Length)
		}
	}
}

func TestModelInTheQueryOfAPost(t *testing.T) {
	for _, d := range []spillover.Dialect{spillover.OpenAI, spillover.AzureV1, spillover.Azure} {
		n := newNet()
		tr := steady(balance(t, n, spillover.Backend{Name: "a", URL: "https://a", Dialect: d, APIKey: "k", Models: []spillover.Model{{Name: "other"}}},
			spillover.Backend{Name: "b", URL: "https://b", Dialect: d, APIKey: "l", Models: []spillover.Model{{Name: "m", Deployment: "m-east"}}}))
		req := with(t, "POST /v1/realtime/calls?x=%20&model=m v=0", "Content-Type: application/sdp")
		resp, _ := send(t, tr, req)
		require.Equal(t, "b", servedBy(resp))
		query, _, _ := strings.Cut(n.Last().Query, "&api-version=") // classic Azure has one of its own
		require.Equal(t, "x=%20&model=m-east", query)
		require.Equal(t, "v=0", n.Last().Body)
	}
	// In a list it is a filter.
	n := newNet()
	send(t, callsMEast(t, n, spillover.OpenAI), with(t, "GET /v1/chat/completions?model=m"))
	require.Equal(t, "model=m", n.Last().Query)
}

func TestModelOfForms(t *testing.T) {
	for _, path := range []string{"/v1/videos", "/v1/videos/edits", "/v1/videos/extensions", "/openai/v1/video/generations/jobs"} {
		contentType, text := writeForm(t, wiretest.Field("prompt", "a model of a ship"), hostileFile, modelField)
		got := formTo(t, spillover.AzureV1, path, contentType, text)
		at := strings.LastIndex(text, "\r\n\r\nm\r\n") + 4
		require.Equal(t, text[:at]+"n"+text[at+1:], got.Body, path)
	}
	// A call has its session as JSON in a part.
	contentType, text := writeForm(t, wiretest.Field("sdp", "v=0"), wiretest.Field("session", `{"type":"realtime","model":"m","audio":{"input":{"transcription":{"model":"x"}}}}`))
	got := formTo(t, spillover.OpenAI, "/v1/realtime/calls", contentType, text)
	require.Equal(t, strings.Replace(text, `"model":"m"`, `"model":"n"`, 1), got.Body)
}

func TestBaseModelIsNotRenamed(t *testing.T) {
	for _, line := range []string{
		`POST /v1/fine_tuning/jobs {"model":"m","training_file":"file-1"}`, `POST /openai/v1/fine_tuning/jobs {"training_file":"file-1","model":"m"}`,
		`POST /v1/fine_tuning/alpha/graders/run {"grader":{"model":"m"}}`,
	} {
		n := newNet()
		resp, _ := send(t, balance(t, n, to("https://h", spillover.AzureV1, "m-east")), with(t, line))
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
		got := arrives(t, to("https://h", spillover.Azure, "m-east", apiVersion("1")), http.MethodPost, "https://foo.example/openai/deployments/m/images/generations", in)
		require.Equal(t, "/openai/deployments/m-east/images/generations", got.Path)
		require.Equal(t, want, got.Body)
		require.EqualValues(t, len(want), got.Length)
		require.True(t, json.Valid([]byte(got.Body)))
	}
	got := arrives(t, to("https://h", spillover.Azure, "m-east", apiVersion("1")), http.MethodPost, "https://foo.example/v1/images/generations", `{"model":"m","prompt":"x"}`)
	require.Equal(t, `{"prompt":"x"}`, got.Body)
	got = arrives(t, to("https://h", spillover.Azure, "m-east", apiVersion("1")), http.MethodPost, "https://foo.example/v1/embeddings", `{"model":"m","input":"x"}`)
	require.Equal(t, `{"model":"m","input":"x"}`, got.Body, "others take no offence")

	contentType, text := writeForm(t, otherField, modelField, wiretest.File("image", "a.png", "x"))
	form := formTo(t, spillover.Azure, "/v1/images/edits", contentType, text)
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

// Entries of one resource have the same objects.
func TestEntriesOfOneResource(t *testing.T) {
	entry := func(name, url, key string, p int, d spillover.Dialect) spillover.Backend {
		return spillover.Backend{Name: name, URL: url, APIKey: key, Priority: p, Dialect: d}
	}
	const azureURL, gateway = "https://r.openai.azure.com", "https://gw.example/team"
	for name, test := range map[string]struct {
		ptu, standard spillover.Backend
		same          bool
	}{
		"a host of Azure":      {entry("ptu", azureURL, "k", 1, ""), entry("standard", azureURL, "k", 2, ""), true},
		"its other key":        {entry("ptu", azureURL, "k", 1, ""), entry("standard", azureURL, "l", 2, ""), true},
		"another dialect":      {entry("ptu", azureURL, "k", 1, spillover.Azure), entry("standard", azureURL+"/openai/v1", "k", 2, ""), true},
		"a gateway":            {entry("ptu", gateway, "k", 1, spillover.AzureV1), entry("standard", gateway, "k", 2, spillover.AzureV1), true},
		"another key of it":    {entry("ptu", gateway, "k", 1, spillover.AzureV1), entry("standard", gateway, "l", 2, spillover.AzureV1), false},
		"another path of it":   {entry("ptu", gateway, "k", 1, spillover.AzureV1), entry("standard", gateway+"2", "k", 2, spillover.AzureV1), false},
		"OpenAI":               {entry("ptu", "https://api.openai.com", "k", 1, ""), entry("standard", "https://api.openai.com/v1", "k", 2, ""), true},
		"another organization": {entry("ptu", "https://api.openai.com", "k", 1, ""), entry("standard", "https://api.openai.com/v1", "l", 2, ""), false},
		"another host":         {entry("ptu", azureURL, "k", 1, ""), entry("standard", "https://s.openai.azure.com", "k", 2, ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			test.ptu.Models = []spillover.Model{{Name: "m", Deployment: "m-ptu"}}
			test.standard.Models = []spillover.Model{{Name: "m", Deployment: "m-standard"}}
			cfg := spillover.Config{Base: n, Backends: []spillover.Backend{test.ptu, test.standard}}
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

// Microsoft Foundry's own operations stay what they are.
func TestFoundryOperationsAreSentAsTheyCame(t *testing.T) {
	foundry := func(name string, p int) spillover.Backend {
		return spillover.Backend{Name: name, URL: "https://" + name + ".services.ai.azure.com", APIKey: "k", Priority: p, Models: []spillover.Model{{Name: "m", Deployment: "m-east"}}}
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
	tr := steady(balance(t, n, azure("classic"), spillover.Backend{Name: "own", URL: "https://foo.openai.azure.com", APIKey: "k", Priority: 2}))
	resp, _ := send(t, tr, with(t, `POST /models/chat/completions?api-version=1 {"model":"m"}`))
	require.Equal(t, "own", servedBy(resp))
}

// The model is found behind any amount of other text, and nothing of that is kept.
func TestModelBehind32MiB(t *testing.T) {
	size := replay.MaxBuffered + 3<<20
	if spillover.UnderRace {
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
			tr := steady(balance(t, base, spillover.Backend{Name: "a", URL: "https://a", Dialect: spillover.OpenAI, APIKey: "k", Models: []spillover.Model{{Name: "other"}}},
				spillover.Backend{Name: "b", URL: "https://b", Dialect: spillover.OpenAI, APIKey: "l", Models: []spillover.Model{{Name: "m", Deployment: "m-east"}}}))
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
