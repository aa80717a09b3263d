package main

import (
	"fmt"
	"time"

	"github.com/spillover-go/spillover/spillovertest"
)

// A size is how much the deployments can take, and how fast they are.
type size struct {
	about   string
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

// daySize has a PTU for some 25 chats a second, and gives the pay-as-you-go
// deployments too little for the burst: their budget is that of a minute, and
// runs dry when most of what the PTU cannot take has been spilled.
func daySize(l load) size {
	s := size{
		ptu:     spillovertest.PTU{TPM: 1_250_000, Burst: time.Second},
		latency: spillovertest.Latency{FirstToken: 80 * time.Millisecond, PerToken: 3 * time.Millisecond, Jitter: 0.2},
	}
	_, spilled := s.ideal(l.chats)
	s.payg = spillovertest.PAYG{TPM: max(1000, spilled*9/10/2), RPM: 60_000}
	s.about = fmt.Sprintf("A PTU of %s tokens a minute, two pay-as-you-go of %s each.", thousands(s.ptu.TPM), thousands(s.payg.TPM))
	return s
}

// ptuShare is what the PTU can take of a trace's average load.
const ptuShare = 0.65

// traceSize has a PTU that the trace overruns on average, and ample
// pay-as-you-go. Where time is compressed, so is all that the PTU does with it.
func traceSize(l load, speed float64) size {
	var cost, tokens int
	for _, c := range l.chats {
		cost += c.cost()
		tokens += c.prompt + c.output
	}
	compress := func(d time.Duration) time.Duration { return max(1, time.Duration(float64(d)/speed)) }
	s := size{
		ptu:  spillovertest.PTU{TPM: max(1, int(ptuShare*float64(cost)/l.length.Minutes())), Burst: compress(20 * time.Second)},
		payg: spillovertest.PAYG{TPM: max(1, int(float64(tokens)/l.length.Minutes()))},
		latency: spillovertest.Latency{
			FirstToken: compress(250 * time.Millisecond), PerToken: compress(15 * time.Millisecond), Jitter: 0.2,
		},
	}
	s.about = fmt.Sprintf("A PTU of %.0f %% of the average, %s tokens a minute; pay-as-you-go has ample.",
		100*ptuShare, thousands(int(float64(s.ptu.TPM)/speed)))
	return s
}

// ideal is what the PTU takes of a load, in its own tokens, when everything is
// offered to it first and without delay, and the tokens of all the rest.
func (s size) ideal(chats []chat) (taken, spilled int) {
	var full, last time.Duration // how long the bucket needs to drain, and as of when
	for _, c := range chats {
		full = max(0, full-(c.at-last))
		last = c.at
		if full > s.ptu.Burst {
			spilled += c.prompt + c.output
			continue
		}
		taken += c.cost()
		full += time.Duration(float64(c.cost()) / float64(s.ptu.TPM) * float64(time.Minute))
	}
	return taken, spilled
}
