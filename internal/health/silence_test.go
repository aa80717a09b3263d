package health

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Requests that arrive together after an idle hour do not take it for silence.
func TestBurstAfterAnIdleHourIsNotSilence(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for range 20000 {
		var s Silence
		var all sync.WaitGroup
		var early atomic.Bool
		s.LastHeard.Set(now.Add(-time.Hour))
		for range 3 {
			all.Go(func() {
				s.RequestSent(now)
				if s.SeemsSilent(now) {
					early.Store(true)
				}
			})
		}
		all.Wait()
		require.False(t, early.Load())
	}
}

func TestDeploymentThatAnswersNoneOfItsRequestsIsEjected(t *testing.T) {
	var d Deployment
	d.RequestSent(noon)
	require.False(t, d.SeemsSilent(after(60)), "one request alone may take long")
	d.RequestSent(after(1))
	require.EqualValues(t, 2, d.Unanswered())
	half, whole := noon.Add(minSilence/2), noon.Add(minSilence)
	require.False(t, d.MaybeSilent(half))
	require.True(t, d.MaybeSilent(half.Add(1)))
	require.False(t, d.SeemsSilent(whole))
	require.False(t, d.EjectSilent(whole))
	require.True(t, d.EjectSilent(whole.Add(1)))
	require.False(t, d.EjectSilent(whole.Add(1)), "it is ejected already")
	require.False(t, d.MaybeSilent(whole.Add(1)))
	cause, ejected, _ := d.Ejected(whole.Add(1))
	require.True(t, ejected)
	require.Equal(t, Silent, cause)
	until, reason, _ := d.Closed(whole.Add(1))
	require.Equal(t, "silent", reason)
	require.Equal(t, whole.Add(1+ejectionRules[Silent].first), until, "half of the silence, but not less than that")

	// Probes follow each other at growing distances; none is given back.
	ok, probe := d.Admit(until, false)
	require.True(t, ok)
	next, _, _ := d.Closed(until)
	require.Equal(t, until.Add(until.Sub(noon)/2), next)
	d.RequestSent(until)
	require.EqualValues(t, 3, d.Unanswered())
	require.False(t, d.Release(until, probe))
	require.False(t, d.Open(until))
	require.Equal(t, ejectionRules[Silent].longest, silentProbeDelay(time.Hour))

	d.ResponseReceived(next)
	require.True(t, d.HeardAgain())
	require.False(t, d.HeardAgain())
	require.True(t, d.Open(next))
	require.False(t, d.Troubled())
}

func TestSilenceOfAnEjectedDeploymentChangesNothing(t *testing.T) {
	var d Deployment
	d.RequestSent(noon)
	d.RequestSent(noon)
	d.Fail(after(20), FailedAttempt{Sent: after(20), Seen: after(20), Cause: Unreachable, Reason: "no connection"}, 0.5)
	require.True(t, d.EjectSilent(after(20)))
	cause, _, _ := d.Ejected(after(20))
	require.Equal(t, Unreachable, cause)
	require.True(t, d.HeardAgain())
	_, ejected, _ := d.Ejected(after(20))
	require.True(t, ejected, "it was not ejected as silent")
}

// A deployment that usually takes long is silent only after a multiple of that.
func TestSilenceIsAMultipleOfTheUsualWait(t *testing.T) {
	var s Silence
	s.ObserveWait(8 * time.Second)
	require.Equal(t, silenceFactor*8*time.Second, s.patience())
	s.ObserveWait(24 * time.Second)
	require.Equal(t, silenceFactor*9*time.Second, s.patience(), "the mean moves by a sixteenth")
	s.RequestSent(noon)
	s.RequestSent(noon)
	require.False(t, s.SeemsSilent(after(36)))
	require.True(t, s.SeemsSilent(after(36.1)))
}

// Requests whose callers gave up after waiting long count until the next response.
func TestAbandonedRequestsCountUntilTheNextResponse(t *testing.T) {
	var s Silence
	s.NextComparison.Set(after(90))
	s.RequestSent(noon)
	s.RequestAbandoned(true, minSilence) // not longer than a response may take
	s.RequestSent(noon)
	s.RequestSent(noon)
	require.True(t, s.SeemsSilent(after(11)))
	s.RequestAbandoned(false, time.Minute) // failed
	require.False(t, s.SeemsSilent(after(11)))
	s.RequestAbandoned(true, minSilence+1)
	require.False(t, s.SeemsSilent(after(11)))
	s.RequestSent(noon)
	require.True(t, s.SeemsSilent(after(11)), "with the one that was abandoned")
	s.ResponseReceived(after(12))
	require.True(t, s.NextComparison.IsZero())
	s.RequestSent(after(12))
	require.False(t, s.SeemsSilent(after(60)))
	require.EqualValues(t, 1, s.Unanswered())
}
