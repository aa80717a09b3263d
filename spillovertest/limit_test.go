package spillovertest

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A step is a request to a limiter at a time, and its result.
type step struct {
	at     time.Duration
	want   demand
	ok     bool
	by     cause
	wait   time.Duration
	used   float64 // utilization afterwards
	settle int     // output with which the request ends at once; -1: not yet
	cost   float64
}

func TestLimiters(t *testing.T) {
	tests := []struct {
		name  string
		limit Limit
		steps []step
	}{
		{"tokens go into debt and come back", PAYG{TPM: 60_000, RPM: 6000}, []step{
			{want: demand{prompt: 30_000}, ok: true, used: .5, settle: -1},
			{want: demand{prompt: 10_000, max: 40_000}, ok: true, used: 80. / 60, settle: 7, cost: 50_000},
			{at: 1 * time.Second, want: demand{prompt: 1}, by: byTokens, wait: 19*time.Second + 1, used: 79. / 60},
			{at: 20 * time.Second, want: demand{prompt: 1}, by: byTokens, wait: 1, used: 1},
			{at: 21 * time.Second, want: demand{prompt: 2000}, ok: true, used: 61. / 60, settle: -1},
			{at: 20 * time.Minute, want: demand{}, ok: true, used: 0, settle: -1},
		}},
		{"output is paid when it is written, without a maximum", PAYG{TPM: 60_000}, []step{
			{want: demand{prompt: 6000}, ok: true, used: .3, settle: 12_000, cost: 18_000},
		}},
		{"only the prompt", PAYG{TPM: 60_000, PromptOnly: true}, []step{
			{want: demand{prompt: 6000, max: 50_000}, ok: true, used: .1, settle: 50_000, cost: 6000},
			{want: demand{prompt: 6000}, ok: true, used: .2, settle: 50_000, cost: 6000},
		}},
		{"requests in windows of ten seconds", PAYG{RPM: 12}, []step{
			{at: 3 * time.Second, ok: true, settle: -1},
			{at: 4 * time.Second, ok: true, settle: -1},
			{at: 5 * time.Second, by: byRequests, wait: 8 * time.Second},
			{at: 13*time.Second - 1, by: byRequests, wait: 1},
			{at: 13 * time.Second, ok: true, settle: -1},
		}},
		{"a sixth of the requests, rounded up", PAYG{TPM: 1000, RPM: 7}, []step{
			{ok: true, settle: -1}, {ok: true, settle: -1}, {by: byRequests, wait: 10 * time.Second},
		}},
		{"six requests for a thousand tokens", PAYG{TPM: 2000}, []step{
			{ok: true, settle: -1}, {ok: true, settle: -1}, {by: byRequests, wait: 10 * time.Second},
		}},
		{"few tokens are some requests", PAYG{TPM: 10}, []step{
			{ok: true, settle: -1}, {by: byRequests, wait: 10 * time.Second},
		}},
		{"refused requests do not count", PAYG{TPM: 60, RPM: 12}, []step{
			{want: demand{prompt: 64}, ok: true, used: 64. / 60, settle: -1},
			{by: byTokens, wait: 4*time.Second + 1, used: 64. / 60},
			{at: 5 * time.Second, ok: true, used: 59. / 60, settle: -1},
		}},
		{"refused requests count", PAYG{TPM: 60, RPM: 12, CountRefused: true}, []step{
			{want: demand{prompt: 64}, ok: true, used: 64. / 60, settle: -1},
			{by: byTokens, wait: 4*time.Second + 1, used: 64. / 60},
			{at: 5 * time.Second, by: byRequests, wait: 5 * time.Second, used: 59. / 60},
		}},
		{"the last minute", PAYG{TPM: 6000, RPM: 600, Window: Sliding}, []step{
			{want: demand{prompt: 1000, max: 2000}, ok: true, used: .5, settle: 5, cost: 3000},
			{at: 10 * time.Second, want: demand{prompt: 2000}, ok: true, used: 5. / 6, settle: -1},
			{at: 20 * time.Second, want: demand{prompt: 1000}, ok: true, used: 1, settle: -1},
			{at: 30 * time.Second, want: demand{prompt: 3000}, by: byTokens, wait: 30 * time.Second, used: 1},
			{at: 30 * time.Second, want: demand{prompt: 3001}, by: byTokens, wait: 40 * time.Second, used: 1},
			{at: 30 * time.Second, want: demand{prompt: 9000}, by: byTokens, wait: 50 * time.Second, used: 1},
			{at: 60 * time.Second, want: demand{prompt: 3000}, ok: true, used: 1, settle: -1},
			{at: 120 * time.Second, want: demand{prompt: 9000}, ok: true, used: 1.5, settle: -1}, // fits into no minute
		}},
		{"the last ten seconds", PAYG{RPM: 12, Window: Sliding}, []step{
			{ok: true, settle: -1},
			{at: 9 * time.Second, ok: true, settle: -1},
			{at: 9 * time.Second, by: byRequests, wait: time.Second},
			{at: 10 * time.Second, ok: true, settle: -1},
			{at: 18 * time.Second, by: byRequests, wait: time.Second},
		}},
		{"the last ten seconds, refused requests count", PAYG{RPM: 12, CountRefused: true, Window: Sliding}, []step{
			{ok: true, settle: -1}, {ok: true, settle: -1},
			{at: 9 * time.Second, by: byRequests, wait: time.Second},
			{at: 10 * time.Second, ok: true, settle: -1},
			{at: 11 * time.Second, by: byRequests, wait: 8 * time.Second},
		}},
		{"a minute from its first request", PAYG{TPM: 6000, RPM: 600, Window: Fixed}, []step{
			{at: 7 * time.Second, want: demand{prompt: 4000}, ok: true, used: 2. / 3, settle: -1},
			{at: 50 * time.Second, want: demand{prompt: 2001}, by: byTokens, wait: 17 * time.Second, used: 2. / 3},
			{at: 50 * time.Second, want: demand{prompt: 2000}, ok: true, used: 1, settle: -1},
			{at: 67 * time.Second, want: demand{prompt: 6000}, ok: true, used: 1, settle: -1},
			{at: 2 * time.Hour, want: demand{prompt: 9000}, ok: true, used: 1.5, settle: -1},
			{at: 3 * time.Hour, ok: true, used: .5, settle: 3000, cost: 3000},
			{at: 3 * time.Hour, want: demand{prompt: 3001}, by: byTokens, wait: time.Minute, used: .5},
		}},

		{"no limits at all", PAYG{}, []step{{want: demand{prompt: 1e9}, ok: true, settle: 1, cost: 1e9 + 1}}},

		{"utilization above 100 % refuses", PTU{TPM: 6000}, []step{ // 2000 tokens are 100 %
			{want: demand{prompt: 500, max: 500}, ok: true, used: 1, settle: -1},
			{want: demand{prompt: 500, max: 500}, ok: true, used: 2, settle: -1},
			{at: time.Second, by: byThroughput, wait: 19 * time.Second, used: 1.95},
			{at: 20 * time.Second, want: demand{prompt: 20}, ok: true, used: 1.394, settle: -1},
			{at: time.Hour, ok: true, used: .384, settle: -1},
		}},
		{"corrected to what was written", PTU{TPM: 6000, OutputRatio: 8, Burst: 10 * time.Second, Guess: 100}, []step{
			{want: demand{prompt: 100}, ok: true, used: .18, settle: 10, cost: 180},
			{want: demand{prompt: 20, max: 1000}, ok: true, used: .2, settle: 0, cost: 20},
		}},
		{"a late correction takes nothing from later load", PTU{TPM: 6000}, []step{
			{want: demand{max: 1000}, ok: true, used: 1.5, settle: -1},
			{at: time.Hour, want: demand{max: 1}, ok: true, used: .0015, settle: -1},
		}},
		{"no capacity given", PTU{}, []step{{want: demand{prompt: 1e9}, ok: true, settle: 1, cost: 1e9 + 3}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := tt.limit.start()
			for i, s := range tt.steps {
				now := epoch.Add(s.at)
				no, ok := l.admit(now, s.want)
				require.Equal(t, s.ok, ok, "step %d: %+v", i, no)
				if !ok {
					require.Equal(t, s.by, no.by, "step %d", i)
					require.Equal(t, s.wait, no.wait, "step %d", i)
				} else if s.settle >= 0 {
					require.Equal(t, s.cost, l.settle(now, s.want, s.settle), "step %d", i)
				}
				require.InDelta(t, s.used, l.utilization(now), 1e-6, "step %d", i)
			}
		})
	}
}

// The wait of a refusal is exact: a request is refused until then and admitted from then on.
func TestRefusalsAreExact(t *testing.T) {
	for _, limit := range []Limit{
		PAYG{TPM: 333_333, RPM: 1e6}, PAYG{RPM: 6}, PTU{TPM: 7777},
		PAYG{TPM: 333_333, RPM: 6e6, Window: Sliding}, PAYG{TPM: 333_333, RPM: 6e6, Window: Fixed},
	} {
		l := limit.start()
		now := epoch
		for range 100 {
			no, ok := l.admit(now, demand{prompt: 98_765, max: 1234})
			if ok {
				continue
			}
			_, early := l.admit(now.Add(no.wait-1), demand{prompt: 98_765, max: 1234})
			require.False(t, early, "%+v", limit)
			now = now.Add(no.wait)
			_, ok = l.admit(now, demand{prompt: 98_765, max: 1234})
			require.True(t, ok, "%+v after %v", limit, no.wait)
		}
	}
}

func TestLimitHeaders(t *testing.T) {
	l := PAYG{TPM: 333_000, RPM: 100}.start()
	l.admit(epoch, demand{prompt: 360_689})
	// Captured from Azure in August 2026, except for the requests.
	h := http.Header{}
	l.header(epoch, Azure, h)
	require.Equal(t, http.Header{
		"X-Ratelimit-Limit-Tokens": {"333000"}, "X-Ratelimit-Remaining-Tokens": {"-27689"},
		"X-Ratelimit-Reset-Tokens": {"64"}, "X-Ratelimit-Renewalperiod-Tokens": {"60"},
		"X-Ratelimit-Limit-Requests": {"17"}, "X-Ratelimit-Remaining-Requests": {"16"},
		"X-Ratelimit-Reset-Requests": {"10"}, "X-Ratelimit-Renewalperiod-Requests": {"10"},
	}, h)

	h = http.Header{}
	l.header(epoch.Add(2500*time.Millisecond), OpenAI, h)
	require.Equal(t, http.Header{
		"X-Ratelimit-Limit-Tokens": {"333000"}, "X-Ratelimit-Remaining-Tokens": {"0"},
		"X-Ratelimit-Reset-Tokens": {"1m2.489s"}, "X-Ratelimit-Limit-Requests": {"100"},
		"X-Ratelimit-Remaining-Requests": {"16"}, "X-Ratelimit-Reset-Requests": {"7.5s"},
	}, h)

	for _, quiet := range []Limit{PAYG{TPM: 1, HideLimits: true}, PTU{TPM: 1, HideUtilization: true}, PAYG{}} {
		h = http.Header{}
		quiet.start().header(epoch, Azure, h)
		require.Empty(t, h)
	}

	l = PTU{TPM: 6000}.start()
	l.admit(epoch, demand{prompt: 1786})
	l.settle(epoch, demand{prompt: 1786}, 0)
	h = http.Header{}
	l.header(epoch, Azure, h)
	require.Equal(t, http.Header{"Azure-Openai-Deployment-Utilization": {"89.3%"}}, h)
}

// The headers report the current window. With StaleLimits they are up to that much older.
func TestWindowHeaders(t *testing.T) {
	want := http.Header{
		"X-Ratelimit-Limit-Tokens": {"6000"}, "X-Ratelimit-Remaining-Tokens": {"2000"},
		"X-Ratelimit-Reset-Tokens": {"55"}, "X-Ratelimit-Renewalperiod-Tokens": {"60"},
		"X-Ratelimit-Limit-Requests": {"10"}, "X-Ratelimit-Remaining-Requests": {"9"},
		"X-Ratelimit-Reset-Requests": {"5"}, "X-Ratelimit-Renewalperiod-Requests": {"10"},
	}
	tell := func(l limiter, at time.Duration) http.Header {
		h := http.Header{}
		l.header(epoch.Add(at), Azure, h)
		return h
	}
	for _, w := range []Window{Sliding, Fixed} {
		l := PAYG{TPM: 6000, RPM: 60, Window: w}.start()
		l.admit(epoch, demand{prompt: 4000})
		require.Equal(t, want, tell(l, 5*time.Second))
		require.Equal(t, []string{"0"}, tell(l, time.Hour)["X-Ratelimit-Reset-Tokens"])
		require.Equal(t, []string{"6000"}, tell(l, time.Hour)["X-Ratelimit-Remaining-Tokens"])
	}
	l := PAYG{TPM: 6000, RPM: 60, Window: Sliding, StaleLimits: 10 * time.Second}.start()
	l.admit(epoch, demand{prompt: 4000})
	require.Equal(t, want, tell(l, 5*time.Second))
	l.admit(epoch.Add(6*time.Second), demand{prompt: 1000})
	require.Equal(t, want, tell(l, 15*time.Second-1))
	require.Equal(t, []string{"1000"}, tell(l, 15*time.Second)["X-Ratelimit-Remaining-Tokens"])
}

func TestCeil(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 1999 * time.Millisecond: 2,
	} {
		require.Equal(t, want, ceil(d, time.Second), d)
	}
}
