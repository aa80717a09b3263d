package lab

import (
	"net/http"
	"time"

	"github.com/spillover-go/spillover"
)

// A Policy is who chooses the deployment of each request. New makes it for one
// client, which shares nothing with the others unless the policy has a Fleet.
type Policy struct {
	Name  string
	About string
	New   func(Setup) http.RoundTripper

	Waits      bool // it waits by itself, for Setup.Patience
	Fleet      bool // its clients share a Fleet, see Cell.Bus
	Omniscient bool // it lives in a world of its own, see Cell.forOracle
}

// A Setup is what a policy is made of.
type Setup struct {
	Pool []Backend
	Net  http.RoundTripper
	Seed uint64
	// Patience is for how long a request may wait.
	Patience time.Duration
	// HeaderTimeout is for how long an answer may not begin; 0: for ever.
	HeaderTimeout time.Duration
	// BackgroundWait is for how long a background request may wait.
	BackgroundWait time.Duration

	// Fleet connects the clients; nil unless the policy has one.
	Fleet spillover.Fleet

	sites []*site // for the oracle alone
}

// Policies are all that can be compared: ours, its variants, others and the
// oracle.
func Policies() []Policy {
	return append(append(Variants(), Others()...), Oracle, Replicas)
}

// Others are plain statements of what others do.
func Others() []Policy {
	return []Policy{Walk, Random, Ring, Counted, Shuffle, Fallback}
}

// Find is a policy by name.
func Find(name string) (Policy, bool) {
	for _, p := range Policies() {
		if p.Name == name {
			return p, true
		}
	}
	return Policy{}, false
}
