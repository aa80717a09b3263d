package spillover

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/wire"
	"github.com/spillover-go/spillover/internal/wiretest"
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
			n.On(host("a"), broken(errReset))
			c.second.Name, c.second.Priority = "b", 2
			tr := balance(t, n, azure("a"), c.second)
			req := newChat(t, c.path)
			req.Body, req.GetBody, req.ContentLength = io.NopCloser(strings.NewReader(c.text)), c.getBody, int64(len(c.text))
			_, err := tr.RoundTrip(req)
			require.ErrorIs(t, err, errDisk)
			require.Len(t, n.Seen, 1, "no piece of it is taken for a request")
			require.True(t, n.Seen[0].Body == c.text)
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
			require.Zero(t, n.Sends())
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

// A body is read up to where it breaks off: what was found is the beginning of
// what is in the whole, and all else is for the service to say.
func TestBodyThatBreaksOff(t *testing.T) {
	read := func(text string) (string, []wire.ObjectID) {
		r := &request{Request: posts(t, http.MethodPost, "https://foo.example/v1/responses", text)}
		r.body = replay.New(r.Body)
		require.NoError(t, r.read())
		return r.model, r.ids
	}
	model, ids := read(wiretest.ResponsesBody)
	require.Equal(t, "m", model)
	var all []string
	for _, id := range ids {
		all = append(all, id.ID)
	}
	require.Equal(t, []string{"file-1", "item-1", "item-2", "file-2", "item-3", "vs-1", "vs-2", "file-3", "file-4", "cntr-1", "conv-1", "pmpt-1", "resp-1"}, all)

	n := newNet()
	tr := balance(t, n, to("https://b", OpenAI, ""))
	for i := 1; i <= len(wiretest.ResponsesBody); i++ {
		for _, text := range []string{wiretest.ResponsesBody[:i], wiretest.ResponsesBody[:i] + "}", wiretest.ResponsesBody[:i] + `"`} {
			found, some := read(text)
			require.Equal(t, i >= len(`{"model":"m"`) || found != "", found == "m", text)
			require.LessOrEqual(t, len(some), len(ids)+1, text)
			for j, id := range some[:min(len(some), max(0, len(ids)-1))] {
				if text == wiretest.ResponsesBody[:i] {
					require.Equal(t, ids[j], id, text)
				}
			}
			send(t, tr, posts(t, http.MethodPost, "https://foo.example/v1/responses", text))
			require.Equal(t, text, n.Last().Body)
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
