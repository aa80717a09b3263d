package spillover

// A Candidate is a deployment that may be chosen, as a [Selector] sees it.
type Candidate struct {
	Backend    string // the backend's name
	Model      string // the model in the request, or one that it falls back to
	Deployment string // the backend's name for it
	Priority   int    // the tier of the backend, from 1
	Weight     int    // the weight of the backend, from 1
	InFlight   int    // requests of this process that are in flight there
}

// A Selector replaces the power of two choices within a tier, see [Config.Selector].
type Selector interface {
	// Select returns the index of one of the candidates. They are the deployments of
	// one tier that are available and were not tried by the request yet. If it returns
	// any other number, the transport chooses. Select is called only if there are at
	// least two candidates. It is called by many goroutines at once and must not keep
	// the slice.
	Select(candidates []Candidate) int
}
