package spillover

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// A placeQueue is the requests that wait for a place at a deployment with MaxInFlight,
// the first one first. A place that is given back wakes one of them. Waking all of
// them would cost as many choices for each request that ends as there are requests
// that wait.
type placeQueue struct {
	waiting atomic.Int64 // their number, for who need not wake anybody
	mu      sync.Mutex
	waiters list.List // of *placeWaiter
}

// A placeWaiter is a request that waits for a place at any of several deployments.
type placeWaiter struct {
	woken chan struct{} // has one element once a place was given back
	at    []placeInQueue
}

type placeInQueue struct {
	deployment *deployment
	element    *list.Element
}

// wait puts a request into the queue of each full deployment of a route that it could
// use otherwise. First means that it has waited before.
func (s *scope) wait(r *route, unsuitable func(*deployment) bool, first bool) *placeWaiter {
	w := &placeWaiter{woken: make(chan struct{}, 1)}
	for d := range r.all {
		if d.Full() && !unsuitable(d) {
			w.at = append(w.at, placeInQueue{d, d.places.add(w, first)})
		}
	}
	for _, p := range w.at {
		if !p.deployment.Full() { // since before it was in the queue
			w.wake()
		}
	}
	return w
}

// wake wakes the request, and reports whether it was still asleep.
func (w *placeWaiter) wake() bool {
	select {
	case w.woken <- struct{}{}:
		return true
	default:
		return false
	}
}

// leave takes a request out of the queues, once it has chosen a deployment or has given
// up. Places that it was woken for and has not taken go to the next.
func (w *placeWaiter) leave() {
	for _, p := range w.at {
		p.deployment.places.remove(p.element)
		p.deployment.wakeNext()
	}
}

func (q *placeQueue) add(w *placeWaiter, first bool) *list.Element {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting.Add(1)
	if first {
		return q.waiters.PushFront(w)
	}
	return q.waiters.PushBack(w)
}

func (q *placeQueue) remove(e *list.Element) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.removeLocked(e)
}

func (q *placeQueue) removeLocked(e *list.Element) {
	before := q.waiters.Len()
	q.waiters.Remove(e) // nothing if it was removed before
	q.waiting.Add(int64(q.waiters.Len() - before))
}

// wake wakes the first request that is not awake yet.
func (q *placeQueue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for e := q.waiters.Front(); e != nil; e = q.waiters.Front() {
		q.removeLocked(e)
		if e.Value.(*placeWaiter).wake() {
			return
		}
	}
}

// givePlace ends a request in flight. Its place goes to a request that waits for it.
func (s *record) givePlace() {
	s.InFlight.Add(-1)
	s.wakeNext()
}

// wakeNext wakes a request that waits for a place, if there is one for it.
func (s *record) wakeNext() {
	if s.places.waiting.Load() > 0 && !s.Full() {
		s.places.wake()
	}
}
