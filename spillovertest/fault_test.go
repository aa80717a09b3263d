package spillovertest_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

func TestScriptIsPlayedInOrder(t *testing.T) {
	everywhere(t, none, func(t *testing.T, s *spillovertest.Server) {
		s.Set(
			spillovertest.Fault{Status: 429, Times: 2},
			spillovertest.Fault{Status: 500, Deployment: "other"},
			spillovertest.Fault{Status: 503, Times: 1, Match: func(r *http.Request) bool {
				b, err := io.ReadAll(r.Body)
				return err == nil && strings.Contains(string(b), "Hello") && r.Header.Get("Authorization") == ""
			}},
		)
		other := strings.Replace(azurePath, "gpt", "other", 1)
		var got []int
		for _, path := range []string{azurePath, azurePath, other, azurePath, azurePath, other} {
			status, _, _ := get(t, s, path, hello)
			got = append(got, status)
		}
		require.Equal(t, []int{429, 429, 500, 503, 200, 500}, got)
		s.Heal()
		status, _, _ := get(t, s, other, hello)
		require.Equal(t, 200, status)
		require.Equal(t, 5, s.Stats().Failed)
	})
}

// Faults precede credentials, paths and limits, and charge nothing.
func TestFaultsComeFirst(t *testing.T) {
	s := spillovertest.New(in(openai, payg))
	s.Set(spillovertest.Fault{Status: 418})
	for _, path := range []string{openaiPath, openaiPath, "/nowhere"} {
		status, _, _ := get(t, s, path, "{")
		require.Equal(t, 418, status)
	}
	require.Zero(t, s.Stats().PromptTokens)
}

// A refusal by a fault has the headers of the limit if Limits is set. Header takes
// precedence.
func TestFaultTellsLimits(t *testing.T) {
	s := spillovertest.New(spillovertest.Config{Deployments: deployment(spillovertest.PAYG{TPM: 1000}, spillovertest.Latency{})})
	fault := spillovertest.Fault{Status: 429, Header: http.Header{"X-Ratelimit-Reset-Tokens": {"7"}}}
	for _, tells := range []bool{false, true} {
		fault.Limits = tells
		s.Set(fault)
		_, h, _ := get(t, s, azurePath, hello)
		require.Equal(t, tells, h.Get("X-Ratelimit-Remaining-Tokens") == "1000")
		require.Equal(t, tells, h.Get("X-Ratelimit-Limit-Requests") != "")
		require.Equal(t, "7", h.Get("X-Ratelimit-Reset-Tokens"))
		_, h, _ = get(t, s, strings.Replace(azurePath, "gpt", "other", 1), hello) // that nobody has deployed
		require.Empty(t, h.Get("X-Ratelimit-Remaining-Tokens"))
	}
}

func TestBadFaultPanics(t *testing.T) {
	s := spillovertest.New(spillovertest.Config{})
	for _, f := range []spillovertest.Fault{
		{}, {Status: 99}, {Status: 600}, {Kind: -1}, {Kind: 99}, {Status: 500, Times: -1},
		{Kind: spillovertest.KindSlow, Delay: -1}, {Kind: spillovertest.KindCut, After: -1}, {Slower: -1},
	} {
		require.Panics(t, func() { s.Set(f) }, "%+v", f)
	}
}

// Set copies the faults.
func TestSetCopiesHeader(t *testing.T) {
	s := spillovertest.New(spillovertest.Config{})
	h := http.Header{"X": {"1"}}
	s.Set(spillovertest.Fault{Status: 500, Header: h})
	h.Set("X", "2")
	_, got, _ := get(t, s, azurePath, hello)
	require.Equal(t, "1", got.Get("X"))
	got["X"][0] = "3"
	_, got, _ = get(t, s, azurePath, hello)
	require.Equal(t, "1", got.Get("X"))
}

func TestDelay(t *testing.T) {
	cfg := spillovertest.Config{Deployments: deployment(nil, slow)}
	tests := []struct {
		name  string
		fault spillovertest.Fault
		body  string
		want  time.Duration
		ok    bool
	}{
		{"slow", spillovertest.Fault{Kind: spillovertest.KindSlow, Delay: time.Second}, hello, 1550 * ms, true},
		{"only a delay", spillovertest.Fault{Delay: time.Second}, helloSSE, 1200 * ms, true},
		{"five times slower", spillovertest.Fault{Slower: 5}, hello, 2750 * ms, true},
		{"slower and a delay", spillovertest.Fault{Slower: 2, Delay: time.Second}, helloSSE, 1400 * ms, true},
		{"slow answer", spillovertest.Fault{Status: 500, Delay: time.Second}, hello, time.Second, true},
		{"slow cut", spillovertest.Fault{Kind: spillovertest.KindCut, Delay: time.Second}, helloSSE, 1200 * ms, true},
		{"slow reset", spillovertest.Fault{Kind: spillovertest.KindReset, Delay: time.Second}, hello, time.Second, false},
		{"slow refusal", spillovertest.Fault{Kind: spillovertest.KindRefuse, Delay: time.Second}, hello, time.Second, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
				s.Set(tt.fault)
				since := stopwatch()
				res, err := post(t, s, azurePath, tt.body)
				require.Equal(t, tt.want, since())
				require.Equal(t, tt.ok, err == nil)
				if err == nil {
					res.Body.Close()
				}
			})
		})
	}
}

func TestDialErrors(t *testing.T) {
	for kind, want := range map[spillovertest.Kind]struct {
		op    string
		errno syscall.Errno
		seen  int
	}{
		spillovertest.KindRefuse: {"dial", syscall.ECONNREFUSED, 0},
		spillovertest.KindReset:  {"read", syscall.ECONNRESET, 1},
	} {
		s := spillovertest.New(spillovertest.Config{})
		s.Set(spillovertest.Fault{Kind: kind})
		_, err := post(t, s, azurePath, hello)
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Equal(t, want.op, op.Op)
		require.ErrorIs(t, err, want.errno)
		require.Equal(t, want.seen, s.Stats().Requests)
		require.Equal(t, want.seen, s.Stats().Failed)
		require.Len(t, s.Requests(), want.seen)
	}
}

// A cut or a stall happens when the next token is due.
func TestStreamFaultsInTime(t *testing.T) {
	for kind, want := range map[spillovertest.Kind]error{
		spillovertest.KindCut:   io.ErrUnexpectedEOF,
		spillovertest.KindStall: context.DeadlineExceeded,
		spillovertest.KindError: io.EOF,
	} {
		cfg := spillovertest.Config{Deployments: deployment(nil, slow)}
		virtual(t, cfg, func(t *testing.T, s *spillovertest.Server) {
			s.Set(spillovertest.Fault{Kind: kind, After: 2})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			since := stopwatch()
			res, err := s.RoundTrip(request(t, ctx, "POST", s.URL+azurePath, helloSSE))
			require.NoError(t, err)
			at, err := contents(t, res, since)
			require.Equal(t, want, err)
			require.Equal(t, []time.Duration{400 * ms, 450 * ms}, at)
			if kind == spillovertest.KindStall {
				require.Equal(t, time.Minute, since())
			} else {
				require.Equal(t, 500*ms, since())
			}
			require.Equal(t, 1, s.Stats().Failed)
		})
	}
}

func TestSilentInTime(t *testing.T) {
	virtual(t, none, func(t *testing.T, s *spillovertest.Server) {
		s.Set(spillovertest.Fault{Kind: spillovertest.KindSilent})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		since := stopwatch()
		_, err := s.RoundTrip(request(t, ctx, "POST", s.URL+azurePath, hello))
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, time.Hour, since())
		require.Equal(t, 1, s.Stats().Failed)
	})
}
