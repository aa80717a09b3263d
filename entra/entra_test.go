package entra_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/entra"
	"github.com/spillover-go/spillover/spillovertest"
)

// An answer is what a credential makes of a context and the token it is to give.
type answer func(context.Context, azcore.AccessToken) (azcore.AccessToken, error)

// A credential answers as its function says, and counts. Its n-th call is to
// give the token "token-n", unless it says otherwise.
type credential struct {
	answer answer // nil: the token, at once

	mu      sync.Mutex
	asked   []time.Time
	options []policy.TokenRequestOptions
	active  int // calls under way
	overlap bool
}

func (c *credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.mu.Lock()
	c.asked = append(c.asked, time.Now())
	c.options = append(c.options, o)
	c.active++
	c.overlap = c.overlap || c.active > 1
	token := azcore.AccessToken{Token: fmt.Sprint("token-", len(c.asked)), ExpiresOn: time.Now().Add(time.Hour)}
	give := c.answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.active--
	}()
	if give == nil {
		return token, nil
	}
	return give(ctx, token)
}

func (c *credential) calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// becomes changes the answer, for the calls to come.
func (c *credential) becomes(a answer) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = a
}

// slow is an answer that takes a time, against which only the context counts.
func slow(d time.Duration) answer {
	return func(ctx context.Context, t azcore.AccessToken) (azcore.AccessToken, error) {
		select {
		case <-time.After(d):
			t.ExpiresOn = time.Now().Add(time.Hour)
			return t, nil
		case <-ctx.Done():
			return azcore.AccessToken{}, ctx.Err()
		}
	}
}

// failing is an answer that fails with an error.
func failing(err error) answer {
	return func(context.Context, azcore.AccessToken) (azcore.AccessToken, error) {
		return azcore.AccessToken{}, err
	}
}

// lasting is an answer with a token of the times given.
func lasting(expires, refresh time.Duration) answer {
	return func(_ context.Context, t azcore.AccessToken) (azcore.AccessToken, error) {
		t.ExpiresOn = time.Now().Add(expires)
		if refresh != 0 {
			t.RefreshOn = time.Now().Add(refresh)
		}
		return t, nil
	}
}

// A result is what a call of a TokenFunc gave, and after how long.
type result struct {
	token string
	err   error
	took  time.Duration
}

func call(ctx context.Context, f spillover.TokenFunc) result {
	began := time.Now()
	token, err := f(ctx)
	return result{token, err, time.Since(began)}
}

// at calls the function n times at once, and waits for all results.
func at(ctx context.Context, n int, f spillover.TokenFunc) []result {
	results := make([]result, n)
	var all sync.WaitGroup
	for i := range results {
		all.Go(func() { results[i] = call(ctx, f) })
	}
	all.Wait()
	return results
}

// instant requires a token that nobody waited for.
func instant(t *testing.T, want string, results ...result) {
	t.Helper()
	for _, r := range results {
		require.Equal(t, result{token: want}, r)
	}
}

// inTime runs a test in virtual time; it fails if a goroutine is left.
func inTime(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestFirst(t *testing.T) {
	inTime(t, "a thousand callers, one fetch", func(t *testing.T) {
		c := &credential{answer: slow(time.Second)}
		token := entra.Token(c)
		for _, r := range at(t.Context(), 1000, token) {
			require.Equal(t, result{token: "token-1", took: time.Second}, r)
		}
		instant(t, "token-1", at(t.Context(), 1000, token)...)
		require.Equal(t, 1, c.calls())
	})
	inTime(t, "what is asked for", func(t *testing.T) {
		c := &credential{}
		instant(t, "token-1", call(t.Context(), entra.Token(c)))
		// Neither claims nor continuous access evaluation.
		require.Equal(t, []policy.TokenRequestOptions{{Scopes: []string{"https://cognitiveservices.azure.com/.default"}}}, c.options)
	})
	inTime(t, "another scope", func(t *testing.T) {
		c := &credential{answer: lasting(time.Second, 0)}
		scopes := []string{"https://cognitiveservices.azure.us/.default"}
		token := entra.Token(c, scopes...)
		scopes[0] = "changed by the caller"
		for range 2 {
			require.NoError(t, call(t.Context(), token).err)
			require.Equal(t, []string{"https://cognitiveservices.azure.us/.default"}, c.options[len(c.options)-1].Scopes)
			c.options[len(c.options)-1].Scopes[0] = "changed by the credential"
			time.Sleep(time.Second)
		}
		require.Equal(t, 2, c.calls())
	})
	inTime(t, "nothing is shared between two functions", func(t *testing.T) {
		c := &credential{}
		instant(t, "token-1", call(t.Context(), entra.Token(c)))
		instant(t, "token-2", call(t.Context(), entra.Token(c)))
	})
	inTime(t, "the values of a caller's context stay with it", func(t *testing.T) {
		type key struct{}
		c := &credential{answer: func(ctx context.Context, token azcore.AccessToken) (azcore.AccessToken, error) {
			if ctx.Value(key{}) != nil {
				return azcore.AccessToken{}, errors.New("a value")
			}
			return token, nil
		}}
		instant(t, "token-1", call(context.WithValue(t.Context(), key{}, "trace"), entra.Token(c)))
	})
}

func TestRenewal(t *testing.T) {
	// For a token that is fetched now: when the next fetch begins, if callers
	// come all the time.
	for name, test := range map[string]struct{ expires, refresh, want time.Duration }{
		"five minutes before the end":      {time.Hour, 0, 55 * time.Minute},
		"when it is suggested":             {24 * time.Hour, 12 * time.Hour, 12 * time.Hour},
		"suggested within the last minute": {time.Hour, time.Hour - time.Second, time.Hour - time.Second},
		"suggested too late":               {time.Hour, 2 * time.Hour, 55 * time.Minute},
		"suggested for the end":            {time.Hour, time.Hour, 55 * time.Minute},
		"suggested for before":             {time.Hour, -time.Minute, 30 * time.Second},
		"short of life":                    {4 * time.Minute, 0, 30 * time.Second},
		"shorter":                          {20 * time.Second, 0, 20 * time.Second},
		"shortest":                         {500 * time.Millisecond, 0, 500 * time.Millisecond},
	} {
		inTime(t, name, func(t *testing.T) {
			c := &credential{answer: lasting(test.expires, test.refresh)}
			token := entra.Token(c)
			began := time.Now()
			instant(t, "token-1", call(t.Context(), token))
			time.Sleep(test.want - 1)
			instant(t, "token-1", at(t.Context(), 10, token)...)
			synctest.Wait()
			require.Equal(t, 1, c.calls())
			time.Sleep(1)
			for _, r := range at(t.Context(), 10, token) {
				require.NoError(t, r.err)
				require.Zero(t, r.took)
			}
			synctest.Wait()
			require.Equal(t, []time.Time{began, began.Add(test.want)}, c.asked)
			instant(t, "token-2", at(t.Context(), 10, token)...)
		})
	}

	inTime(t, "nobody waits for it", func(t *testing.T) {
		c := &credential{}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		c.becomes(slow(8 * time.Second))
		time.Sleep(56 * time.Minute)
		instant(t, "token-1", at(t.Context(), 1000, token)...)
		time.Sleep(8*time.Second - 1)
		instant(t, "token-1", at(t.Context(), 1000, token)...)
		time.Sleep(1)
		synctest.Wait()
		instant(t, "token-2", at(t.Context(), 1000, token)...)
		require.Equal(t, 2, c.calls())
	})
	inTime(t, "but for one under way when the token expires", func(t *testing.T) {
		c := &credential{}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		c.becomes(slow(5 * time.Second))
		time.Sleep(time.Hour - 2*time.Second)
		instant(t, "token-1", call(t.Context(), token))
		time.Sleep(2*time.Second - 1)
		instant(t, "token-1", call(t.Context(), token))
		time.Sleep(1)
		for _, r := range at(t.Context(), 1000, token) {
			require.Equal(t, result{token: "token-2", took: 3 * time.Second}, r)
		}
		require.Equal(t, 2, c.calls())
	})
	inTime(t, "not without callers", func(t *testing.T) {
		c := &credential{}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		time.Sleep(24 * time.Hour)
		require.Equal(t, 1, c.calls())
		c.becomes(slow(time.Second))
		for _, r := range at(t.Context(), 1000, token) {
			require.Equal(t, result{token: "token-2", took: time.Second}, r)
		}
		require.Equal(t, 2, c.calls())
	})
}

func TestFailureWithToken(t *testing.T) {
	inTime(t, "the token stays in use, the credential is asked every 30 s", func(t *testing.T) {
		c := &credential{}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		failed := errors.New("no network")
		c.becomes(failing(failed))
		time.Sleep(55 * time.Minute)
		for range 300 {
			instant(t, "token-1", call(t.Context(), token))
			time.Sleep(time.Second)
		}
		require.Equal(t, 1+10, c.calls())
		require.ErrorIs(t, call(t.Context(), token).err, failed)
		require.Equal(t, 1+10+1, c.calls())
	})
	inTime(t, "the next that works takes its place", func(t *testing.T) {
		c := &credential{}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		time.Sleep(55 * time.Minute)
		c.becomes(failing(errors.New("no network")))
		instant(t, "token-1", call(t.Context(), token))
		c.becomes(nil)
		time.Sleep(30 * time.Second)
		instant(t, "token-1", call(t.Context(), token))
		synctest.Wait()
		instant(t, "token-3", call(t.Context(), token))
	})
	inTime(t, "the pause ends with the token", func(t *testing.T) {
		c := &credential{}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		time.Sleep(time.Hour - 10*time.Second)
		c.becomes(failing(errors.New("no network")))
		instant(t, "token-1", call(t.Context(), token))
		synctest.Wait()
		c.becomes(nil)
		time.Sleep(10 * time.Second)
		instant(t, "token-3", call(t.Context(), token))
	})
}

// An unsafe error must not be read by two goroutines at a time, as that of
// azidentity, whose text is made of a response's body.
type unsafeError struct{ reads int }

func (e *unsafeError) Error() string { e.reads++; return "AADSTS7000215: invalid client secret" }

func TestFailureWithoutToken(t *testing.T) {
	inTime(t, "all who wait get the error", func(t *testing.T) {
		failed := &unsafeError{}
		c := &credential{answer: func(context.Context, azcore.AccessToken) (azcore.AccessToken, error) {
			time.Sleep(2 * time.Second)
			return azcore.AccessToken{Token: "token-secret"}, failed
		}}
		token := entra.Token(c)
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				r := call(t.Context(), token)
				if r.token != "" || r.took != 2*time.Second || r.err == nil ||
					r.err.Error() != "entra: the credential failed: AADSTS7000215: invalid client secret" {
					t.Errorf("%+v", r)
				}
				if !errors.Is(r.err, failed) {
					t.Error("not wrapped")
				}
			})
		}
		all.Wait()
		require.Equal(t, 1, c.calls())
		require.Equal(t, 1, failed.reads)
	})
	inTime(t, "one tries again after a second", func(t *testing.T) {
		failed := errors.New("no network")
		c := &credential{answer: failing(failed)}
		token := entra.Token(c)
		for round := range 3 {
			for _, r := range at(t.Context(), 1000, token) {
				require.ErrorIs(t, r.err, failed)
			}
			time.Sleep(time.Second - 1)
			r := call(t.Context(), token)
			require.ErrorIs(t, r.err, failed)
			require.Zero(t, r.took)
			require.Equal(t, round+1, c.calls())
			time.Sleep(1)
		}
		c.becomes(nil)
		instant(t, "token-4", at(t.Context(), 1000, token)...)
		instant(t, "token-4", call(t.Context(), token))
	})
}

func TestCallersLeave(t *testing.T) {
	inTime(t, "the fetch goes on for the others", func(t *testing.T) {
		c := &credential{answer: slow(5 * time.Second)}
		token := entra.Token(c)
		first, leave := context.WithCancelCause(t.Context())
		left := errors.New("left")
		time.AfterFunc(time.Second, func() { leave(left) })
		var all sync.WaitGroup
		all.Go(func() {
			r := call(first, token)
			if !errors.Is(r.err, left) || r.took != time.Second || r.token != "" {
				t.Errorf("%+v", r)
			}
		})
		all.Go(func() {
			short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			r := call(short, token)
			if !errors.Is(r.err, context.DeadlineExceeded) || r.took != 3*time.Second {
				t.Errorf("%+v", r)
			}
		})
		for _, r := range at(t.Context(), 10, token) {
			require.Equal(t, result{token: "token-1", took: 5 * time.Second}, r)
		}
		all.Wait()
		require.Equal(t, 1, c.calls())
	})
	inTime(t, "the fetch is there for those to come", func(t *testing.T) {
		c := &credential{answer: slow(5 * time.Second)}
		token := entra.Token(c)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, call(gone, token).err, context.Canceled)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		instant(t, "token-1", call(t.Context(), token))
		instant(t, "token-1", call(gone, token)) // what is there costs no wait
	})
}

func TestHang(t *testing.T) {
	late := func(t *testing.T, wait time.Duration, r result) {
		t.Helper()
		require.EqualError(t, r.err, "entra: the credential gave no token within 10s: i/o timeout")
		var timeout net.Error
		require.ErrorAs(t, r.err, &timeout)
		require.True(t, timeout.Timeout())
		require.NotErrorIs(t, r.err, context.DeadlineExceeded, "no caller's context has ended")
		require.Equal(t, wait, r.took)
		require.Empty(t, r.token)
	}
	inTime(t, "callers wait for ten seconds, all together", func(t *testing.T) {
		c := &credential{answer: slow(40 * time.Second)}
		token := entra.Token(c)
		late(t, 10*time.Second, call(t.Context(), token))
		late(t, 0, call(t.Context(), token))
		time.Sleep(20 * time.Second)
		for _, r := range at(t.Context(), 10, token) {
			late(t, 0, r)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		instant(t, "token-1", call(t.Context(), token))
	})
	inTime(t, "a fetch has a minute", func(t *testing.T) {
		c := &credential{answer: slow(time.Hour)}
		token := entra.Token(c)
		late(t, 10*time.Second, call(t.Context(), token))
		time.Sleep(50*time.Second - 1)
		late(t, 0, call(t.Context(), token))
		time.Sleep(1)
		synctest.Wait()
		r := call(t.Context(), token)
		require.EqualError(t, r.err, "entra: the credential failed: context deadline exceeded")
		require.Zero(t, r.took)
		c.becomes(nil)
		time.Sleep(time.Second)
		instant(t, "token-2", call(t.Context(), token))
	})
	inTime(t, "one that heeds nothing is never asked twice at once", func(t *testing.T) {
		c := &credential{answer: func(_ context.Context, token azcore.AccessToken) (azcore.AccessToken, error) {
			time.Sleep(30 * time.Minute)
			return token, nil
		}}
		token := entra.Token(c)
		late(t, 10*time.Second, call(t.Context(), token))
		time.Sleep(20 * time.Minute)
		late(t, 0, call(t.Context(), token))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		instant(t, "token-1", call(t.Context(), token))
		require.Equal(t, 1, c.calls())
	})
	inTime(t, "nobody notices while there is a token", func(t *testing.T) {
		c := &credential{}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		c.becomes(slow(time.Hour))
		time.Sleep(55 * time.Minute)
		for range 300 {
			instant(t, "token-1", call(t.Context(), token))
			time.Sleep(time.Second)
		}
		late(t, 0, call(t.Context(), token)) // the fetch under way is old
		time.Sleep(time.Minute)              // let it end
	})
}

func TestBadCredentials(t *testing.T) {
	for want, a := range map[string]answer{
		"entra: the credential gave an empty token": func(_ context.Context, t azcore.AccessToken) (azcore.AccessToken, error) {
			t.Token = ""
			return t, nil
		},
		"entra: the credential gave a token that does not say when it expires": func(_ context.Context, t azcore.AccessToken) (azcore.AccessToken, error) {
			t.ExpiresOn = time.Time{}
			return t, nil
		},
		"entra: the credential gave a token that expired at 2000-01-01T00:00:00Z": lasting(0, 0), // synctest begins then
		"entra: the credential *entra_test.credential panicked: boom": func(context.Context, azcore.AccessToken) (azcore.AccessToken, error) {
			panic("boom")
		},
		"entra: the credential ended its goroutine": func(context.Context, azcore.AccessToken) (azcore.AccessToken, error) {
			runtime.Goexit()
			return azcore.AccessToken{}, nil
		},
	} {
		inTime(t, want, func(t *testing.T) {
			c := &credential{answer: a}
			token := entra.Token(c)
			for _, r := range at(t.Context(), 10, token) {
				require.EqualError(t, r.err, want)
				require.Empty(t, r.token)
				require.Zero(t, r.took)
			}
			require.Equal(t, 1, c.calls())
			c.becomes(nil)
			time.Sleep(time.Second)
			instant(t, "token-2", call(t.Context(), token))
		})
	}
	inTime(t, "ahead of the end they change nothing", func(t *testing.T) {
		c := &credential{}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		c.becomes(lasting(-time.Hour, 0))
		time.Sleep(56 * time.Minute)
		instant(t, "token-1", call(t.Context(), token))
		synctest.Wait()
		instant(t, "token-1", call(t.Context(), token))
		require.Equal(t, 2, c.calls())
	})
	inTime(t, "nil", func(t *testing.T) {
		_, err := entra.Token(nil)(t.Context())
		require.EqualError(t, err, "entra: the credential is nil")
	})
	inTime(t, "nil of a type", func(t *testing.T) {
		var c *credential
		_, err := entra.Token(c)(t.Context())
		require.EqualError(t, err, "entra: the credential *entra_test.credential panicked: runtime error: invalid memory address or nil pointer dereference")
	})
	inTime(t, "an empty scope", func(t *testing.T) {
		_, err := entra.Token(&credential{}, "")(t.Context())
		require.EqualError(t, err, "entra: a scope is empty")
	})
}

// Whatever a credential does, and whoever comes when: it is asked by one at a
// time and not again within a second unless a token ran out, nobody is given a
// token that has expired, nobody waits while there is one, nor for more than
// ten seconds.
func TestProperties(t *testing.T) {
	type step struct{ sleep, takes, expires, refresh, stays int } // in 100 ms
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{
				sleep:   rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(0, 4000)).Draw(t, "sleep"),
				takes:   rapid.OneOf(rapid.Just(0), rapid.IntRange(0, 700)).Draw(t, "takes"),
				expires: rapid.OneOf(rapid.IntRange(-10, 50), rapid.IntRange(0, 9000)).Draw(t, "expires"),
				refresh: rapid.OneOf(rapid.Just(0), rapid.IntRange(-10, 9000)).Draw(t, "refresh"),
				stays:   rapid.IntRange(0, 300).Draw(t, "stays"),
			}
		}), 1, 40).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			const unit = 100 * time.Millisecond
			var mu sync.Mutex
			var now step
			expires := map[string]time.Time{}
			latest := time.Time{} // the end of the latest token
			var ended time.Time   // of the latest fetch
			var failed bool
			c := &credential{}
			c.answer = func(ctx context.Context, token azcore.AccessToken) (azcore.AccessToken, error) {
				mu.Lock()
				s := now
				if gap := time.Since(ended); !ended.IsZero() && gap < time.Second && (failed || time.Now().Before(latest)) {
					t.Errorf("asked again after %v, failed %v", gap, failed)
				}
				mu.Unlock()
				_, err := slow(time.Duration(s.takes)*unit)(ctx, token)
				token, _ = lasting(time.Duration(s.expires)*unit, time.Duration(s.refresh)*unit)(ctx, token)
				mu.Lock()
				defer mu.Unlock()
				if ended, failed = time.Now(), err != nil || s.expires <= 0; !failed {
					expires[token.Token], latest = token.ExpiresOn, token.ExpiresOn
				}
				return token, err
			}
			f := entra.Token(c)
			var all sync.WaitGroup
			for _, s := range steps {
				time.Sleep(time.Duration(s.sleep) * unit)
				synctest.Wait()
				mu.Lock()
				now = s
				mu.Unlock()
				for i := range 3 {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(s.stays*i+1)*unit)
						defer cancel()
						mu.Lock()
						held := time.Now().Before(latest)
						mu.Unlock()
						r := call(ctx, f)
						mu.Lock()
						defer mu.Unlock()
						switch {
						case (r.token == "") == (r.err == nil):
							t.Errorf("not either: %+v", r)
						case r.err == nil && !time.Now().Before(expires[r.token]):
							t.Errorf("expired: %+v", r)
						case held && (r.err != nil || r.took > 0):
							t.Errorf("waited in spite of a token: %+v", r)
						case r.took > 10*time.Second:
							t.Errorf("waited too long: %+v", r)
						}
					})
				}
			}
			all.Wait()
			time.Sleep(time.Minute) // for the last fetch
			synctest.Wait()
			if c.overlap {
				t.Error("two fetches at once")
			}
		})
		if t.Failed() {
			rt.FailNow() // so that the steps are shrunk
		}
	})
}

// What every request does costs no allocation.
func TestNoAllocation(t *testing.T) {
	token := entra.Token(&credential{})
	ctx := t.Context()
	_, err := token(ctx)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = token(ctx) }))
}

func BenchmarkToken(b *testing.B) {
	token := entra.Token(&credential{})
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := token(ctx); err != nil {
				b.Error(err)
			}
		}
	})
}

// A pool is two backends of two tiers in memory, each of which takes only the
// tokens that its credential gives.
type pool struct {
	first, second *spillovertest.Server
	lb            *spillover.Transport
}

func newPool(t *testing.T, first, second spillover.TokenFunc) *pool {
	p := &pool{
		first:  spillovertest.New(spillovertest.Config{Name: "first", Keys: []string{"token-1", "token-2", "token-3"}}),
		second: spillovertest.New(spillovertest.Config{Name: "second", Dialect: spillovertest.AzureV1, Keys: []string{"token-1"}}),
	}
	var err error
	models := []spillover.Model{{Name: "gpt-4o"}}
	p.lb, err = spillover.New(spillover.Config{
		Base: spillovertest.Network(p.first, p.second),
		Backends: []spillover.Backend{
			{Name: "first", URL: p.first.URL, Dialect: spillover.Azure, APIVersion: "2024-10-21", Token: first, Models: models},
			{Name: "second", URL: p.second.URL, Dialect: spillover.AzureV1, Token: second, Models: models, Priority: 2},
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.lb.Close()) })
	return p
}

// ask sends a request and tells which backend served it.
func (p *pool) ask(t *testing.T) string {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://any/openai/v1/chat/completions",
		strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`))
	require.NoError(t, err)
	resp, err := p.lb.RoundTrip(req)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	return resp.Header.Get("X-Spillover-Backend")
}

// of is the status of the one deployment of a backend.
func (p *pool) of(t *testing.T, tier int) spillover.DeploymentStatus {
	b := p.lb.Status().Tiers[tier].Backends[0]
	require.Len(t, b.Deployments, 1)
	return b.Deployments[0]
}

func TestTransport(t *testing.T) {
	inTime(t, "a failing credential moves the request on, is seen, and comes back", func(t *testing.T) {
		c := &credential{answer: func(context.Context, azcore.AccessToken) (azcore.AccessToken, error) {
			return azcore.AccessToken{Token: "secret-token"}, errors.New("AADSTS7000215: secret-answer")
		}}
		p := newPool(t, entra.Token(c), entra.Token(&credential{}))
		require.Equal(t, "second", p.ask(t))
		d := p.of(t, 0)
		require.False(t, d.Available)
		require.Equal(t, "no token", d.Reason)
		require.True(t, d.Until.After(time.Now()))
		require.EqualValues(t, 1, d.Failed)
		require.True(t, p.of(t, 1).Available)
		require.NotContains(t, fmt.Sprintf("%+v", p.lb.Status()), "secret")
		require.NotContains(t, fmt.Sprintf("%+v", p.lb.Status()), "token-1")

		for range 100 {
			require.Equal(t, "second", p.ask(t))
		}
		require.Equal(t, 1, c.calls(), "it is out: nobody asks for its token")

		c.becomes(nil)
		time.Sleep(time.Until(d.Until))
		require.Equal(t, "first", p.ask(t))
		require.True(t, p.of(t, 0).Available)
		require.Empty(t, p.of(t, 0).Reason)
		require.Equal(t, 1, p.first.Stats().Served)
	})
	inTime(t, "one that hangs holds requests up once", func(t *testing.T) {
		c := &credential{answer: slow(time.Hour)}
		p := newPool(t, entra.Token(c), entra.Token(&credential{}))
		began := time.Now()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { p.ask(t) })
		}
		all.Wait()
		require.Equal(t, 10*time.Second, time.Since(began))
		require.Equal(t, "no token", p.of(t, 0).Reason)
		time.Sleep(time.Until(p.of(t, 0).Until))
		began = time.Now()
		require.Equal(t, "second", p.ask(t), "the one that probes")
		require.Zero(t, time.Since(began))
		require.Equal(t, 1, c.calls())
		time.Sleep(time.Minute) // the fetch ends
	})
	inTime(t, "one token for all backends", func(t *testing.T) {
		c := &credential{}
		token := entra.Token(c)
		p := newPool(t, token, token)
		require.Equal(t, "first", p.ask(t))
		p.first.Set(spillovertest.Fault{Status: http.StatusInternalServerError})
		require.Equal(t, "second", p.ask(t))
		require.Equal(t, 1, c.calls())
	})
	inTime(t, "where nobody gets a token the error says why, and no more", func(t *testing.T) {
		failed := errors.New("AADSTS7000215: invalid client secret")
		token := entra.Token(&credential{answer: failing(failed)})
		p := newPool(t, token, token)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://any/openai/v1/chat/completions", strings.NewReader(`{"model":"gpt-4o"}`))
		require.NoError(t, err)
		_, err = p.lb.RoundTrip(req)
		require.ErrorIs(t, err, failed)
		require.EqualError(t, err, "spillover: no answer for gpt-4o: "+
			"first: token: entra: the credential failed: AADSTS7000215: invalid client secret; "+
			"second: token: entra: the credential failed: AADSTS7000215: invalid client secret")
	})
	inTime(t, "a caller who leaves blames nobody", func(t *testing.T) {
		p := newPool(t, entra.Token(&credential{answer: slow(5 * time.Second)}), entra.Token(&credential{}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://any/openai/v1/chat/completions", strings.NewReader(`{"model":"gpt-4o"}`))
		require.NoError(t, err)
		_, err = p.lb.RoundTrip(req)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, p.of(t, 0).Available)
		time.Sleep(5 * time.Second)
		require.Equal(t, "first", p.ask(t))
	})
}
