package spillover

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A caller who sends no credential at all is one like the others.
func TestCallerWithoutCredentialHarmsNobody(t *testing.T) {
	for name, refusal := range map[string]roundTripFunc{
		"401": status(401, wrongKey), "401 without a body": status(401, ""), "no role": status(403, lacksRole), "no quota": status(429, noQuota), "unpaid": status(402, "{}"),
	} {
		for _, second := range []string{"", "key"} {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.on(host("a"), func(req *http.Request) (*http.Response, error) {
					if req.Header.Get("Api-Key") == "" {
						return refusal(req)
					}
					return ok200(req)
				})
				tr := balance(t, n, azure("a", func(b *Backend) { b.APIKey = "" }), azure("b", priority(2), func(b *Backend) { b.APIKey = second }))
				for range 5 {
					req := newChat(t, chatPath)
					req.Header.Del("api-key")
					resp, _ := send(t, tr, req)
					require.Equal(t, "b", servedBy(resp), name)
					resp, _ = send(t, tr, chats(t, "good"))
					require.Equal(t, "a", servedBy(resp), name)
				}
				require.True(t, statusOf(t, tr, "a").Available, name)
				require.Less(t, n.sends(host("a")), 8, "%s: it is known of those without", name)
			})
		}
	}
}

// A server that wants no credential, and is throttled, is throttled for all.
func TestThrottledServerWithoutCredentialsIsInStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), status(429, "{}", "Retry-After: 30"))
		tr := balance(t, n, azure("a", func(b *Backend) { b.APIKey = "" }))
		req := newChat(t, chatPath)
		req.Header.Del("api-key")
		send(t, tr, req)
		require.Equal(t, 30*time.Second, outFor(tr, "a"))
		require.False(t, statusOf(t, tr, "a").Available)
	})
}
