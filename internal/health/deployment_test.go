package health

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A full PTU gets one request at a time, to find out whether it still is full.
func TestFullDeploymentIsAskedOneAtATime(t *testing.T) {
	d := reported(reportsUtilization(spillAll))
	require.False(t, d.PassesOn(noon, 0.99))
	d.RequestSent(noon)
	require.True(t, d.PassesOn(noon, 0.99))
	d.ResponseReceived(noon)
	require.False(t, d.PassesOn(noon, 0.99))

	d = reported(reportsUtilization((spillFrom + spillAll) / 2))
	require.True(t, d.PassesOn(noon, 0.49), "part of the requests, whether one is in flight or not")
	require.False(t, d.PassesOn(noon, 0.51))
}

func TestServedOperationsAreRemembered(t *testing.T) {
	var d Deployment
	for _, op := range []int{0, 63, 5, 5} {
		d.ServedOperation(op)
	}
	require.Equal(t, uint64(1|1<<5|1<<63), d.ServedOperations.Load())
}

func TestConnectionIsStuckOnceItsTimeHasPassed(t *testing.T) {
	var c Connection
	require.False(t, c.Stuck(noon))
	c.Connecting.Set(after(1))
	require.False(t, c.Stuck(noon))
	require.True(t, c.Stuck(after(1)))
}

func TestDeploymentCountsAsFullAfterAzureSpilledARequest(t *testing.T) {
	var d Deployment
	require.True(t, d.SpilledUntil.Passed(noon))
	d.SpilledByAzure(noon)
	require.False(t, d.SpilledUntil.Passed(noon.Add(spilledFor-1)))
	require.True(t, d.SpilledUntil.Passed(noon.Add(spilledFor)))
}

func TestOperationsHaveStatesOfTheirOwn(t *testing.T) {
	var d Deployment
	require.Nil(t, d.Operation(3))
	for range d.Operations {
		require.Fail(t, "nothing is known")
	}
	var all sync.WaitGroup
	states := make([]*State, 8)
	for i := range states {
		all.Go(func() { states[i] = d.ChangeOperation(3) })
	}
	all.Wait()
	for _, h := range states {
		require.Same(t, d.Operation(3), h)
	}
	require.Nil(t, d.Operation(4))
	d.ChangeOperation(7)
	var indexes []int
	for i, h := range d.Operations {
		require.Same(t, d.Operation(i), h)
		indexes = append(indexes, i)
	}
	require.Equal(t, []int{3, 7}, indexes)
	for i := range d.Operations {
		require.Equal(t, 3, i)
		break
	}
}

func TestTimestampIsComparedWithoutALock(t *testing.T) {
	var m Timestamp
	require.True(t, m.IsZero())
	require.True(t, m.Passed(noon))
	require.Equal(t, time.Duration(1<<63-1), m.Age(noon))
	m.SetIfZero(after(1))
	m.SetIfZero(after(2))
	require.False(t, m.IsZero())
	require.False(t, m.Passed(noon))
	require.True(t, m.Passed(after(1)))
	require.Equal(t, time.Second, m.Age(after(2)))
	m.Set(clockStart)
	require.False(t, m.IsZero(), "the time that timestamps count from is one as well")
	m.Set(time.Time{})
	require.True(t, m.IsZero())
}

// A step of the wall clock would shorten or lengthen every wait.
func TestTimestampsCountOnTheMonotonicClock(t *testing.T) {
	require.Contains(t, clockStart.String(), " m=")
	require.Equal(t, after(2), Latest(after(1), after(2)))
	require.Equal(t, after(2), Latest(after(2), after(1)))
}

// What the choice of a deployment reads lies together.
func TestChoiceReadsFourCacheLines(t *testing.T) {
	var d Deployment
	const line = 64
	const header = 8 // that the allocator puts before an object of this size
	require.Zero(t, unsafe.Offsetof(d.InFlight))
	require.LessOrEqual(t, header+unsafe.Offsetof(d.State)+unsafe.Sizeof(d.State.closedUntil), uintptr(4*line))
	require.Less(t, unsafe.Offsetof(d.latencies), unsafe.Offsetof(d.Reports))
	require.Less(t, unsafe.Offsetof(d.Reports), unsafe.Offsetof(d.State))
	require.Zero(t, unsafe.Offsetof(d.Reports.until))
}

// However many take a place at the same time, no more than MaxInFlight get one.
func TestPlacesAreTakenUpToTheLimit(t *testing.T) {
	for _, most := range []int64{0, 1, 3} {
		var d Deployment
		d.MaxInFlight.Store(most)
		want := most
		if most == 0 {
			want = 50
		}
		var all sync.WaitGroup
		var taken atomic.Int64
		for range 50 {
			all.Go(func() {
				if d.TakePlace() {
					taken.Add(1)
				}
			})
		}
		all.Wait()
		require.Equal(t, want, taken.Load())
		require.Equal(t, want, d.InFlight.Load())
		require.Equal(t, most > 0, d.Full())
	}
}
