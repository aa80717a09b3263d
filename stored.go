package spillover

import (
	"bytes"
	"container/list"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An object that a service stores exists at one backend alone. Which one is
// learnt from the ids in answers, and forgotten after a day or when ten
// thousand newer ones were seen; an unknown id is asked for at each backend.
const (
	maxStored = 10_000
	storedFor = 24 * time.Hour
)

// idPrefixes are what the ids of stored objects begin with (OpenAI's API
// reference; Azure's files may begin with assistant-). A reasoning item is among
// them as what is encrypted in it can be read by its maker alone.
var idPrefixes = []string{
	"resp_", "conv_", "rs_", "file-", "file_", "assistant-", "batch_", "thread_", "run_", "step_", "asst_", "vs_", "vsfb_", "cntr_",
	"cfile_", "upload_", "part_", "ftjob-", "ftckpt_", "eval_", "evalrun_", "video_", "skill_", "chatcmpl-",
}

// itemPrefixes are those of the items of a response. Callers send items back
// with all that is in them, which binds the request to nobody; only a reference
// to one does.
var itemPrefixes = []string{"msg_", "fc_", "ws_", "fs_", "ci_", "ig_", "mcp_"}

func isID(s []byte) bool { return hasPrefix(s, idPrefixes) || hasPrefix(s, itemPrefixes) }

// hasPrefix tells whether a text is a word that begins so.
func hasPrefix(s []byte, prefixes []string) bool {
	if len(s) > 128 {
		return false
	}
	for _, prefix := range prefixes {
		if len(s) > len(prefix) && string(s[:len(prefix)]) == prefix {
			return !bytes.ContainsFunc(s, func(r rune) bool {
				return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
			})
		}
	}
	return false
}

// stored remembers which backend has which object. Its zero value is empty.
type stored struct {
	any    atomic.Bool // whether there was ever one
	mu     sync.Mutex
	byID   map[string]*list.Element
	recent list.List // of place, the one that was seen last in front
}

type place struct {
	id    string
	home  *link
	until time.Time
}

// put remembers that a backend has an object.
func (s *stored) put(now time.Time, id string, home *link) {
	s.any.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[id]; e != nil {
		p := e.Value.(*place)
		p.home, p.until = home, now.Add(storedFor)
		s.recent.MoveToFront(e)
		return
	}
	if s.byID == nil {
		s.byID = map[string]*list.Element{}
	}
	id = strings.Clone(id) // it may be a piece of something large
	s.byID[id] = s.recent.PushFront(&place{id, home, now.Add(storedFor)})
	if len(s.byID) > maxStored {
		s.drop(s.recent.Back())
	}
}

// find is the backend that has an object, nil when that is not known.
func (s *stored) find(now time.Time, id string) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
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

func (s *stored) drop(e *list.Element) {
	delete(s.byID, e.Value.(*place).id)
	s.recent.Remove(e)
}

// pathIDs are the ids in an escaped path.
func pathIDs(op string) (ids []string) {
	for segment, rest := cutSegment(op); segment != ""; segment, rest = cutSegment(rest) {
		if isID([]byte(segment)) {
			ids = append(ids, segment)
		}
	}
	return ids
}

// bodyIDs calls found for each string of a JSON text that binds it to a stored
// object, until that says stop. Such a string stands under a key that says so:
// what a caller or a tool wrote may look like an id, and so do "file_search"
// and the keys themselves.
func bodyIDs(text []byte, found func(id []byte) (more bool)) {
	references := bytes.Contains(text, []byte(`"item_reference"`))
	names := false // the values at hand are ids
	for i := bytes.IndexByte(text, '"'); i >= 0; {
		end := skipString(text, i)
		if end < 0 {
			return
		}
		s := text[i+1 : end-1]
		next := skipSpace(text, end)
		if next < len(text) && text[next] == ':' {
			if names = namesID(s); string(s) == "metadata" {
				// The caller's own notes, whatever they are called.
				if next = skipValue(text, skipSpace(text, next+1)); next < 0 {
					return
				}
			}
		} else if names && (hasPrefix(s, idPrefixes) || references && hasPrefix(s, itemPrefixes)) && !found(s) {
			return
		}
		n := bytes.IndexByte(text[next:], '"')
		if n < 0 {
			return
		}
		i = next + n
	}
}

// namesID tells of a key whose value, or list of them, is of ids.
func namesID(key []byte) bool {
	switch string(key) {
	case "id", "ids", "conversation", "container", "training_file", "validation_file":
		return true
	}
	return bytes.HasSuffix(key, []byte("_id")) || bytes.HasSuffix(key, []byte("_ids"))
}
