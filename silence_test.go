package spillover_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// hangs waits for the end of the request, or of the test's patience.
func hangs(until <-chan struct{}) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		select {
		case <-req.Context().Done():
			return nil, req.Context().Err()
		case <-until:
			return ok200(req)
		}
	}
}

// Where no other deployment answers in that time either, the requests are slow.
func TestSlowRequestsAreNotASilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), slow(time.Minute, ok200))
		n.On(host("payg"), slow(time.Minute, ok200))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		var all sync.WaitGroup
		for range 60 {
			all.Go(func() { ask(t, tr) })
			time.Sleep(500 * time.Millisecond)
		}
		require.True(t, statusOf(t, tr, "ptu").Available)
		all.Wait()
		require.Greater(t, n.Sends(host("ptu")), 50, "one or two are sent elsewhere to compare")
	})
}

// A deployment that accepts requests and answers none is skipped, without any
// timeout configured; those that wait for it are not cancelled, and it comes back.
func TestSilentDeploymentIsSkippedAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		answers := make(chan struct{})
		n.On(host("ptu"), slow(time.Second, ok200))
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("ptu"), azure("payg", priority(2))}})
		var all sync.WaitGroup
		var mu sync.Mutex
		by := map[string]int{}
		load := func(span time.Duration) {
			mu.Lock()
			clear(by)
			mu.Unlock()
			for begun := time.Now(); time.Since(begun) < span; time.Sleep(500 * time.Millisecond) {
				all.Go(func() {
					resp, err := tr.RoundTrip(newChat(t, chatPath))
					if err != nil {
						return
					}
					resp.Body.Close()
					mu.Lock()
					defer mu.Unlock()
					by[servedBy(resp)]++
				})
			}
		}
		load(10 * time.Second)
		n.On(host("ptu"), hangs(answers))
		load(2 * time.Minute)
		mu.Lock()
		require.Greater(t, by["payg"], 190, "of 240; those of the first seconds wait")
		mu.Unlock()
		s := statusOf(t, tr, "ptu")
		require.False(t, s.Available)
		require.Equal(t, "silent", s.Reason)
		require.LessOrEqual(t, time.Until(s.Until), 30*time.Second)
		require.Greater(t, s.InFlight, 15, "nothing is cancelled")
		require.Contains(t, strings.Join(l.Log(), "\n"), "WARN,deployment out,backend:ptu,tier:1,model:m,deployment:m")
		require.NotEmpty(t, l.Metric("spillover.cooldown.duration")["backend=ptu deployment=m model=m state=out tier=1 type=silent"])

		close(answers)
		n.On(host("ptu"), slow(time.Second, ok200))
		time.Sleep(time.Second)
		require.True(t, statusOf(t, tr, "ptu").Available, "one answer is enough")
		load(10 * time.Second)
		all.Wait()
		require.Zero(t, by["payg"])
	})
}

// Without an answer of any kind it is asked again from time to time.
func TestSilentDeploymentIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), hangs(nil))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		ctx, cancel := context.WithCancel(t.Context())
		for range 600 {
			go func() {
				if resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx)); err == nil {
					resp.Body.Close()
				}
			}()
			time.Sleep(time.Second)
		}
		sends := n.Sends(host("ptu"))
		require.Less(t, sends, 45)
		require.Greater(t, sends, 20, "no longer than half a minute apart")
		cancel()
		synctest.Wait()
		require.Zero(t, streamsInFlight(tr))
	})
}

// Callers that give up one after the other are as good as those that wait together.
func TestSilenceIsNoticedOneCallerAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), hangs(nil))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		lost := 0
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
			if err != nil {
				lost++
			} else {
				resp.Body.Close()
			}
			cancel()
		}
		require.LessOrEqual(t, lost, 4)
	})
}

// One answer is enough: those who gave up before it count no more.
func TestAnswerEndsASilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), hangs(nil), ok200, hangs(nil))
		n.On(host("payg"), ok200)
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		try := func() (by string) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			resp, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
			if err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				return ""
			}
			read(t, resp)
			return servedBy(resp)
		}
		require.Empty(t, try())
		require.Equal(t, "ptu", try())
		require.Empty(t, try(), "the first after an answer")
		require.Empty(t, try(), "as before it: one alone may just take long")
		require.Equal(t, "payg", try(), "two of them are a silence")
	})
}

// What is slow as a rule is not silent, nor is what has little to do.
func TestSlowDeploymentIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), slow(50*time.Second, ok200))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		resp, _ := ask(t, tr) // it is known to be slow from now on
		require.Equal(t, "ptu", servedBy(resp))
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				resp, _ := ask(t, tr)
				require.Equal(t, "ptu", servedBy(resp))
			})
			time.Sleep(7 * time.Second)
		}
		all.Wait()
	})
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), slow(9*time.Second, ok200))
		tr := balance(t, n, azure("ptu"), azure("payg", priority(2)))
		for range 20 {
			together(t, tr, 3)
			time.Sleep(time.Hour)
		}
		require.Zero(t, n.Sends(host("payg")))
	})
}

// Where there is no other deployment a silent one is asked all the same.
func TestOnlyDeploymentIsAskedThoughSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), hangs(nil))
		tr := balance(t, n, azure("ptu"))
		ctx, cancel := context.WithCancel(t.Context())
		for range 30 {
			go func() {
				_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
				require.ErrorIs(t, err, context.Canceled)
			}()
			time.Sleep(time.Second)
		}
		require.Equal(t, 30, n.Sends())
		cancel()
		synctest.Wait()
	})
}

// After the caller's deadline the error says who was silent, and for how long.
func TestDeadlineNamesTheSilentDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("ptu"), hangs(nil))
		tr := balance(t, n, azure("ptu"))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Contains(t, err.Error(), "ptu has not answered for 30s")
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		require.True(t, timeout.Temporary())
		unharmed(t, tr, "ptu")

		gone := errors.New("gone")
		stopped, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { stop(gone) })
		_, err = tr.RoundTrip(newChat(t, chatPath).WithContext(stopped))
		require.Equal(t, gone, err, "a caller who leaves gets what it left with")
	})
}
