package wire

import (
	"net/http"
	"strconv"
	"strings"
)

// SpilledByAzure tells of an answer that Azure itself took from a full PTU to a
// standard deployment of the same resource (Azure's page on spillover).
func SpilledByAzure(h http.Header) bool {
	return Header(h, "X-Ms-Spillover-From-Deployment") != "" || strings.EqualFold(Header(h, "X-Ms-Is-Spilled-Over"), "true")
}

// RequestID is how the service knows a request (Azure has either header, OpenAI
// the first); "" if it is nothing to be told on.
func RequestID(h http.Header) string {
	for _, name := range [...]string{"X-Request-Id", "Apim-Request-Id"} {
		if id := Header(h, name); id != "" && len(id) <= 128 && IsPrintableASCII(id) {
			return id
		}
	}
	return ""
}

// MediaType is the type of a body, without its parameters.
func MediaType(h http.Header) string {
	t := Header(h, "Content-Type")
	if t == "application/json" {
		return t // as nearly always
	}
	t, _, _ = strings.Cut(t, ";")
	return strings.ToLower(strings.TrimSpace(t))
}

// EventStream is the media type of a stream.
const EventStream = "text/event-stream"

// Header is a header that net/http has made canonical.
func Header(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Limits are what an answer reports of its deployment's limits.
type Limits struct {
	Tokens         int64 // the limit in tokens a minute; 0 when it reports none
	Remaining      int64
	HasRemaining   bool
	Utilization    int64 // of a provisioned deployment, in thousandths; it may exceed 1000
	HasUtilization bool
}

// ReadLimits reads the headers of an answer. Placeholders (-1, or 0 of 0) are no
// limits.
func ReadLimits(h http.Header) (l Limits) {
	if limit, ok := tokenCount(h, "X-Ratelimit-Limit-Tokens"); ok && limit > 0 {
		l.Tokens = min(limit, MaxTokenCount)
		if remaining, ok := tokenCount(h, "X-Ratelimit-Remaining-Tokens"); ok {
			l.Remaining, l.HasRemaining = min(max(remaining, -MaxTokenCount), MaxTokenCount), true
		}
	}
	// A percentage, which may exceed 100 (Azure's page on provisioned throughput).
	if text, ok := strings.CutSuffix(Header(h, "Azure-Openai-Deployment-Utilization"), "%"); ok {
		if percent, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil && percent >= 0 {
			l.Utilization, l.HasUtilization = int64(min(percent, 1e6)*10), true
		}
	}
	return l
}

func tokenCount(h http.Header, name string) (n int64, ok bool) {
	text := Header(h, name)
	if text == "" {
		return 0, false // without the error that parsing it would make
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// CanonicalizeHeader makes the names in an answer's header canonical, as net/http has
// them: a base may store others.
func CanonicalizeHeader(h http.Header, name string, values []string) {
	if canonical := http.CanonicalHeaderKey(name); canonical != name {
		delete(h, name)
		h[canonical] = append(h[canonical], values...)
	}
}

// IsPrintableASCII tells whether a text is printable ASCII, and so safe in a header.
func IsPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// MaxTokenCount bounds every number of tokens that an answer reports, so that sums
// stay within an int64.
const MaxTokenCount = 1 << 40
