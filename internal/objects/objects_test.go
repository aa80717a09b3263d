package objects

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wire"
)

func TestLeastRecentlySeenObjectIsForgotten(t *testing.T) {
	now := time.Now()
	var s Store
	r := new(Resource)
	put := func(id string) { s.Put(now, wire.ObjectID{ID: id}, r) }
	put("resp_a")
	put("resp_b")
	put("resp_a") // seen again
	for i := range maxObjects - 1 {
		require.NotNil(t, s.Find(now, "resp_a"))
		put(fmt.Sprintf("resp_%d", i))
	}
	known, items := s.Len()
	require.Equal(t, maxObjects, known)
	require.Zero(t, items)
	require.Equal(t, maxObjects, s.objects.order.Len())
	require.Nil(t, s.Find(now, "resp_b"), "the oldest is gone")
	require.NotNil(t, s.Find(now, "resp_a"))
	put("resp_c")
	require.Nil(t, s.Find(now, "resp_a"))
}

func TestItemsDoNotPushObjectsOut(t *testing.T) {
	now := time.Now()
	var s Store
	r := new(Resource)
	s.Learn(now, wire.ObjectID{ID: "resp_a"}, r)
	for i := range 2 * maxItems {
		s.Learn(now, wire.ObjectID{ID: fmt.Sprintf("msg_%d", i), Item: true}, r)
	}
	known, items := s.Len()
	require.Equal(t, 1, known)
	require.Equal(t, maxItems, items)
	require.Same(t, r, s.Find(now, "resp_a"))
	require.Same(t, r, s.Find(now, fmt.Sprintf("msg_%d", 2*maxItems-1)))
}

func TestMentionDoesNotMoveAnObject(t *testing.T) {
	now := time.Now()
	var s Store
	home, other := new(Resource), new(Resource)
	id := wire.ObjectID{ID: "file-1"}
	s.Learn(now, id, home)
	s.Learn(now, id, other)
	require.Same(t, home, s.Find(now, "file-1"))
	s.Put(now, id, other)
	require.Same(t, other, s.Find(now, "file-1"), "found there")
	s.Learn(now.Add(KeptFor+1), id, home)
	require.Same(t, home, s.Find(now.Add(KeptFor+1), "file-1"), "what was known has expired")
}

func TestObjectExpires(t *testing.T) {
	now := time.Now()
	var s Store
	s.Put(now, wire.ObjectID{ID: "resp_a"}, new(Resource))
	require.NotNil(t, s.Find(now.Add(KeptFor), "resp_a"))
	require.Nil(t, s.Find(now.Add(KeptFor+1), "resp_a"))
	known, _ := s.Len()
	require.Zero(t, known)
}

// An id may be part of a long path, of which nothing else may be kept.
func TestStoreKeepsNothingButIDs(t *testing.T) {
	var s Store
	now, r := time.Now(), new(Resource)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	rest := strings.Repeat("/", 4<<10)
	for i := range 10 * maxObjects {
		id := fmt.Sprint("file-", i)
		if i >= 9*maxObjects {
			id = (id + rest)[:len(id)]
		}
		s.Put(now, wire.ObjectID{ID: id}, r)
	}
	known, _ := s.Len()
	require.LessOrEqual(t, known, maxObjects)
	require.Less(t, heap()-before, int64(maxObjects*512))
	runtime.KeepAlive(&s)
}
