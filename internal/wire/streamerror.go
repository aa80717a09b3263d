package wire

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// streamErrorFields are the additional members of an error in a stream: the status and
// the headers that an error response would have had.
type streamErrorFields struct {
	Status          looseString            `json:"status"`
	StatusCode      looseString            `json:"statusCode"`
	StatusSnakeCase looseString            `json:"status_code"`
	Headers         map[string]looseString `json:"headers"`
	InnerError      struct {
		Code looseString `json:"code"`
	} `json:"innererror"`
	InnerErrorSnakeCase struct {
		Code looseString `json:"code"`
	} `json:"inner_error"`
}

// StreamErrorStatus returns the HTTP status that an error in a stream is equivalent to,
// and the header h of the response, in which the error's own headers replace others.
// The problem is an error object, or an object that contains one.
func StreamErrorStatus(h http.Header, problem []byte) (int, http.Header) {
	e := ParseError(problem)
	var outer struct {
		streamErrorFields
		Error json.RawMessage `json:"error"`
	}
	var inner streamErrorFields
	_ = json.Unmarshal(problem, &outer)
	_ = json.Unmarshal(outer.Error, &inner)
	for _, headers := range []map[string]looseString{outer.Headers, inner.Headers} {
		if len(headers) > 0 {
			h = h.Clone()
		}
		for name, value := range headers {
			if value != "" {
				h.Set(name, string(value))
			}
		}
	}
	for _, s := range []looseString{inner.Status, inner.StatusCode, inner.StatusSnakeCase, outer.Status, outer.StatusCode, outer.StatusSnakeCase, e.Code} {
		if n, err := strconv.Atoi(string(s)); err == nil && n >= 400 && n < 600 {
			return n, h
		}
	}
	if e.Code == "" {
		// Azure says more in innererror if the error itself has no code.
		e.Code = cmp.Or(inner.InnerError.Code, inner.InnerErrorSnakeCase.Code, outer.InnerError.Code, outer.InnerErrorSnakeCase.Code)
	}
	word := strings.ToLower(string(e.Code) + " " + string(e.Type))
	for _, w := range errorFragments {
		if strings.Contains(word, w.word) {
			return w.status, h
		}
	}
	words := slices.Concat(splitWords(string(e.Code)), splitWords(string(e.Type)))
	switch {
	case strings.Contains(string(e.Message), "existing deployment"):
		return http.StatusNotFound, h
	case len(words) == 0:
		return http.StatusInternalServerError, h
	case e.Code == "" && (e.Type == "tokens" || e.Type == "requests"):
		return http.StatusTooManyRequests, h
	case strings.Contains(word, "invalid"), strings.Contains(word, "unsupported"):
		return http.StatusBadRequest, h
	}
	for _, w := range serviceWords {
		if slices.Contains(words, w.word) {
			return w.status, h
		}
	}
	// The service has accepted the request, and the error is not one of the known
	// failures of the service. So it is about the request.
	return http.StatusBadRequest, h
}

// splitWords returns the words of a code or type in lower case, of "server_error" as
// well as of "ServerError". It leaves out "error" and "null", which say nothing.
func splitWords(s string) (words []string) {
	from := 0
	cut := func(to int) {
		if w := strings.ToLower(s[from:to]); w != "" && w != "error" && w != "null" {
			words = append(words, w)
		}
		from = to
	}
	for i, c := range []byte(s) {
		switch upper := c >= 'A' && c <= 'Z'; {
		case !upper && (c < 'a' || c > 'z'):
			cut(i)
			from = i + 1
		case upper && i > 0 && s[i-1] >= 'a' && s[i-1] <= 'z':
			cut(i)
		}
	}
	cut(len(s))
	return words
}

// errorFragments are parts of the codes and types of errors in streams, as seen from
// Azure and OpenAI, with the equivalent status. The more specific ones are first.
var errorFragments = []struct {
	word   string
	status int
}{
	{"rate_limit", http.StatusTooManyRequests}, {"ratelimit", http.StatusTooManyRequests},
	{"too_many_requests", http.StatusTooManyRequests}, {"toomanyrequests", http.StatusTooManyRequests}, {"no_capacity", http.StatusTooManyRequests},
	{"slow_down", http.StatusTooManyRequests}, {"quota", http.StatusTooManyRequests},
	{"credit_balance", http.StatusTooManyRequests}, {"spend_limit", http.StatusTooManyRequests}, {"usage_limit", http.StatusTooManyRequests},
	{"billing", http.StatusTooManyRequests},
	{"deploymentnotfound", http.StatusNotFound}, {"model_not_found", http.StatusNotFound},
	{"invalid_api_key", http.StatusUnauthorized}, {"authentication", http.StatusUnauthorized},
	{"permission", http.StatusForbidden},
	{"content_filter", http.StatusBadRequest}, {"context_length", http.StatusBadRequest}, {"invalid_prompt", http.StatusBadRequest},
	{"overloaded", http.StatusServiceUnavailable}, {"unavailable", http.StatusServiceUnavailable},
	{"timeout", http.StatusRequestTimeout},
	{"policy", http.StatusBadRequest}, {"moderation", http.StatusBadRequest},
	{"service_error", http.StatusInternalServerError}, {"server_error", http.StatusInternalServerError}, {"internal", http.StatusInternalServerError}, {"api_error", http.StatusInternalServerError},
	{"image", http.StatusBadRequest}, // all codes of OpenAI's ResponseErrorCode that are not listed above
}

// serviceWords are whole words which show that an otherwise unknown code or type is a
// failure of the service.
var serviceWords = []struct {
	word   string
	status int
}{
	{"rate", http.StatusTooManyRequests}, {"capacity", http.StatusTooManyRequests}, {"concurrency", http.StatusTooManyRequests},
	{"throttled", http.StatusTooManyRequests}, {"throttling", http.StatusTooManyRequests},
	{"unauthorized", http.StatusUnauthorized}, {"forbidden", http.StatusForbidden},
	{"busy", http.StatusServiceUnavailable}, {"overload", http.StatusServiceUnavailable},
	{"server", http.StatusInternalServerError}, {"upstream", http.StatusInternalServerError},
	{"backend", http.StatusInternalServerError}, {"gateway", http.StatusInternalServerError},
}
