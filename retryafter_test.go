package spillover

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// at is what Status tells of a backend's deployment of the model m.
func at(t testing.TB, tr *Transport, backend string) DeploymentStatus {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			for _, d := range b.Deployments {
				if b.Name == backend && d.Model == "m" {
					return d
				}
			}
		}
	}
	t.Fatalf("there is no deployment of m at %s", backend)
	return DeploymentStatus{}
}

// left is how long that deployment is still left alone.
func left(t testing.TB, tr *Transport, backend string) time.Duration {
	if d := at(t, tr, backend); !d.Available {
		return time.Until(d.Until)
	}
	return 0
}

// dealt makes the choices of a Transport the same each time. The requests of
// such a test come one after the other.
func dealt(tr *Transport) *Transport {
	tr.random = rand.New(rand.NewPCG(1, 2)).Uint64
	return tr
}

// byHand answers with a header whose names are not canonical.
func byHand(code int, h http.Header, body string) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := status(code, body)(req)
		resp.Header = h.Clone()
		return resp, err
	}
}

const (
	defaultWait = 10 * time.Second
	longestWait = 60 * time.Second
)

// spilling is a deployment with a spare behind it, which always answers.
func spilling(t testing.TB, n *fakeNet, answers ...roundTripFunc) *Transport {
	n.on(host("a"), answers...)
	return configured(t, Config{
		Base: n, Backends: []Backend{azure("a"), azure("spare", priority(2))},
		DefaultCooldown: defaultWait, MaxCooldown: longestWait,
	})
}

func TestH(t *testing.T) {
	message := func(text string) string { return `{"error":{"message":"` + text + `","code":"429"}}` }
	const digits = "9999999999999999999999999"
	// A bubble's clock begins here.
	date := func(d time.Duration) string {
		return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Format(http.TimeFormat)
	}
	for _, c := range []struct {
		id     string
		header []string
		body   string
		want   time.Duration
	}{
		{"H1", nil, "", defaultWait},
		{"H2", []string{"retry-after-ms: 1500"}, "", 1500 * time.Millisecond},
		{"H3", []string{"retry-after-ms: 2000", "Retry-After: 30"}, "", 2 * time.Second},
		{"H4", []string{"Retry-After: 5"}, "", 5 * time.Second},
		{"H5", []string{"Retry-After: 1.5"}, "", 1500 * time.Millisecond},
		{"H6", []string{"Retry-After: garbage"}, "", defaultWait},
		{"H7", []string{"retry-after-ms: 999999999"}, "", longestWait},
		{"H8 ms", []string{"retry-after-ms: -100"}, "", defaultWait},
		{"H8 s", []string{"Retry-After: -5"}, "", defaultWait},
		{"H9", []string{"retry-after-ms: 0"}, "", defaultWait}, // a zero falls through
		{"H9 in another unit", []string{"retry-after-ms: 0.0", "Retry-After: 4"}, "", 4 * time.Second},
		{"H10", []string{"Retry-After: 9999999999"}, "", longestWait},
		{"H10 int64", []string{"Retry-After: 9223372036854775807"}, "", longestWait},
		{"H10 25 digits", []string{"Retry-After: " + digits}, "", longestWait},
		{"H10 400 digits", []string{"Retry-After: " + strings.Repeat("9", 400)}, "", longestWait},
		{"H11", []string{"retry-after-ms: 9999999999999999"}, "", longestWait},
		{"H11 25 digits", []string{"retry-after-ms: " + digits}, "", longestWait},
		{"H12 s", []string{"Retry-After: -" + digits}, "", defaultWait},
		{"H12 ms", []string{"retry-after-ms: -" + digits}, "", defaultWait},
		{"H12 words", []string{"retry-after-ms: NaN", "Retry-After: Inf", "x-ms-retry-after-ms: 0x10"}, "", defaultWait},
		{"H13", []string{"Retry-After: 60"}, "", longestWait},
		{"H13 more", []string{"Retry-After: 61"}, "", longestWait},
		{"H14 past", []string{"Retry-After: " + date(-24*time.Hour)}, "", defaultWait},
		{"H14 soon", []string{"Retry-After: " + date(10*time.Second)}, "", 10 * time.Second},
		{"H14 far", []string{"Retry-After: " + date(24*time.Hour)}, "", longestWait},
		{"H14 by its sender's clock", []string{"Retry-After: " + date(90*time.Second), "Date: " + date(60*time.Second)}, "", 30 * time.Second},
		{"H14 RFC 850", []string{"Retry-After: Saturday, 01-Jan-00 00:00:20 GMT"}, "", 20 * time.Second},
		{"H14 asctime", []string{"Retry-After: Sat Jan  1 00:00:20 2000"}, "", 20 * time.Second},
		{"H15", []string{"Retry-After: 86400"}, "", longestWait},
		{"H16", []string{"x-ratelimit-reset-requests: 1s"}, "", time.Second},
		{"H17", []string{"x-ratelimit-reset-tokens: 6m0s"}, "", longestWait},
		{"H18", []string{"x-ratelimit-reset-requests: 12ms"}, "", 12 * time.Millisecond},
		{"H19", []string{"x-ratelimit-reset-tokens: 33"}, "", 33 * time.Second},
		{"H19 beyond its renewal", []string{"x-ratelimit-reset-tokens: 33", "x-ratelimit-renewalperiod-tokens: 10"}, "", 10 * time.Second},
		{"H20", []string{"x-ratelimit-reset-requests: 7", "x-ratelimit-reset-tokens: 33", "x-ratelimit-remaining-requests: 5", "x-ratelimit-remaining-tokens: 0"}, "", 33 * time.Second},
		{"H21", []string{"x-ratelimit-reset-requests: 7", "x-ratelimit-reset-tokens: 33", "x-ratelimit-remaining-requests: 0", "x-ratelimit-remaining-tokens: 100"}, "", 7 * time.Second},
		{"H22", []string{"x-ratelimit-limit-tokens: -1", "x-ratelimit-remaining-tokens: -1", "x-ratelimit-reset-tokens: 0"}, "", defaultWait},
		{"H22 with a time", []string{"x-ratelimit-limit-tokens: -1", "x-ratelimit-remaining-tokens: -1", "x-ratelimit-reset-tokens: 59"}, "", defaultWait},
		{"H23", []string{"x-rate-limit-reset-tokens: 55"}, "", 55 * time.Second},
		{"H24", nil, message("You are over the limit. Please retry after 45 seconds."), 45 * time.Second},
		{"H24 behind a header", []string{"Retry-After: 3"}, message("Please retry after 45 seconds."), 3 * time.Second},
		{"H25", nil, message("Rate limit is exceeded. Try again in 50 seconds."), 50 * time.Second},
		{"H25 ms", nil, message("Please try again in 44ms."), 44 * time.Millisecond},
		{"H25 s", nil, message("Please try again in 18.642s."), 18642 * time.Millisecond},
		{"H25 min and s", nil, message("Please try again in 1m2.5s."), longestWait},
		{"H25 words", nil, message("Please wait 1 minute before retrying."), longestWait},
		{"H25 no time", nil, message("You can retry your request. See https://aka.ms/45s"), defaultWait},
		{"H25 too long", nil, message("try again in " + digits + " hours"), longestWait},
		{"H30 spaces", []string{"Retry-After:   7  "}, "", 7 * time.Second},
		{"H30 two values", []string{"Retry-After: soon", "Retry-After: 8"}, "", 8 * time.Second},
		{"H30 joined", []string{"Retry-After: 5, 30"}, "", 30 * time.Second},
		{"H35", []string{"Retry-After: 0"}, "", defaultWait}, // a zero is unusable
		{"H38", []string{"Retry-After: 1", "Retry-After-Ms: 0"}, "", time.Second},
		{"second choice", []string{"x-ms-retry-after-ms: 2500", "Retry-After: 3"}, "", 2500 * time.Millisecond},
	} {
		t.Run(c.id, func(t *testing.T) {
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
				require.Zero(t, at(t, tr, "a").Failed, "a throttle is no failure")
			})
		})
	}
}

func TestH25MinutesBelowTheMaximum(t *testing.T) {
	require.Equal(t, 62500*time.Millisecond, prose([]byte("Please try again in 1m2.5s.")))
	require.Equal(t, time.Hour+2*time.Minute, prose([]byte("retry after 1 hour 2 minutes")))
}

func TestH26H27(t *testing.T) {
	for id, c := range map[string]struct {
		early, late string
		want        time.Duration // after 3 s
	}{
		"H26": {"30", "5", 27 * time.Second},
		"H27": {"5", "30", 29 * time.Second},
	} {
		t.Run(id, func(t *testing.T) {
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
				require.InDelta(t, c.want, left(t, tr, "a"), float64(paceLongestTrip), "but for what two refusals teach")
			})
		})
	}
}

func TestH28(t *testing.T) {
	for _, code := range []int{500, 502, 503, 504, 529} {
		synctest.Test(t, func(t *testing.T) {
			tr := spilling(t, newNet(), status(code, "", "Retry-After: 20"))
			resp, _ := ask(t, tr)
			require.Equal(t, "spare", servedBy(resp))
			require.Equal(t, 20*time.Second, left(t, tr, "a"), code)
		})
	}
}

func TestH29(t *testing.T) {
	for _, code := range []int{500, 502, 503, 504, 529} {
		synctest.Test(t, func(t *testing.T) {
			tr := spilling(t, newNet(), status(code, ""))
			ask(t, tr)
			require.Zero(t, left(t, tr, "a"), "one is forgiven")
			ask(t, tr)
			require.InDelta(t, time.Second, left(t, tr, "a"), float64(200*time.Millisecond), code)
			require.EqualValues(t, 2, at(t, tr, "a").Failed)
		})
	}
}

// A reset tells when a limit is full again: of anything but a 429 it says nothing.
func TestH29ResetOfAnotherStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := spilling(t, newNet(), status(503, `{"error":{"message":"Please retry after 45 seconds."}}`, "x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 33s"))
		ask(t, tr)
		require.Zero(t, left(t, tr, "a"))
	})
}

func TestH30NameCase(t *testing.T) {
	for _, name := range []string{"RETRY-AFTER-MS", "retry-after-ms", "rEtRy-aFtEr-mS"} {
		synctest.Test(t, func(t *testing.T) {
			tr := spilling(t, newNet(), byHand(429, http.Header{name: {" 700 "}}, ""))
			ask(t, tr)
			require.Equal(t, 700*time.Millisecond, left(t, tr, "a"), name)
		})
	}
}

func TestH32(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), status(429, "", "Retry-After: 5"), status(200, "{}"))
		tr := dealt(balance(t, n, azure("a"), azure("b")))
		for n.sends(host("a")) == 0 {
			ask(t, tr)
		}
		for range 4 {
			time.Sleep(time.Second)
			resp, _ := ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
		}
		require.Equal(t, 1, n.sends(host("a")))
		require.Zero(t, at(t, tr, "a").Failed)
		require.EqualValues(t, 1, at(t, tr, "a").Throttled)

		time.Sleep(2 * time.Second)
		for range 10 {
			ask(t, tr)
		}
		require.Greater(t, n.sends(host("a")), 1)
	})
}

func TestH33(t *testing.T) {
	now := time.Now()
	var mark throttle
	mark.mark(now, 30*time.Second, 0, "first")
	was := mark
	for _, d := range []time.Duration{0, -time.Hour, 5 * time.Second} {
		mark.mark(now.Add(time.Second), d, 0, "later")
		require.Equal(t, was, mark)
	}
}

// The wall clock may be put back. A time that is compared by the monotonic one
// carries that reading, which Round(0) takes away.
func TestH34(t *testing.T) {
	tr := spilling(t, newNet(), status(429, "", "Retry-After: 20"))
	ask(t, tr)
	until := at(t, tr, "a").Until
	require.NotEqual(t, until.Round(0), until)
	require.False(t, tr.table().find("m").tiers[0].members[0].open(time.Now()))
}

func TestH36(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.on(host("a"), status(429, "", "Retry-After: 1"), status(200, "{}"))
		tr := dealt(balance(t, n, azure("a"), azure("b")))
		for range 20 {
			ask(t, tr)
		}
		require.Equal(t, 1, n.sends(host("a")))
		time.Sleep(time.Second)
		for range 1000 {
			ask(t, tr)
		}
		require.InDelta(t, 500, n.sends(host("a")), 200)
	})
}

// A capture is one of the answers seen in the wild, and what it means.
type capture struct {
	ID      string
	Status  int
	Headers map[string]string
	Body    string
	Class   string
	// Seconds; nil where the answer names no usable time.
	Expected   *float64   `json:"expected_cooldown_seconds"`
	AlsoAccept []*float64 `json:"also_accept"`
	AcceptMin  *float64   `json:"accept_min"`
}

func captures(t testing.TB) (all []capture) {
	text, err := os.ReadFile("testdata/headers.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &all))
	require.NotEmpty(t, all)
	return all
}

// streamed is the body of a captured stream as it came: the captures tell the
// event that matters in one line.
func (c capture) streamed() string {
	header := http.Header{}
	for name, value := range c.Headers {
		header.Set(name, value)
	}
	if !isStream(header) {
		return c.Body
	}
	_, event, found := strings.Cut(c.Body, `{"type":`)
	if !found {
		return "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n"
	}
	var data json.RawMessage
	_ = json.NewDecoder(strings.NewReader(`{"type":` + event)).Decode(&data)
	return "event: response.created\ndata: {\"type\":\"response.created\"}\n\nevent: error\ndata: " + string(data) + "\n\n"
}

func TestCorpus(t *testing.T) {
	t.Parallel()
	const unknown, most = 12345 * time.Second, 1000 * time.Hour
	for _, c := range captures(t) {
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
					n.on(host("a"), byHand(c.Status, h, c.streamed()))
					tr := configured(t, Config{
						Base: n, Backends: []Backend{azure("a"), azure("spare", priority(2))},
						DefaultCooldown: unknown, MaxCooldown: most,
					})
					resp, _ := ask(t, tr)
					got, wait := at(t, tr, "a"), left(t, tr, "a")
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
						require.True(t, c.accepts(wait, unknown, most), "%v", wait)
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

// accepts tells whether a cool-down is one of the right ones for a capture.
func (c capture) accepts(wait, unknown, most time.Duration) bool {
	if c.AcceptMin != nil && wait >= time.Duration(*c.AcceptMin*float64(time.Second)) {
		return true
	}
	for _, seconds := range append(c.AlsoAccept, c.Expected) {
		var right time.Duration
		switch {
		case seconds != nil && *seconds > 0:
			right = min(most, time.Duration(*seconds*float64(time.Second)))
		case c.Status == 429, c.Class == "throttled_200":
			right = unknown // neither "now" nor nothing is a time
		}
		if (wait - right).Abs() < time.Microsecond {
			return true
		}
	}
	return false
}
