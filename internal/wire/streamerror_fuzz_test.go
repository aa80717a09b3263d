package wire

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever an error says, it has a status that an error can have, and a code that fits
// into a log. Headers that it does not have stay as they were.
func FuzzStreamErrorStatus(f *testing.F) {
	for _, s := range []string{
		"", "null", "[]", `{"error":{"code":"rate_limit_exceeded","headers":{"retry-after":"5","x":null,"y":7}}}`, `{"error":"text"}`, `{"error":{"status":"503"}}`,
		`{"code":429.5e3}`, `{"statusCode":99,"error":{"status_code":-1,"innererror":{"code":"ServerError"}}}`, `{"error":{"inner_error":{"code":{"a":1}}}}`,
		`{"error":{"code":"a\nb","message":"existing deployment"}}`, `{"headers":{"":"x","a b":"c\r\nd"},"type":"tokens"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, problem []byte) {
		before := http.Header{"Content-Type": {"text/event-stream"}, "Retry-After": {"1"}}
		status, h := StreamErrorStatus(before, problem)
		require.True(t, status >= 400 && status < 600, status)
		require.Equal(t, http.Header{"Content-Type": {"text/event-stream"}, "Retry-After": {"1"}}, before, "the header of the response is not changed")
		for name := range before {
			require.Len(t, h[name], 1)
			require.NotEmpty(t, h[name][0])
		}
		e := ParseError(problem)
		require.True(t, IsPrintableASCII(string(e.Code)) && len(e.Code) <= 64, "%q", e.Code)
	})
}
