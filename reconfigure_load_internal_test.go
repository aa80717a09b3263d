package spillover

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/spillovertest"
)

// A request ends with what it began with: the backends, the base, and what else
// was configured.
func TestReconfigureUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, other := newNet(), newNet()
		n.On(host("a"), slow(2*time.Second, status(500, "{}")))
		n.On(host("b"), slow(2*time.Second, status(503, "{}")))
		n.On(host("c"), slow(2*time.Second, status(200, `"c"`)))
		tr := balance(t, n, azure("a"), azure("b", priority(2), deploys("m", "old")), azure("c", priority(3), deploys("m", "old")))
		answer := background(t, tr, newChat(t, chatPath))
		was := DeploymentOf(t, tr, "a")
		time.Sleep(time.Second)
		reconfigure(t, tr, func(c *Config) { c.Base, c.MaxAttempts = other, 1 }, azure("c", keyed("new"), deploys("m", "new"), priority(2)), azure("d"))
		resp, _ := ask(t, tr)
		require.Equal(t, "d", servedBy(resp))
		require.EqualValues(t, 1, was.InFlight.Load())

		resp, body := answer()
		require.Equal(t, `"c"`, body)
		require.Equal(t, "3", resp.Header.Get(headerAttempts))
		require.Equal(t, 3, n.Sends())
		require.Equal(t, "/openai/deployments/old/chat/completions", n.Seen[2].Path)
		require.Equal(t, "key-c", n.Seen[2].Header.Get("Api-Key"))
		require.Equal(t, 1, other.Sends(), "the new request")
		require.Zero(t, was.InFlight.Load())
		require.EqualValues(t, 1, was.failed.Load())
		require.Zero(t, statusOf(t, tr, "c").Served, "that was another deployment")
	})
}

// What a request that is under way learns is known of the deployments that stay,
// and its place among the requests in flight is given back.
func TestReconfigureUnderWayTeaches(t *testing.T) {
	for name, test := range map[string]struct {
		answer roundTripFunc
		check  func(testing.TB, DeploymentStatus, *deployment)
	}{
		"served": {status(200, `{"usage":{"prompt_tokens":3,"completion_tokens":4}}`, "X-Ratelimit-Limit-Tokens: 77"), func(t testing.TB, s DeploymentStatus, d *deployment) {
			require.EqualValues(t, 1, s.Served)
			require.EqualValues(t, 3, s.InputTokens)
			require.EqualValues(t, 4, s.OutputTokens)
			require.EqualValues(t, 77, d.Limit.Load())
		}},
		"throttled": {status(429, "{}", "Retry-After: 30"), func(t testing.TB, s DeploymentStatus, _ *deployment) {
			require.EqualValues(t, 1, s.Throttled)
			require.False(t, s.Available)
			require.Equal(t, 30*time.Second, time.Until(s.Until))
		}},
		"refused": {status(401, wrongKey), func(t testing.TB, s DeploymentStatus, _ *deployment) {
			require.EqualValues(t, 1, s.Failed)
			require.False(t, s.Available)
		}},
		"no connection": {broken(errRefused), func(t testing.TB, s DeploymentStatus, d *deployment) {
			require.EqualValues(t, 1, s.Failed)
			require.False(t, s.Available)
			require.False(t, d.backend.Open(time.Now()), "the whole backend")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), slow(time.Second, test.answer))
				tr := balance(t, n, azure("a", limits(100, 0)), azure("b", priority(2)))
				answer := background(t, tr, newChat(t, chatPath))
				for i := range 3 {
					key := "key-a"
					if name != "refused" {
						key = fmt.Sprint("key", i) // that is no matter but for refusals of the key
					}
					reconfigure(t, tr, nil, azure(fmt.Sprint("c", i)), azure("b", priority(2)), azure("a", keyed(key), priority(2+i), limits(50, 0)))
					require.Equal(t, 1, statusOf(t, tr, "a").InFlight)
				}
				answer()
				s := statusOf(t, tr, "a")
				require.Zero(t, s.InFlight)
				test.check(t, s, DeploymentOf(t, tr, "a"))
				require.EqualValues(t, 1, counted(t, tr, "a")[0])
			})
		})
	}
}

// A stream goes on and is learnt from, whatever became of its backend.
func TestReconfigureUnderAStream(t *testing.T) {
	pause := 2 * time.Second
	for name, test := range map[string]struct {
		pieces []any
		ends   error
		failed uint64
	}{
		"whole":  {[]any{testnet.TokenChunk("hello"), pause, testnet.TokenChunk(" there") + testnet.LastChunk + testnet.UsageChunk + testnet.DoneEvent}, nil, 0},
		"broken": {[]any{testnet.TokenChunk("hello"), pause, io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF, 1},
		"error":  {[]any{testnet.TokenChunk("hello"), pause, testnet.ChatError(`{"message":"sorry","code":"500"}`)}, nil, 1},
	} {
		for _, stays := range []bool{true, false} {
			t.Run(fmt.Sprint(name, "/", stays), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("a"), testnet.Plays(t, test.pieces...))
					tr := firstAndSecond(t, n)
					resp, err := tr.RoundTrip(newChat(t, chatPath))
					require.NoError(t, err)
					was := DeploymentOf(t, tr, "a")
					require.NoError(t, tr.Drain("a"))
					if stays {
						reconfigure(t, tr, nil, azure("a", priority(4)), azure("b"))
						require.Equal(t, 1, statusOf(t, tr, "a").InFlight, "Status tells when it has drained")
					} else {
						reconfigure(t, tr, nil, azure("b"))
					}
					again, _ := ask(t, tr)
					require.Equal(t, "b", servedBy(again))
					text, err := testnet.ReadAll(t, resp)
					require.ErrorIs(t, err, test.ends)
					require.True(t, strings.HasPrefix(text, testnet.TokenChunk("hello")))
					require.Zero(t, was.InFlight.Load())
					require.Equal(t, test.failed, was.failed.Load())
					if stays {
						require.Zero(t, statusOf(t, tr, "a").InFlight)
						require.Equal(t, test.failed, statusOf(t, tr, "a").Failed)
					}
				})
			})
		}
	}
}

// A request that waits ends with what it began with, too. Nothing but Close cuts
// the wait.
func TestReconfigureUnderAWait(t *testing.T) {
	for name, test := range map[string]struct {
		change func(testing.TB, *Transport)
		after  time.Duration
		by     string
		status int
	}{
		"nothing":       {func(testing.TB, *Transport) {}, 4 * time.Second, "a", 200},
		"it goes":       {func(t testing.TB, tr *Transport) { reconfigure(t, tr, nil, azure("c")) }, 4 * time.Second, "a", 200},
		"it is drained": {func(t testing.TB, tr *Transport) { require.NoError(t, tr.Drain("a")) }, 6 * time.Second, "b", 200},
		"and resumed": {func(t testing.TB, tr *Transport) {
			require.NoError(t, tr.Drain("a"))
			require.NoError(t, tr.Resume("a"))
		}, 4 * time.Second, "a", 200},
		"all are drained": {func(t testing.TB, tr *Transport) {
			require.NoError(t, tr.Drain("a"))
			require.NoError(t, tr.Drain("b"))
		}, time.Second, "", 503},
		"it is closed": {func(t testing.TB, tr *Transport) { require.NoError(t, tr.Close()) }, time.Second, "", 429},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				tr := waiting(t, n, 10*time.Second, azure("a"), azure("b"))
				coolFor(DeploymentOf(t, tr, "a"), 4*time.Second)
				coolFor(DeploymentOf(t, tr, "b"), 6*time.Second)
				begun := time.Now()
				answer := background(t, tr, newChat(t, chatPath))
				time.Sleep(time.Second)
				test.change(t, tr)
				resp, _ := answer()
				require.Equal(t, test.status, resp.StatusCode)
				require.Equal(t, test.by, servedBy(resp))
				require.Equal(t, test.after, time.Since(begun))
				require.Equal(t, test.status != 200, n.Sends() == 0)
			})
		})
	}
}

// With all of this going on at once every request is answered, each attempt has
// the key of its own backend, and no count is left.
func TestReconfigureUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers, each = 16, 25
		var servers []http.RoundTripper
		for _, name := range []string{"a", "b", "c", "d"} {
			servers = append(servers, spillovertest.New(spillovertest.Config{Name: name}))
		}
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			name, _, _ := strings.Cut(req.URL.Host, ".")
			require.Equal(t, "key-"+name, req.Header.Get("Api-Key"))
			time.Sleep(rand.N(20 * time.Millisecond))
			return servers[name[0]-'a'].RoundTrip(req)
		})
		version := apiVersion("2024-10-21")
		anchor := azure("a", version, priority(2)) // is always there
		tr := balance(t, base, anchor)
		states := map[*record]bool{}
		var mu sync.Mutex
		note := func() {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range tr.table().all() {
				for d := range r.all {
					states[d.record] = true
				}
			}
		}
		var stop atomic.Bool
		var changes atomic.Int64
		var wait sync.WaitGroup
		for w := range workers {
			wait.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(w)))
				for i := range each {
					text := fmt.Sprintf(`{"model":"m%d","stream":%t,"max_tokens":3,"messages":[{"role":"user","content":"hi"}]}`, random.IntN(3), random.IntN(2) == 0)
					req := with(t, "POST /v1/chat/completions "+text)
					ctx, cancel := context.WithCancel(t.Context())
					resp, err := tr.RoundTrip(req.WithContext(ctx))
					require.NoError(t, err)
					require.Equal(t, 200, resp.StatusCode)
					if i%7 != 0 {
						_, err = io.Copy(io.Discard, resp.Body)
						require.NoError(t, err)
					}
					if i%11 == 0 {
						cancel()
					}
					resp.Body.Close()
					cancel()
				}
			})
		}
		var changers sync.WaitGroup
		for w := range 2 {
			changers.Go(func() {
				random := rand.New(rand.NewPCG(2, uint64(w)))
				for !stop.Load() {
					name := string(rune('b' + random.IntN(3)))
					switch random.IntN(4) {
					case 0:
						_ = tr.Drain(name)
					case 1:
						_ = tr.Resume(name)
					default:
						pool := []Backend{anchor}
						for _, name := range []string{"b", "c", "d"} {
							if random.IntN(3) > 0 {
								pool = append(pool, azure(name, version, priority(1+random.IntN(2)), weight(1+random.IntN(2))))
							}
						}
						random.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
						require.NoError(t, tr.Reconfigure(Config{Base: base, Backends: pool}))
					}
					note()
					tr.Status()
					if changes.Add(1); random.IntN(3) == 0 {
						time.Sleep(rand.N(2 * time.Millisecond)) // else on and on
					}
				}
			})
		}
		wait.Wait()
		stop.Store(true)
		changers.Wait()
		note()
		require.Greater(t, changes.Load(), int64(500))
		for s := range states {
			require.Zero(t, s.InFlight.Load())
		}
		require.NoError(t, tr.Close())
	})
}

// A configuration that was replaced, and that no request is under way with, is
// nowhere kept.
func TestReconfigureKeepsNoOldOnes(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(200, `{"id":"resp_1"}`))
	tr := balance(t, n, azure("a"), azure("b"))
	request := func() { send(t, tr, with(t, `POST /v1/responses {"model":"m"}`)) }
	was := make([]weak.Pointer[activeConfig], 500)
	for i := range was {
		request()
		was[i] = weak.Make(tr.setup.Load())
		reconfigure(t, tr, nil, azure("a", keyed(fmt.Sprint("key", i))), azure(fmt.Sprint("b", i)))
	}
	request()
	testnet.Eventually(t, "some are kept", func() bool {
		runtime.GC()
		for _, w := range was {
			if w.Value() != nil {
				return false
			}
		}
		return true
	})
}
