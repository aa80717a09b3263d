package spillover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// inFlight is a backend whose deployment of m takes so many requests at a time.
func inFlight(most int) func(*spillover.Backend) {
	return func(b *spillover.Backend) { b.Models = []spillover.Model{{Name: "m", MaxInFlight: most}} }
}

func TestFullDeploymentIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(10*time.Second, ok200))
		tr := balance(t, n, azure("a", inFlight(2)), azure("b", priority(2)))
		one, two := background(t, tr, newChat(t, chatPath)), background(t, tr, newChat(t, chatPath))
		require.Equal(t, 2, n.Sends(host("a")))
		require.Equal(t, 2, statusOf(t, tr, "a").InFlight)

		trail := trailOf(t, tr, newChat(t, chatPath))
		require.Equal(t, "b", trail.Backend)
		require.Equal(t, map[string]string{"a": "full", "b": "chosen"}, skipped(trail.Steps[0]))
		explained, err := tr.Explain(newChat(t, chatPath))
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "full", "b": "chosen"}, skipped(explained.Steps[0]))
		require.Equal(t, 2, n.Sends(host("a")))

		for _, answer := range []func() (*http.Response, string){one, two} {
			resp, _ := answer()
			require.Equal(t, "a", servedBy(resp))
		}
		require.Zero(t, statusOf(t, tr, "a").InFlight)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	})
}

// If all are full, and the request does not wait, the caller gets a 429 that says so,
// with how long requests lately took, divided by the places.
func TestRequestIsAnswered429IfAllAreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(20*time.Second, ok200))
		tr := balance(t, n, azure("a", inFlight(2)))
		refused := func() *http.Response {
			resp, body := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, "rate_limit_exceeded", testnet.APIError(t, body).Code)
			require.Contains(t, body, " unavailable; it has as many requests in flight as MaxInFlight allows. Please retry after ")
			return resp
		}
		for _, want := range []string{"1", "10"} { // nothing is known at first
			one, two := background(t, tr, newChat(t, chatPath)), background(t, tr, newChat(t, chatPath))
			require.Equal(t, want, refused().Header.Get("Retry-After"))
			one()
			two()
		}
		require.Equal(t, 4, n.Sends())
	})
}

// A stream keeps its place until its body ends, is closed, or its caller leaves.
func TestStreamKeepsItsPlaceUntilItEnds(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *http.Response, context.CancelFunc){
		"read to its end": func(t *testing.T, resp *http.Response, _ context.CancelFunc) { read(t, resp) },
		"closed":          func(t *testing.T, resp *http.Response, _ context.CancelFunc) { require.NoError(t, resp.Body.Close()) },
		"abandoned":       func(_ *testing.T, _ *http.Response, cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), status(200, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n", "Content-Type: text/event-stream"), ok200)
				tr := balance(t, n, azure("a", inFlight(1)))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
				require.NoError(t, err)
				busy, _ := ask(t, tr)
				require.Equal(t, 429, busy.StatusCode)
				end(t, resp, cancel)
				synctest.Wait()
				free, _ := ask(t, tr)
				require.Equal(t, 200, free.StatusCode)
			})
		})
	}
}

// However an attempt ends, its place is free afterwards.
func TestPlaceIsGivenBackHoweverAnAttemptEnds(t *testing.T) {
	events := "Content-Type: text/event-stream"
	for name, answer := range map[string]roundTripFunc{
		"served": ok200,
		"no body": func(req *http.Request) (*http.Response, error) {
			r, err := status(204, "")(req)
			r.Body = http.NoBody
			return r, err
		},
		"rejected":           status(400, `{"error":{"message":"no"}}`),
		"rate-limited":       status(429, "{}", "Retry-After-Ms: 1"),
		"failed":             status(500, "{}"),
		"no connection":      broken(errRefused),
		"reset":              broken(errReset),
		"error in a stream":  status(200, "data: {\"error\":{\"message\":\"no\",\"code\":\"500\"}}\n\n", events),
		"broken off":         withBody(200, func(*http.Request) io.ReadCloser { return testnet.BrokenBody{Closer: io.NopCloser(nil), Err: errReset} }),
		"no response at all": func(*http.Request) (*http.Response, error) { return nil, nil }, //nolint:nilnil // what a faulty base does
		"panic":              func(*http.Request) (*http.Response, error) { panic("boom") },
		"timeout":            hung,
	} {
		for _, wrong := range []string{"", "token", "token panics"} {
			t.Run(name+wrong, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNet()
					n.On(host("a"), answer, ok200)
					bad := true
					tr := balance(t, n, azure("a", inFlight(1), func(b *spillover.Backend) {
						b.HeaderTimeout, b.APIKey = time.Second, ""
						b.Token = func(context.Context) (string, error) {
							switch {
							case bad && wrong == "token":
								return "", errors.New("no token")
							case bad && wrong == "token panics":
								panic("boom")
							}
							return "token", nil
						}
					}))
					func() {
						defer func() { _ = recover() }()
						if resp, err := tr.RoundTrip(newChat(t, chatPath)); err == nil {
							_, _ = io.ReadAll(resp.Body)
							resp.Body.Close()
						}
					}()
					bad = false
					nothingInFlight(t, tr)
					n.On(host("a"), ok200)
					require.NoError(t, tr.Reconfigure(spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", inFlight(1))}}))
					time.Sleep(time.Minute) // what it failed for is over
					for range 3 {
						resp, _ := ask(t, tr)
						require.Equal(t, 200, resp.StatusCode)
					}
				})
			})
		}
	}
}

func TestWaitingRequestIsWokenByAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(3*time.Second, ok200))
		tr := configured(t, spillover.Config{Base: n, MaxWait: time.Minute, Backends: []spillover.Backend{azure("a", inFlight(2))}})
		began := time.Now()
		var mu sync.Mutex
		var ended []time.Duration
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				resp, _ := ask(t, tr)
				require.Equal(t, 200, resp.StatusCode)
				mu.Lock()
				defer mu.Unlock()
				ended = append(ended, time.Since(began))
			})
			synctest.Wait()
		}
		all.Wait()
		require.Equal(t, []time.Duration{3 * time.Second, 3 * time.Second, 6 * time.Second, 6 * time.Second, 9 * time.Second, 9 * time.Second}, ended)
	})
}

// A request that waits is woken by whatever comes first: a place, or the end of a
// cool-down.
func TestWaitForAPlaceEndsWithACooldownToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(time.Minute, ok200))
		n.On(host("b"), status(429, "{}", "Retry-After: 2"), ok200)
		tr := configured(t, spillover.Config{Base: n, MaxWait: 10 * time.Second, Backends: []spillover.Backend{azure("a", inFlight(1)), azure("b", priority(2))}})
		first := background(t, tr, newChat(t, chatPath))
		began := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
		require.InDelta(t, 2, time.Since(began).Seconds(), 0.3)
		first()
	})
}

func TestWaitForAPlaceEndsWithMaxWaitTheDeadlineAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(time.Hour, ok200))
		tr := configured(t, spillover.Config{Base: n, MaxWait: 5 * time.Second, Backends: []spillover.Backend{azure("a", inFlight(1))}})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = tr.RoundTrip(newChat(t, chatPath).WithContext(ctx)) }()
		synctest.Wait()
		began := time.Now()
		resp, _ := ask(t, tr)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, 5*time.Second, time.Since(began))

		began = time.Now()
		brief, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		resp, _ = send(t, tr, newChat(t, chatPath).WithContext(brief))
		require.Equal(t, 429, resp.StatusCode, "in time for the caller to read it")
		require.Less(t, time.Since(began), time.Second)

		answer := background(t, tr, newChat(t, chatPath))
		require.NoError(t, tr.Close())
		resp, _ = answer()
		require.Equal(t, 429, resp.StatusCode)
		cancel()
		synctest.Wait()
	})
}

// Nothing sends more than the limit: neither the last resort, nor a session, nor a
// Selector.
func TestLastResortSessionsAndSelectorsKeepTheLimit(t *testing.T) {
	for name, test := range map[string]struct {
		answer  roundTripFunc // to what makes the deployment ejected or cooling
		session bool
		chooses bool
	}{
		"ejected":  {answer: status(401, wrongKey)},
		"cooling":  {answer: status(429, "{}", "Retry-After-Ms: 1")},
		"session":  {session: true},
		"selector": {chooses: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				cfg := spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", inFlight(1))}}
				if test.session || test.chooses {
					cfg.Backends = append(cfg.Backends, azure("b", inFlight(1)))
				}
				if test.chooses {
					cfg.Selector = first{}
				}
				tr := configured(t, cfg)
				if test.answer != nil {
					n.On(host("a"), test.answer)
					ask(t, tr)
					time.Sleep(time.Millisecond)
				}
				var now, most atomic.Int64
				counted := func(req *http.Request) (*http.Response, error) {
					most.Store(max(most.Load(), now.Add(1)))
					defer now.Add(-1)
					return slow(time.Second, ok200)(req)
				}
				n.On(host("a"), counted)
				var all sync.WaitGroup
				for range 5 {
					all.Go(func() {
						req := newChat(t, chatPath)
						if test.session {
							req = req.WithContext(spillover.WithSession(req.Context(), "one"))
						}
						send(t, tr, req)
					})
				}
				all.Wait()
				require.EqualValues(t, 1, most.Load())
			})
		})
	}
}

// first chooses the first candidate.
type first struct{}

func (first) Select([]spillover.Candidate) int { return 0 }

// A new limit holds for requests that began before as well. What is in flight
// beyond it ends by itself.
func TestLimitInFlightChangesWithTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(10*time.Second, ok200))
		with := func(most int) spillover.Config {
			return spillover.Config{Base: n, MaxWait: time.Minute, Backends: []spillover.Backend{azure("a", inFlight(most))}}
		}
		tr := configured(t, with(1))
		began := time.Now()
		var answers []func() (*http.Response, string)
		for range 4 {
			answers = append(answers, background(t, tr, newChat(t, chatPath)))
		}
		require.Equal(t, 1, statusOf(t, tr, "a").InFlight)
		time.Sleep(time.Second)
		require.NoError(t, tr.Reconfigure(with(3)))
		synctest.Wait()
		require.Equal(t, 3, statusOf(t, tr, "a").InFlight, "those that wait are woken")
		require.NoError(t, tr.Reconfigure(with(1)))
		time.Sleep(9500 * time.Millisecond) // the first one has ended
		require.Equal(t, 2, statusOf(t, tr, "a").InFlight)
		for _, answer := range answers {
			resp, _ := answer()
			require.Equal(t, 200, resp.StatusCode)
		}
		require.Equal(t, 21*time.Second, time.Since(began), "the last one had to wait until all others had ended")
		require.NoError(t, tr.Reconfigure(with(0)))
		for range 4 {
			background(t, tr, newChat(t, chatPath))
		}
		require.Equal(t, 4, statusOf(t, tr, "a").InFlight)
		time.Sleep(time.Minute)
	})
}

// Redirects that an http.Client follows have no model, so they take no place of one.
func TestRedirectLeavesNoPlaceBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(307, "", "Location: https://"+host("a")+"/elsewhere"), ok200)
		tr := balance(t, n, azure("a", inFlight(1)))
		client := &http.Client{Transport: tr}
		for range 3 {
			resp, err := client.Do(newChat(t, chatPath))
			require.NoError(t, err)
			read(t, resp)
			require.Equal(t, 200, resp.StatusCode)
		}
		nothingInFlight(t, tr)
	})
}

// Whatever deployments answer and callers do: no deployment has more requests than its
// limit, no request waits while there is a place for it, and no place is lost.
func TestMaxInFlightProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		limits := rapid.SliceOfN(rapid.IntRange(1, 4), 1, 4).Draw(rt, "limits")
		tiers := rapid.IntRange(1, 2).Draw(rt, "tiers")
		seed := rapid.Uint64().Draw(rt, "seed")
		requests := rapid.IntRange(1, 60).Draw(rt, "requests")
		wait := rapid.SampledFrom([]time.Duration{0, 2 * time.Second, time.Hour}).Draw(rt, "wait")
		faults := rapid.IntRange(0, 6).Draw(rt, "faults")
		sessions := rapid.Bool().Draw(rt, "sessions")
		selects := rapid.Bool().Draw(rt, "selects")
		problem := ""
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			r := rand.New(rand.NewPCG(seed, 1))
			intn := func(n int) int { mu.Lock(); defer mu.Unlock(); return r.IntN(n) }
			var now [4]places
			complain := func(format string, args ...any) {
				mu.Lock()
				defer mu.Unlock()
				if problem == "" {
					problem = fmt.Sprintf(format, args...)
				}
			}
			healthy := false
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				i, _ := strconv.Atoi(strings.TrimPrefix(strings.SplitN(req.URL.Host, ".", 2)[0], "d"))
				n, end := now[i].take(req.Context())
				if n > limits[i] {
					complain("%d requests at d%d, which takes %d", n, i, limits[i])
				}
				select {
				case <-time.After(time.Duration(1+intn(3000)) * time.Millisecond):
				case <-req.Context().Done():
					end()
					return nil, req.Context().Err()
				}
				fault := intn(10)
				if healthy || fault >= faults {
					fault = -1
				}
				var answer roundTripFunc
				switch fault {
				case 0:
					answer = status(429, "{}", "Retry-After-Ms: 500")
				case 1:
					answer = status(500, "{}")
				case 2:
					answer = broken(errReset)
				case 3:
					answer = broken(errRefused)
				case 4:
					answer = status(401, wrongKey)
				case 5:
					answer = func(*http.Request) (*http.Response, error) { panic("boom") }
				default:
					// The body goes on for a while.
					resp, err := status(200, "")(req)
					resp.Header.Set("Content-Type", "text/event-stream")
					pr, pw := io.Pipe()
					pause := time.Duration(intn(3000)) * time.Millisecond
					stop := context.AfterFunc(req.Context(), func() { pw.CloseWithError(req.Context().Err()) })
					go func() {
						defer stop()
						_, _ = io.WriteString(pw, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n")
						time.Sleep(pause)
						_, _ = io.WriteString(pw, "data: [DONE]\n\n")
						pw.Close()
					}()
					resp.Body, resp.ContentLength = &onEnd{pr, end}, -1
					return resp, err
				}
				defer end()
				return answer(req)
			})
			cfg := spillover.Config{Base: base, MaxWait: wait}
			for i, most := range limits {
				cfg.Backends = append(cfg.Backends, azure(fmt.Sprint("d", i), priority(1+i%tiers), inFlight(most)))
			}
			if selects {
				cfg.Selector = first{}
			}
			tr := configured(t, cfg)
			var all sync.WaitGroup
			send := func() (code int) {
				defer func() {
					if recover() != nil {
						code = -1
					}
				}()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if !healthy && intn(6) == 0 {
					time.AfterFunc(time.Duration(intn(4000))*time.Millisecond, cancel)
				}
				req := newChat(t, chatPath)
				if sessions {
					ctx = spillover.WithSession(ctx, strconv.Itoa(intn(3)))
				}
				resp, err := tr.RoundTrip(req.WithContext(ctx))
				if err != nil {
					return -1
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				return resp.StatusCode
			}
			for range requests {
				all.Go(func() { send() })
				time.Sleep(time.Duration(intn(300)) * time.Millisecond)
			}
			all.Wait()
			for _, tier := range tr.Status().Tiers {
				for _, b := range tier.Backends {
					for _, d := range b.Deployments {
						if d.InFlight != 0 {
							complain("%d in flight at %s after all requests have ended", d.InFlight, b.Name)
						}
					}
				}
			}
			// Afterwards every place can be used, and requests that wait all get one.
			healthy = true
			time.Sleep(10 * time.Minute)
			places := 0
			for _, most := range limits {
				places += most
			}
			for range 10 { // what is half-open, or ramps up, recovers
				for range places {
					all.Go(func() { send() })
				}
				all.Wait()
				time.Sleep(10 * time.Second)
			}
			var sent atomic.Int64
			began := time.Now()
			for range places {
				all.Go(func() {
					if code := send(); code != 200 {
						complain("with a place for each: %d", code)
					}
				})
				synctest.Wait()
			}
			for i, most := range limits {
				if got := now[i].taken(); got != most {
					complain("%d requests at d%d, which has place for %d", got, i, most)
				}
			}
			if wait > time.Minute {
				for range 3 * places {
					all.Go(func() {
						if code := send(); code != 200 {
							complain("waiting: %d", code)
						}
						sent.Add(1)
					})
				}
			}
			all.Wait()
			if took := time.Since(began); took > 4*6*time.Second {
				complain("four rounds of at most 6 s took %v", took)
			}
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// places are the requests at a deployment that their callers still wait for.
type places struct {
	mu  sync.Mutex
	all map[*byte]context.Context
}

func (p *places) take(ctx context.Context) (taken int, end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[*byte]context.Context{}
	}
	one := new(byte)
	p.all[one] = ctx
	return p.count(), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.all, one)
	}
}

func (p *places) count() (n int) {
	for _, ctx := range p.all {
		if ctx.Err() == nil {
			n++
		}
	}
	return n
}

func (p *places) taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count()
}

// onEnd is a body that reports its end once.
type onEnd struct {
	io.ReadCloser
	end func()
}

func (b *onEnd) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end()
	}
	return n, err
}

func (b *onEnd) Close() error {
	b.end()
	return b.ReadCloser.Close()
}
