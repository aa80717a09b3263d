package spillover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/redact"
)

// An apiError is the body of a response generated here, in the format of
// OpenAI's API reference.
type apiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// synthesize makes a response that no service has sent.
func synthesize(in *http.Request, status int, e apiError) *http.Response {
	body, _ := json.Marshal(map[string]apiError{"error": e}) // strings always marshal
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {"application/json"}, headerSynthesized: {"true"}},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Request:       in,
	}
}

// unknownModel is the response for a model that no backend serves.
func unknownModel(in *http.Request, model string, known []string) *http.Response {
	const most = 50
	list := strings.Join(known[:min(len(known), most)], ", ")
	if len(known) > most {
		list += fmt.Sprintf(" and %d more", len(known)-most)
	}
	param := "model"
	return synthesize(in, http.StatusNotFound, apiError{
		Message: fmt.Sprintf("No backend serves the model %s. Available: %s.", redact.Brief(model), list),
		Type:    "invalid_request_error", Param: &param, Code: "model_not_found",
	})
}

// noBackendWithTags is the response if no backend that serves the model has all of
// the tags that the request demands. Nothing is sent then.
func noBackendWithTags(in *http.Request, model string, tags []string) *http.Response {
	const most = 16
	var names []string
	for _, tag := range tags[:min(len(tags), most)] {
		names = append(names, redact.Brief(tag))
	}
	list := strings.Join(names, ", ")
	if len(tags) > most {
		list += fmt.Sprintf(" and %d more", len(tags)-most)
	}
	serves := ""
	if model != "" {
		serves = fmt.Sprintf(" that serves the model %s", redact.Brief(model))
	}
	return synthesize(in, http.StatusBadRequest, apiError{
		Message: fmt.Sprintf("No backend%s has all the tags that the request demands: %s. Nothing was sent.", serves, list),
		Type:    "invalid_request_error", Code: "no_backend_with_tags",
	})
}

// unavailable is the 429 for a request when every deployment is unavailable,
// with the time until the soonest can be asked again.
func unavailable(in *http.Request, model string, o outlook, now time.Time) *http.Response {
	wait := max(o.at.Sub(now), time.Millisecond)
	seconds := int64((wait + time.Second - 1) / time.Second)
	all, are, refuse := allDeployments(o.deployments, model)
	due := fmt.Sprintf("; the soonest is %s in %.2fs", o.soonest.backend.name, wait.Seconds())
	if o.deployments == 1 {
		due = fmt.Sprintf("; %s can be asked again in %.2fs", o.soonest.backend.name, wait.Seconds())
	}
	if o.full > 0 {
		which := "it has"
		if o.deployments > 1 {
			which = fmt.Sprintf("%d of them have", o.full)
		}
		due = "; " + which + " as many requests in flight as MaxInFlight allows"
	}
	e := apiError{
		Message: fmt.Sprintf("%s %s unavailable%s. Please retry after %d seconds.", all, are, due, seconds),
		Type:    "rate_limit_error", Code: "rate_limit_exceeded",
	}
	if o.reserved {
		e.Message = fmt.Sprintf("%s %s reserved for interactive requests, or unavailable. Please retry after %d seconds.", all, are, seconds)
	}
	if o.hopeless {
		e = apiError{
			Message: fmt.Sprintf("%s %s out of quota or %s. Retrying will not help.", all, are, refuse),
			Type:    "insufficient_quota", Code: "insufficient_quota",
		}
	}
	resp := synthesize(in, http.StatusTooManyRequests, e)
	resp.Header.Set("Retry-After", strconv.FormatInt(seconds, 10))
	resp.Header.Set("Retry-After-Ms", strconv.FormatInt(int64((wait+time.Millisecond-1)/time.Millisecond), 10))
	if o.hopeless {
		resp.Header.Set(headerShouldRetry, "false")
	}
	return resp
}

// allDeployments is the subject of a sentence about all n deployments of a model, with
// its verbs.
func allDeployments(n int, model string) (all, are, refuse string) {
	of := ""
	if model != "" {
		of = " of " + redact.Brief(model)
	}
	switch n {
	case 1:
		return "The only deployment" + of, "is", "refuses its credential"
	case 2:
		return "Both deployments" + of, "are", "refuse their credentials"
	}
	return fmt.Sprintf("All %d deployments%s", n, of), "are", "refuse their credentials"
}

// allDrained is the 503 for a request when every backend that could take it is
// drained. Nobody knows for how long.
func allDrained(in *http.Request) *http.Response {
	return synthesize(in, http.StatusServiceUnavailable, apiError{
		Message: "Every backend that could take the request is drained.", Type: "server_error", Code: "drained",
	})
}
