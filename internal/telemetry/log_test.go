package telemetry

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/telemetry/telemetrytest"
)

func TestTransitionIsLoggedAndCooldownsAreMeasured(t *testing.T) {
	const first = "backend:first,tier:1,model:m,deployment:deployed,"
	operation := "responses"
	for name, c := range map[string]struct {
		transition Transition
		record     string
		cooldown   map[string]float64
	}{
		"cooling": {
			Transition{Phase: Cooling, Reason: "429 rate_limit_exceeded", Response: ResponseInfo{429, "id-1", "429 rate_limit_exceeded"}, Cause: "not shown"},
			"INFO,deployment cooling," + first + "until:4s,wait_ms:4000,reason:429 rate_limit_exceeded,status:429,request_id:id-1",
			map[string]float64{"backend=first deployment=deployed model=m state=cooling tier=1 type=429": 4}},
		"ejected": {
			Transition{Phase: Ejected, Reason: "500", Response: ResponseInfo{Status: 500, Reason: "500"}, Cause: "I am sorry", Operation: &operation},
			"WARN,deployment out," + first + "operation:responses,until:4s,wait_ms:4000,reason:500,error:I am sorry,status:500",
			map[string]float64{"backend=first deployment=deployed model=m state=out tier=1 type=500": 4}},
		"probing": {
			Transition{Phase: Probing, Reason: "500", Operation: new(string)},
			"INFO,deployment probing," + first + "operation:,reason:500", map[string]float64{}},
		"healthy": {
			Transition{Phase: Healthy, Reason: "500", Response: ResponseInfo{Status: 200, RequestID: "id-2"}},
			"INFO,deployment back," + first + "lasted_ms:8000,reason:500,status:200,request_id:id-2", map[string]float64{}},
		"backend ejected": {
			Transition{Phase: Ejected, WholeBackend: true, Reason: "no connection", Response: ResponseInfo{Reason: "no connection"}, Cause: "refused"},
			"WARN,backend out,backend:first,tier:1,until:4s,wait_ms:4000,reason:no connection,error:refused",
			map[string]float64{"backend=first state=out tier=1 type=no_connection": 4}},
		"backend probing": {
			Transition{Phase: Probing, WholeBackend: true, Reason: "no connection"},
			"INFO,backend probing,backend:first,tier:1,reason:no connection", map[string]float64{}},
		"backend healthy": {
			Transition{Phase: Healthy, WholeBackend: true, Reason: "no connection"},
			"INFO,backend back,backend:first,tier:1,lasted_ms:8000,reason:no connection", map[string]float64{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l, r := listened(t)
			now := time.Now()
			c.transition.Deployment, c.transition.Episode, c.transition.Since, c.transition.Until = deployment(), new(Episode), now.Add(-8*time.Second), now.Add(4*time.Second)
			r.Transition(t.Context(), now, c.transition)
			require.Equal(t, []string{c.record}, l.Log(), name)
			require.Equal(t, c.cooldown, l.Metric("spillover.cooldown.duration"), name)
		})
	}
}

func TestTransitionBelowTheLevelIsMeasuredAllTheSame(t *testing.T) {
	l := telemetrytest.New()
	_, r := listened(t, func(o *Options) { o.Logger, o.MeterProvider = l.LoggerAt(slog.LevelWarn), l.MeterProvider() })
	now := time.Now()
	r.Transition(t.Context(), now, Transition{Deployment: deployment(), Episode: new(Episode), Phase: Cooling, Until: now.Add(-time.Second)})
	require.Empty(t, l.Log())
	require.Equal(t, map[string]float64{"backend=first deployment=deployed model=m state=cooling tier=1 type=_OTHER": 0},
		l.Metric("spillover.cooldown.duration"), "a time that has passed is no negative one")
}

func TestAttemptIsLoggedAtDebugLevel(t *testing.T) {
	l, r := listened(t)
	a := AttemptRecord{Deployment: deployment(), Number: 2, Outcome: "failed", Took: time.Second, Response: ResponseInfo{500, "id-1", "500 code"}, Cause: "I am sorry"}
	r.LogAttempt(t.Context(), a)
	require.Empty(t, l.Log())
	_, r = listened(t, func(o *Options) { o.Logger = l.LoggerAt(slog.LevelDebug) })
	r.LogAttempt(t.Context(), a)
	a.Outcome, a.Response, a.Cause = "served", ResponseInfo{Status: 200}, ""
	r.LogAttempt(t.Context(), a)
	const first = "DEBUG,attempt,backend:first,tier:1,model:m,deployment:deployed,attempt:2,"
	require.Equal(t, []string{
		first + "outcome:failed,took_ms:1000,reason:500 code,error:I am sorry,status:500,request_id:id-1",
		first + "outcome:served,took_ms:1000,status:200",
	}, l.Log())
}

func TestRecordsOfTheConfiguration(t *testing.T) {
	l, r := listened(t)
	r.CallersCredentialsSent("first", 1)
	r.Reconfigured(2, ConfigChanges{})
	r.Reconfigured(3, ConfigChanges{Added: []string{"third"}, Removed: []string{"fourth"}, Changed: []string{"first: api_key, weight"}, Settings: []string{"max_wait"}})
	r.Reconfigured(20, ConfigChanges{Added: slices.Repeat([]string{"x"}, 20)})
	r.Drained("first")
	r.Resumed("first")
	r.ConfigurationNotLoaded(t.Context(), "pool.yaml", errors.New("no such file"))
	require.Equal(t, []string{
		"WARN,callers' credentials are sent,backend:first,tier:1,remedy:set a credential, such as APIKey (api_key), APIKeyFile (api_key_file) or Auth (auth), unless callers are to bring their own",
		"INFO,reconfigured,backends:3,added:[third],removed:[fourth],changed:[first: api_key, weight],settings:[max_wait]",
		"INFO,reconfigured,backends:20,added:[" + strings.Repeat("x,", 15) + "x],more_added:4",
		"INFO,backend drained,backend:first",
		"INFO,backend resumed,backend:first",
		"WARN,configuration not loaded,path:pool.yaml,error:no such file",
	}, l.Log())
}

func TestHostileNamesAreSanitizedInTheLog(t *testing.T) {
	l, r := listened(t)
	r.Transition(t.Context(), time.Now(), Transition{Deployment: &Deployment{Backend: "first", Model: "a\nb", Name: "c\x1b[m"}, Episode: new(Episode), Phase: Probing})
	require.Equal(t, []string{"INFO,deployment probing,backend:first,tier:0,model:a?b,deployment:c?[m,reason:"}, l.Log())
}
