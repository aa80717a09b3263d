package spillover_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// A counter sees the whole body once, whatever the number of attempts.
func TestCountTokens(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "{}"))
	var seen []string
	tr := configured(t, spillover.Config{
		Base: n, Backends: []spillover.Backend{azure("a"), azure("b", priority(2))},
		CountTokens: func(body []byte) int { seen = append(seen, string(body)); return 10 },
	})
	resp, _ := ask(t, tr)
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, []string{`{"messages":[{"role":"user","content":"hi"}],"model":"m"}`}, seen)
}
