package spillover

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// An objectID is the id of something that a service stores.
type objectID struct {
	id   string
	item bool // of a response or a conversation, of which there are many
	weak bool // it may as well be a word of the API: nothing is learnt from where it is found
}

// maxIDLength bounds the ids that are looked at.
const maxIDLength = 256

// isID tells whether a text where an id is expected can be one. "auto" and
// "none" are settings of the API.
func isID[T string | []byte](s T) bool {
	if len(s) == 0 || len(s) > maxIDLength {
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

// ids are the ids in the path: what stands in place of the braces in the
// table of operations. Off the table what is below the collection may be one.
func (t target) ids(method string) (ids []objectID) {
	if t.dialect == "" {
		return nil
	}
	known := t.node.spec(method) != unknownSpec
	n := operationTree
	for segment, rest := cutSegment(t.op); segment != ""; segment, rest = cutSegment(rest) {
		top := n == operationTree
		parent := n
		n = n.below(segment)
		if top || n != nil && n != parent.id || n != nil && n.name == "version" {
			continue
		}
		id, err := url.PathUnescape(segment)
		if err != nil || !isID(id) {
			continue
		}
		o := objectID{id: id, weak: isWord(id) && !known}
		if n != nil {
			o.item, o.weak = slices.Contains(itemSegments, n.name), o.weak || n.name == "model"
		}
		ids = append(ids, o)
	}
	return ids
}

// queryIDs are the ids in the query of a GET.
func (t target) queryIDs(method, raw string) (ids []objectID) {
	if raw == "" || t.node == nil || method != http.MethodGet && method != "" {
		return nil
	}
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		if !slices.Contains(queryPlaces, name) {
			continue
		}
		if id, err := url.QueryUnescape(value); err == nil && isID(id) {
			ids = append(ids, objectID{id: id})
		}
	}
	return ids
}

// headerIDs calls found for the ids in the header of an answer.
func headerIDs(h http.Header, found func(id string)) {
	for _, name := range headerPlaces.paths {
		if v := field(h, name); v != "" {
			u, err := url.Parse(v)
			if err != nil {
				continue
			}
			for _, id := range parsePath(u.EscapedPath()).ids(http.MethodGet) {
				if !id.item && !id.weak {
					found(id.id)
				}
			}
		}
	}
	for _, name := range headerPlaces.ids {
		if v := field(h, name); isID(v) {
			found(v)
		}
	}
}

// An idReader finds the ids in an answer that passes.
type idReader struct {
	scanner jsonScanner
	last    string // streams tell the same ones again and again
}

func newIDReader(items, stream bool) *idReader {
	tree := answerTree
	if items {
		tree = itemAnswerTree
	}
	return &idReader{scanner: jsonScanner{root: tree, limit: maxIDLength + 2, lines: stream}}
}

func (r *idReader) read(p []byte, found func(objectID)) {
	r.scanner.scan(p, func(n *keyNode, value []byte, _ span) {
		if len(value) < 2 || value[0] != '"' || string(value[1:len(value)-1]) == r.last {
			return
		}
		if id, ok := unquote(value); ok && isID(id) {
			r.last = id
			found(objectID{id: id, item: n.item})
		}
	})
}
