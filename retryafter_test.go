package spillover_test

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

// byHand answers with a header whose names are not canonical.
func byHand(code int, h http.Header, body string) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := status(code, body)(req)
		resp.Header = h.Clone()
		return resp, err
	}
}

const defaultWait = 10 * time.Second

const longestWait = 60 * time.Second

// spilling is a deployment with a spare behind it, which always answers.
func spilling(t testing.TB, n *fakeNet, answers ...roundTripFunc) *spillover.Transport {
	n.On(host("a"), answers...)
	return configured(t, spillover.Config{
		Base: n, Backends: []spillover.Backend{azure("a"), azure("spare", priority(2))},
		DefaultCooldown: defaultWait, MaxCooldown: longestWait,
	})
}

func TestRetryAfterIsReadFromHeadersAndMessage(t *testing.T) {
	message := func(text string) string { return `{"error":{"message":"` + text + `","code":"429"}}` }
	const digits = "9999999999999999999999999"
	// A bubble's clock begins here.
	date := func(d time.Duration) string {
		return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Format(http.TimeFormat)
	}
	for _, c := range []struct {
		name   string
		header []string
		body   string
		want   time.Duration
	}{
		{"no header", nil, "", defaultWait},
		{"retry-after-ms", []string{"retry-after-ms: 1500"}, "", 1500 * time.Millisecond},
		{"retry-after-ms comes before Retry-After", []string{"retry-after-ms: 2000", "Retry-After: 30"}, "", 2 * time.Second},
		{"seconds", []string{"Retry-After: 5"}, "", 5 * time.Second},
		{"fraction of a second", []string{"Retry-After: 1.5"}, "", 1500 * time.Millisecond},
		{"no number", []string{"Retry-After: garbage"}, "", defaultWait},
		{"milliseconds beyond the maximum", []string{"retry-after-ms: 999999999"}, "", longestWait},
		{"negative milliseconds", []string{"retry-after-ms: -100"}, "", defaultWait},
		{"negative seconds", []string{"Retry-After: -5"}, "", defaultWait},
		{"zero milliseconds", []string{"retry-after-ms: 0"}, "", defaultWait}, // a zero falls through
		{"zero milliseconds and positive seconds", []string{"retry-after-ms: 0.0", "Retry-After: 4"}, "", 4 * time.Second},
		{"seconds beyond the maximum", []string{"Retry-After: 9999999999"}, "", longestWait},
		{"seconds, largest int64", []string{"Retry-After: 9223372036854775807"}, "", longestWait},
		{"seconds, 25 digits", []string{"Retry-After: " + digits}, "", longestWait},
		{"seconds, 400 digits", []string{"Retry-After: " + strings.Repeat("9", 400)}, "", longestWait},
		{"milliseconds, 16 digits", []string{"retry-after-ms: 9999999999999999"}, "", longestWait},
		{"milliseconds, 25 digits", []string{"retry-after-ms: " + digits}, "", longestWait},
		{"negative seconds, 25 digits", []string{"Retry-After: -" + digits}, "", defaultWait},
		{"negative milliseconds, 25 digits", []string{"retry-after-ms: -" + digits}, "", defaultWait},
		{"NaN, Inf and hexadecimal", []string{"retry-after-ms: NaN", "Retry-After: Inf", "x-ms-retry-after-ms: 0x10"}, "", defaultWait},
		{"exactly the maximum", []string{"Retry-After: 60"}, "", longestWait},
		{"a second beyond the maximum", []string{"Retry-After: 61"}, "", longestWait},
		{"past date", []string{"Retry-After: " + date(-24*time.Hour)}, "", defaultWait},
		{"date", []string{"Retry-After: " + date(10*time.Second)}, "", 10 * time.Second},
		{"date beyond the maximum", []string{"Retry-After: " + date(24*time.Hour)}, "", longestWait},
		{"date by the sender's clock", []string{"Retry-After: " + date(90*time.Second), "Date: " + date(60*time.Second)}, "", 30 * time.Second},
		{"date of RFC 850", []string{"Retry-After: Saturday, 01-Jan-00 00:00:20 GMT"}, "", 20 * time.Second},
		{"date of asctime", []string{"Retry-After: Sat Jan  1 00:00:20 2000"}, "", 20 * time.Second},
		{"a day", []string{"Retry-After: 86400"}, "", longestWait},
		{"reset of requests", []string{"x-ratelimit-reset-requests: 1s"}, "", time.Second},
		{"reset of tokens beyond the maximum", []string{"x-ratelimit-reset-tokens: 6m0s"}, "", longestWait},
		{"reset in milliseconds", []string{"x-ratelimit-reset-requests: 12ms"}, "", 12 * time.Millisecond},
		{"reset without a unit", []string{"x-ratelimit-reset-tokens: 33"}, "", 33 * time.Second},
		{"reset beyond the renewal period", []string{"x-ratelimit-reset-tokens: 33", "x-ratelimit-renewalperiod-tokens: 10"}, "", 10 * time.Second},
		{"reset of exhausted tokens", []string{"x-ratelimit-reset-requests: 7", "x-ratelimit-reset-tokens: 33", "x-ratelimit-remaining-requests: 5", "x-ratelimit-remaining-tokens: 0"}, "", 33 * time.Second},
		{"reset of exhausted requests", []string{"x-ratelimit-reset-requests: 7", "x-ratelimit-reset-tokens: 33", "x-ratelimit-remaining-requests: 0", "x-ratelimit-remaining-tokens: 100"}, "", 7 * time.Second},
		{"limit of -1", []string{"x-ratelimit-limit-tokens: -1", "x-ratelimit-remaining-tokens: -1", "x-ratelimit-reset-tokens: 0"}, "", defaultWait},
		{"limit of -1 with a reset", []string{"x-ratelimit-limit-tokens: -1", "x-ratelimit-remaining-tokens: -1", "x-ratelimit-reset-tokens: 59"}, "", defaultWait},
		{"reset in another spelling", []string{"x-rate-limit-reset-tokens: 55"}, "", 55 * time.Second},
		{"message of Azure", nil, message("You are over the limit. Please retry after 45 seconds."), 45 * time.Second},
		{"header comes before the message", []string{"Retry-After: 3"}, message("Please retry after 45 seconds."), 3 * time.Second},
		{"message of API Management", nil, message("Rate limit is exceeded. Try again in 50 seconds."), 50 * time.Second},
		{"message in milliseconds", nil, message("Please try again in 44ms."), 44 * time.Millisecond},
		{"message in fractions of a second", nil, message("Please try again in 18.642s."), 18642 * time.Millisecond},
		{"message in minutes and seconds", nil, message("Please try again in 1m2.5s."), longestWait},
		{"message in words", nil, message("Please wait 1 minute before retrying."), longestWait},
		{"message without a time", nil, message("You can retry your request. See https://aka.ms/45s"), defaultWait},
		{"message beyond the maximum", nil, message("try again in " + digits + " hours"), longestWait},
		{"spaces", []string{"Retry-After:   7  "}, "", 7 * time.Second},
		{"two headers", []string{"Retry-After: soon", "Retry-After: 8"}, "", 8 * time.Second},
		{"two values in a header", []string{"Retry-After: 5, 30"}, "", 30 * time.Second},
		{"two values in a header, the longer first", []string{"Retry-After: 30, 5"}, "", 30 * time.Second},
		{"zero seconds", []string{"Retry-After: 0"}, "", defaultWait}, // a zero is unusable
		{"zero milliseconds behind positive seconds", []string{"Retry-After: 1", "Retry-After-Ms: 0"}, "", time.Second},
		{"second choice", []string{"x-ms-retry-after-ms: 2500", "Retry-After: 3"}, "", 2500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				tr := spilling(t, n, status(429, c.body, c.header...), status(200, "{}"))
				resp, _ := ask(t, tr)
				require.Equal(t, "spare", servedBy(resp))
				require.Equal(t, c.want, left(t, tr, "a"))

				time.Sleep(c.want - 1)
				resp, _ = ask(t, tr)
				require.Equal(t, "spare", servedBy(resp), "too early")
				time.Sleep(1)
				resp, _ = ask(t, tr)
				require.Equal(t, "a", servedBy(resp), "in time")
				require.Zero(t, statusOf(t, tr, "a").Failed, "a throttle is no failure")
			})
		})
	}
}

func TestLaterOfTwoThrottleTimesCounts(t *testing.T) {
	for name, c := range map[string]struct {
		early, late string
		want        time.Duration // after 3 s
	}{
		"a shorter time after a longer": {"30", "5", 27 * time.Second},
		"a longer time after a shorter": {"5", "30", 29 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slow := func(req *http.Request) (*http.Response, error) {
					time.Sleep(2 * time.Second)
					return status(429, "", "Retry-After: "+c.late)(req)
				}
				tr := spilling(t, newNet(), slow, status(429, "", "Retry-After: "+c.early))
				done := make(chan struct{})
				go func() {
					defer close(done)
					ask(t, tr)
				}()
				synctest.Wait()
				ask(t, tr)
				time.Sleep(3 * time.Second)
				<-done
				require.InDelta(t, c.want, left(t, tr, "a"), float64(longestTrip), "but for what two refusals teach")
			})
		})
	}
}

func TestServerErrorWithRetryAfterThrottles(t *testing.T) {
	for _, code := range []int{500, 502, 503, 504, 529} {
		synctest.Test(t, func(t *testing.T) {
			tr := spilling(t, newNet(), status(code, "", "Retry-After: 20"))
			resp, _ := ask(t, tr)
			require.Equal(t, "spare", servedBy(resp))
			require.Equal(t, 20*time.Second, left(t, tr, "a"), code)
		})
	}
}

func TestServerErrorWithoutRetryAfterIsForgivenOnce(t *testing.T) {
	for _, code := range []int{500, 502, 503, 504, 529} {
		synctest.Test(t, func(t *testing.T) {
			tr := spilling(t, newNet(), status(code, ""))
			ask(t, tr)
			require.Zero(t, left(t, tr, "a"), "one is forgiven")
			ask(t, tr)
			require.InDelta(t, time.Second, left(t, tr, "a"), float64(200*time.Millisecond), code)
			sends := 3 // the first request is sent there twice, which counts once
			if code == 504 {
				sends = 2
			}
			require.EqualValues(t, sends, statusOf(t, tr, "a").Failed)
		})
	}
}

// A reset tells when a limit is full again: of anything but a 429 it says nothing.
func TestResetHeaderOfAServerErrorIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := spilling(t, newNet(), status(503, `{"error":{"message":"Please retry after 45 seconds."}}`, "x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 33s"))
		ask(t, tr)
		require.Zero(t, left(t, tr, "a"))
	})
}

func TestRetryAfterHeaderNameIsCaseInsensitive(t *testing.T) {
	for _, name := range []string{"RETRY-AFTER-MS", "retry-after-ms", "rEtRy-aFtEr-mS"} {
		synctest.Test(t, func(t *testing.T) {
			tr := spilling(t, newNet(), byHand(429, http.Header{name: {" 700 "}}, ""))
			ask(t, tr)
			require.Equal(t, 700*time.Millisecond, left(t, tr, "a"), name)
		})
	}
}

func TestCapturedAnswersAreClassified(t *testing.T) {
	t.Parallel()
	const unknown, most = 12345 * time.Second, 1000 * time.Hour
	for _, c := range testnet.Captures(t) {
		header := http.Header{}
		for name, value := range c.Headers {
			header.Set(name, value)
		}
		asIs := http.Header{}
		for name, value := range c.Headers {
			asIs[name] = []string{value}
		}
		for kind, h := range map[string]http.Header{"canonical": header, "as it is": asIs} {
			t.Run(c.ID+"/"+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(time.Until(time.Date(2026, 10, 21, 7, 28, 0, 0, time.UTC)))
					n := newNet()
					n.On(host("a"), byHand(c.Status, h, c.Streamed()))
					tr := configured(t, spillover.Config{
						Base: n, Backends: []spillover.Backend{azure("a"), azure("spare", priority(2))},
						DefaultCooldown: unknown, MaxCooldown: most,
					})
					resp, _ := ask(t, tr)
					got, wait := statusOf(t, tr, "a"), left(t, tr, "a")
					switch c.Class {
					case "ok", "spillover_ok", "client_error":
						require.Equal(t, "a", servedBy(resp))
						require.Equal(t, c.Status, resp.StatusCode)
						require.True(t, got.Available)
						return
					}
					require.Equal(t, "spare", servedBy(resp))
					require.Equal(t, 200, resp.StatusCode)
					switch c.Class {
					case "timeout", "request_too_large":
						require.True(t, got.Available)
						require.Zero(t, got.Throttled+got.Failed)
					case "quota_exhausted":
						require.InDelta(t, 5*time.Minute, wait, float64(time.Minute))
						require.EqualValues(t, 1, got.Failed)
					case "auth", "not_found":
						require.InDelta(t, 5*time.Second, wait, float64(time.Second))
						require.EqualValues(t, 1, got.Failed)
						require.Zero(t, got.Throttled)
					default:
						require.True(t, c.Accepts(wait, unknown, most), "%v", wait)
						if c.Status == 429 {
							require.EqualValues(t, 1, got.Throttled)
							require.Zero(t, got.Failed)
						}
					}
				})
			})
		}
	}
}

func TestThrottleLastsAsLongAsTheHeaderSays(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		n.On(host("a"), status(429, "{}", "retry-after-ms: 20"))
		ask(t, tr)
		require.Equal(t, 20*time.Millisecond, left(t, tr, "a"))
	})
}

func TestUnusableRetryAfterFallsBackToTheDefault(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"soon": 10, "1e400": 60, "NaN": 10, "0x10": 10, "-3": 10, "2.5": 2500, "99999999999999999999": 60, "": 10, "1h": 10, "3, 4": 4,
	} {
		inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
			n.On(host("a"), status(429, "{}", "Retry-After: "+value))
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
			if want < 1000 {
				want *= 1000
			}
			require.Equal(t, want*time.Millisecond, left(t, tr, "a"), value)
		})
	}
}

func TestResetOfTheExhaustedDimensionIsUsed(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		n.On(host("a"), status(429, "{}", "x-ratelimit-remaining-requests: 9", "x-ratelimit-reset-requests: 1s",
			"x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 7s"))
		ask(t, tr)
		require.Equal(t, 7*time.Second, left(t, tr, "a"))
	})
}

// Azure has said 86400.
func TestLongRetryAfterIsCapped(t *testing.T) {
	inTime(t, func(t *testing.T, n *fakeNet, tr *spillover.Transport) {
		n.On(host("a"), status(429, "{}", "Retry-After: 86400"))
		ask(t, tr)
		require.Equal(t, time.Minute, left(t, tr, "a"))
	})
}

func TestSynthesizedRetryAfterIsAlwaysPositive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "retry-after-ms: 10"), status(200, "{}"))
		tr := balance(t, n, azure("a"))
		resp, _ := ask(t, tr)
		require.Equal(t, "1", resp.Header.Get("Retry-After"))
		require.Equal(t, "10", resp.Header.Get("Retry-After-Ms"))
		time.Sleep(10*time.Millisecond - 1)
		resp, _ = ask(t, tr)
		require.Equal(t, "1", resp.Header.Get("Retry-After-Ms"))
		time.Sleep(1)
		resp, _ = ask(t, tr)
		require.Equal(t, 200, resp.StatusCode, "it is free again: nobody is refused")
	})
}

func TestShorterThrottleDoesNotReplaceALongerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		waits := []string{"30", "2"}
		n.On(host("a"), func(req *http.Request) (*http.Response, error) {
			i := len(n.Seen) - 1
			time.Sleep(time.Duration(1+i) * time.Second)
			return status(429, "{}", "Retry-After: "+waits[i])(req)
		})
		tr := balance(t, n, azure("a"))
		go func() { _, _ = tr.RoundTrip(newChat(t, chatPath)) }()
		synctest.Wait()
		ask(t, tr)
		require.Equal(t, 29*time.Second, left(t, tr, "a"))
	})
}

// dealt makes the choices of a Transport the same each time. The requests of
// such a test come one after the other.
func dealt(tr *spillover.Transport) *spillover.Transport {
	tr.SetRandom(rand.New(rand.NewPCG(1, 2)).Uint64)
	return tr
}

func TestThrottledDeploymentIsSkippedUntilRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "", "Retry-After: 5"), status(200, "{}"))
		tr := dealt(balance(t, n, azure("a"), azure("b")))
		for n.Sends(host("a")) == 0 {
			ask(t, tr)
		}
		for range 4 {
			time.Sleep(time.Second)
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
		}
		require.Equal(t, 1, n.Sends(host("a")))
		require.Zero(t, statusOf(t, tr, "a").Failed)
		require.EqualValues(t, 1, statusOf(t, tr, "a").Throttled)

		time.Sleep(2 * time.Second)
		for range 10 {
			ask(t, tr)
		}
		require.Greater(t, n.Sends(host("a")), 1)
	})
}

func TestLoadIsSharedAgainAfterAThrottleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "", "Retry-After: 1"), status(200, "{}"))
		tr := dealt(balance(t, n, azure("a"), azure("b")))
		for range 20 {
			ask(t, tr)
		}
		require.Equal(t, 1, n.Sends(host("a")))
		time.Sleep(time.Second)
		for range 1000 {
			ask(t, tr)
		}
		require.InDelta(t, 500, n.Sends(host("a")), 200)
	})
}

func TestMessageTimesInMinutesAndHoursAreRead(t *testing.T) {
	require.Equal(t, 62500*time.Millisecond, spillover.Prose([]byte("Please try again in 1m2.5s.")))
	require.Equal(t, time.Hour+2*time.Minute, spillover.Prose([]byte("retry after 1 hour 2 minutes")))
}

// The wall clock may be put back. A time that is compared by the monotonic one
// carries that reading, which Round(0) takes away.
func TestThrottleEndIsOnTheMonotonicClock(t *testing.T) {
	tr := spilling(t, newNet(), status(429, "", "Retry-After: 20"))
	ask(t, tr)
	until := statusOf(t, tr, "a").Until
	require.NotEqual(t, until.Round(0), until)
	require.False(t, spillover.DeploymentOf(t, tr, "a").Open(time.Now()))
}

// The wall clock is read: a step of it would shorten or stretch every wait.
func TestThrottleKeepsTheMonotonicClockReading(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "{}"))
	tr := balance(t, n, azure("a"))
	ask(t, tr)
	d := spillover.DeploymentOf(t, tr, "a")
	until, _, _ := d.Closed(time.Now())
	require.Contains(t, until.String(), " m=+", "a time with a reading of the monotonic clock")
}
