package wire

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// An ObjectID is the id of a stored object.
type ObjectID struct {
	ID        string
	Item      bool // an item of a response or a conversation; there are many of them
	Uncertain bool // it may also be a word of the API: a response does not show where this object is stored
}

// MaxIDLength is the maximum length of an id, in bytes. Longer texts are not treated as
// ids.
const MaxIDLength = 256

// IsID reports whether a text at the place of an id can be an id. "auto" and "none" are
// settings of the API.
func IsID[T string | []byte](s T) bool {
	if len(s) == 0 || len(s) > MaxIDLength {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return string(s) != "auto" && string(s) != "none"
}

// isAPIWord reports whether a text can be a word of the API, such as input_items.
func isAPIWord(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') })
}

// itemSegments are the path segments of the table that contain the id of an item.
var itemSegments = []string{"item_id", "output_item_id", "turn_id"}

// PathIDs returns the ids in the path: the segments that the table has in braces. In a
// path that is not in the table, any segment below the collection may be an id.
func (t Target) PathIDs(method string) (ids []ObjectID) {
	if t.Dialect == "" {
		return nil
	}
	known := t.node.spec(method) != UnknownSpec
	n := operationTree
	for segment, rest := CutSegment(t.Operation); segment != ""; segment, rest = CutSegment(rest) {
		top := n == operationTree
		parent := n
		n = n.below(segment)
		if top || n != nil && n != parent.id || n != nil && n.name == "version" {
			continue
		}
		id, err := url.PathUnescape(segment)
		if err != nil || !IsID(id) {
			continue
		}
		o := ObjectID{ID: id, Uncertain: isAPIWord(id) && !known}
		if n != nil {
			o.Item, o.Uncertain = slices.Contains(itemSegments, n.name), o.Uncertain || n.name == "model"
		}
		ids = append(ids, o)
	}
	return ids
}

// QueryIDs returns the ids in the query of a GET.
func (t Target) QueryIDs(method, raw string) (ids []ObjectID) {
	if raw == "" || t.node == nil || method != http.MethodGet && method != "" {
		return nil
	}
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		if !slices.Contains(queryPlaces, name) {
			continue
		}
		if id, err := url.QueryUnescape(value); err == nil && IsID(id) {
			ids = append(ids, ObjectID{ID: id})
		}
	}
	return ids
}

// HeaderIDs calls found for each id in the header of a response.
func HeaderIDs(h http.Header, found func(id string)) {
	for _, name := range headerPlaces.Paths {
		if v := Header(h, name); v != "" {
			u, err := url.Parse(v)
			if err != nil {
				continue
			}
			for _, id := range ParsePath(u.EscapedPath()).PathIDs(http.MethodGet) {
				if !id.Item && !id.Uncertain {
					found(id.ID)
				}
			}
		}
	}
	for _, name := range headerPlaces.IDs {
		if v := Header(h, name); IsID(v) {
			found(v)
		}
	}
}

// An IDScanner finds the ids in a response while it is passed on.
type IDScanner struct {
	scanner jsonScanner
	last    string // the last id, because the events of a stream repeat it
}

// NewIDScanner returns a scanner for a response. items means that the ids of the
// response itself are ids of items, stream that it is a stream of events.
func NewIDScanner(items, stream bool) *IDScanner {
	tree := responseTree
	if items {
		tree = itemResponseTree
	}
	return &IDScanner{scanner: jsonScanner{root: tree, limit: MaxIDLength + 2, eventStream: stream}}
}

// Scan reads a further piece and calls found for each id that ends in it, except for
// immediate repetitions.
func (r *IDScanner) Scan(p []byte, found func(ObjectID)) {
	r.scanner.scan(p, func(n *fieldNode, value []byte, _ Span) {
		if len(value) < 2 || value[0] != '"' || string(value[1:len(value)-1]) == r.last {
			return
		}
		if id, ok := unquote(value); ok && IsID(id) {
			r.last = id
			found(ObjectID{ID: id, Item: n.isItem})
		}
	})
}
