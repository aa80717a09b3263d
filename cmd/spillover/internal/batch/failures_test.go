package batch_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

// Server errors are tried again, until the request is assumed to be the cause.
func TestServerErrorsAreTriedAgain(t *testing.T) {
	in, out := writeLines(t, line("twice", `{"model":"m","user":"twice"}`), line("ever", `{"model":"m","user":"ever"}`), line("silent", `{"model":"m","user":"silent"}`),
		line("html", `{"model":"m","user":"html"}`)), filepath.Join(t.TempDir(), "out")
	for i := range 300 { // others that are answered meanwhile
		f, err := os.OpenFile(in, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteString("\n" + line(fmt.Sprint(i), `{"model":"m"}`))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		failed := 0
		lb := transport(t, service(func(_ *http.Request, body []byte) (int, string) {
			time.Sleep(5 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case bytes.Contains(body, []byte("twice")):
				if failed++; failed <= 2 {
					return 500, `{"error":{"message":"again"}}`
				}
			case bytes.Contains(body, []byte("ever")):
				return 500, `{"error":{"message":"ever"}}`
			case bytes.Contains(body, []byte("silent")):
				return 0, "reset"
			case bytes.Contains(body, []byte("html")):
				return 200, "<html>"
			}
			return 200, fine
		}))
		defer lb.Close()
		c, err := run(t, batch.Options{Input: in, Output: out, Transport: lb, MaxInFlight: 10})
		require.NoError(t, err)
		require.EqualValues(t, 304, c.Answered)
		require.EqualValues(t, 3, c.Failed)
	})
	all := outputs(t, out)
	require.Equal(t, 200, all["batch_req_1"].Response.StatusCode)
	require.Equal(t, 500, all["batch_req_2"].Response.StatusCode)
	require.Equal(t, "request_failed", all["batch_req_3"].Error.Code)
	require.Equal(t, "invalid_response", all["batch_req_4"].Error.Code)
}

// An outage of all deployments makes no request fail.
func TestAnOutageFailsNoRequest(t *testing.T) {
	in, out := writeInput(t, 500, hello), filepath.Join(t.TempDir(), "out")
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		lb := transport(t, service(func(*http.Request, []byte) (int, string) {
			time.Sleep(time.Second)
			if d := time.Since(begun); d > 5*time.Second && d < 20*time.Minute {
				return 503, `{"error":{"message":"down"}}`
			}
			return 200, fine
		}))
		defer lb.Close()
		c, err := run(t, batch.Options{Input: in, Output: out, Transport: lb})
		require.NoError(t, err)
		require.EqualValues(t, 500, c.Answered)
		require.Zero(t, c.Failed)
		require.Less(t, time.Since(begun), 25*time.Minute)
	})
}

func TestATryThatTakesTooLongIsTriedAgain(t *testing.T) {
	in, out := writeInput(t, 1, hello), filepath.Join(t.TempDir(), "out")
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		lb := transport(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			if tries.Add(1) == 1 {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return answering(200, fine).RoundTrip(r)
		}))
		defer lb.Close()
		c, err := run(t, batch.Options{Input: in, Output: out, Transport: lb})
		require.NoError(t, err)
		require.Zero(t, c.Failed)
		require.EqualValues(t, 2, tries.Load())
	})
}

// The time of a try is that of the deployment. What a request waits for a rate limit is not
// taken from it, and makes no request fail.
func TestTimeoutsDoNotCountTheWaitForALimit(t *testing.T) {
	in, out := writeInput(t, 1, hello), filepath.Join(t.TempDir(), "out")
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		lb := transport(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			if tries.Add(1) == 1 {
				return refusal(r, "25"), nil
			}
			select {
			case <-time.After(20 * time.Second):
				return answering(200, fine).RoundTrip(r)
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}))
		defer lb.Close()
		c, err := run(t, batch.Options{Input: in, Output: out, Transport: lb, Timeout: 30 * time.Second})
		require.NoError(t, err)
		require.Zero(t, c.Failed)
		require.EqualValues(t, 2, tries.Load())
	})
}

// A body that takes too long is cut off by the timeout, also that of an error.
func TestTheTimeoutIsThatOfTheBodyToo(t *testing.T) {
	for _, status := range []int{200, 400, 403, 503} {
		in, out := writeInput(t, 1, hello), filepath.Join(t.TempDir(), "out")
		synctest.Test(t, func(t *testing.T) {
			var tries atomic.Int32
			lb := transport(t, roundTripper(func(r *http.Request) (*http.Response, error) {
				if tries.Add(1) > 1 {
					return answering(200, fine).RoundTrip(r)
				}
				resp, err := answering(status, "").RoundTrip(r)
				resp.ContentLength, resp.Body = -1, slowBody{r.Context(), time.Now()}
				return resp, err
			}))
			defer lb.Close()
			begun := time.Now()
			c, err := run(t, batch.Options{Input: in, Output: out, Transport: lb, Timeout: 30 * time.Second})
			require.NoError(t, err)
			require.Zero(t, c.Failed)
			require.EqualValues(t, 2, tries.Load())
			require.Less(t, time.Since(begun), 40*time.Second)
		})
	}
}

// A slowBody has another byte each second, for an hour.
type slowBody struct {
	ctx   context.Context
	begun time.Time
}

func (b slowBody) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		if time.Since(b.begun) > time.Hour {
			return 0, io.EOF
		}
		return copy(p, " "), nil
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}

func (slowBody) Close() error { return nil }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestARequestThatIsRateLimitedForTooLongExpires(t *testing.T) {
	in, out := writeInput(t, 3, hello), filepath.Join(t.TempDir(), "out")
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		lb := transport(t, answering(429, `{"error":{"code":"rate_limit_exceeded","message":"slow down"}}`))
		defer lb.Close()
		c, err := run(t, batch.Options{Input: in, Output: out, Transport: lb, GiveUpAfter: time.Hour})
		require.NoError(t, err)
		require.EqualValues(t, 3, c.Failed)
		require.InDelta(t, 60, time.Since(begun).Minutes(), 4)
	})
	for _, o := range outputs(t, out) {
		require.Equal(t, "batch_expired", o.Error.Code)
		require.Contains(t, o.Error.Message, "429")
	}
}

// A wrong key or a spent quota is not the fault of any request: nothing is recorded, and
// the batch can be continued once it is repaired.
func TestFailuresThatNeedAPersonEndTheBatch(t *testing.T) {
	for status, body := range map[int]string{
		401: `{"error":{"code":"invalid_api_key","message":"Incorrect API key provided"}}`,
		429: `{"error":{"code":"insufficient_quota","message":"You exceeded your current quota"}}`,
	} {
		in, out := writeInput(t, 50, hello), filepath.Join(t.TempDir(), "out")
		c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, answering(status, body))})
		require.ErrorContains(t, err, fmt.Sprint(status))
		require.Zero(t, c.Answered)
		require.EqualValues(t, 50, c.Left())
		c, err = run(t, batch.Options{Input: in, Output: out, Transport: transport(t, answering(200, fine))})
		require.NoError(t, err)
		require.EqualValues(t, 50, c.Answered)
		require.Zero(t, c.Failed)
	}
}
