package spillover

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert" //nolint:depguard // require must not be called in other goroutines
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

// What a pool's services did with each request, by its id.
type witness struct {
	mu     sync.Mutex
	failed map[string]int // sends that MaxAttempts bounds
	all    map[string][]string
}

// Whatever the services answer, the callers do and the pool is like: every request
// ends, MaxAttempts holds, nothing is left behind, and once all is well everything
// is served.
func TestWhateverHappensNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { disturb(t, seed) })
		})
	}
}

func disturb(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	var rmu sync.Mutex
	intn := func(n int) int { rmu.Lock(); defer rmu.Unlock(); return r.IntN(n) }
	members, tiers := 1+r.IntN(10), 1+r.IntN(4)
	cfg := Config{MaxAttempts: r.IntN(5), HoldStreams: r.IntN(4) == 0}
	if r.IntN(3) == 0 {
		cfg.MaxWait = time.Duration(1+r.IntN(20)) * time.Second
	}
	if r.IntN(4) == 0 {
		cfg.Selector = selectorFunc(func(c []Candidate) int { return intn(len(c)+2) - 1 })
	}
	keyless := r.IntN(3) == 0
	headerTimeout := time.Duration(r.IntN(2)) * 5 * time.Second
	limits := r.IntN(4) == 0
	for i := range members {
		b := azure(fmt.Sprint("d", i), priority(1+i%tiers))
		if keyless {
			b.APIKey = ""
		}
		if r.IntN(3) == 0 {
			b.URL = fmt.Sprintf("https://d%d.openai.azure.com/openai/v1", i)
		}
		b.HeaderTimeout, b.IdleTimeout = headerTimeout, headerTimeout*2
		if limits {
			b.Models = []Model{{Name: "m", RPM: 60, TPM: 100000}, {Name: "n"}}
		}
		cfg.Backends = append(cfg.Backends, b)
	}
	bad := true
	modes := make([]int, members)
	for i := range modes {
		modes[i] = r.IntN(14)
	}
	seen := &witness{failed: map[string]int{}, all: map[string][]string{}}
	cfg.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			io.Copy(io.Discard, req.Body)
			req.Body.Close()
		}
		var i int
		fmt.Sscanf(req.URL.Host, "d%d.", &i)
		id := req.Header.Get("X-Id")
		note := func(code int, fails bool) {
			seen.mu.Lock()
			defer seen.mu.Unlock()
			seen.all[id] = append(seen.all[id], fmt.Sprintf("d%d:%d", i, code))
			if fails {
				seen.failed[id]++
			}
		}
		answer := func(code int, body string, h ...string) (*http.Response, error) {
			note(code, code >= 500 || code == 401 || code == 403 || code == 404)
			return status(code, body, h...)(req)
		}
		mode := 0
		if bad {
			rmu.Lock()
			mode = modes[i]
			rmu.Unlock()
			if intn(4) == 0 {
				mode = intn(14)
			}
		}
		if req.Header.Get("X-Poison") != "" {
			mode = 3
		}
		select {
		case <-time.After(time.Duration(1+intn(2000)) * time.Millisecond):
		case <-req.Context().Done():
			note(-1, false)
			return nil, req.Context().Err()
		}
		switch mode {
		case 1:
			return answer(429, "{}", "retry-after-ms: "+fmt.Sprint(1+intn(3000)))
		case 2:
			return answer(500, "{}")
		case 3:
			note(-2, true)
			return nil, errReset
		case 4:
			return answer(503, "{}", "Retry-After: "+fmt.Sprint(1+intn(20)))
		case 5:
			return answer(401, wrongKey)
		case 6:
			return answer(403, "<html>")
		case 7:
			return answer(404, noDeployment)
		case 8:
			note(-3, true)
			return nil, errRefused
		case 9: // silent
			select {
			case <-req.Context().Done():
				note(-1, headerTimeout > 0)
				return nil, req.Context().Err()
			case <-time.After(time.Duration(intn(60)) * time.Second):
			}
		case 10:
			return answer(429, noQuota)
		case 11:
			return answer(429, `{"error":{"code":"no_capacity","message":"high demand"}}`, "Retry-After: "+fmt.Sprint(1+intn(8)))
		case 12:
			return answer(408, "{}")
		}
		if strings.Contains(req.Header.Get("X-Kind"), "stream") {
			note(200, false)
			pr, pw := io.Pipe()
			n, br := intn(5), intn(3) == 0 && bad
			go func() {
				for k := range n {
					if _, err := fmt.Fprintf(pw, "data: {\"choices\":[{\"delta\":{\"content\":\"x%d\"}}]}\n\n", k); err != nil {
						return
					}
					select {
					case <-time.After(time.Second):
					case <-req.Context().Done():
						pw.CloseWithError(req.Context().Err())
						return
					}
				}
				if br {
					pw.CloseWithError(errReset)
				} else {
					io.WriteString(pw, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
					pw.Close()
				}
			}()
			resp, _ := status(200, "")(req)
			resp.Header.Set("Content-Type", "text/event-stream")
			resp.Body, resp.ContentLength = pr, -1
			return resp, nil
		}
		return answer(200, `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`)
	})
	tr := configured(t, cfg)
	most := cfg.MaxAttempts
	if most == 0 {
		most = 3
	}
	var nth int
	var all sync.WaitGroup
	one := func(kind string, poisonous bool, ctx context.Context, caller string) (int, string) {
		rmu.Lock()
		nth++
		id := fmt.Sprint(nth)
		rmu.Unlock()
		req := newChat(t, chatPath).WithContext(ctx)
		req.Header.Set("X-Id", id)
		req.Header.Set("X-Kind", kind)
		if caller == "" {
			req.Header.Del("api-key")
		} else {
			req.Header.Set("api-key", caller)
		}
		if poisonous {
			req.Header.Set("X-Poison", "y")
		}
		resp, err := tr.RoundTrip(req)
		seen.mu.Lock()
		assert.LessOrEqual(t, seen.failed[id], most+1, seen.all[id]) // see TestOneAttemptMoreThanMaxAttempts
		seen.mu.Unlock()
		if err != nil {
			return -1, id
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode, id
	}
	for range 60 {
		kind := []string{"json", "stream"}[intn(2)]
		poisonous := intn(10) == 0
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if intn(4) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(1+intn(20000))*time.Millisecond)
		}
		caller := []string{"one", "two", ""}[intn(3)]
		all.Go(func() {
			defer cancel()
			one(kind, poisonous, ctx, caller)
		})
		time.Sleep(time.Duration(intn(1000)) * time.Millisecond)
		if intn(20) == 0 {
			i, mode := intn(members), intn(14)
			rmu.Lock()
			modes[i] = mode
			rmu.Unlock()
		}
	}
	all.Wait()
	synctest.Wait()
	check := func(at string) {
		for _, route := range tr.table().all() {
			for d := range route.all {
				require.Zero(t, d.InFlight.Load(), at)
				require.Zero(t, d.PendingFailures.Load(), at)
				require.Zero(t, d.Unanswered(), at)
				for _, h := range []*health.State{&d.State, &d.BackendState().State} {
					is := testnet.TransitionOf(h)
					require.False(t, is.Phase == health.Probing && is.Until.Before(time.Now()), "%s: a probe is lost", at)
					until, _, _ := h.Closed(time.Now())
					require.Less(t, time.Until(until), 6*time.Minute+time.Second, at)
				}
			}
		}
		require.Zero(t, tr.opened.waiting.Load(), at)
	}
	check("when all have ended")
	bad = false
	time.Sleep(7 * time.Minute) // quota
	for range 60 {
		code, id := one("json", false, t.Context(), "one")
		require.Equal(t, 200, code, seen.all[id])
	}
	check("when all is well")
	tr.Close()
}
