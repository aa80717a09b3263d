package health

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/spillover-go/spillover/internal/wire"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// after is a time so many seconds after noon.
func after(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

// trip is the round trip of refusals in these tests.
const trip = 100 * time.Millisecond

// firstGap is the first gap of the ramp-up where refusals take long.
const firstGap = maxTrip / 2

// spaced is the gap after so many refusals in a row.
func spaced(refusals int) time.Duration {
	p := new(rampUp)
	for range refusals {
		p.refused(noon, time.Minute, 0)
	}
	return p.gap
}

func drawSpan(t *rapid.T, label string, most time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, label))
}

// reportsTokens is a response header that reports a limit and what remains of it.
func reportsTokens(limit, remaining any) http.Header {
	return header(fmt.Sprint("X-Ratelimit-Limit-Tokens: ", limit), fmt.Sprint("X-Ratelimit-Remaining-Tokens: ", remaining))
}

// reportsUtilization is a response header that reports the utilization of a PTU.
func reportsUtilization(thousandths int) http.Header {
	return header(fmt.Sprintf("Azure-Openai-Deployment-Utilization: %d.%d%%", thousandths/10, thousandths%10))
}

func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

// reported is a deployment whose responses had these headers at noon, one after the other.
func reported(headers ...http.Header) *Deployment {
	d := new(Deployment)
	for _, h := range headers {
		d.Update(noon, noon, d.CountSent(0), wire.ReadLimits(h))
	}
	return d
}
