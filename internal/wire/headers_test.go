package wire

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestRequestID(t *testing.T) {
	require.Equal(t, "a", RequestID(http.Header{"X-Request-Id": {"a"}, "Apim-Request-Id": {"b"}}))
	require.Equal(t, "b", RequestID(http.Header{"X-Request-Id": {"\n"}, "Apim-Request-Id": {"b"}}))
	require.Empty(t, RequestID(http.Header{"X-Request-Id": {strings.Repeat("a", 129)}}))
}

func TestSpilledByAzure(t *testing.T) {
	require.True(t, SpilledByAzure(http.Header{"X-Ms-Spillover-From-Deployment": {"ptu"}}))
	require.True(t, SpilledByAzure(http.Header{"X-Ms-Is-Spilled-Over": {"True"}}))
	require.False(t, SpilledByAzure(http.Header{"X-Ms-Is-Spilled-Over": {"false"}}))
}

func TestMediaType(t *testing.T) {
	require.Equal(t, EventStream, MediaType(http.Header{"Content-Type": {" Text/Event-Stream ; charset=utf-8"}}))
	require.Equal(t, "application/json", MediaType(http.Header{"Content-Type": {"application/json"}}))
	require.Empty(t, MediaType(http.Header{}))
}

func TestReadLimits(t *testing.T) {
	const limit, remaining, utilization = "X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "Azure-Openai-Deployment-Utilization"
	for _, c := range []struct {
		header http.Header
		want   Limits
	}{
		{http.Header{}, Limits{}},
		{http.Header{limit: {"1000"}, remaining: {"-7"}}, Limits{Tokens: 1000, Remaining: -7, HasRemaining: true}},
		{http.Header{limit: {"1000"}}, Limits{Tokens: 1000}},
		{http.Header{limit: {"0"}, remaining: {"0"}}, Limits{}},
		{http.Header{limit: {"-1"}, remaining: {"-1"}}, Limits{}},
		{http.Header{limit: {"many"}, remaining: {"5"}}, Limits{}},
		{http.Header{limit: {"9223372036854775807"}, remaining: {"9223372036854775807"}}, Limits{Tokens: MaxTokenCount, Remaining: MaxTokenCount, HasRemaining: true}},
		{http.Header{utilization: {"101.5%"}}, Limits{Utilization: 1015, HasUtilization: true}},
		{http.Header{utilization: {"101.5"}}, Limits{}},
		{http.Header{utilization: {"-1%"}}, Limits{}},
		{http.Header{utilization: {"NaN%"}}, Limits{}},
	} {
		require.Equal(t, c.want, ReadLimits(c.header), c.header)
	}
}

func TestCanonicalizeHeader(t *testing.T) {
	h := http.Header{"retry-after": {"1"}, "X-Other": {"a"}}
	for name, values := range h {
		CanonicalizeHeader(h, name, values)
	}
	require.Equal(t, http.Header{"Retry-After": {"1"}, "X-Other": {"a"}}, h)
}

func TestIsPrintableASCII(t *testing.T) {
	require.True(t, IsPrintableASCII("a b~"))
	for _, s := range []string{"a\n", "\x7f", "é"} {
		require.False(t, IsPrintableASCII(s), "%q", s)
	}
}

// Names that need no change are found without making the canonical form.
func TestCanonicalNames(t *testing.T) {
	require.True(t, isCanonical("X-Ratelimit-Limit-Tokens"))
	require.False(t, isCanonical("x-Ratelimit-Limit-Tokens"))
	require.False(t, isCanonical("X-RateLimit-Limit-Tokens"))
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[A-Ca-c0-9 :é-]*`).Draw(t, "name")
		if isCanonical(name) {
			require.Equal(t, name, http.CanonicalHeaderKey(name))
		}
	})
}
