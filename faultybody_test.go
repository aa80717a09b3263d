package spillover

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/replay"
)

var errDisk = errors.New("disk lost")

// until is a body that fails behind its first n bytes.
func until(text string, n int) io.ReadCloser {
	return io.NopCloser(io.MultiReader(strings.NewReader(text[:n]), iotest.ErrReader(errDisk)))
}

// A body that cannot be had again, or not whole, ends its request with the
// cause, and is no deployment's fault.
func TestBodyThatCannotBeHadAgain(t *testing.T) {
	const byPath, byBody = chatPath, "/v1/chat/completions"
	small, large := `{"input":"`+strings.Repeat("x", replay.MaxKept)+`","model":"m"}`, `{"input":"`+strings.Repeat("x", replay.MaxReused)+`","model":"m"}`
	gone := func() (io.ReadCloser, error) { return nil, errDisk }
	for name, c := range map[string]struct {
		path, text string
		second     Backend
		getBody    func() (io.ReadCloser, error)
	}{
		"small, none":                       {byBody, small, to("https://b", OpenAI, "n"), gone},
		"small, cut":                        {byBody, small, to("https://b", OpenAI, "n"), func() (io.ReadCloser, error) { return until(small, 5), nil }},
		"large, none":                       {byBody, large, to("https://b", OpenAI, "n"), gone},
		"large, cut":                        {byBody, large, to("https://b", OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, 5), nil }},
		"large, cut before the model":       {byBody, large, to("https://b", OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, len(large)-4), nil }},
		"large, cut in the model":           {byBody, large, to("https://b", OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, len(large)-2), nil }},
		"large, cut behind it":              {byBody, large, to("https://b", OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, len(large)-1), nil }},
		"read late for its model, none":     {byPath, large, to("https://b", OpenAI, "n"), gone},
		"read late for its model, cut":      {byPath, large, to("https://b", OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, 7), nil }},
		"read late for its defaults, none":  {byPath, large, azure("b", func(b *Backend) { b.Defaults = map[string]any{"user": "x"} }), gone},
		"read late for its defaults, empty": {byPath, large, azure("b", func(b *Backend) { b.Defaults = map[string]any{"user": "x"} }), func() (io.ReadCloser, error) { return until("", 0), nil }},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.on(host("a"), broken(errReset))
			c.second.Name, c.second.Priority = "b", 2
			tr := balance(t, n, azure("a"), c.second)
			req := newChat(t, c.path)
			req.Body, req.GetBody, req.ContentLength = io.NopCloser(strings.NewReader(c.text)), c.getBody, int64(len(c.text))
			_, err := tr.RoundTrip(req)
			require.ErrorIs(t, err, errDisk)
			require.Len(t, n.seen, 1, "no piece of it is taken for a request")
			require.True(t, n.seen[0].body == c.text)
			harmlessAt(t, tr, "b")
		})
	}
}

// The same where it must be read before anything can be sent.
func TestBodyThatCannotBeReadAtFirst(t *testing.T) {
	huge := strings.Repeat(" ", replay.MaxBuffered)
	for name, c := range map[string]struct {
		path    string
		length  int
		backend Backend
		own     io.ReadCloser
		again   io.ReadCloser // nil: GetBody fails
	}{
		"for its model":               {"/v1/chat/completions", 9, azure("a"), until("{", 1), nil},
		"for its deployment":          {chatPath, 2 << 20, to("https://a", OpenAI, "n"), until("{", 1), nil},
		"for its defaults":            {chatPath, 2 << 20, azure("a", func(b *Backend) { b.Defaults = map[string]any{"user": "x"} }), until("{", 1), nil},
		"for a model that is far off": {"/v1/chat/completions", replay.MaxBuffered + 20, azure("a"), io.NopCloser(strings.NewReader(huge)), nil},
		"for one that is cut off":     {"/v1/chat/completions", replay.MaxBuffered + 20, azure("a"), io.NopCloser(strings.NewReader(huge)), until("{", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			c.backend.Name = "a"
			tr := balance(t, n, c.backend)
			req := newChat(t, c.path)
			req.Body, req.ContentLength = c.own, int64(c.length)
			req.GetBody = func() (io.ReadCloser, error) {
				if c.again == nil {
					return nil, errDisk
				}
				return c.again, nil
			}
			_, err := tr.RoundTrip(req)
			require.ErrorIs(t, err, errDisk)
			require.Zero(t, n.sends())
			harmlessAt(t, tr, "a")
		})
	}
}

// What is sent again waits until nobody reads the body any more, and is whole.
func TestRepeatWaitsForTheRead(t *testing.T) {
	text := long("y", 2<<20)
	let := make(chan struct{})
	shared := &seeker{text: text}
	first := true
	var got string
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if first {
			first = false
			reading := make(chan struct{})
			shared.hold = func() { close(reading); <-let }
			go io.Copy(io.Discard, req.Body)
			<-reading
			return status(429, "{}", "Retry-After: 1")(req)
		}
		b, err := io.ReadAll(req.Body)
		got = string(b)
		if err != nil {
			return nil, err
		}
		return status(200, "{}")(req)
	})
	tr := balance(t, base, azure("a"), Backend{Name: "b", URL: "https://" + host("b"), Priority: 2, Token: func(context.Context) (string, error) {
		go close(let)
		return "t", nil
	}})
	req := newChat(t, "/openai/deployments/m/chat/completions?api-version=1")
	req.Body, req.ContentLength = io.NopCloser(shared), int64(len(text))
	req.GetBody = func() (io.ReadCloser, error) {
		shared.at = 0
		return io.NopCloser(shared), nil
	}
	resp, _ := send(t, tr, req)
	require.Equal(t, "b", servedBy(resp))
	require.True(t, got == text)
}

// A seeker is one reader that is rewound. It is not safe for concurrent use.
type seeker struct {
	text string
	at   int
	hold func()
}

func (s *seeker) Read(p []byte) (int, error) {
	if f := s.hold; f != nil {
		s.hold = nil
		f()
	}
	n := copy(p, s.text[s.at:])
	if s.at += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// richBody has something at every place that is looked at.
const richBody = `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"},{"type":"input_text","text":"\"id\":\"no\""}]},` +
	`{"type":"item_reference","id":"item-1"},{"id":"item-2"},["x",{"id":"no"},[]],{"type":null,"id":"item-3" , "output":[{"file_id":"file-2"}]}],"tools":[{"type":"file_search",` +
	`"vector_store_ids":["vs-1", "vs-2" ,["no"],"auto"]},{"container":{"file_ids":["file-3",7,null,"file-4"]}},{"container":"cntr-1"}] , "conversation":{"id":"conv-1"},` +
	`"prompt":{"id":"pmpt-1","variables":{"id":"no"}},"previous_response_id":"resp-1","background":true}`

// A body is read up to where it breaks off: what was found is the beginning of
// what is in the whole, and all else is for the service to say.
func TestBodyThatBreaksOff(t *testing.T) {
	read := func(text string) (string, []wire.ObjectID) {
		r := &request{Request: posts(t, http.MethodPost, "https://foo.example/v1/responses", text)}
		r.body = replay.New(r.Body)
		require.NoError(t, r.read())
		return r.model, r.ids
	}
	model, ids := read(richBody)
	require.Equal(t, "m", model)
	var all []string
	for _, id := range ids {
		all = append(all, id.ID)
	}
	require.Equal(t, []string{"file-1", "item-1", "item-2", "file-2", "item-3", "vs-1", "vs-2", "file-3", "file-4", "cntr-1", "conv-1", "pmpt-1", "resp-1"}, all)

	n := newNet()
	tr := balance(t, n, to("https://b", OpenAI, ""))
	for i := 1; i <= len(richBody); i++ {
		for _, text := range []string{richBody[:i], richBody[:i] + "}", richBody[:i] + `"`} {
			found, some := read(text)
			require.Equal(t, i >= len(`{"model":"m"`) || found != "", found == "m", text)
			require.LessOrEqual(t, len(some), len(ids)+1, text)
			for j, id := range some[:min(len(some), max(0, len(ids)-1))] {
				if text == richBody[:i] {
					require.Equal(t, ids[j], id, text)
				}
			}
			send(t, tr, posts(t, http.MethodPost, "https://foo.example/v1/responses", text))
			require.Equal(t, text, n.last().body)
		}
	}
}

// Of very many ids some are looked at.
func TestIDsOfARequestAreBounded(t *testing.T) {
	for _, text := range []string{
		`{"model":"m","tools":[{"vector_store_ids":[` + strings.Repeat(`"vs",`, 10_000) + `"last"]}]}`,
		`{"model":"m","input":[` + strings.Repeat(`{"id":"x"},`, 10_000) + `{}]}`,
	} {
		r := &request{Request: posts(t, http.MethodPost, "https://foo.example/v1/responses", text)}
		r.body = replay.New(r.Body)
		require.NoError(t, r.read())
		require.Len(t, r.ids, wire.MaxIDs)
		require.Equal(t, "m", r.model)
	}
}

// Read on the way, in pieces of any size, a body says what it says at once; but
// for items, which only the elements as a whole tell.
func TestBodyIsReadOnTheWay(t *testing.T) {
	for path, text := range map[string]string{
		"responses":                    richBody,
		"realtime/client_secrets":      `{"session":{"audio":{"input":{"transcription":{"model":"n"}},"output":{"voice":{"id":"voice-1"}}},"model":"m","prompt":{"id":"p"}}}`,
		"threads/runs":                 `{"assistant_id":"asst-1","thread":{"messages":[{"attachments":[{"file_id":"file-1"},{"file_id":"file-2"}]}]},"model":"m"}`,
		"vector_stores/{vs}/files":     `{"file_id":"file-1"}`,
		"uploads/{upload_id}/complete": `{"part_ids":["a","b",["c"],"d"],"background":"true"}`,
	} {
		spec := wire.OperationTree.Find(path).Specs[0]
		whole := wire.BodyScanner{Tree: spec.Body, MaxIDs: wire.MaxIDs}
		whole.ReadJSON([]byte(text), "", nil)
		var ids []wire.ObjectID
		for _, id := range whole.IDs {
			if !id.Item {
				ids = append(ids, id)
			}
		}
		for _, src := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)), iotest.HalfReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
			w := wire.BodyScanner{Tree: spec.Body, MaxIDs: wire.MaxIDs}
			require.NoError(t, w.Stream(src))
			require.Equal(t, ids, w.IDs, path)
			require.Equal(t, []any{whole.Info.Model, whole.Info.ModelSpan, whole.Info.Second, whole.Info.Background},
				[]any{w.Info.Model, w.Info.ModelSpan, w.Info.Second, w.Info.Background}, path)
		}
	}
}

// However a form arrives, the same is found in it.
func TestFormInPieces(t *testing.T) {
	part := func(name, content string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + content + "\r\n"
	}
	session := `{"model":"m","prompt":{"id":"p"},"audio":{"input":{"transcription":{"model":"n"}}}}`
	for name, c := range map[string]struct {
		path, form, model string
		ids               []wire.ObjectID
	}{
		"the model":          {"audio/transcriptions", part("x", "--b") + part("model", "m") + "--b--", "m", nil},
		"behind what is big": {"audio/transcriptions", part("file", strings.Repeat("\r\n--bx\r\n--", 20_000)) + part("model", "m") + "--b--", "m", nil},
		"a long one":         {"audio/transcriptions", part("model", strings.Repeat("m", 10*wire.FormWindow)) + "--b--", strings.Repeat("m", 10*wire.FormWindow), nil},
		"too long":           {"audio/transcriptions", part("model", strings.Repeat("m", 2*wire.MaxPartText)) + part("model", "n") + "--b--", "n", nil},
		"an id":              {"audio/voices", part("consent", "cons-1") + part("name", "model") + "--b--", "", []wire.ObjectID{{ID: "cons-1"}}},
		"no id":              {"audio/voices", part("consent", "no id") + part("consent", "auto") + "--b--", "", nil},
		"parts without name": {"audio/voices", part("[]", "consent") + part("[consent", "a") + part("[][consent][]", "b") + part("consent[x]", "c") + "--b--", "", []wire.ObjectID{{ID: "a"}, {ID: "b"}}},
		"a session":          {"realtime/calls", part("sdp", "v=0") + part("session", session) + "--b--", "m", []wire.ObjectID{{ID: "p"}}},
		"a session in parts": {"realtime/calls", part("session[model]", "m") + part("session[prompt][id]", "p") + "--b--", "m", []wire.ObjectID{{ID: "p"}}},
	} {
		for piece, in := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "by halves": iotest.HalfReader, "with its end": iotest.DataErrReader,
		} {
			w := wire.BodyScanner{Tree: wire.OperationTree.Find(c.path).Specs[len(wire.OperationTree.Find(c.path).Specs)-1].Form, MaxIDs: wire.MaxIDs}
			w.ReadForm("multipart/form-data; boundary=b", in(strings.NewReader(c.form)))
			require.Equal(t, c.model, w.Info.Model, "%s, %s", name, piece)
			require.Equal(t, c.ids, w.IDs, "%s, %s", name, piece)
			if w.Info.HasModel && !w.Info.InJSON {
				require.True(t, bytes.Equal([]byte(c.model), []byte(c.form)[w.Info.ModelSpan.From:w.Info.ModelSpan.To]))
			}
		}
	}
}
