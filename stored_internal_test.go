package spillover

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/objects"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wire"
)

// steady makes a Transport take the first of equals, so that what goes to
// another one goes there for a reason.
func steady(tr *Transport) *Transport {
	tr.SetRandom(func() uint64 { return 0 })
	return tr
}

// learnt is a pool of a, b and c of which b has made what the answer tells. The
// next requests would go to a.
func learnt(t testing.TB, create, contentType, answer string) (*fakeNet, *Transport) {
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

const responseStream = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_68a1f00d\",\"conversation\":{\"id\":\"conv_68c0\"}}}\n\n" +
	"event: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"item\":{\"id\":\"rs_68b2\",\"type\":\"reasoning\"}}\n\n" +
	"event: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"item\":{\"id\":\"msg_68d3\",\"type\":\"message\"}}\n\n" +
	"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_68a1f00d\"}}\n\n"

func TestStoredResponses(t *testing.T) {
	compact := strings.NewReplacer("\n", "", "  ", "", ": ", ":").Replace(testnet.ResponseText)
	for name, answer := range map[string][2]string{
		"pretty":  {"application/json", testnet.ResponseText},
		"compact": {"application/json; charset=utf-8", compact},
		"stream":  {"text/event-stream; charset=utf-8", responseStream},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, tr := learnt(t, `POST /openai/responses?api-version=1 {"model":"m","input":"hi"}`, answer[0], answer[1])
				for _, use := range testnet.UsesOfResponse {
					resp, _ := send(t, tr, with(t, use))
					require.Equal(t, "b", servedBy(resp), use)
				}
				for _, use := range []string{
					`POST /v1/responses {"model":"m","input":"hi"}`,
					// An item that is sent back whole can be read by all.
					`POST /v1/responses {"model":"m","input":[{"id":"msg_68d3","type":"message","role":"assistant","content":[]}]}`,
					`POST /v1/responses {"model":"m","input":[{"role":"user","content":"what is \"resp_68a1f00d\"?"}]}`,
					`POST /v1/responses {"model":"m","input":"{\"previous_response_id\":\"resp_68a1f00d\"}"}`,
					`POST /v1/responses {"model":"m","input":"see resp_68a1f00d"}`,
				} {
					resp, _ := send(t, tr, with(t, use))
					require.Equal(t, "a", servedBy(resp), use)
				}
				require.Nil(t, tr.stored.Find(time.Now(), "resp_said"))
			})
		})
	}
}

// What a request is made of is no name of an object, however much it looks so.
func TestStoredWordsAreNoIDs(t *testing.T) {
	for _, body := range []string{
		`{"model":"m","tools":[{"type":"file_search"}]}`,
		`{"model":"m","input":[{"type":"input_file","filename":"x","file_data":"data:,"}]}`,
		`{"model":"m","tools":[{"type":"function","name":"run_query"}],"tool_choice":{"type":"function","name":"run_query"}}`,
		`{"model":"m","input":[{"type":"function_call_output","call_id":"call_1","output":"file-AbC123"}]}`,
		`{"model":"m","input":"step_one"}`,
		`{"model":"m","metadata":{"run_id":"run_7","thread_id":"thread_of_mine"}}`,
		`{"model":"m","tools":[{"type":"function","name":"f","parameters":{"properties":{"file_name":{"type":"string"},"thread_id":{"enum":["part_a"]}}}}]}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			tr := steady(balance(t, n, azure("a"), azure("b")))
			resp, _ := send(t, tr, with(t, "POST /v1/responses "+body))
			require.Equal(t, "a", servedBy(resp))
			require.Zero(t, knownObjects(tr), "of %s", body)
			n.On(host("a"), status(429, "{}"))
			for range 2 {
				resp, _ = send(t, tr, with(t, "POST /v1/responses "+body))
				require.Equal(t, "b", servedBy(resp), "it is bound to nobody: %s", body)
			}
		})
	}
}

func TestStoredHomeIsBusier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, tr := learnt(t, `POST /v1/responses {"model":"m"}`, "application/json", testnet.ResponseText)
		for d := range DeploymentsOf(tr, "m") {
			if d.backend.name == "b" {
				d.InFlight.Add(1000)
			}
		}
		resp, _ := send(t, tr, with(t, testnet.UsesOfResponse[6]))
		require.Equal(t, "b", servedBy(resp))
	})
}

// The home of an object may not serve the model that the request names: that
// is for the service to say.
func TestStoredHomeWithoutTheModel(t *testing.T) {
	n := newNet()
	tr := steady(balance(t, n, azure("a", serves("m")), azure("b", serves("other"))))
	tr.stored.Put(time.Now(), wire.ObjectID{ID: "resp_1"}, tr.table().backends[1].resource)
	resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m","previous_response_id":"resp_1"}`))
	require.Equal(t, "b", servedBy(resp))
	require.Contains(t, n.Seen[0].Body, `"model":"m"`)
}

// six is a pool of two tiers, larger than MaxAttempts.
func six(t testing.TB, n *fakeNet) *Transport {
	p2 := priority(2)
	return steady(balance(t, n, azure("a"), azure("b"), azure("c"), azure("d", p2), azure("e", p2), azure("f", p2)))
}

func TestStoredAskedAround(t *testing.T) {
	const notPrevious = `{"error":{"message":"Previous response with id 'resp_1' not found.","type":"invalid_request_error","param":"previous_response_id","code":"previous_response_not_found"}}`
	const notDecrypted = `{"error":{"message":"The encrypted content could not be verified.","type":"invalid_request_error","param":null,"code":"invalid_encrypted_content"}}`
	for use, no := range map[string]roundTripFunc{
		"GET /v1/responses/resp_1":                                                           status(404, testnet.NotFound),
		"DELETE /v1/files/file-1":                                                            status(404, testnet.NotFound),
		`POST /v1/threads/thread_1/runs {"assistant_id":"asst_1"}`:                           status(404, testnet.NotFound),
		`POST /v1/responses {"model":"m","previous_response_id":"resp_1"}`:                   status(404, testnet.NotFound),
		`POST /openai/responses?api-version=1 {"model":"m","conversation":"conv_1"}`:         status(404, testnet.NotFound),
		`POST /openai/v1/responses {"model":"m","previous_response_id":"resp_1"}`:            status(400, notPrevious),
		`POST /v1/responses {"model":"m","input":[{"type":"reasoning","id":"rs_1"}]}`:        status(400, notDecrypted),
		`POST /v1/responses {"model":"m","background":true,"previous_response_id":"resp_1"}`: status(400, notPrevious),
	} {
		t.Run(use, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				tr := six(t, n)
				for _, name := range []string{"a", "b", "c", "d", "e"} {
					n.On(host(name), no)
				}
				resp, _ := send(t, tr, with(t, use))
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, "f", servedBy(resp))
				require.Equal(t, "6", resp.Header.Get("X-Spillover-Attempts"))
				for _, r := range tr.table().all() {
					for d := range r.all {
						require.Zero(t, testnet.Spent(d.tier.budget), "asking around costs nothing")
						require.True(t, d.accepts(time.Now()), "and harms nobody")
						require.Zero(t, d.InFlight.Load())
					}
				}
				resp, _ = send(t, tr, with(t, use))
				require.Equal(t, "f", servedBy(resp))
				require.Equal(t, 7, n.Sends(), "it is remembered")
			})
		})
	}
}

func TestStoredNowhere(t *testing.T) {
	n := newNet()
	tr := six(t, n)
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		n.On(host(name), status(404, `{"error":{"message":"`+name+`"}}`))
	}
	resp, text := send(t, tr, with(t, "GET /v1/responses/resp_1"))
	require.Equal(t, 404, resp.StatusCode)
	require.Equal(t, `{"error":{"message":"f"}}`, text, "the last one's own words")
	require.Equal(t, "f", servedBy(resp))
	require.Equal(t, 6, n.Sends())
	require.Zero(t, knownObjects(tr))
}

var (
	noConnection = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	cutOff       = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
)

// Asking around ends where the request may have been carried out.
func TestStoredAskedAroundAndFailed(t *testing.T) {
	for failing, missing := range map[string]string{"b": "a", "a": "b"} { // whichever is asked first
		n := newNet()
		tr := six(t, n)
		n.On(host(missing), status(404, testnet.NotFound))
		n.On(host(failing), status(500, "{}"))
		resp, _ := send(t, tr, with(t, `POST /v1/threads/thread_1/messages {"role":"user","content":"hi"}`))
		require.Equal(t, 500, resp.StatusCode)
		require.Equal(t, failing, servedBy(resp))
		require.Zero(t, knownObjects(tr))
	}
	for range 10 { // nothing is created: the others are asked after a failure
		n := newNet()
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			n.On(host(name), status(404, testnet.NotFound))
		}
		n.On(host("a"), status(500, "{}"))
		tr := balance(t, n, azure("a"), azure("b"), azure("c"))
		resp, _ := send(t, tr, with(t, "GET /v1/files/file-1"))
		require.Equal(t, 500, resp.StatusCode, "it may be at a")
	}
}

func TestStoredExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, tr := learnt(t, `POST /v1/responses {"model":"m"}`, "application/json", testnet.ResponseText)
		time.Sleep(objects.KeptFor - time.Minute)
		resp, _ := send(t, tr, with(t, testnet.UsesOfResponse[0]))
		require.Equal(t, "b", servedBy(resp))
		time.Sleep(2 * time.Minute)
		n.On(host("a"), status(404, testnet.NotFound))
		resp, _ = send(t, tr, with(t, testnet.UsesOfResponse[0]))
		require.Equal(t, "b", servedBy(resp), "found again")
		require.Equal(t, 2, n.Sends(host("a")))
		resp, _ = send(t, tr, with(t, testnet.UsesOfResponse[0]))
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, 2, n.Sends(host("a")), "and remembered")
		time.Sleep(2 * objects.KeptFor)
		require.Nil(t, tr.stored.Find(time.Now(), "resp_68a1f00d"))
		require.Nil(t, tr.stored.Find(time.Now(), "resp_68a1f00d"))
	})
}

func TestStoredHostileIDs(t *testing.T) {
	long := "resp_" + strings.Repeat("a", 10_000)
	for _, id := range []string{long, "resp_%00", "resp_é", "resp_a%0d%0a", "resp_%20"} {
		n := newNet()
		tr := steady(balance(t, n, azure("a"), azure("b")))
		n.On(host("a"), status(404, testnet.NotFound))
		resp, _ := send(t, tr, with(t, "GET /v1/responses/"+id))
		require.Equal(t, 404, resp.StatusCode, id)
		require.Equal(t, 1, n.Sends(), "none of ours: %.20s", id)
	}
	n := newNet()
	tr := steady(balance(t, n, azure("a"), azure("b")))
	n.On(host("a"), status(200, `{"id":"`+long+`","x":{"id":"resp_\u0000"},"y":[{"id":"resp_ 1"},{"id":7},{"id":null},{"id":{"id":"resp_inside"}},{"id":"resp_\"1"}],"z":{"id":"file-`))
	send(t, tr, with(t, `POST /v1/responses {"model":"m"}`))
	require.Zero(t, knownObjects(tr))
	// A request may name any number of them.
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, `"file-%d",`, i)
	}
	resp, _ := send(t, tr, with(t, `POST /v1/responses {"model":"m","tools":[{"type":"file_search","file_ids":[`+many.String()+`"file-x"]}]}`))
	require.Equal(t, 200, resp.StatusCode)
	require.LessOrEqual(t, knownObjects(tr), wire.MaxIDs+1)
}

// An id may come in pieces.
func TestStoredIDInPieces(t *testing.T) {
	n := newNet()
	tr := steady(balance(t, n, azure("a")))
	n.On(host("a"), func(req *http.Request) (*http.Response, error) {
		resp, err := status(200, testnet.ResponseText)(req)
		resp.Body = io.NopCloser(iotest.OneByteReader(strings.NewReader(testnet.ResponseText)))
		return resp, err
	})
	_, text := send(t, tr, with(t, `POST /v1/responses {"model":"m"}`))
	require.Equal(t, testnet.ResponseText, text)
	known, items := tr.stored.Len()
	require.Equal(t, 2, known)
	require.Equal(t, 2, items)
	for _, id := range []string{"resp_68a1f00d", "conv_68c0", "rs_68b2", "msg_68d3"} {
		require.NotNil(t, tr.stored.Find(time.Now(), id), id)
	}
}

// Refusals and failures make nothing.
func TestStoredNotLearntFromErrors(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"))
	n.On(host("a"), status(400, testnet.ResponseText))
	send(t, tr, with(t, `POST /v1/responses {"model":"m"}`))
	require.Zero(t, knownObjects(tr))
}

// A file in a chat binds it to the backend that has the file.
func TestStoredFileInChat(t *testing.T) {
	n := newNet()
	tr := balance(t, n, azure("a"), azure("b"), azure("c"))
	tr.stored.Put(time.Now(), wire.ObjectID{ID: "file-abc"}, tr.table().backends[1].resource)
	for range 20 {
		req := newChat(t, "/v1/chat/completions")
		text := `{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-abc"}}]}]}`
		req.Body, req.GetBody, req.ContentLength = io.NopCloser(strings.NewReader(text)), nil, int64(len(text))
		resp, _ := send(t, tr, req)
		require.Equal(t, "b", servedBy(resp))
	}
}

// knownObjects is how many objects the transport knows the resource of, without
// items.
func knownObjects(tr *Transport) int {
	known, _ := tr.stored.Len()
	return known
}
