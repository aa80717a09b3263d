package spillover

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A request that is larger than a limit goes where the limit is larger or
// unknown, and nowhere else.
func TestTooLargeGoesWhereThereIsRoom(t *testing.T) {
	n := newNet()
	limited := func(name, limit string) {
		n.On(host(name), status(200, "{}", "X-Ratelimit-Limit-Tokens: "+limit))
	}
	limited("a", "30000")
	limited("small", "20000")
	limited("large", "90000")
	tr := balance(t, n, azure("a"), azure("small", priority(2)), azure("large", priority(3)), azure("unknown", priority(4)))
	for _, name := range []string{"a", "small", "large", "unknown"} {
		d := DeploymentOf(t, tr, name)
		resp, err := n.RoundTrip(newChat(t, "https://"+host(name)))
		require.NoError(t, err)
		d.measure(time.Now(), time.Now(), 0, resp.Header)
	}
	require.EqualValues(t, 30000, DeploymentOf(t, tr, "a").Limit.Load())
	require.Zero(t, DeploymentOf(t, tr, "unknown").Limit.Load())

	tooLarge := status(429, `{"error":{"message":"Request too large for gpt-4o: Limit 30000, Requested 40000.","code":"rate_limit_exceeded"}}`)
	n.On(host("a"), tooLarge)
	before := n.Sends(host("small"))
	resp, _ := ask(t, tr)
	require.Equal(t, "large", servedBy(resp))
	require.Equal(t, before, n.Sends(host("small")), "it is known to be no larger")
	require.True(t, statusOf(t, tr, "a").Available, "unharmed")

	n.On(host("large"), tooLarge)
	resp, _ = ask(t, tr)
	require.Equal(t, "unknown", servedBy(resp))

	n.On(host("unknown"), tooLarge)
	resp, body := ask(t, tr)
	require.Equal(t, 429, resp.StatusCode)
	require.Contains(t, body, "Request too large", "no wait mends it: the answer is the service's own")
}

// Placeholders are no limit.
func TestMeasureIgnoresPlaceholders(t *testing.T) {
	d := newTable([]*backend{{sharedState: new(sharedState)}}, nil, new(table)).nameless.tiers[0].members[0]
	for _, value := range []string{"", "-1", "0", "many", "1e9", "99999999999999999999"} {
		resp, err := status(200, "", "X-Ratelimit-Limit-Tokens: "+value)(newChat(t, chatPath))
		require.NoError(t, err)
		d.measure(time.Now(), time.Now(), 0, resp.Header)
		require.Zero(t, d.Limit.Load(), value)
	}
}
