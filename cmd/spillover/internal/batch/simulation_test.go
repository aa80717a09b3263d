package batch_test

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
	"github.com/spillover-go/spillover/spillovertest"
)

// latency is one second and a half for a response of 100 tokens.
var latency = spillovertest.Latency{FirstToken: 500 * time.Millisecond, PerToken: 10 * time.Millisecond, Jitter: .2}

func simulated(name string, limit spillovertest.Limit) *spillovertest.Server {
	return spillovertest.New(spillovertest.Config{Name: name, Deployments: []spillovertest.Deployment{{Name: "gpt-4o", Limit: limit, Latency: latency}}})
}

// pool makes a transport for a batch, with one tier for each server.
func pool(t testing.TB, servers ...*spillovertest.Server) (*spillover.Transport, time.Duration) {
	cfg := spillover.Config{Base: spillovertest.Network(servers...)}
	for i, s := range servers {
		cfg.Backends = append(cfg.Backends, spillover.Backend{Name: s.Name, URL: s.URL, Priority: i + 1, APIVersion: "2024-10-21"})
	}
	wait := batch.Configure(&cfg)
	lb, err := spillover.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { lb.Close() })
	return lb, wait
}

const hello = `{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}],"max_tokens":100}`

// A batch of requests that would take a PTU half an hour is answered without a failure,
// by the PTU as far as it can, and by the next tier at once.
func TestBatchUsesWhatTheLimitsAllow(t *testing.T) {
	const requests = 10_000
	in := writeInput(t, requests, hello)
	out := filepath.Join(t.TempDir(), "out")
	synctest.Test(t, func(t *testing.T) {
		ptu, payg := simulated("ptu", spillovertest.PTU{TPM: 100_000}), simulated("payg", spillovertest.PAYG{TPM: 100_000})
		lb, wait := pool(t, ptu, payg)
		defer lb.Close()
		b, err := batch.Open(t.Context(), batch.Options{Input: in, Output: out, Transport: lb, TierWait: wait}.WithoutSync())
		require.NoError(t, err)
		defer b.Close()
		begun := time.Now()
		require.NoError(t, b.Run(t.Context()))
		minutes := time.Since(begun).Minutes()
		c := b.Counts()
		require.EqualValues(t, requests, c.Answered)
		require.Zero(t, c.Failed)
		require.Zero(t, c.InFlight)
		require.EqualValues(t, requests*100, c.OutputTokens)
		utilization := ptu.Stats().Charged / (100_000 * minutes)
		rpm := float64(c.Tiers[2]) / minutes // of the 600 that 100,000 TPM have
		t.Logf("%.1f min; PTU %.2f of its capacity, %d refused; pay-as-you-go %.0f requests/min, %d refused",
			minutes, utilization, ptu.Stats().Throttled, rpm, payg.Stats().Throttled)
		require.Greater(t, utilization, 0.6)
		require.Greater(t, rpm, 400.0)
		require.Less(t, payg.Stats().Throttled, requests/50)
	})
}

// With a PTU alone, limits make a batch slower and no request fail.
func TestLimitsAloneFailNoRequest(t *testing.T) {
	const requests = 1000
	in := writeInput(t, requests, hello)
	out := filepath.Join(t.TempDir(), "out")
	for name, limit := range map[string]spillovertest.Limit{"ptu": spillovertest.PTU{TPM: 100_000}, "payg": spillovertest.PAYG{TPM: 30_000}} {
		synctest.Test(t, func(t *testing.T) {
			s := simulated(name, limit)
			lb, wait := pool(t, s)
			defer lb.Close()
			b, err := batch.Open(t.Context(), batch.Options{Input: in, Output: out + name, Transport: lb, TierWait: wait}.WithoutSync())
			require.NoError(t, err)
			defer b.Close()
			begun := time.Now()
			require.NoError(t, b.Run(t.Context()))
			c := b.Counts()
			require.EqualValues(t, requests, c.Answered)
			require.Zero(t, c.Failed)
			t.Logf("%s: %v, %d refused", name, time.Since(begun).Round(time.Second), s.Stats().Throttled)
			require.Less(t, s.Stats().Throttled, requests/10)
		})
	}
}

// Interactive requests beside a batch are served by the PTU nearly as often as without it.
func TestBatchHarmsInteractiveRequestsLittle(t *testing.T) {
	in := writeInput(t, 3000, hello)
	spilled := map[bool]float64{}
	for _, beside := range []bool{false, true} {
		out := filepath.Join(t.TempDir(), "out")
		synctest.Test(t, func(t *testing.T) {
			ptu, payg := simulated("ptu", spillovertest.PTU{TPM: 100_000}), simulated("payg", spillovertest.PAYG{TPM: 200_000})
			lb, wait := pool(t, ptu, payg)
			defer lb.Close()
			var run chan error
			if beside {
				b, err := batch.Open(t.Context(), batch.Options{Input: in, Output: out, Transport: lb, TierWait: wait}.WithoutSync())
				require.NoError(t, err)
				defer b.Close()
				run = make(chan error, 1)
				go func() { run <- b.Run(t.Context()) }()
			}
			// Half of the PTU's capacity: a request every 360 ms.
			const requests = 500
			answered := make(chan string, requests)
			for range requests {
				time.Sleep(360 * time.Millisecond)
				go func() {
					r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), "POST", ptu.URL+"/v1/chat/completions", strings.NewReader(hello))
					r.Header.Set("Content-Type", "application/json")
					if err != nil {
						answered <- err.Error()
						return
					}
					resp, err := lb.RoundTrip(r)
					if err != nil {
						answered <- err.Error()
						return
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					answered <- resp.Status + " " + resp.Header.Get("X-Spillover-Backend")
				}()
			}
			counts := map[string]int{}
			for range requests {
				counts[<-answered]++
			}
			require.Equal(t, requests, counts["200 OK ptu"]+counts["200 OK payg"], counts)
			spilled[beside] = float64(counts["200 OK payg"]) / requests
			if beside {
				require.NoError(t, <-run)
			}
		})
	}
	t.Logf("spilled: %v", spilled)
	require.Less(t, spilled[true], spilled[false]+0.05)
}
