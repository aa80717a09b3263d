package wire

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// An ObjectID is the id of something that a service stores.
type ObjectID struct {
	ID        string
	Item      bool // of a response or a conversation, of which there are many
	Uncertain bool // it may as well be a word of the API: nothing is learnt from where it is found
}

// MaxIDLength bounds the ids that are looked at.
const MaxIDLength = 256

// IsID tells whether a text where an id is expected can be one. "auto" and
// "none" are settings of the API.
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

// isWord tells whether a text can be a word of the API, such as input_items.
func isWord(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') })
}

// itemSegments are the places in paths that name an item.
var itemSegments = []string{"item_id", "output_item_id", "turn_id"}

// PathIDs are the ids in the path: what stands in place of the braces in the
// table of operations. Off the table what is below the collection may be one.
func (t Target) PathIDs(method string) (ids []ObjectID) {
	if t.Dialect == "" {
		return nil
	}
	known := t.node.Spec(method) != UnknownSpec
	n := OperationTree
	for segment, rest := CutSegment(t.Operation); segment != ""; segment, rest = CutSegment(rest) {
		top := n == OperationTree
		parent := n
		n = n.below(segment)
		if top || n != nil && n != parent.id || n != nil && n.name == "version" {
			continue
		}
		id, err := url.PathUnescape(segment)
		if err != nil || !IsID(id) {
			continue
		}
		o := ObjectID{ID: id, Uncertain: isWord(id) && !known}
		if n != nil {
			o.Item, o.Uncertain = slices.Contains(itemSegments, n.name), o.Uncertain || n.name == "model"
		}
		ids = append(ids, o)
	}
	return ids
}

// QueryIDs are the ids in the query of a GET.
func (t Target) QueryIDs(method, raw string) (ids []ObjectID) {
	if raw == "" || t.node == nil || method != http.MethodGet && method != "" {
		return nil
	}
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		if !slices.Contains(QueryPlaces, name) {
			continue
		}
		if id, err := url.QueryUnescape(value); err == nil && IsID(id) {
			ids = append(ids, ObjectID{ID: id})
		}
	}
	return ids
}

// HeaderIDs calls found for the ids in the header of an answer.
func HeaderIDs(h http.Header, found func(id string)) {
	for _, name := range HeaderPlaces.Paths {
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
	for _, name := range HeaderPlaces.IDs {
		if v := Header(h, name); IsID(v) {
			found(v)
		}
	}
}

// An IDScanner finds the ids in an answer that passes.
type IDScanner struct {
	Scanner JsonScanner
	last    string // streams tell the same ones again and again
}

func NewIDScanner(items, stream bool) *IDScanner {
	tree := AnswerTree
	if items {
		tree = itemAnswerTree
	}
	return &IDScanner{Scanner: JsonScanner{Root: tree, Limit: MaxIDLength + 2, Lines: stream}}
}

func (r *IDScanner) Scan(p []byte, found func(ObjectID)) {
	r.Scanner.scan(p, func(n *FieldTree, value []byte, _ Span) {
		if len(value) < 2 || value[0] != '"' || string(value[1:len(value)-1]) == r.last {
			return
		}
		if id, ok := unquote(value); ok && IsID(id) {
			r.last = id
			found(ObjectID{ID: id, Item: n.item})
		}
	})
}
