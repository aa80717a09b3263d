package health

import (
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// A Deployment is what is known of a deployment. It outlives the configuration.
type Deployment struct {
	// What choosing reads comes first, within a cache line: there may be
	// thousands.
	InFlight        atomic.Int64
	PendingFailures atomic.Int64 // failures that no other deployment's answer confirms yet
	SpilledUntil    Timestamp    // until when it counts as full, as Azure spilled one of its requests
	State
	Silence
	LastServed       Timestamp                       // when it served a request last
	byOp             atomic.Pointer[operationHealth] // nil while every operation is healthy
	ServedOperations atomic.Uint64                   // operations that it served, by their bits

	ReportedLimits
	latencies
	Ledger LocalLimits
}

// PassesOn tells whether a PTU passes a request on. One that is full passes all
// of them on but one at a time, which finds out whether it still is: to be refused
// costs less than to leave it idle for as long as a report is believed.
func (s *Deployment) PassesOn(now time.Time, x float64) bool {
	return s.Spills(now, x) && (s.Utilization.Load() < SpillAll || s.Awaiting.Load() > 0)
}

// ServedOperation notes that an operation was served.
func (s *Deployment) ServedOperation(op int) {
	if bit := uint64(1) << op; s.ServedOperations.Load()&bit == 0 {
		s.ServedOperations.Or(bit)
	}
}

// A Connection is what is known of the connection to a backend.
type Connection struct {
	State
	Answered   Timestamp    // when an answer came last
	Connecting Timestamp    // when a connection that is pending has been so for too long; zero when none is
	LostProbes atomic.Int32 // in a row, to the time that they have to connect
}

// Stuck tells that a connection has been pending for long.
func (c *Connection) Stuck(now time.Time) bool {
	return !c.Connecting.IsZero() && c.Connecting.Passed(now)
}

// PressureLasts is how long a spilled answer speaks of a full PTU.
const PressureLasts = 10 * time.Second

// SpilledByAzure records that Azure itself has served one of the deployment's
// requests elsewhere, as it was full.
func (s *Deployment) SpilledByAzure(now time.Time) { s.SpilledUntil.Set(now.Add(PressureLasts)) }

// An operationHealth is what is held against single operations of a deployment:
// a region without the Responses API answers 404 there and everything else as
// usual, and a role may allow one operation alone.
type operationHealth [wire.MaxOperations]atomic.Pointer[State]

// Operation is what is held against an operation; nil when nothing is.
func (s *Deployment) Operation(index int) *State {
	if all := s.byOp.Load(); all != nil {
		return all[index].Load()
	}
	return nil
}

// ChangeOperation is the same to be changed.
func (s *Deployment) ChangeOperation(index int) *State {
	all := s.byOp.Load()
	if all == nil {
		s.byOp.CompareAndSwap(nil, new(operationHealth))
		all = s.byOp.Load()
	}
	if all[index].Load() == nil {
		all[index].CompareAndSwap(nil, new(State))
	}
	return all[index].Load()
}

// Operations is all that is held against single operations.
func (s *Deployment) Operations(yield func(index int, h *State) bool) {
	if all := s.byOp.Load(); all != nil {
		for i := range all {
			if h := all[i].Load(); h != nil && !yield(i, h) {
				return
			}
		}
	}
}
