package health

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// Callers holds the states of callers' credentials at backends that have none of their
// own: one caller's bad key or spent quota must not affect the others. It is bounded;
// the least recently used state is forgotten first.
type Callers struct {
	Any    atomic.Bool // whether there was ever a state
	mu     sync.Mutex
	byKey  map[CallerKey]*list.Element
	recent list.List // of callerState, the most recently used one in front
}

// maxCallers is the maximum number of states.
const maxCallers = 1000

// CallerKey is a caller at a deployment. Part is 0 for its throttle, and 1 plus the
// index of an operation for the ejection of that operation.
type CallerKey struct {
	Deployment *Deployment
	Caller     uint64
	Part       int
}

type callerState struct {
	key   CallerKey
	state *State
}

// Find returns a state; nil when there is none.
func (c *Callers) Find(key CallerKey) *State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.findLocked(key)
}

// findLocked is Find with the mutex held.
func (c *Callers) findLocked(key CallerKey) *State {
	e := c.byKey[key]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(callerState).state
}

// Change returns a state, to be changed, and adds it if there is none.
func (c *Callers) Change(key CallerKey) *State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.findLocked(key); h != nil {
		return h
	}
	c.Any.Store(true)
	if c.byKey == nil {
		c.byKey = map[CallerKey]*list.Element{}
	}
	h := &State{Private: true}
	c.byKey[key] = c.recent.PushFront(callerState{key, h})
	if len(c.byKey) > maxCallers {
		oldest := c.recent.Back()
		delete(c.byKey, oldest.Value.(callerState).key)
		c.recent.Remove(oldest)
	}
	return h
}
