package spillover

// A Candidate is a deployment that may be chosen, as a [Selector] sees it.
type Candidate struct {
	Backend    string // the backend's name
	Model      string // what the caller asked for, or a model that the request falls back to
	Deployment string // what the backend calls it
	Priority   int
	Weight     int
	InFlight   int // requests of this process that are under way there
}

// A Selector chooses among the deployments of one tier that are available and
// were not tried by the request yet. It returns an index of candidates; with
// another value it leaves the choice to the transport. It is called only when
// there are two or more, by many goroutines at once, and must not keep the
// slice.
type Selector interface {
	Select(candidates []Candidate) int
}
