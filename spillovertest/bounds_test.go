package spillovertest_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// Whatever a request asks for, its answer is bounded.
func TestAnswersAreBounded(t *testing.T) {
	s := spillovertest.New(spillovertest.Config{Deployments: deployment(nil, spillovertest.Latency{}), Dialect: spillovertest.OpenAI})
	defer s.Close()
	for _, most := range []int64{50_000_000, 1 << 31, 1 << 60} {
		for _, field := range []string{"max_tokens", "max_completion_tokens"} {
			status, _, body := get(t, s, "/v1/chat/completions", fmt.Sprintf(`{"model":"gpt","messages":[],"%s":%d}`, field, most))
			require.Equal(t, 200, status)
			require.Contains(t, body, `"completion_tokens":131072`)
			require.Less(t, len(body), 2<<20)
		}
		status, _, body := get(t, s, "/v1/embeddings", fmt.Sprintf(`{"model":"gpt","input":"x","dimensions":%d}`, most))
		require.Equal(t, 200, status)
		require.Less(t, len(body), 2<<20)
	}
}
