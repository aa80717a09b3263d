package interop

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

// A calamity befalls all deployments at once, and stays.
type calamity struct {
	name   string
	faults [3]spillovertest.Fault

	retried bool          // whether SDKs that retry do so
	wait    time.Duration // before each retry; 0: as the SDK likes
	all     bool          // get the retries, not only the first

	// What the caller is told. A status of 0: there is no answer.
	status  int
	code    string
	message string // a part of it
}

// always is a fault of all three.
func always(f spillovertest.Fault) [3]spillovertest.Fault { return [3]spillovertest.Fault{f, f, f} }

const noQuota = `{"error":{"code":"insufficient_quota","type":"insufficient_quota","message":"You exceeded your current quota."}}`

var (
	allThrottled = calamity{
		name: "throttled, the first for 3 s, the others for longer", retried: true, wait: 3 * time.Second,
		faults: [3]spillovertest.Fault{throttled("3", 0), throttled("60", 0), throttled("60", 0)},
		status: 429, code: "rate_limit_exceeded", message: "All 3 deployments of ",
	}
	allSpent = calamity{
		name: "out of quota", faults: always(spillovertest.Fault{Status: 429, Body: noQuota}),
		status: 429, code: "insufficient_quota", message: "Retrying will not help.",
	}
	allFailing = calamity{
		name: "failing with a 500", faults: always(spillovertest.Fault{Status: 500, Body: `{"error":{"code":"oops","message":"It is broken."}}`}),
		retried: true, all: true, status: 500, code: "oops", message: "It is broken.",
	}
	allUnreachable = calamity{
		name: "not answering", faults: always(spillovertest.Fault{Kind: spillovertest.KindReset}),
		retried: true, all: true, message: "spillover: no answer for ",
	}
	calamities = []calamity{allThrottled, allSpent, allFailing, allUnreachable}
)

// An outcome is what came of a calamity for an SDK.
type outcome struct {
	asks  int // of the transport
	sends [3]int
	after time.Duration
	err   error
}

func (c calamity) befall(t *testing.T, p *pool, o operation, s setup) (out outcome) {
	for i, f := range c.faults {
		p.set(i, f)
	}
	start := time.Now()
	text, err := o.call(t.Context(), s)
	out = outcome{len(p.asked.seen), p.sends(), time.Since(start), err}
	require.Empty(t, text)
	require.Error(t, err)
	p.requireQuiet(t)
	return out
}

// expected is what comes of it for an SDK that retries so often.
func (c calamity) expected(retries int) (asks int, sends [3]int) {
	if !c.retried {
		retries = 0
	}
	sends = [3]int{1 + retries, 1, 1}
	if c.all {
		sends = [3]int{1 + retries, 1 + retries, 1 + retries}
	}
	return 1 + retries, sends
}

// What each SDK makes of it when all deployments are down: what error the
// caller sees, how long the SDK retries, and how many sends come of that.
func TestAllDown(t *testing.T) {
	each(t, []place{inMemory}, func(t *testing.T, a adapter, o operation, place place) {
		for _, c := range calamities {
			p := newPool(t, place, spillovertest.Latency{}, nil)
			out := c.befall(t, p, o, setup{client: p.client})
			c.requireSends(t, a.retries, out)
			c.requireTold(t, a, o, out.err)
			if retried := out.asks > 1; retried && c.wait > 0 {
				// The transport adds a little to a refusal that repeats itself.
				after := time.Duration(a.retries) * c.wait
				require.GreaterOrEqual(t, out.after, after)
				require.Less(t, out.after, after+500*time.Millisecond)
			} else if !retried {
				require.Zero(t, out.after)
			}
		}
	})
}

// With its own retries off, an SDK passes on what the transport says.
func TestAllDownRetriesOff(t *testing.T) {
	each(t, []place{inMemory, overHTTP2}, func(t *testing.T, a adapter, o operation, place place) {
		for _, c := range calamities {
			if place.name != inMemory.name && c.name != allThrottled.name {
				continue // one will do
			}
			p := newPool(t, place, spillovertest.Latency{}, nil)
			out := c.befall(t, p, o, setup{client: p.client, once: true})
			c.requireSends(t, 0, out)
			c.requireTold(t, a, o, out.err)
			if place.name == inMemory.name {
				require.Zero(t, out.after)
			}
		}
	})
}

func (c calamity) requireSends(t *testing.T, retries int, out outcome) {
	asks, sends := c.expected(retries)
	require.Equal(t, asks, out.asks, c.name)
	require.Equal(t, sends, out.sends, c.name)
}

// requireTold checks what the caller is told: all that the SDK has a place for.
func (c calamity) requireTold(t *testing.T, a adapter, o operation, err error) {
	f := failureOf(err)
	if c.status == 0 {
		require.Equal(t, aText, f.kind)
		if !a.hidesCause {
			require.ErrorContains(t, err, c.message+o.model+": ptu: ")
		}
		return
	}
	require.Equal(t, a.fails, f.kind, "%v", err)
	require.Contains(t, f.message, c.message)
	if f.kind != aText {
		require.Equal(t, c.status, f.status)
		require.Equal(t, c.code, f.code)
	}
	if f.header != nil && c.status == http.StatusTooManyRequests {
		require.Equal(t, "true", f.header.Get("X-Spillover-Synthesized"))
		require.NotEmpty(t, f.header.Get("Retry-After"))
	}
}

// SDKs that retry wait for exactly as long as the 429 says, and not in vain.
func TestAllDownForAWhile(t *testing.T) {
	each(t, []place{inMemory}, func(t *testing.T, a adapter, o operation, place place) {
		p := newPool(t, place, spillovertest.Latency{}, nil)
		p.set(0, throttled("3", 1))
		p.set(1, throttled("60", 0))
		p.set(2, throttled("60", 0))
		start := time.Now()
		text, err := o.call(t.Context(), setup{client: p.client})
		if a.retries == 0 {
			require.Error(t, err)
			require.Equal(t, [3]int{1, 1, 1}, p.sends())
			return
		}
		require.NoError(t, err)
		require.Equal(t, o.text, text)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, [3]int{2, 1, 1}, p.sends())
		p.requireQuiet(t)
	})
}
