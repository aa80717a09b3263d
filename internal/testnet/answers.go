package testnet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"
)

// Connecting returns a transport over n whose connections to one host take a time.
func Connecting(n *Net, name string, takes time.Duration) RoundTripFunc {
	slowly := Connects(&takes, n)
	return func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == Host(name) {
			return slowly(req)
		}
		return n.RoundTrip(req)
	}
}

// Connects returns a transport that takes a time to connect, and calls httptrace as
// net/http does without kept connections.
func Connects(takes *time.Duration, answer http.RoundTripper) RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		trace := httptrace.ContextClientTrace(req.Context())
		if trace != nil {
			trace.GetConn(req.URL.Host)
		}
		select {
		case <-time.After(*takes):
		case <-req.Context().Done():
			return nil, context.Cause(req.Context())
		}
		if trace != nil {
			trace.GotConn(httptrace.GotConnInfo{})
		}
		return answer.RoundTrip(req)
	}
}

// OK answers 200.
var OK = Status(200, `{"ok":true}`)

// Hung does not answer until the request's context ends.
func Hung(req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// WithBody answers with a body that the test makes.
func WithBody(code int, body func(*http.Request) io.ReadCloser) RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := Status(code, "")(req)
		resp.Body, resp.ContentLength = body(req), -1
		return resp, err
	}
}

// Status answers with a status code, a JSON body and header lines "Name: value".
func Status(code int, body string, header ...string) RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/json"}}
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			h.Add(name, value)
		}
		return &http.Response{
			Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req,
		}, nil
	}
}

// Broken fails with an error instead of an answer.
func Broken(err error) RoundTripFunc {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

// Redirect answers with a redirect.
func Redirect(code int, location string) RoundTripFunc {
	return Status(code, "", "Location: "+location)
}

// Slow answers as f does, after a time, or fails when the request's context ends.
func Slow(wait time.Duration, f RoundTripFunc) RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		select {
		case <-time.After(wait):
			return f(req)
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
}

// EventStream answers with a stream of events. d passes before each of them.
func EventStream(d time.Duration, events ...string) RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		pieces := events
		body := ReaderFunc(func(p []byte) (int, error) {
			if len(pieces) == 0 {
				return 0, io.EOF
			}
			time.Sleep(d)
			n := copy(p, "data: "+pieces[0]+"\n\n")
			pieces = pieces[1:]
			return n, nil
		})
		resp, err := Status(200, "", "Content-Type: text/event-stream")(req)
		resp.Header.Set("Content-Type", "text/event-stream")
		resp.Body, resp.ContentLength = io.NopCloser(body), -1
		return resp, err
	}
}

// Content answers 200 with a text of a content type.
func Content(contentType, text string) RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := Status(200, text)(req)
		resp.Header.Set("Content-Type", contentType)
		return resp, err
	}
}

// Over returns a transport that sends requests to a host with base, and answers 200 for all
// others.
func Over(host string, base http.RoundTripper) RoundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == host {
			return base.RoundTrip(req)
		}
		req.Body.Close()
		return Status(200, "{}")(req)
	}
}

// ErrorBody returns an error with a code and a type.
func ErrorBody(code, kind string) string {
	return fmt.Sprintf(`{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":%q,"param":null,"code":%q}}`, kind, code)
}

// LimitHeaders returns header lines that report a token limit, and what remains of it.
func LimitHeaders(limit, remaining any) []string {
	return []string{fmt.Sprint("X-Ratelimit-Limit-Tokens: ", limit), fmt.Sprint("X-Ratelimit-Remaining-Tokens: ", remaining)}
}

// Refusing returns a network in which host a answers 429 with each of the waits, then 200.
func Refusing(milliseconds ...int) *Net {
	n := New()
	var all []RoundTripFunc
	for _, ms := range milliseconds {
		all = append(all, Status(429, "{}", "retry-after-ms: "+strconv.Itoa(ms)))
	}
	n.On(Host("a"), append(all, Status(200, "{}"))...)
	return n
}
