package main

import (
	"fmt"
	"math"
	"time"

	"github.com/spillover-go/spillover/spillovertest"
)

// A size is the capacity and the speed of the deployments.
type size struct {
	ptu     spillovertest.PTU
	payg    spillovertest.PAYG // each of them
	latency spillovertest.Latency
}

func (s size) limit(priority int) spillovertest.Limit {
	if priority == 1 {
		return s.ptu
	}
	return s.payg
}

func (s size) String() string {
	return fmt.Sprintf("ptu-sweden is provisioned (PTU): %s tokens a minute, paid for whether they are used or not. "+
		"payg-sweden and payg-france are pay-as-you-go (PAYG): %s tokens and %s requests a minute each, paid for by the token.",
		thousands(s.ptu.TPM), thousands(s.payg.TPM), thousands(s.payg.RPM))
}

// latency is that of a model that writes about 65 tokens a second.
var latency = spillovertest.Latency{FirstToken: 300 * time.Millisecond, PerToken: 15 * time.Millisecond, Jitter: 0.2}

// standardSize has a PTU for about twelve chats a second. Both PAYG deployments
// together can take about as much for long, and more for a moment.
var standardSize = size{
	ptu: spillovertest.PTU{TPM: 600_000}, payg: payg(250_000), latency: latency,
}

// payg has the requests a minute that Azure usually allows for its tokens a
// minute.
func payg(tpm int) spillovertest.PAYG { return spillovertest.PAYG{TPM: tpm, RPM: tpm * 6 / 1000} }

// ptuShare is the capacity of the PTU as a share of a trace's average load.
const ptuShare = 0.65

// traceSize has a PTU that is too small for the trace on average, and PAYG
// deployments each of which could take the whole trace.
func traceSize(l load) size {
	var cost, tokens int
	for _, c := range l.chats {
		cost += c.cost()
		tokens += c.prompt + c.output
	}
	perMinute := func(n float64) int { return 1000 * int(math.Ceil(n/l.length.Minutes()/1000)) }
	return size{
		ptu:     spillovertest.PTU{TPM: perMinute(ptuShare * float64(cost))},
		payg:    payg(perMinute(float64(tokens))),
		latency: latency,
	}
}

// thousands writes 1250000 as 1,250,000.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
