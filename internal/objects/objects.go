// Package objects remembers which resource stores which object.
//
// A stored object, such as a response, a file or a batch, exists at one resource only:
// at the account behind one or more backends. The ids in responses show which one.
//
// The package does not know backends, requests or where ids are found. It is told ids
// and resources, and the time of each call.
package objects

import (
	"container/list"
	"strings"
	"sync"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// The limits of a Store. Each response has several items, so items have a list of their
// own and cannot displace other objects.
const (
	maxObjects = 10_000
	maxItems   = 5_000
	// KeptFor is how long an object is remembered after it was last seen.
	KeptFor = 24 * time.Hour
)

// A Resource is an account that stores objects. Its identity is its address.
type Resource struct{ _ byte }

// A Store maps the ids of objects to their resources. It drops the least recently
// seen ids beyond its limits. The zero value is empty and ready for use. It is
// safe for concurrent use.
type Store struct {
	mu      sync.Mutex // guards both lists
	objects recentList
	items   recentList
}

// Put records where an object was found. It replaces what was known before.
func (s *Store) Put(now time.Time, id wire.ObjectID, r *Resource) { s.add(now, id, r, true) }

// Learn records that an answer of a resource mentioned an object. An object that
// is known already keeps its resource: an answer may mention objects of others.
func (s *Store) Learn(now time.Time, id wire.ObjectID, r *Resource) { s.add(now, id, r, false) }

func (s *Store) add(now time.Time, id wire.ObjectID, r *Resource, replace bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id.Item {
		s.items.add(now, id.ID, r, replace, maxItems)
	} else {
		s.objects.add(now, id.ID, r, replace, maxObjects)
	}
}

// Find returns the resource that stores an object, or nil if it is not known.
func (s *Store) Find(now time.Time, id string) *Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.objects.find(now, id); r != nil {
		return r
	}
	return s.items.find(now, id)
}

// Len returns how many objects and how many items are known.
func (s *Store) Len() (known, items int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.objects.byID), len(s.items.byID)
}

// A recentList is a map of ids that is ordered by when each was last seen.
type recentList struct {
	byID  map[string]*list.Element
	order list.List // of *entry, the most recent first
}

type entry struct {
	id       string
	resource *Resource
	expires  time.Time
}

func (l *recentList) add(now time.Time, id string, r *Resource, replace bool, limit int) {
	if e := l.byID[id]; e != nil {
		known := e.Value.(*entry)
		if known.resource != r && !replace && !now.After(known.expires) {
			return
		}
		known.resource, known.expires = r, now.Add(KeptFor)
		l.order.MoveToFront(e)
		return
	}
	if l.byID == nil {
		l.byID = map[string]*list.Element{}
	}
	id = strings.Clone(id) // it may be part of a large string
	l.byID[id] = l.order.PushFront(&entry{id, r, now.Add(KeptFor)})
	if len(l.byID) > limit {
		l.remove(l.order.Back())
	}
}

func (l *recentList) find(now time.Time, id string) *Resource {
	e := l.byID[id]
	if e == nil {
		return nil
	}
	known := e.Value.(*entry)
	if now.After(known.expires) {
		l.remove(e)
		return nil
	}
	return known.resource
}

func (l *recentList) remove(e *list.Element) {
	delete(l.byID, e.Value.(*entry).id)
	l.order.Remove(e)
}
