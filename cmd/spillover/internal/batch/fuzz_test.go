package batch

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever a line is, it is a request that can be sent or an error in one line of valid
// JSON, which names the line.
func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		"", "null", "{", `{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m"}}`,
		`{"custom_id":"\ud800","method":"post","url":"/openai/deployments/a%2fb/embeddings?api-version=1","body":{}}`,
		`{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"stream":true}}`, "{\"custom_id\":\"\xff\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r := parseRequest(7, line)
		var a answer
		if r.invalid == nil {
			require.True(t, strings.HasPrefix(r.path, "/v1/") || strings.HasPrefix(r.path, "/openai/deployments/"), r.path)
			require.True(t, json.Valid(r.body))
			require.NotEmpty(t, r.customID)
			a = newAnswer(r, &responseObject{200, "", line}, nil)
		} else {
			a = newAnswer(r, nil, r.invalid)
			require.True(t, a.failed)
		}
		require.True(t, json.Valid(a.text))
		require.Equal(t, len(a.text)-1, bytes.IndexByte(a.text, '\n'))
		number, ok := lineOf(a.text)
		require.True(t, ok)
		require.EqualValues(t, 7, number)
		require.Equal(t, a.failed, hasFailed(a.text))
	})
}
