package batch_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

func TestAnInterruptLetsRequestsInFlightEnd(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Second, time.Minute} {
		in, out := writeInput(t, 1000, hello), filepath.Join(t.TempDir(), "out")
		synctest.Test(t, func(t *testing.T) {
			slow := roundTripper(func(r *http.Request) (*http.Response, error) {
				select {
				case <-time.After(10 * time.Second):
					return answering(200, fine).RoundTrip(r)
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			lb := transport(t, slow)
			defer lb.Close()
			b, err := batch.Open(ctx, batch.Options{Input: in, Output: out, Transport: lb, Grace: grace}.WithoutSync())
			require.NoError(t, err)
			begun := time.Now()
			require.ErrorIs(t, b.Run(ctx), context.DeadlineExceeded)
			b.Close()
			answered := b.Counts().Answered
			require.Zero(t, b.Counts().InFlight)
			if grace < 5*time.Second {
				require.EqualValues(t, 8, answered)
				require.Equal(t, 15*time.Second+grace, time.Since(begun))
			} else {
				require.EqualValues(t, 8+16, answered)
				require.Equal(t, 20*time.Second, time.Since(begun))
			}
			require.Len(t, outputs(t, out), int(answered))
		})
	}
}

// A refusal makes requests wait in the transport.
func refusal(r *http.Request, retryAfter string) *http.Response {
	resp, _ := answering(429, `{"error":{"code":"rate_limit_exceeded","message":"slow down"}}`).RoundTrip(r)
	resp.Header.Set("Retry-After", retryAfter)
	return resp
}

// A request that waits in the transport has not been sent: an interrupt gives it up at
// once, however long the grace is. It is asked again later, and others are not.
func TestAnInterruptGivesUpRequestsThatWait(t *testing.T) {
	for name, tiers := range map[string]int{"for any deployment": 1, "for its tier": 2} {
		in, out := writeInput(t, 100, hello), filepath.Join(t.TempDir(), "out")
		var mu sync.Mutex
		sent, answered := map[string]int{}, 0
		var full atomic.Bool
		service := roundTripper(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			sent[r.URL.Host]++
			if full.Load() && r.URL.Host == "tier1" {
				return refusal(r, "100"), nil
			}
			if answered++; answered == 20 {
				full.Store(true)
			}
			return answering(200, fine).RoundTrip(r)
		})
		cfg := func() spillover.Config {
			cfg := spillover.Config{Base: service, BackgroundWait: 110 * time.Second}
			for i := range tiers {
				cfg.Backends = append(cfg.Backends, spillover.Backend{Name: fmt.Sprint(i), URL: fmt.Sprintf("https://tier%d", i+1), APIKey: "sk-test", Dialect: spillover.OpenAI, Priority: i + 1})
			}
			return cfg
		}
		synctest.Test(t, func(t *testing.T) {
			o := batch.Options{Input: in, Output: out, Grace: time.Minute, MaxInFlight: 10}
			open := func(ctx context.Context) *batch.Batch {
				cfg := cfg()
				o.TierWait = batch.Configure(&cfg)
				lb, err := spillover.New(cfg)
				require.NoError(t, err)
				t.Cleanup(func() { lb.Close() })
				o.Transport = lb
				b, err := batch.Open(ctx, o.WithoutSync())
				require.NoError(t, err)
				return b
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			begun := time.Now()
			b := open(ctx)
			require.ErrorIs(t, b.Run(ctx), context.DeadlineExceeded, name)
			require.Equal(t, 30*time.Second, time.Since(begun), name)
			c := b.Counts()
			require.EqualValues(t, answered, c.Answered, "what was answered is recorded")
			require.Zero(t, c.Failed, name)
			require.Zero(t, sent["tier2"], "a request that waits for its tier is not sent elsewhere")
			b.Close()

			full.Store(false)
			clear(sent)
			b = open(t.Context())
			defer b.Close()
			require.NoError(t, b.Run(t.Context()))
			require.EqualValues(t, 100, b.Counts().Answered)
			require.EqualValues(t, 100-c.Answered, sent["tier1"]+sent["tier2"], "nothing is asked twice")
			require.Len(t, outputs(t, out), 100)
		})
	}
}

// A request that was sent before an interrupt, and is refused or denied after it, is given
// up then. One that is answered is recorded, also if the answer is an error.
func TestAnInterruptEndsWithTheAnswersOfWhatWasSent(t *testing.T) {
	for _, silent := range []bool{false, true} {
		testInterruptOfWhatWasSent(t, silent)
	}
}

func testInterruptOfWhatWasSent(t *testing.T, silent bool) {
	kinds := []string{"answered", "refused", "failed", "bad", "denied", "missing"}
	ends := 10 * time.Second // with the last answer
	if silent {
		kinds = append(kinds, "silent")
		ends = 35 * time.Second // with the grace
	}
	var lines []string
	for _, kind := range kinds {
		lines = append(lines, line(kind, `{"model":"m","user":"`+kind+`"}`))
	}
	in, out := writeLines(t, lines...), filepath.Join(t.TempDir(), "out")
	synctest.Test(t, func(t *testing.T) {
		lb := transport(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			is := func(kind string) bool { return bytes.Contains(body, []byte(kind)) }
			select {
			case <-time.After(10 * time.Second):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			switch {
			case is("refused"):
				return refusal(r, "60"), nil
			case is("failed"):
				return answering(500, `{}`).RoundTrip(r)
			case is("bad"):
				return answering(400, `{}`).RoundTrip(r)
			case is("denied"):
				return answering(403, `{}`).RoundTrip(r)
			case is("missing"):
				return answering(404, `{}`).RoundTrip(r)
			case is("silent"):
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return answering(200, fine).RoundTrip(r)
		}))
		defer lb.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		b, err := batch.Open(ctx, batch.Options{Input: in, Output: out, Transport: lb, Grace: 30 * time.Second, GiveUpAfter: 20 * time.Second}.WithoutSync())
		require.NoError(t, err)
		defer b.Close()
		begun := time.Now()
		require.ErrorIs(t, b.Run(ctx), context.DeadlineExceeded)
		require.Equal(t, ends, time.Since(begun))
		require.EqualValues(t, 2, b.Counts().Answered)
		require.Zero(t, b.Counts().InFlight)
	})
	all := outputs(t, out)
	require.Len(t, all, 2)
	require.Equal(t, 200, all["batch_req_1"].Response.StatusCode)
	require.Equal(t, 400, all["batch_req_4"].Response.StatusCode)
}

// A request that one deployment has denied, and that waits for another one, has no answer:
// an interrupt gives it up, whether it comes before the denial or after it.
func TestAnInterruptGivesUpRequestsThatWaitAfterADenial(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound} {
		for _, interrupt := range []time.Duration{5 * time.Second, 20 * time.Second} {
			in, out := writeInput(t, 1, hello), filepath.Join(t.TempDir(), "out")
			synctest.Test(t, func(t *testing.T) {
				var full, denied atomic.Int64
				service := roundTripper(func(r *http.Request) (*http.Response, error) {
					time.Sleep(10 * time.Second)
					if r.URL.Host == "full" {
						full.Add(1)
						return refusal(r, "100"), nil
					}
					denied.Add(1)
					return answering(status, `{"error":{"code":"DeploymentNotFound"}}`).RoundTrip(r)
				})
				cfg := spillover.Config{Base: service, Backends: []spillover.Backend{
					{Name: "full", URL: "https://full", APIKey: "sk-test", Dialect: spillover.OpenAI},
					{Name: "denying", URL: "https://denying", APIKey: "sk-test", Dialect: spillover.OpenAI, Priority: 2},
				}}
				batch.Configure(&cfg)
				cfg.BackgroundWait = time.Millisecond
				lb, err := spillover.New(cfg)
				require.NoError(t, err)
				defer lb.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+interrupt)
				defer cancel()
				b, err := batch.Open(ctx, batch.Options{Input: in, Output: out, Transport: lb, Grace: time.Minute}.WithoutSync())
				require.NoError(t, err)
				defer b.Close()
				begun := time.Now()
				require.ErrorIs(t, b.Run(ctx), context.DeadlineExceeded)
				require.EqualValues(t, 1, full.Load())
				require.EqualValues(t, 1, denied.Load())
				ends := max(20*time.Second, 10*time.Second+interrupt)
				require.Less(t, time.Since(begun), ends+time.Second)
				require.Zero(t, b.Counts().Answered)
			})
		}
	}
}
