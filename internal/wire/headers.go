package wire

import (
	"net/http"
	"strconv"
	"strings"
)

// SpilledByAzure reports whether Azure itself moved the request from a full PTU to a
// standard deployment of the same resource (Azure's page on spillover).
func SpilledByAzure(h http.Header) bool {
	return Header(h, "X-Ms-Spillover-From-Deployment") != "" || strings.EqualFold(Header(h, "X-Ms-Is-Spilled-Over"), "true")
}

// RequestID returns the service's id of the request (Azure sends either header, OpenAI
// the first), or "" if there is none that is short and printable.
func RequestID(h http.Header) string {
	for _, name := range [...]string{"X-Request-Id", "Apim-Request-Id"} {
		if id := Header(h, name); id != "" && len(id) <= 128 && IsPrintableASCII(id) {
			return id
		}
	}
	return ""
}

// MediaType returns the media type of a body, in lower case and without parameters.
func MediaType(h http.Header) string {
	t := Header(h, "Content-Type")
	if t == "application/json" {
		return t // as nearly always
	}
	t, _, _ = strings.Cut(t, ";")
	return strings.ToLower(strings.TrimSpace(t))
}

// EventStream is the media type of a stream of server-sent events.
const EventStream = "text/event-stream"

// Header returns the first value of a header. The name must be in net/http's canonical
// form: Header saves the cost of making it so.
func Header(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Limits are the rate limits and the utilization of a deployment, as a response reports
// them.
type Limits struct {
	Tokens         int64 // the limit in tokens per minute; 0 if none is reported
	Remaining      int64
	HasRemaining   bool
	Utilization    int64 // of a provisioned deployment (PTU), in thousandths; it may exceed 1000
	HasUtilization bool
}

// ReadLimits reads the limits from the header of a response. Placeholder values (-1, or
// 0 of 0) are not limits.
func ReadLimits(h http.Header) (l Limits) {
	if limit, ok := tokenCount(h, "X-Ratelimit-Limit-Tokens"); ok && limit > 0 {
		l.Tokens = min(limit, MaxTokenCount)
		if remaining, ok := tokenCount(h, "X-Ratelimit-Remaining-Tokens"); ok {
			l.Remaining, l.HasRemaining = min(max(remaining, -MaxTokenCount), MaxTokenCount), true
		}
	}
	// The value is a percentage and may exceed 100 (Azure's page on provisioned
	// throughput).
	if text, ok := strings.CutSuffix(Header(h, "Azure-Openai-Deployment-Utilization"), "%"); ok {
		if percent, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil && percent >= 0 {
			l.Utilization, l.HasUtilization = int64(min(percent, 1e6)*10), true
		}
	}
	return l
}

// tokenCount parses a header that contains a number.
func tokenCount(h http.Header, name string) (n int64, ok bool) {
	text := Header(h, name)
	if text == "" {
		return 0, false // avoids the allocation of a parse error
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// CanonicalizeHeader changes a name in a response's header to net/http's canonical form.
// A custom base transport may have stored another form.
func CanonicalizeHeader(h http.Header, name string, values []string) {
	if isCanonical(name) {
		return
	}
	if canonical := http.CanonicalHeaderKey(name); canonical != name {
		delete(h, name)
		h[canonical] = append(h[canonical], values...)
	}
}

// isCanonical reports whether net/http's canonical form of a name is the name itself.
// It is a cheap test; the name may be canonical for other reasons.
func isCanonical(name string) bool {
	begins := true // a word
	for i := range len(name) {
		c := name[i]
		if begins && 'a' <= c && c <= 'z' || !begins && 'A' <= c && c <= 'Z' {
			return false
		}
		begins = c == '-'
	}
	return true
}

// IsPrintableASCII reports whether a text consists of printable ASCII only, and so is
// safe in a header.
func IsPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// MaxTokenCount bounds each number of tokens that a response reports, so that sums fit
// into an int64.
const MaxTokenCount = 1 << 40
