package spillover

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// How much of an error answer is read into memory, and how long a deployment
// that is to be left may take to send it.
const (
	errorBodyLimit = 64 << 10
	errorBodyWait  = time.Second
)

// detach reads an error answer into memory, which gives its connection back at
// once: several SDKs never close an error answer. It returns the beginning. If
// there is more, that stays behind the response's body.
func detach(ctx context.Context, resp *http.Response, s *sending) []byte {
	if leaves(resp.StatusCode) {
		s.limit(errorBodyWait, errSlowBody)
	}
	var read bytes.Buffer
	_, err := read.ReadFrom(io.LimitReader(resp.Body, errorBodyLimit+1))
	s.relax()
	text, rest := read.Bytes(), resp.Body
	if err == nil && len(text) <= errorBodyLimit {
		rest.Close()
		s.end()
		resp.Body = io.NopCloser(bytes.NewReader(text))
		return text
	}
	if err != nil {
		rest = brokenBody{rest, err}
	}
	resp.Body = prefixed(bytes.NewReader(text), rest)
	new(answerBody).hand(ctx, resp, s)
	return text
}

// leaves tells of the statuses for which a request moves on, whatever the body.
func leaves(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusRequestTimeout ||
		status == http.StatusTooManyRequests || status >= 500
}

var errSlowBody = errors.New("spillover: the body of the error answer did not come in time")

// A brokenBody fails as the body failed that it stands for.
type brokenBody struct {
	io.Closer
	err error
}

func (b brokenBody) Read([]byte) (int, error) { return 0, b.err }
