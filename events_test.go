package spillover_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
	"github.com/spillover-go/spillover/internal/testnet"
)

// firstOf is a pool of two that serve the model m: first, and second a tier below.
func firstOf(n http.RoundTripper, change ...func(*spillover.Backend)) spillover.Config {
	return spillover.Config{Base: n, Backends: []spillover.Backend{azure("first", append(change, serves("m"))...), azure("second", serves("m"), priority(2))}}
}

var refused = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}

func TestLogOfACooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), status(429, `{"error":{"code":"rate_limit_exceeded"}}`, "Retry-After: 4", "X-Request-Id: id-1"),
			status(429, `{}`, "Retry-After: 2", "Apim-Request-Id: id-2"), status(200, "{}", "X-Request-Id: id-3"))
		l, tr := listened(t, firstOf(n))
		ask(t, tr)
		require.Equal(t, []string{"INFO,deployment cooling,backend:first,tier:1,model:m,deployment:m,until:4s,wait_ms:4000,reason:429 rate_limit_exceeded,status:429,request_id:id-1"}, l.Log())
		for range 10 {
			ask(t, tr) // while it cools down
		}
		time.Sleep(5 * time.Second)
		require.Empty(t, l.Log(), "its end by time is nothing that happens")

		ask(t, tr)
		require.Empty(t, l.Log(), "another one so soon is none to be told")
		time.Sleep(3 * time.Second)
		ask(t, tr)
		time.Sleep(28 * time.Second)
		ask(t, tr)
		require.Empty(t, l.Log(), "it serves, but for less than 30 s")
		time.Sleep(time.Second)
		ask(t, tr)
		require.Equal(t, []string{"INFO,deployment back,backend:first,tier:1,model:m,deployment:m,lasted_ms:37000,reason:429,cooldowns:2,cooling_ms:6000,status:200"}, l.Log())
		ask(t, tr)
		require.Empty(t, l.Log())
	})
}

func TestLogOfAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), status(500, `{}`, "X-Request-Id: id-0"), status(500, `{}`, "X-Request-Id: id-1"), status(500, "{}", "X-Request-Id: id-2"), status(502, "{}", "X-Request-Id: id-3"), status(200, "{}"))
		l, tr := listened(t, firstOf(n))
		ask(t, tr)
		require.Empty(t, l.Log(), "one request that fails, although it is sent there twice, is ignored")
		ask(t, tr)
		require.Equal(t, []string{"WARN,deployment out,backend:first,tier:1,model:m,deployment:m,until:1s,wait_ms:1000,reason:500,status:500,request_id:id-2"}, l.Log())
		time.Sleep(probeWait)
		ask(t, tr)
		require.Equal(t, []string{
			"INFO,deployment probing,backend:first,tier:1,model:m,deployment:m,reason:500",
			"WARN,deployment out,backend:first,tier:1,model:m,deployment:m,until:2s,wait_ms:2000,reason:502,status:502,request_id:id-3",
		}, l.Log())
		time.Sleep(probeWait)
		ask(t, tr)
		require.Equal(t, []string{
			"INFO,deployment probing,backend:first,tier:1,model:m,deployment:m,reason:502",
			"INFO,deployment back,backend:first,tier:1,model:m,deployment:m,lasted_ms:62000,reason:502,status:200",
		}, l.Log())
	})
}

// A probe that finds the deployment throttled has found no failure.
func TestLogOfAThrottledProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), status(401, `{}`), status(429, "{}", "Retry-After: 7"), status(200, "{}"))
		l, tr := listened(t, firstOf(n))
		ask(t, tr)
		time.Sleep(probeWait)
		ask(t, tr)
		time.Sleep(7 * time.Second)
		ask(t, tr)
		require.Equal(t, []string{
			"WARN,deployment out,backend:first,tier:1,model:m,deployment:m,until:5s,wait_ms:5000,reason:401,status:401",
			"INFO,deployment probing,backend:first,tier:1,model:m,deployment:m,reason:401",
			"INFO,deployment cooling,backend:first,tier:1,model:m,deployment:m,until:7s,wait_ms:7000,reason:429,status:429",
			"INFO,deployment back,backend:first,tier:1,model:m,deployment:m,lasted_ms:38000,reason:401,status:200",
		}, l.Log())
	})
}

func TestLogOfABackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), broken(refused), status(200, "{}"))
		l, tr := listened(t, firstOf(n))
		ask(t, tr)
		time.Sleep(probeWait)
		ask(t, tr)
		require.Equal(t, []string{
			"WARN,backend out,backend:first,tier:1,until:2s,wait_ms:2000,reason:no connection,error:dial tcp: connection refused",
			"INFO,backend probing,backend:first,tier:1,reason:no connection",
			"INFO,backend back,backend:first,tier:1,lasted_ms:31000,reason:no connection,status:200",
		}, l.Log())
		require.Equal(t, map[string]float64{"backend=first state=out tier=1 type=no_connection": 2}, l.Metric("spillover.cooldown.duration"))
	})
}

// What failed for everybody is the request's own fault: nothing is said against a
// deployment, whichever way it failed, but once that requests fail.
func TestLogOfARequestThatFailsEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]roundTripFunc{
			"500": status(500, "{}"), "401": status(401, "{}"), "no connection": broken(refused), "no answer": broken(io.ErrUnexpectedEOF),
		} {
			n := newNet()
			n.On(host("first"), answer)
			n.On(host("second"), answer)
			l, tr := listened(t, firstOf(n))
			for range 5 {
				resp, err := tr.RoundTrip(newChat(t, chatPath))
				if err == nil {
					read(t, resp)
				}
			}
			records := l.Log()
			require.Len(t, records, 1, name)
			require.Contains(t, records[0], "WARN,requests fail,backends:[first,second],model:m,reason:", name)
			require.Empty(t, l.Metric("spillover.cooldown.duration"), name)
		}
	})
}

// The request that could not ask everybody blames those that it asked.
func TestLogAfterMaxAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), status(401, "{}"))
		cfg := firstOf(n)
		cfg.MaxAttempts = 1
		l, tr := listened(t, cfg)
		ask(t, tr)
		require.Equal(t, []string{
			"WARN,deployment out,backend:first,tier:1,model:m,deployment:m,until:5s,wait_ms:5000,reason:401,status:401",
			"WARN,requests fail,backends:[first],model:m,reason:401,status:401,requests:1",
		}, l.Log())
	})
}

// A failure that the configuration mended is over, and the next one is told again.
func TestLogOfAReconfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), status(401, "{}"))
		l := telemetrytest.New()
		cfg := withListener(l, firstOf(n))
		tr := configured(t, cfg)
		tr.SetRandom(func() uint64 { return 1 << 63 })
		ask(t, tr)
		out := []string{"WARN,deployment out,backend:first,tier:1,model:m,deployment:m,until:5s,wait_ms:5000,reason:401,status:401"}
		require.Equal(t, out, l.Log())
		cfg.Backends[0].APIKey = "another"
		require.NoError(t, tr.Reconfigure(cfg))
		require.Equal(t, []string{"INFO,reconfigured,backends:2,changed:[first: api_key]", "INFO,deployment back,backend:first,tier:1,model:m,deployment:m,lasted_ms:0,reason:401"}, l.Log())
		require.Len(t, l.Callbacks, 1)
		require.Equal(t, 1.0, l.Metric("spillover.deployment.available")["backend=first deployment=m model=m tier=1"])
		ask(t, tr)
		require.Equal(t, out, l.Log())
		require.Equal(t, 2, l.Counts["spillover.cooldown.duration{backend=first deployment=m model=m state=out tier=1 type=401}"])

		require.NoError(t, tr.Reconfigure(cfg))
		require.Empty(t, l.Log(), "nothing was changed, and what is out stays so")
	})
}

func TestLogOfAnAccountWithoutQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, `{"error":{"code":"insufficient_quota"}}`))
		l, tr := listened(t, spillover.Config{Base: n, Backends: []spillover.Backend{
			azure("one", serves("m"), func(b *spillover.Backend) { b.URL, b.APIKey = "https://"+host("a"), "k" }),
			azure("two", priority(2), func(b *spillover.Backend) {
				b.URL, b.APIKey, b.Models = "https://"+host("a"), "k", []spillover.Model{{Name: "m", Deployment: "other"}}
			}),
		}})
		ask(t, tr)
		require.Equal(t, []string{
			"WARN,deployment out,backend:one,tier:1,model:m,deployment:m,until:5m0s,wait_ms:300000,reason:429 insufficient_quota,status:429",
			"WARN,deployment out,backend:two,tier:2,model:m,deployment:other,until:5m0s,wait_ms:300000,reason:429 insufficient_quota,status:429",
			"WARN,requests fail,backends:[one],model:m,reason:429 insufficient_quota,status:429,code:insufficient_quota,requests:1",
		}, l.Log(), "its own account it is, whoever else answers")
	})
}

func TestLogOfABrokenAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), withBody(200, func(*http.Request) io.ReadCloser {
			return io.NopCloser(io.MultiReader(strings.NewReader("{"), testnet.ReaderFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF })))
		}))
		l, tr := listened(t, firstOf(n))
		for range 2 { // the first is ignored
			require.Empty(t, l.Log())
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			require.NoError(t, err)
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.NoError(t, resp.Body.Close())
		}
		require.Equal(t, []string{"WARN,deployment out,backend:first,tier:1,model:m,deployment:m,until:2s,wait_ms:2000,reason:answer broke off,error:unexpected EOF"}, l.Log())
		require.Equal(t, map[string]float64{"class=interactive model=m outcome=broken tier=1 type=answer_broke_off": 2}, l.Metric("spillover.requests"))
		require.Equal(t, map[string]float64{"backend=first deployment=m model=m outcome=broken tier=1 type=answer_broke_off": 2}, l.Metric("spillover.attempts"))
		require.Equal(t, "answer_broke_off", l.EndedSpans(t)[0].Attributes()["error.type"])
	})
}

// However many are refused at once, the state changes once.
func TestLogOfAThousandRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		open := make(chan struct{})
		n.On(host("first"), func(req *http.Request) (*http.Response, error) {
			<-open
			return status(429, "{}", "Retry-After: 3")(req)
		})
		l, tr := listened(t, firstOf(n))
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() { ask(t, tr) })
		}
		synctest.Wait()
		require.Equal(t, 1000, n.Sends(host("first")))
		close(open)
		all.Wait()
		require.Equal(t, []string{"INFO,deployment cooling,backend:first,tier:1,model:m,deployment:m,until:3s,wait_ms:3000,reason:429,status:429"}, l.Log())
		require.Equal(t, map[string]float64{"backend=first deployment=m model=m state=cooling tier=1 type=429": 3}, l.Metric("spillover.cooldown.duration"))
	})
}

// Refusals that keep coming make a cool-down longer, not another one.
func TestLogOfStragglers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), func(req *http.Request) (*http.Response, error) {
			d, err := time.ParseDuration(req.Header.Get("Take"))
			require.NoError(t, err)
			time.Sleep(d)
			return status(429, "{}", "Retry-After: 3")(req)
		})
		l, tr := listened(t, firstOf(n))
		var all sync.WaitGroup
		for _, d := range []string{"1s", "2s", "4s", "6s", "10s"} {
			all.Go(func() {
				req := newChat(t, chatPath)
				req.Header.Set("Take", d)
				send(t, tr, req)
			})
		}
		all.Wait()
		const cooling = "INFO,deployment cooling,backend:first,tier:1,model:m,deployment:m,until:3s,wait_ms:3000,reason:429,status:429"
		require.Equal(t, []string{cooling}, l.Log())
		require.Equal(t, 2, l.Counts["spillover.cooldown.duration{backend=first deployment=m model=m state=cooling tier=1 type=429}"], "that of 10 s comes after the others' has run out at 9 s")
	})
}

func TestLogOfHealthyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, tr := listened(t, firstOf(newNet()))
		for range 1000 {
			ask(t, tr)
		}
		require.Empty(t, l.Log())
	})
}

func TestLogOfAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return status(429, "{}", "Retry-After: 3", "X-Request-Id: id-1")(req)
		})
		n.On(host("second"), func(req *http.Request) (*http.Response, error) {
			time.Sleep(2 * time.Second)
			return status(200, "{}", "X-Request-Id: id-2")(req)
		}, hung)
		l := telemetrytest.New()
		cfg := withListener(l, firstOf(n))
		cfg.Logger = l.LoggerAt(slog.LevelDebug)
		tr := configured(t, cfg)
		ask(t, tr)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := tr.RoundTrip(newChat(t, chatPath).WithContext(ctx))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, []string{
			"DEBUG,attempt,backend:first,tier:1,model:m,deployment:m,attempt:1,outcome:throttled,took_ms:1000,reason:429,status:429,request_id:id-1",
			"INFO,deployment cooling,backend:first,tier:1,model:m,deployment:m,until:3s,wait_ms:3000,reason:429,status:429,request_id:id-1",
			"DEBUG,attempt,backend:second,tier:2,model:m,deployment:m,attempt:2,outcome:served,took_ms:2000,status:200,request_id:id-2",
			"DEBUG,attempt,backend:second,tier:2,model:m,deployment:m,attempt:1,outcome:canceled,took_ms:1000",
		}, l.Log())

		n.On(host("second"), status(500, `{"error":{"message":"I am sorry"}}`))
		ask(t, tr)
		require.Contains(t, l.Log(), "DEBUG,attempt,backend:second,tier:2,model:m,deployment:m,attempt:2,outcome:failed,took_ms:0,reason:500,error:I am sorry,status:500")
		n.On(host("second"), status(400, `{"error":{"message":"what a caller wrote"}}`))
		ask(t, tr)
		require.Contains(t, l.Log(), "DEBUG,attempt,backend:second,tier:2,model:m,deployment:m,attempt:1,outcome:rejected,took_ms:0,reason:400,status:400", "no text of a caller's own mistake")

		n.On(host("second"), status(200, "{}"))
		cfg.Logger = l.LoggerAt(slog.LevelError)
		ask(t, configured(t, cfg))
		require.Empty(t, l.Log())
	})
}

// A handler may ask the Transport for anything: no lock is held while it is called.
func TestLogHoldsNoLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr *spillover.Transport
		var seen []string
		n := newNet()
		n.On(host("first"), status(401, "{}"), status(200, "{}"))
		cfg := firstOf(n)
		cfg.Logger = slog.New(askingHandler{func(message string) {
			seen = append(seen, message)
			tr.Status()
			if strings.HasPrefix(message, "deployment") {
				ask(t, tr)
			}
			if message == "deployment out" {
				require.NoError(t, tr.Drain("first"))
				require.NoError(t, tr.Resume("first"))
				require.NoError(t, tr.Reconfigure(cfg))
			}
		}})
		tr = configured(t, cfg)
		ask(t, tr)
		time.Sleep(probeWait)
		ask(t, tr)
		require.Equal(t, []string{"deployment out", "backend drained", "backend resumed", "deployment probing", "deployment back"}, seen)
	})
}

// askingHandler calls a function for each record.
type askingHandler struct{ ask func(message string) }

func (h askingHandler) Enabled(_ context.Context, l slog.Level) bool  { return l >= slog.LevelInfo }
func (h askingHandler) Handle(_ context.Context, r slog.Record) error { h.ask(r.Message); return nil }
func (h askingHandler) WithAttrs([]slog.Attr) slog.Handler            { return h }
func (h askingHandler) WithGroup(string) slog.Handler                 { return h }
