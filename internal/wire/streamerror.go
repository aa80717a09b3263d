package wire

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A streamError is what an error that came in a stream has beside what errors
// have: the status and the headers that its answer would have had.
type streamError struct {
	Status     looseString            `json:"status"`
	StatusCode looseString            `json:"statusCode"`
	Snake      looseString            `json:"status_code"`
	Headers    map[string]looseString `json:"headers"`
	Inner      struct {
		Code looseString `json:"code"`
	} `json:"innererror"`
	Older struct {
		Code looseString `json:"code"`
	} `json:"inner_error"`
}

// StreamErrorStatus is the status that an error in a stream stands for, and the
// answer's header with what the error has of its own put before it. The problem
// is an error object, or what has one.
func StreamErrorStatus(h http.Header, problem []byte) (int, http.Header) {
	e := ParseError(problem)
	var outer struct {
		streamError
		Error json.RawMessage `json:"error"`
	}
	var inner streamError
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
	for _, s := range []looseString{inner.Status, inner.StatusCode, inner.Snake, outer.Status, outer.StatusCode, outer.Snake, e.Code} {
		if n, err := strconv.Atoi(string(s)); err == nil && n >= 400 && n < 600 {
			return n, h
		}
	}
	if e.Code == "" {
		// Azure's word for what it is about, where it has no other.
		e.Code = cmp.Or(inner.Inner.Code, inner.Older.Code, outer.Inner.Code, outer.Older.Code)
	}
	word := strings.ToLower(string(e.Code) + " " + string(e.Type))
	for _, w := range errorWords {
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
	// The request was accepted, and what it is refused for is no trouble of the
	// service's that anybody has heard of: it is the request's own.
	return http.StatusBadRequest, h
}

// splitWords are the words of a code or type, in lower case: those of
// "server_error" as well as those of "ServerError". "error" says nothing.
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

// streamErrors are the codes and types of errors in streams (Azure's and
// OpenAI's, as seen) by what they stand for, the more telling ones first.
var errorWords = []struct {
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
	{"image", http.StatusBadRequest}, // all of ResponseErrorCode's that are not above
}

// serviceWords are the words of a code or type that is not known otherwise by
// which it is the service's trouble.
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
