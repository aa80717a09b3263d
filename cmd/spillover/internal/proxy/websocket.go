package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/coder/websocket"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/wire"
)

// isResponsesSocket reports whether a request opens a WebSocket for the Responses API. Its
// model is in the first message, not in the URL.
// Source: https://developers.openai.com/api/docs/guides/websocket-mode
func isResponsesSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && wire.ParsePath(r.URL.EscapedPath()).Operation == "responses"
}

// A responsesSocket is a WebSocket for the Responses API: two connections, of which the
// second one is opened when the caller has named a model.
type responsesSocket struct {
	proxy           *Proxy
	e               *exchange
	caller, backend *websocket.Conn
	model           string // that the caller asks for
	deployment      string // the backend's name for it
}

// serveResponsesSocket accepts the WebSocket and relays its messages until either side
// ends.
func (p *Proxy) serveResponsesSocket(e *exchange, out *http.Request) {
	options := &websocket.AcceptOptions{InsecureSkipVerify: true} // admit has checked the origin, or a key
	if protocols := withoutKeys(out.Header[headerProtocol], e.presented); len(protocols) > 0 {
		options.Subprotocols = protocols[:1] // the backend is offered no other
	}
	caller, err := websocket.Accept(e, out, options)
	if err != nil {
		return // it has answered
	}
	defer func() { _ = caller.CloseNow() }()
	caller.SetReadLimit(p.options.MaxBody)
	s := &responsesSocket{proxy: p, e: e, caller: caller}
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	first, ok := s.first(ctx)
	if !ok || !s.dial(ctx, out, options.Subprotocols) {
		return
	}
	defer func() { _ = s.backend.CloseNow() }()
	s.relay(ctx, first)
}

// first reads the first message, which names the model.
func (s *responsesSocket) first(ctx context.Context) (text []byte, ok bool) {
	within, cancel := context.WithTimeout(ctx, s.proxy.options.ClientTimeout)
	defer cancel()
	kind, text, err := s.read(within)
	if errors.Is(err, errOverloaded) {
		s.refuse(ctx, overloaded())
		return nil, false
	}
	if err != nil {
		return nil, false // the caller has left, or was too slow: Read has closed the connection
	}
	message := map[string]json.RawMessage{}
	_ = json.Unmarshal(text, &message) // without a type it is refused
	_ = json.Unmarshal(message["model"], &s.model)
	if kind != websocket.MessageText || string(message["type"]) != `"response.create"` || s.model == "" {
		s.refuse(ctx, badRequest("invalid_event", "The first message must be a response.create that names a model."))
		return nil, false
	}
	if problem := s.check(text); problem != nil {
		s.refuse(ctx, problem)
		return nil, false
	}
	return text, true
}

// read reads a message of the caller, which is held until it has been passed on.
func (s *responsesSocket) read(ctx context.Context) (kind websocket.MessageType, text []byte, err error) {
	kind, r, err := s.caller.Reader(ctx)
	if err == nil {
		text, err = io.ReadAll(&heldReader{r, &s.e.held, s.proxy.options.MaxBody})
	}
	return kind, text, err
}

// check is what is wrong with a message of the caller.
func (s *responsesSocket) check(text []byte) *problem {
	if key := s.e.presented; key != "" && bytes.Contains(text, []byte(key)) {
		return badRequest("key_in_body", "The message contains the caller's key.")
	}
	if k := s.e.key; k != nil && k.Models != nil {
		c := modelCheck{allowed: k.Models}
		if err := c.readJSON("", text); err != nil {
			return badRequest("invalid_event", "The key allows some models only, so a message must show the model: %v.", err)
		}
		if c.refused != nil {
			return modelRefused(*c.refused)
		}
	}
	return nil
}

// dial opens a WebSocket to a deployment of the model.
func (s *responsesSocket) dial(ctx context.Context, out *http.Request, protocols []string) bool {
	target := url.URL{Scheme: "https", Host: placeholderHost, Path: out.URL.Path, RawPath: out.URL.RawPath}
	var query []string
	for parameter := range strings.SplitSeq(s.proxy.cleanQuery(out.URL.RawQuery, s.e), "&") {
		name, _, _ := strings.Cut(parameter, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if parameter != "" && !strings.EqualFold(name, "model") && !strings.EqualFold(name, "deployment") {
			query = append(query, parameter)
		}
	}
	target.RawQuery = strings.Join(append(query, "model="+url.QueryEscape(s.model)), "&")
	backend, resp, err := websocket.Dial(ctx, target.String(), &websocket.DialOptions{ //nolint:bodyclose // the package closes it
		HTTPClient: &http.Client{
			Transport:     s.proxy.transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		HTTPHeader:   s.handshakeHeader(out),
		Subprotocols: protocols,
	})
	if resp != nil {
		s.e.backend = resp.Header.Get("X-Spillover-Backend")
		s.e.upstreamID = resp.Header.Get(headerRequestID)
	}
	if err != nil {
		s.refuseAs(ctx, resp, err)
		return false
	}
	s.backend = backend
	s.backend.SetReadLimit(-1) // its messages are passed on piece by piece
	s.deployment = deploymentOf(&s.e.trail)
	return true
}

// hopByHop are the headers that are for the next hop only (RFC 9110, section 7.6.1), beside
// those that Connection names.
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// handshakeHeader is the caller's header as the backend gets it.
func (s *responsesSocket) handshakeHeader(out *http.Request) http.Header {
	h := out.Header.Clone()
	for _, line := range out.Header["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for name := range h {
		if slices.Contains(hopByHop, name) || strings.HasPrefix(name, "Sec-Websocket-") {
			delete(h, name)
		}
	}
	s.proxy.cleanHeader(h, s.e)
	return h
}

// deploymentOf is the backend's name for the model, of the deployment that has answered.
func deploymentOf(t *spillover.Trail) string {
	for _, step := range slices.Backward(t.Steps) {
		if step.Attempt != nil {
			return step.Attempt.Deployment
		}
	}
	return ""
}

// relay passes on messages until either side ends, or ctx does.
func (s *responsesSocket) relay(ctx context.Context, first []byte) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		s.end(s.caller, s.toCaller(ctx))
	}()
	s.end(s.backend, s.toBackend(ctx, first))
	cancel()
	<-done
}

// end closes a connection as the other one has ended.
func (s *responsesSocket) end(conn *websocket.Conn, err error) {
	var closed websocket.CloseError
	if errors.As(err, &closed) && closed.Code != websocket.StatusNoStatusRcvd && closed.Code != websocket.StatusAbnormalClosure {
		_ = conn.Close(closed.Code, closed.Reason)
		return
	}
	_ = conn.Close(websocket.StatusGoingAway, "the other side has ended")
}

// toBackend passes on the caller's messages.
func (s *responsesSocket) toBackend(ctx context.Context, text []byte) error {
	kind := websocket.MessageText
	for {
		if problem := s.checkNext(kind, text); problem != nil {
			if err := s.send(ctx, problem); err != nil {
				return err
			}
		} else if err := s.backend.Write(ctx, kind, s.renamed(kind, text)); err != nil {
			return err
		}
		s.e.held.release()
		var err error
		if kind, text, err = s.read(ctx); err != nil {
			if errors.Is(err, errOverloaded) {
				s.refuse(ctx, overloaded())
			}
			return err
		}
	}
}

// checkNext is what is wrong with a message. The connection stays with one deployment, so
// all messages must be for its model.
func (s *responsesSocket) checkNext(kind websocket.MessageType, text []byte) *problem {
	if problem := s.check(text); problem != nil || kind != websocket.MessageText {
		return problem
	}
	var model string
	if raw := topLevel(text)["model"]; raw != nil && json.Unmarshal(raw, &model) == nil && model != s.model {
		return badRequest("model_changed", "This connection is for the model %.100q. Open another one for another model.", s.model)
	}
	return nil
}

// renamed is a message with the backend's name for the model.
func (s *responsesSocket) renamed(kind websocket.MessageType, text []byte) []byte {
	if kind != websocket.MessageText || s.deployment == "" || s.deployment == s.model {
		return text
	}
	message := topLevel(text)
	if message["model"] == nil {
		return text
	}
	message["model"], _ = json.Marshal(s.deployment) // a string
	changed, err := json.Marshal(message)
	if err != nil {
		return text
	}
	return changed
}

// topLevel are the members of a message, nil if it is not an object of JSON.
func topLevel(text []byte) map[string]json.RawMessage {
	var message map[string]json.RawMessage
	if json.Unmarshal(text, &message) != nil {
		return nil
	}
	return message
}

// toCaller passes on the backend's messages, piece by piece.
func (s *responsesSocket) toCaller(ctx context.Context) error {
	buf := make([]byte, 32<<10)
	for {
		kind, r, err := s.backend.Reader(ctx)
		if err != nil {
			return err
		}
		w, err := s.caller.Writer(ctx, kind)
		if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{w}, r, buf); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
}

// send sends an error event.
func (s *responsesSocket) send(ctx context.Context, problem *problem) error {
	return s.sendError(ctx, problem.status, problem.body())
}

// sendError sends an error event with the body of an error response.
func (s *responsesSocket) sendError(ctx context.Context, status int, body []byte) error {
	raw := topLevel(body)["error"]
	if raw == nil {
		raw = json.RawMessage(fmt.Sprintf(`{"type":"server_error","code":"%d","message":%q,"param":null}`, status, http.StatusText(status)))
	}
	event, err := json.Marshal(map[string]any{"type": "error", "status": status, "error": raw})
	if err != nil {
		return err
	}
	return s.caller.Write(ctx, websocket.MessageText, event)
}

// refuse sends an error event and ends the connection.
func (s *responsesSocket) refuse(ctx context.Context, problem *problem) {
	s.e.code = problem.code
	_ = s.send(ctx, problem) // the caller may have left
	_ = s.caller.Close(closeStatus(problem.status), problem.code)
}

// refuseAs ends the connection with the response of the handshake that has failed, or with its
// error.
func (s *responsesSocket) refuseAs(ctx context.Context, resp *http.Response, err error) {
	if resp == nil || resp.StatusCode == http.StatusSwitchingProtocols {
		s.e.err = err
		problem := noAnswer(s.e)
		s.e.code = problem.code
		_ = s.send(ctx, problem)
		_ = s.caller.Close(websocket.StatusInternalError, problem.code)
		return
	}
	body, _ := io.ReadAll(resp.Body) // at most 1 KiB, in memory
	_ = s.sendError(ctx, resp.StatusCode, body)
	_ = s.caller.Close(closeStatus(resp.StatusCode), http.StatusText(resp.StatusCode))
}

// closeStatus is the status of a close frame that stands for one of HTTP.
func closeStatus(status int) websocket.StatusCode {
	if status == http.StatusTooManyRequests || status >= 500 {
		return websocket.StatusTryAgainLater
	}
	return websocket.StatusPolicyViolation
}
