package spillover

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// An answerBody is the body of an answer on its way to the caller. The attempt
// ends with it: at its end, at an error, when it is closed, or with the
// context of a caller who forgets to, whichever is first.
type answerBody struct {
	io.ReadCloser
	send   *sending
	unhook func() bool // from the caller's context; nil if that cannot end
}

// An upgradedBody is that of a 101, which net/http lets be written to as well.
type upgradedBody struct {
	*answerBody
	io.Writer
}

// hand puts the end of an attempt behind the body of its answer.
func (b *answerBody) hand(ctx context.Context, resp *http.Response, s *sending) {
	b.ReadCloser, b.send = resp.Body, s
	if ctx.Done() != nil {
		b.unhook = context.AfterFunc(ctx, s.end)
	}
	resp.Body = b
	if w, ok := b.ReadCloser.(io.Writer); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = upgradedBody{b, w}
	}
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.finish()
	}
	return n, err
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.finish()
	return err
}

func (b *answerBody) finish() {
	if b.unhook != nil {
		b.unhook()
	}
	b.send.end()
}

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
		defer time.AfterFunc(errorBodyWait, func() { s.cancel(errSlowBody) }).Stop()
	}
	var read bytes.Buffer
	_, err := read.ReadFrom(io.LimitReader(resp.Body, errorBodyLimit+1))
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
