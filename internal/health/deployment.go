package health

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// Deployment is what is known of a deployment. It outlives the configuration.
type Deployment struct {
	// The fields that the choice of a deployment reads come first, within four cache
	// lines: there may be thousands of deployments.
	InFlight        atomic.Int64 // requests whose response has not ended, see TakePlace
	MaxInFlight     atomic.Int64 // the limit for them; 0 for none
	PendingFailures atomic.Int64 // provisional failures: no other deployment has answered the request yet
	SpilledUntil    Timestamp    // until when it counts as full, because Azure spilled one of its requests
	Silence
	byOperation atomic.Pointer[operationStates] // nil while every operation is healthy
	ReportedLimits
	latencies
	Reports Reports // of other replicas
	State

	LastServed       Timestamp     // when it last served a request
	ServedOperations atomic.Uint64 // operations that it served, one bit each
	LocalLimits      LocalLimits
	Held             Latency // how long requests kept their places, if MaxInFlight is set
	background       background
}

// Full reports whether as many requests are in flight as may be.
func (s *Deployment) Full() bool {
	most := s.MaxInFlight.Load()
	return most > 0 && s.InFlight.Load() >= most
}

// TakePlace counts one more request as in flight, unless the deployment is full. The
// place is given back with InFlight.
func (s *Deployment) TakePlace() bool {
	for {
		most := s.MaxInFlight.Load()
		if most == 0 {
			s.InFlight.Add(1)
			return true
		}
		n := s.InFlight.Load()
		if n >= most {
			return false
		}
		if s.InFlight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

const (
	minPlaceWait = time.Second      // when a full deployment may be asked again, at the earliest
	maxPlaceWait = 60 * time.Second // and at the latest
)

// NextPlace is the usual time until a full deployment gets a place back: how long
// requests kept theirs lately, divided by the number of places.
func (s *Deployment) NextPlace() time.Duration {
	log, known := s.Held.Value()
	if !known {
		return minPlaceWait
	}
	held := math.Exp(log) / float64(max(s.MaxInFlight.Load(), 1))
	return time.Duration(min(max(held, float64(minPlaceWait)), float64(maxPlaceWait)))
}

// PassesOn reports whether a PTU passes a request on to the next tier early. A PTU
// that reports to be full still gets one request at a time, to find out whether it is:
// a refusal costs less than an idle PTU for as long as its report counts. Where another
// replica has just told so, that one has found out.
func (s *Deployment) PassesOn(now time.Time, x float64) bool {
	return s.Spills(now, x) && (s.Utilization.Load() < spillAll || s.Unanswered() > 0 || s.heardFull(now, x))
}

// ServedOperation records that an operation was served.
func (s *Deployment) ServedOperation(op int) {
	if bit := uint64(1) << op; s.ServedOperations.Load()&bit == 0 {
		s.ServedOperations.Or(bit)
	}
}

// Connection is what is known of the connection to a backend.
type Connection struct {
	State
	Answered   Timestamp    // when a response last arrived
	Connecting Timestamp    // when the connection that is being made counts as stuck; zero when there is none
	LostProbes atomic.Int32 // half-open probes in a row that did not connect in time
}

// Stuck reports whether a connection has been pending for too long.
func (c *Connection) Stuck(now time.Time) bool {
	return !c.Connecting.IsZero() && c.Connecting.Passed(now)
}

// spilledFor is how long a PTU counts as full after Azure served one of its requests
// elsewhere.
const spilledFor = 10 * time.Second

// SpilledByAzure records that Azure itself served one of the deployment's requests
// elsewhere because the deployment was full.
func (s *Deployment) SpilledByAzure(now time.Time) { s.SpilledUntil.Set(now.Add(spilledFor)) }

// operationStates are the states of single operations of a deployment. A region
// without the Responses API answers 404 to it and serves all other operations, and a
// role may allow only one operation.
type operationStates [wire.MaxOperations]atomic.Pointer[State]

// Operation returns the state of an operation; nil when nothing is known of it.
func (s *Deployment) Operation(index int) *State {
	if all := s.byOperation.Load(); all != nil {
		return all[index].Load()
	}
	return nil
}

// ChangeOperation returns the state of an operation, to be changed.
func (s *Deployment) ChangeOperation(index int) *State {
	all := s.byOperation.Load()
	if all == nil {
		s.byOperation.CompareAndSwap(nil, new(operationStates))
		all = s.byOperation.Load()
	}
	if all[index].Load() == nil {
		all[index].CompareAndSwap(nil, new(State))
	}
	return all[index].Load()
}

// Operations yields the states of all operations of which something is known.
func (s *Deployment) Operations(yield func(index int, h *State) bool) {
	if all := s.byOperation.Load(); all != nil {
		for i := range all {
			if h := all[i].Load(); h != nil && !yield(i, h) {
				return
			}
		}
	}
}
