package spillovertest

import (
	"cmp"
	"fmt"
	"net/http"
	"time"
)

// PTU is the limit of a provisioned deployment: a leaky bucket of utilization, as
// described at
// https://learn.microsoft.com/azure/ai-services/openai/concepts/provisioned-throughput.
// A request is refused while the utilization is above 100 %. Its retry-after-ms is the
// exact time until it no longer is. An admitted request adds prompt + OutputRatio x
// maximum of output. When its response ends, in whatever way, that is corrected to the
// output that was written. The zero value limits nothing.
type PTU struct {
	// TPM is the capacity in input-equivalent tokens per minute. 0 means no limit.
	TPM int
	// OutputRatio is the weight of an output token, in input tokens. 0 means 3.
	OutputRatio int
	// Burst is the depth of the bucket: a utilization of 100 % is the load of this
	// much time at full capacity. 0 means 20 s.
	Burst time.Duration
	// Guess is the output that is assumed for a request without a maximum, in
	// tokens. 0 means 256.
	Guess int
	// HideUtilization leaves out the azure-openai-deployment-utilization header.
	HideUtilization bool
}

func (l PTU) check() error {
	if l.TPM < 0 || l.OutputRatio < 0 || l.Burst < 0 || l.Guess < 0 {
		return fmt.Errorf("PTU has a negative field")
	}
	return nil
}

func (l PTU) start() limiter {
	l.OutputRatio = cmp.Or(l.OutputRatio, 3)
	l.Burst = cmp.Or(l.Burst, 20*time.Second)
	l.Guess = cmp.Or(l.Guess, 256)
	return &ptu{PTU: l, load: bucket{perMinute: l.TPM}}
}

type ptu struct {
	PTU
	load bucket
}

func (p *ptu) admit(now time.Time, d demand) (refusal, bool) {
	if over := p.load.depth(now) - p.Burst; over > 0 {
		return refusal{by: byThroughput, wait: over}, false
	}
	p.load.add(now, p.estimate(d))
	return refusal{}, true
}

func (p *ptu) estimate(d demand) int {
	return d.prompt + p.OutputRatio*cmp.Or(d.max, p.Guess)
}

func (p *ptu) settle(now time.Time, d demand, written int) float64 {
	actual := d.prompt + p.OutputRatio*written
	p.load.add(now, actual-p.estimate(d))
	return float64(actual)
}

func (p *ptu) utilization(now time.Time) float64 {
	return float64(p.load.depth(now)) / float64(p.Burst)
}

func (p *ptu) header(now time.Time, _ Dialect, h http.Header) {
	if !p.HideUtilization {
		h.Set("Azure-Openai-Deployment-Utilization", fmt.Sprintf("%.1f%%", 100*p.utilization(now)))
	}
}
