package interop

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A retrier is a client over a Transport that asks again twice, for SDKs that
// never do.
type retrier struct {
	name     string
	client   func(p *pool) *http.Client
	throttle time.Duration // how long it retries in allThrottled
	spread   time.Duration // at most, on top of each wait
	within   string        // both, in words
}

var retriers = []retrier{
	{"RetryClient", func(p *pool) *http.Client { return spillover.RetryClient(p.lb, 2) }, 6 * time.Second, time.Second, "6 to 8 s"},
	// It reads Retry-After alone, so it waits for whole seconds: three, twice.
	{"go-retryablehttp", func(p *pool) *http.Client { return byHand(p.asked) }, 6 * time.Second, time.Millisecond, "6 s"},
}

// byHand is what docs/sdks.md tells to do with go-retryablehttp.
func byHand(lb http.RoundTripper) *http.Client {
	client := retryablehttp.NewClient()
	client.HTTPClient = &http.Client{Transport: lb}
	client.RetryMax = 2
	client.Logger = nil
	client.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if resp != nil && resp.Header.Get("X-Should-Retry") == "false" {
			return false, nil
		}
		return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
	}
	client.ErrorHandler = func(resp *http.Response, err error, _ int) (*http.Response, error) {
		if resp != nil {
			return resp, nil
		}
		return nil, err
	}
	return client.StandardClient()
}

// silent are the SDKs that never retry.
func eachSilent(t *testing.T, test func(t *testing.T, a adapter, o operation, r retrier)) {
	for _, r := range retriers {
		t.Run(r.name, func(t *testing.T) {
			each(t, []place{inMemory}, func(t *testing.T, a adapter, o operation, _ place) {
				if a.retries == 0 {
					test(t, a, o, r)
				}
			})
		})
	}
}

// With a retrier beneath, an SDK waits out what it would have failed of.
func TestRetriersWait(t *testing.T) {
	eachSilent(t, func(t *testing.T, a adapter, o operation, r retrier) {
		p := newPool(t, inMemory, spillovertest.Latency{}, nil)
		p.set(0, throttled("3", 1))
		p.set(1, throttled("60", 0))
		p.set(2, throttled("60", 0))
		start := time.Now()
		text, err := o.call(t.Context(), setup{client: r.client(p)})
		require.NoError(t, err)
		require.Equal(t, o.text, text)
		require.GreaterOrEqual(t, time.Since(start), 3*time.Second)
		require.Less(t, time.Since(start), 3*time.Second+r.spread)
		require.Equal(t, [3]int{2, 1, 1}, p.sends())
		p.requireQuiet(t)
	})
}

// When that is in vain the last answer is the caller's, whole.
func TestRetriersGiveUp(t *testing.T) {
	eachSilent(t, func(t *testing.T, a adapter, o operation, r retrier) {
		for _, c := range calamities {
			p := newPool(t, inMemory, spillovertest.Latency{}, nil)
			out := c.befall(t, p, o, setup{client: r.client(p)})
			_, sends := c.expected(2)
			require.Equal(t, sends, out.sends, c.name)
			switch c.name {
			case allThrottled.name:
				require.GreaterOrEqual(t, out.after, r.throttle)
				require.Less(t, out.after, r.throttle+2*r.spread+500*time.Millisecond)
			case allSpent.name:
				require.Zero(t, out.after)
			}
			c.requireTold(t, a, o, out.err)
		}
	})
}

// The retries of an SDK and of a retrier multiply.
func TestRetriesMultiply(t *testing.T) {
	each(t, []place{inMemory}, func(t *testing.T, a adapter, o operation, place place) {
		if a.retries == 0 || o.name != "chat" {
			return
		}
		p := newPool(t, place, spillovertest.Latency{}, nil)
		out := allThrottled.befall(t, p, o, setup{client: retriers[0].client(p)})
		require.Equal(t, [3]int{3 * (1 + a.retries), 1, 1}, out.sends)
	})
}

// go-retryablehttp as it comes hides what it gave up on, so that no SDK can tell
// its caller, and waits where that is of no use.
func TestRetryableHTTPHides(t *testing.T) {
	each(t, []place{inMemory}, func(t *testing.T, a adapter, o operation, place place) {
		if a.name != goOpenAI.name {
			return
		}
		for _, c := range []calamity{allThrottled, allSpent} {
			p := newPool(t, place, spillovertest.Latency{}, nil)
			client := retryablehttp.NewClient()
			client.HTTPClient.Transport, client.RetryMax, client.Logger = p.asked, 2, nil
			out := c.befall(t, p, o, setup{client: client.StandardClient()})
			require.ErrorContains(t, out.err, "giving up after 3 attempt(s)")
			require.Equal(t, aText, failureOf(out.err).kind)
			if c.name == allSpent.name {
				require.Greater(t, out.after, 3*time.Minute)
			}
		}
	})
}
