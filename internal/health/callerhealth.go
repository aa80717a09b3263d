package health

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// Callers is what is held against credentials of callers, at backends that have
// none of their own: one caller's bad key or spent quota is no concern of the
// others. It is bounded; what was not looked at for longest is forgotten first.
type Callers struct {
	Any    atomic.Bool // whether there was ever one
	mu     sync.Mutex
	ByKey  map[CallerKey]*list.Element
	Recent list.List // of callerHealth, the one that was looked at last in front
}

const MaxCallers = 1000

// A CallerKey is a caller at a deployment: what is throttled (0), or one
// operation (1 and its index).
type CallerKey struct {
	Deployment *Deployment
	Caller     uint64
	Part       int
}

type callerHealth struct {
	key    CallerKey
	health *State
}

func (c *Callers) Find(key CallerKey) *State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.look(key)
}

// look is find with the lock held.
func (c *Callers) look(key CallerKey) *State {
	e := c.ByKey[key]
	if e == nil {
		return nil
	}
	c.Recent.MoveToFront(e)
	return e.Value.(callerHealth).health
}

// Change is find for what is to be changed.
func (c *Callers) Change(key CallerKey) *State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.look(key); h != nil {
		return h
	}
	c.Any.Store(true)
	if c.ByKey == nil {
		c.ByKey = map[CallerKey]*list.Element{}
	}
	h := &State{Private: true}
	c.ByKey[key] = c.Recent.PushFront(callerHealth{key, h})
	if len(c.ByKey) > MaxCallers {
		oldest := c.Recent.Back()
		delete(c.ByKey, oldest.Value.(callerHealth).key)
		c.Recent.Remove(oldest)
	}
	return h
}
