package spillover_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/objects"
	"github.com/spillover-go/spillover/internal/testnet"
)

// steady makes a Transport take the first of equals, so that what goes to
// another one goes there for a reason.
func steady(tr *spillover.Transport) *spillover.Transport {
	tr.SetRandom(func() uint64 { return 0 })
	return tr
}

// learnt is a pool of a, b and c of which b has made what the answer tells. The
// next requests would go to a.
func learnt(t testing.TB, create, contentType, answer string) (*fakeNet, *spillover.Transport) {
	n := newNet()
	tr := steady(balance(t, n, azure("a"), azure("b"), azure("c")))
	n.On(host("a"), status(429, "", "retry-after-ms: 1"), status(200, "{}"))
	n.On(host("b"), testnet.Content(contentType, answer), status(200, "{}"))
	resp, text := send(t, tr, with(t, create))
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, answer, text)
	time.Sleep(time.Second)
	return n, tr
}

func TestStoredObjects(t *testing.T) {
	for create, test := range map[string]struct {
		answer string
		uses   []string
	}{
		`POST /v1/files x`: {`{"object":"file","id":"file-AbC123"}`, []string{
			"GET /v1/files/file-AbC123", "GET /openai/files/file-AbC123/content?api-version=1", "DELETE /openai/v1/files/file-AbC123",
			`POST /v1/responses {"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-AbC123"}]}]}`,
			`POST /v1/responses {"model":"m","tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["file-AbC123"]}}]}`,
			`POST /v1/batches {"input_file_id":"file-AbC123","endpoint":"/v1/chat/completions","completion_window":"24h"}`,
			`POST /v1/fine_tuning/jobs {"model":"m","training_file":"file-AbC123"}`,
			`POST /v1/vector_stores {"file_ids":["file-AbC123"]}`,
		}},
		`POST /openai/files?api-version=1 x`: {`{"id": "assistant-AbC123"}`, []string{"GET /openai/files/assistant-AbC123?api-version=1"}},
		`POST /v1/batches {}`:                {`{"id":"batch_7f-00"}`, []string{"GET /v1/batches/batch_7f-00", "POST /openai/batches/batch_7f-00/cancel?api-version=1"}},
		`POST /v1/assistants {"model":"m"}`:  {`{"id":"asst_1"}`, []string{"GET /v1/assistants/asst_1", `POST /v1/threads/runs {"assistant_id":"asst_1"}`}},
		`POST /v1/threads`:                   {`{"id":"thread_1"}`, []string{`POST /v1/threads/thread_1/messages {}`, `POST /v1/threads/thread_1/runs {}`, "GET /v1/threads/thread_1/messages"}},
		`POST /v1/threads/runs {}`:           {`{"id":"run_1"}`, []string{"GET /v1/threads/thread_9/runs/run_1/steps"}},
		`POST /v1/vector_stores {}`: {`{"id":"vs_1"}`, []string{
			"GET /v1/vector_stores/vs_1", `POST /v1/vector_stores/vs_1/search {"query":"x"}`,
			`POST /v1/responses {"model":"m","tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}`,
		}},
		`POST /v1/containers {"name":"n"}`: {`{"id":"cntr_1"}`, []string{
			"GET /v1/containers/cntr_1/files", `POST /v1/responses {"model":"m","tools":[{"type":"code_interpreter","container":"cntr_1"}]}`,
		}},
		`POST /v1/conversations {}`:     {`{"id":"conv_1"}`, []string{"GET /v1/conversations/conv_1", `POST /v1/conversations/conv_1/items {}`}},
		`POST /v1/uploads {}`:           {`{"id":"upload_1"}`, []string{"POST /v1/uploads/upload_1/parts x", `POST /v1/uploads/upload_1/complete {"part_ids":[]}`}},
		`POST /v1/fine_tuning/jobs {}`:  {`{"id":"ftjob-1"}`, []string{"GET /v1/fine_tuning/jobs/ftjob-1/events"}},
		`POST /v1/evals {}`:             {`{"id":"eval_1"}`, []string{"GET /v1/evals/eval_1/runs"}},
		`POST /v1/videos {"model":"m"}`: {`{"id":"video_1"}`, []string{"GET /v1/videos/video_1/content"}},
		// A list tells what there is, too.
		`GET /v1/files`: {`{"data":[{"id":"file-1"},{"id":"file-2"}]}`, []string{"GET /v1/files/file-1", "GET /v1/files/file-2"}},
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

func TestStoredHomeIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tr := learnt(t, `POST /v1/responses {"model":"m"}`, "application/json", testnet.ResponseText)
		n.On(host("b"), status(429, "{}", "retry-after-ms: 4500"), status(200, "{}"))
		before := n.Sends()
		for i, left := range []string{"4500", "2500"} {
			resp, _ := send(t, tr, with(t, testnet.UsesOfResponse[6]))
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, "true", resp.Header.Get("X-Spillover-Synthesized"))
			require.Equal(t, left, resp.Header.Get("Retry-After-Ms"))
			require.Equal(t, 1, n.Sends()-before, "request %d: once to its home and nowhere else", i)
			time.Sleep(2 * time.Second)
		}
		resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m"}`))
		require.Equal(t, "a", servedBy(resp), "others go on")
		time.Sleep(time.Second)
		resp, _ = send(t, tr, with(t, testnet.UsesOfResponse[6]))
		require.Equal(t, "b", servedBy(resp), "it comes back")
	})
}

// One that lacks the deployment is set up wrongly, whoever asks.
// What is not about a deployment may name a model that nobody is configured for:
// the service knows whether it has it.
func TestStoredOfAnUnknownModel(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a", serves("m")))
	for _, line := range []string{`POST /v1/assistants {"model":"x"}`, `POST /v1/assistants/asst_1 {"model":"x"}`, `POST /v1/things {"model":"x"}`} {
		resp, _ := send(t, tr, with(t, line))
		require.Equal(t, "a", servedBy(resp), line)
		require.Contains(t, n.Last().Body, `{"model":"x"}`)
	}
	for _, line := range []string{`POST /v1/responses {"model":"x"}`, `POST /openai/deployments/x/things {"model":"x"}`} {
		resp, _ := send(t, tr, with(t, line))
		require.Equal(t, 404, resp.StatusCode, line)
	}
	require.Equal(t, 3, n.Sends())
}

func TestStoredAskedAroundWithoutDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := steady(balance(t, n, azure("a"), azure("b")))
		n.On(host("a"), status(404, `{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}`))
		for i := range 3 {
			resp, _ := send(t, tr, with(t, fmt.Sprintf(`POST /v1/responses {"model":"m","previous_response_id":"resp_%d"}`, i)))
			require.Equal(t, "b", servedBy(resp))
		}
		require.Equal(t, 1, n.Sends(host("a")))
	})
}

// One that cannot say whether it has the object is passed over; if nobody has
// it, what it said is not lost.
func TestStoredAskedAroundWithOneThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		tr := steady(balance(t, n, azure("a"), azure("b"), azure("c")))
		n.On(host("a"), status(429, "{}", "retry-after-ms: 3000"))
		n.On(host("b"), status(404, testnet.NotFound))
		n.On(host("c"), status(404, testnet.NotFound))
		resp, _ := send(t, tr, with(t, "GET /v1/files/file-1"))
		require.Equal(t, 429, resp.StatusCode, "a may have it")
		require.Equal(t, "3000", resp.Header.Get("Retry-After-Ms"))
	})
}

var (
	noConnection = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	cutOff       = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
)

func TestStoredCreatedOnce(t *testing.T) {
	for _, create := range []string{
		`POST /v1/responses {"model":"m","background":true}`,
		`POST /openai/responses?api-version=1 { "background" : true , "model" : "m" }`,
		`POST /v1/batches {"input_file_id":"file-1"}`,
		`POST /v1/threads/thread_1/runs {"assistant_id":"asst_1"}`,
		`POST /v1/vector_stores/vs_1/files {"file_id":"file-1"}`,
		`DELETE /v1/files/file-1`,
	} {
		for name, test := range map[string]struct {
			answer roundTripFunc
			moves  bool
		}{
			"500":           {status(500, "{}"), false},
			"503":           {status(503, "{}", "Retry-After: 1"), false},
			"408":           {status(408, "{}"), false},
			"409":           {status(409, "{}", "Retry-After: 1"), false},
			"cut off":       {broken(cutOff), false},
			"429":           {status(429, "{}"), true},
			"no connection": {broken(noConnection), true},
		} {
			t.Run(create+" "+name, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), test.answer)
				tr := steady(balance(t, n, azure("a"), azure("b", priority(2))))
				resp, err := tr.RoundTrip(with(t, create))
				if test.moves {
					require.NoError(t, err)
					require.Equal(t, "b", servedBy(resp))
					return
				}
				require.Equal(t, 1, n.Sends())
				require.True(t, errors.Is(err, syscall.ECONNRESET) || resp.StatusCode >= 400)
			})
		}
	}
	// What is not stored is asked for again.
	n := newNet()
	n.On(host("a"), status(500, "{}"))
	tr := steady(balance(t, n, azure("a"), azure("b")))
	resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m","background":false,"metadata":{"background":"true"}}`))
	require.Equal(t, "b", servedBy(resp))
}

// The place makes a segment an id, however that is spelt.
func TestIDsOfAnySpelling(t *testing.T) {
	for _, id := range []string{"resp_", "resp_a;b", "RESP_1", "xresp_1", "resp_a.b", "resp_%22", "7", "a:b", "ft%3Ax"} {
		n := newNet()
		tr := steady(balance(t, n, azure("a"), azure("b")))
		n.On(host("a"), status(404, testnet.NotFound))
		for range 2 {
			resp, _ := send(t, tr, with(t, "GET /v1/responses/"+id))
			require.Equal(t, "b", servedBy(resp), id)
		}
		require.Equal(t, 3, n.Sends(), "it is remembered: %s", id)
	}
}

// An id may be spelt as what paths begin with.
func TestIDsThatLookLikeAPrefix(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/vector_stores/v1/files":                           "/v1/vector_stores/v1/files",
		"/v1/vector_stores/openai/files":                       "/v1/vector_stores/openai/files",
		"/openai/containers/openai/files/v1/content":           "/v1/containers/openai/files/v1/content",
		"/gw/openai/v1/threads/v1/messages":                    "/v1/threads/v1/messages",
		"/v1/openai/v1/vector_stores/v1/file_batches/v1/files": "/v1/vector_stores/v1/file_batches/v1/files",
		"/v1/v1/files":              "/v1/files",
		"/openai/v1/v1/files/v1":    "/v1/files/v1",
		"/files/v1/responses/resp1": "/v1/responses/resp1",
		"/v1/telepathy/v1/files":    "/v1/files",
	} {
		require.Equal(t, want, arrives(t, to("https://h", spillover.OpenAI, ""), http.MethodGet, "https://foo.example"+path, "").Path, path)
	}
}

// An answer may tell of more than one object, by other names than id.
func TestStoredInsideAnswers(t *testing.T) {
	for answer, use := range map[string]string{
		`{"id":"resp_1","output":[{"id":"ci_1","type":"code_interpreter_call","container_id":"cntr_1"}]}`:  "GET /v1/containers/cntr_1/files",
		`{"id":"batch_1","input_file_id":"file-1","output_file_id":"file-2"}`:                              "GET /v1/files/file-2/content",
		`{"id":"run_1","object":"thread.run","thread_id":"thread_1"}`:                                      "POST /v1/threads/thread_1/messages {}",
		`{"id":"vs_1","file_counts":{},"data":[{"id":"file-3"}]}`:                                          "GET /v1/files/file-3",
		`{"id":"resp_1","previous_response_id":null,"conversation":{"id":"conv_1"},"metadata":{"id":"x"}}`: `POST /v1/responses {"model":"m","conversation":"conv_1"}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			_, tr := learnt(t, `POST /v1/responses {"model":"m","input":"hi"}`, "application/json", answer)
			resp, _ := send(t, tr, with(t, use))
			require.Equal(t, "b", servedBy(resp), use)
		})
	}
}

func TestStoredConcurrently(t *testing.T) {
	n := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if id := req.Header.Get("Id"); req.Method == http.MethodPost {
			return status(200, `{"id":"resp_`+id+`x`+strings.TrimSuffix(req.URL.Host, ".openai.azure.com")+`"}`)(req)
		}
		if home := strings.TrimSuffix(req.URL.Host, ".openai.azure.com"); !strings.HasSuffix(req.URL.Path, "x"+home) {
			return status(404, testnet.NotFound)(req)
		}
		return status(200, "{}")(req)
	})
	tr := balance(t, n, azure("a"), azure("b"), azure("c"))
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := range 20 {
				resp, text := send(t, tr, with(t, `POST /v1/responses {"model":"m"}`, fmt.Sprintf("Id: %d-%d", g, i)))
				id := strings.TrimSuffix(strings.TrimPrefix(text, `{"id":"`), `"}`)
				home := servedBy(resp)
				resp, _ = send(t, tr, with(t, "GET /v1/responses/"+id))
				require.Equal(t, home, servedBy(resp))
				require.Equal(t, "1", resp.Header.Get("X-Spillover-Attempts"))
			}
		})
	}
	all.Wait()
}

// Where one backend failed the object may well be there: the caller is not told
// that it does not exist.
func TestStoredNotFoundIsNoFailure(t *testing.T) {
	for name, trouble := range map[string]roundTripFunc{"500": status(500, `"down"`), "reset": broken(errReset)} {
		for _, first := range []bool{true, false} {
			n := newNet()
			n.On(host("a"), trouble)
			n.On(host("b"), status(404, `{"error":{"message":"not found"}}`))
			tr := balance(t, n, azure("a"), azure("b", priority(2)))
			if !first {
				tr = balance(t, n, azure("a", priority(2)), azure("b"))
			}
			req := newChat(t, "/openai/responses/resp_unknown?api-version=1")
			req.Method, req.Body, req.GetBody, req.ContentLength = http.MethodGet, nil, nil, 0
			resp, err := tr.RoundTrip(req)
			if name == "reset" {
				require.ErrorIs(t, err, syscall.ECONNRESET)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, 500, resp.StatusCode)
			resp.Body.Close()
		}
	}
}

func TestStoredObjectRoutingIsScopedAndExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tr := learnt(t, `POST /v1/responses {"model":"m"}`, "application/json", testnet.ResponseText)
		n.On(host("b"), status(429, "{}", "retry-after-ms: 1000"), status(200, "{}"))
		resp, _ := send(t, tr, with(t, testnet.UsesOfResponse[6]))
		require.Equal(t, 429, resp.StatusCode)
		time.Sleep(time.Second)
		resp, _ = send(t, tr, with(t, testnet.UsesOfResponse[6]))
		require.Equal(t, "b", servedBy(resp), "it returns")
		resp, _ = ask(t, tr)
		require.Equal(t, "a", servedBy(resp), "it keeps nobody else")
		time.Sleep(objects.KeptFor + time.Second)
		resp, _ = send(t, tr, with(t, testnet.UsesOfResponse[6]))
		require.Equal(t, "a", servedBy(resp), "it ends")
	})
}

func TestStoredHomeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tr := learnt(t, `POST /v1/responses {"model":"m"}`, "application/json", testnet.ResponseText)
		n.On(host("b"), status(500, `{"error":{"message":"sorry"}}`))
		for d := range spillover.DeploymentsOf(tr, "m") {
			now := time.Now()
			testnet.FailAt(&d.State, now, health.Misconfigured, "401", 0.5) // all are out
		}
		for range 5 {
			before := n.Sends(host("b"))
			resp, text := send(t, tr, with(t, testnet.UsesOfResponse[6]))
			require.Equal(t, 500, resp.StatusCode)
			require.Equal(t, `{"error":{"message":"sorry"}}`, text)
			require.Equal(t, 1, n.Sends(host("b"))-before, "there is no other to ask")
		}
		n.On(host("b"), broken(io.ErrUnexpectedEOF))
		_, err := tr.RoundTrip(with(t, testnet.UsesOfResponse[6]))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Zero(t, n.Sends(host("c")))
	})
}
