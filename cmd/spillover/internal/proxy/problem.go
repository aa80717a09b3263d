package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// A problem is a response with an error that the proxy generates, in the form of OpenAI's API.
type problem struct {
	status  int
	kind    string // such as invalid_request_error
	code    string
	message string
	param   string            // "" for none
	header  map[string]string // in addition
}

func (p *problem) write(w http.ResponseWriter) {
	if e, ok := w.(*exchange); ok {
		e.code = p.code
	}
	h := w.Header()
	body := p.body()
	for name, value := range p.header {
		h.Set(name, value)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Spillover-Synthesized", "true") // as the transport marks responses that no service has sent
	w.WriteHeader(p.status)
	_, _ = w.Write(body) // a caller that has left
}

// body is the JSON of the error.
func (p *problem) body() []byte {
	var param *string
	if p.param != "" {
		param = &p.param
	}
	body, _ := json.Marshal(map[string]any{"error": map[string]any{ // strings always marshal
		"message": p.message, "type": p.kind, "param": param, "code": p.code,
	}})
	return body
}

// endsConnection is the header of a response before the end of the request's body: what is
// left of that is not read.
var endsConnection = map[string]string{"Connection": "close"}

const invalidRequest = "invalid_request_error"

func badRequest(code, format string, args ...any) *problem {
	return &problem{status: http.StatusBadRequest, kind: invalidRequest, code: code, message: fmt.Sprintf(format, args...)}
}

func notFound(r *http.Request) *problem {
	return &problem{status: http.StatusNotFound, kind: invalidRequest, code: "unknown_url",
		message: fmt.Sprintf("There is nothing at %.200q. The base URL of clients is this server's address with /v1 (OpenAI), with /openai/v1 (Azure, v1), or alone (Azure, with deployments in paths).", r.URL.Path)}
}

func methodNotAllowed(allowed string) *problem {
	return &problem{status: http.StatusMethodNotAllowed, kind: invalidRequest, code: "method_not_allowed", message: "The method is not allowed.",
		header: map[string]string{"Allow": allowed}}
}

func unauthorized(message string, basic bool) *problem {
	scheme := `Bearer realm="spillover"`
	if basic {
		scheme = `Basic realm="spillover", charset="UTF-8"`
	}
	return &problem{status: http.StatusUnauthorized, kind: invalidRequest, code: "invalid_api_key", message: message,
		header: map[string]string{"WWW-Authenticate": scheme}}
}

func forbidden(code, message string) *problem {
	return &problem{status: http.StatusForbidden, kind: invalidRequest, code: code, message: message}
}

func tooLarge(limit int64) *problem {
	return &problem{status: http.StatusRequestEntityTooLarge, kind: invalidRequest, code: "request_too_large",
		message: fmt.Sprintf("The request body is larger than %d bytes, the limit of this proxy.", limit), header: endsConnection}
}

func tooSlow() *problem {
	return &problem{status: http.StatusRequestTimeout, kind: invalidRequest, code: "request_timeout", message: "The request body did not arrive in time.", header: endsConnection}
}
