package telemetry

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFailuresAreWarnedOfOnceAMinuteForEachReason(t *testing.T) {
	l, r := listened(t)
	now := time.Now()
	failures := []Failure{
		{Backend: "first", Status: 401, Reason: "401 invalid_api_key", Cause: "wrong key"},
		{Backend: "second", Reason: "no connection"},
		{Backend: "third", Status: 401, Reason: "401 invalid_api_key", Cause: "wrong, too"},
		{Backend: "first", Status: 401, Reason: "401 invalid_api_key"},
	}
	warn := func(after time.Duration, model string) []string {
		r.WarnOfFailures(t.Context(), now.Add(after), model, failures)
		return l.Log()
	}
	const (
		key  = "WARN,requests fail,backends:[first,third],model:%s,reason:401 invalid_api_key,status:401,code:invalid_api_key,error:wrong key,requests:%d"
		lost = "WARN,requests fail,backends:[second],model:%s,reason:no connection,requests:%d"
	)
	require.Equal(t, []string{fmt.Sprintf(key, "m", 1), fmt.Sprintf(lost, "m", 1)}, warn(0, "m"))
	require.Empty(t, warn(time.Second, "m"))
	require.Empty(t, warn(59*time.Second, "m"))
	require.Equal(t, []string{fmt.Sprintf(key, "new?model", 3), fmt.Sprintf(lost, "new?model", 3)}, warn(time.Minute, "new\nmodel"), "whether it is configured or not")
}

// A pool without credentials is sent the callers' own. When they are refused, the
// record says so: a variable may not be set.
func TestWarningOfRefusedCallersCredentialHasARemedy(t *testing.T) {
	l, r := listened(t)
	r.WarnOfFailures(t.Context(), time.Now(), "m", []Failure{
		{Backend: "first", Status: 401, Reason: "401", CallersCredential: true},
		{Backend: "second", Status: 500, Reason: "500", CallersCredential: true},
		{Backend: "third", Status: 403, Reason: "403"},
	})
	require.Equal(t, []string{
		"WARN,requests fail,backends:[first],model:m,reason:401,status:401,requests:1,remedy:" + ownKeyRemedy,
		"WARN,requests fail,backends:[second],model:m,reason:500,status:500,requests:1",
		"WARN,requests fail,backends:[third],model:m,reason:403,status:403,requests:1",
	}, l.Log())
}

func TestWarningNamesSixteenBackendsAtMost(t *testing.T) {
	l, r := listened(t)
	var failures []Failure
	for i := range maxBackendNames + 4 {
		failures = append(failures, Failure{Backend: fmt.Sprint("b", i), Status: 401, Reason: "401", Cause: "no"})
	}
	r.WarnOfFailures(t.Context(), time.Now(), "", failures)
	require.Equal(t, []string{"WARN,requests fail,backends:[b0,b1,b2,b3,b4,b5,b6,b7,b8,b9,b10,b11,b12,b13,b14,b15],more_backends:4,reason:401,status:401,error:no,requests:1"}, l.Log())
}

func TestWarningsBelowTheLevelAreNotCounted(t *testing.T) {
	l, r := listened(t)
	failures := []Failure{{Backend: "first", Reason: "no connection"}}
	quiet, err := New(Options{Logger: l.LoggerAt(slog.LevelError)}, r)
	require.NoError(t, err)
	quiet.WarnOfFailures(t.Context(), time.Now(), "m", failures)
	r.WarnOfFailures(t.Context(), time.Now(), "m", failures)
	require.Equal(t, []string{"WARN,requests fail,backends:[first],model:m,reason:no connection,requests:1"}, l.Log())
}

// A service that makes error codes up fills neither memory nor the log.
func TestReasonsOfWarningsAreBounded(t *testing.T) {
	var w failureWarnings
	now, warned := time.Now(), 0
	for i := range 10_000 {
		if _, due := w.count(now.Add(time.Duration(i)*time.Millisecond), fmt.Sprint("500 made_up_", i)); due {
			warned++
		}
	}
	require.LessOrEqual(t, len(w.reasons), maxReasons+1)
	require.Equal(t, maxReasons+1, warned)
	now = now.Add(2 * time.Minute)
	for _, reason := range []string{"500 made_up_0", "another"} {
		requests, due := w.count(now, reason)
		require.True(t, due)
		require.Equal(t, 1, requests)
	}
	require.LessOrEqual(t, len(w.reasons), maxReasons+1)
}
