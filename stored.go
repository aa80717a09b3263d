package spillover

import (
	"container/list"
	"strings"
	"sync"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// An object that a service stores exists at one resource alone. Which one is
// learnt from the ids in answers, and forgotten after a day or when ten thousand
// newer ones were seen; an unknown id is asked for at each backend. Items, of
// which each response has several, have a smaller list of their own, so that
// they do not push the others out.
const (
	maxStored = 10_000
	maxItems  = 5_000
	storedFor = 24 * time.Hour
)

// A resource is what stores objects: the account behind one or more backends.
// It outlives the configuration, and holds nothing of it.
type resource struct{ _ byte }

// stored remembers which resource has which object. Its zero value is empty.
type stored struct {
	mu sync.Mutex
	shelf
	items shelf
}

// A shelf is a list of ids, the one that was seen last in front.
type shelf struct {
	byID   map[string]*list.Element
	recent list.List // of place
}

type place struct {
	id    string
	home  *resource
	until time.Time
}

// put remembers that a resource has an object, whatever was known before: it
// was found there.
func (s *stored) put(now time.Time, id string, home *resource) {
	s.add(now, wire.ObjectID{Id: id}, home, true)
}

// learn remembers that an answer of a resource told of an object. What is known
// already stays where it is: an answer may tell of what is another's.
func (s *stored) learn(now time.Time, id wire.ObjectID, home *resource) {
	s.add(now, id, home, false)
}

func (s *stored) add(now time.Time, id wire.ObjectID, home *resource, moves bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id.Item {
		s.items.add(now, id.Id, home, moves, maxItems)
	} else {
		s.shelf.add(now, id.Id, home, moves, maxStored)
	}
}

func (s *shelf) add(now time.Time, id string, home *resource, moves bool, most int) {
	if e := s.byID[id]; e != nil {
		p := e.Value.(*place)
		if p.home != home && !moves && !now.After(p.until) {
			return
		}
		p.home, p.until = home, now.Add(storedFor)
		s.recent.MoveToFront(e)
		return
	}
	if s.byID == nil {
		s.byID = map[string]*list.Element{}
	}
	id = strings.Clone(id) // it may be a piece of something large
	s.byID[id] = s.recent.PushFront(&place{id, home, now.Add(storedFor)})
	if len(s.byID) > most {
		s.drop(s.recent.Back())
	}
}

// find is the resource that has an object, nil when that is not known.
func (s *stored) find(now time.Time, id string) *resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	if home := s.shelf.find(now, id); home != nil {
		return home
	}
	return s.items.find(now, id)
}

func (s *shelf) find(now time.Time, id string) *resource {
	e := s.byID[id]
	if e == nil {
		return nil
	}
	p := e.Value.(*place)
	if now.After(p.until) {
		s.drop(e)
		return nil
	}
	return p.home
}

func (s *shelf) drop(e *list.Element) {
	delete(s.byID, e.Value.(*place).id)
	s.recent.Remove(e)
}

// house gives each backend the resource that it is of: the one that its entry
// had in an earlier configuration, or that another entry of the same account
// has, now or before; else a new one.
func house(backends, before []*backend) {
	for _, b := range backends {
		for _, others := range [...][]*backend{backends, before} {
			for _, other := range others {
				if b.home == nil && other.home != nil && b.sharesResource(other) {
					b.home = other.home
				}
			}
		}
		if b.home == nil {
			b.home = new(resource)
		}
	}
}

// sharesResource tells whether two backends are entries of one resource: at the
// same place, with the same account. A host of Azure's own is one resource,
// whichever of its two keys or tokens it is asked with; elsewhere the key tells
// the account.
func (b *backend) sharesResource(other *backend) bool {
	return b.scheme == other.scheme && strings.EqualFold(b.host, other.host) && b.base == other.base &&
		(b.key == other.key || b.dialect != OpenAI && other.dialect != OpenAI && ofAzure(b.host))
}
