package spillover_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
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
		second     spillover.Backend
		getBody    func() (io.ReadCloser, error)
	}{
		"small, none":                       {byBody, small, to("https://b", spillover.OpenAI, "n"), gone},
		"small, cut":                        {byBody, small, to("https://b", spillover.OpenAI, "n"), func() (io.ReadCloser, error) { return until(small, 5), nil }},
		"large, none":                       {byBody, large, to("https://b", spillover.OpenAI, "n"), gone},
		"large, cut":                        {byBody, large, to("https://b", spillover.OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, 5), nil }},
		"large, cut before the model":       {byBody, large, to("https://b", spillover.OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, len(large)-4), nil }},
		"large, cut in the model":           {byBody, large, to("https://b", spillover.OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, len(large)-2), nil }},
		"large, cut behind it":              {byBody, large, to("https://b", spillover.OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, len(large)-1), nil }},
		"read late for its model, none":     {byPath, large, to("https://b", spillover.OpenAI, "n"), gone},
		"read late for its model, cut":      {byPath, large, to("https://b", spillover.OpenAI, "n"), func() (io.ReadCloser, error) { return until(large, 7), nil }},
		"read late for its defaults, none":  {byPath, large, azure("b", func(b *spillover.Backend) { b.Defaults = map[string]any{"user": "x"} }), gone},
		"read late for its defaults, empty": {byPath, large, azure("b", func(b *spillover.Backend) { b.Defaults = map[string]any{"user": "x"} }), func() (io.ReadCloser, error) { return until("", 0), nil }},
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
		backend spillover.Backend
		own     io.ReadCloser
		again   io.ReadCloser // nil: GetBody fails
	}{
		"for its model":               {"/v1/chat/completions", 9, azure("a"), until("{", 1), nil},
		"for its deployment":          {chatPath, 2 << 20, to("https://a", spillover.OpenAI, "n"), until("{", 1), nil},
		"for its defaults":            {chatPath, 2 << 20, azure("a", func(b *spillover.Backend) { b.Defaults = map[string]any{"user": "x"} }), until("{", 1), nil},
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
	tr := balance(t, base, azure("a"), spillover.Backend{Name: "b", URL: "https://" + host("b"), Priority: 2, Token: func(context.Context) (string, error) {
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
