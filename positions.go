package spillover

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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

// pathIDs are the ids in the path: what stands in place of the braces in the
// table of operations. Off the table what is below the collection may be one.
func (r *request) pathIDs() (ids []objectID) {
	if r.dialect == "" {
		return nil
	}
	known := r.node.spec(r.Method) != unknownSpec
	n := operationTree
	for segment, rest := cutSegment(r.op); segment != ""; segment, rest = cutSegment(rest) {
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
func (r *request) queryIDs() (ids []objectID) {
	raw := r.URL.RawQuery
	if raw == "" || r.node == nil || r.Method != http.MethodGet && r.Method != "" {
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
			r := request{Request: &http.Request{Method: http.MethodGet}, target: parsePath(u.EscapedPath())}
			for _, id := range r.pathIDs() {
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

// A bodyWalk looks into the body of a request, where the table of operations
// says, and nowhere else.
type bodyWalk struct {
	tree   *keyNode
	text   []byte
	naming naming
	ids    []objectID
	most   int // ids
}

func (w *bodyWalk) addID(quoted []byte, item bool) {
	if len(w.ids) >= w.most {
		return
	}
	if id, ok := unquote(quoted); ok && isID(id) {
		w.ids = append(w.ids, objectID{id: id, item: item})
	}
}

// addModel takes note of a model's place. Of several the first of the table decides.
func (w *bodyWalk) addModel(model string, at span, place int) {
	n := &w.naming
	switch {
	case !n.named || place == n.place:
	case place < n.place:
		n.second = namedModel{n.model, n.at, n.place}
	default:
		n.second = namedModel{model, at, place}
		return
	}
	n.model, n.at, n.named, n.place = model, at, true, place
}

// readJSON reads what a JSON body says of itself, up to where it breaks off.
// usual is the name that the model is likely to have, and fields those that
// backends may set.
func (w *bodyWalk) readJSON(text []byte, usual string, fields []string) {
	w.text = text
	n := &w.naming
	brace := skipSpace(text, 0)
	if n.open = brace < len(text) && text[brace] == '{'; !n.open {
		return
	}
	n.gap = brace + 1
	next := skipSpace(text, n.gap)
	n.more = next < len(text) && text[next] != '}'
	before := 0 // where the member before ends
	for i := next; i < len(text) && text[i] == '"'; i = skipSpace(text, i+1) {
		key := span{i, skipString(text, i)}
		if key.to < 0 {
			return
		}
		if i = skipSpace(text, key.to); i >= len(text) || text[i] != ':' {
			return
		}
		k := key.in(text)
		for i, field := range fields {
			if isKey(k, field) {
				n.given |= 1 << i
			}
		}
		value := span{from: skipSpace(text, i+1)}
		child := w.tree.child(k)
		if value.to = w.value(value.from, child, usual); value.to < 0 {
			return
		}
		w.note(k, value.in(text))
		i = skipSpace(text, value.to)
		if child != nil && child.model > 0 && n.at == value {
			switch {
			case i < len(text) && text[i] == ',':
				n.entire = span{key.from, i + 1}
			case before > 0:
				n.entire = span{before, value.to}
			default:
				n.entire = span{key.from, value.to}
			}
		}
		if i >= len(text) || text[i] != ',' {
			return
		}
		before = i
	}
}

// note reads a member of the body that is no matter of the operation.
func (w *bodyWalk) note(key, value []byte) {
	n := &w.naming
	switch {
	case isKey(key, maxTokens), isKey(key, maxCompletionTokens), isKey(key, maxOutputTokens):
		n.capped = true
		if most, err := strconv.ParseInt(string(value), 10, 32); err == nil {
			n.most = max(n.most, most)
		}
	case isKey(key, "prompt_cache_key"):
		n.cacheKey, _ = unquote(value)
	case isKey(key, "background"):
		n.background = string(value) == "true"
	case isKey(key, "stream"):
		n.streams = string(value) == "true"
	case isKey(key, "store") && string(value) == "true", isKey(key, "audio") && len(value) > 0 && value[0] == '{':
		n.keeps = true
	}
}

// value reads the value that begins at i, and returns where it ends, or -1.
func (w *bodyWalk) value(i int, n *keyNode, usual string) (end int) {
	if n == nil || i >= len(w.text) {
		return skipValue(w.text, i)
	}
	switch c := w.text[i]; {
	case c == '{' && n.children != nil:
		end = w.object(i, n)
	case c == '[' && (n.children != nil || n.id):
		end = w.array(i, n)
	default:
		end = skipValue(w.text, i)
	}
	if end < 0 {
		return end
	}
	v := w.text[i:end]
	if n.model > 0 {
		if len(v) == len(usual)+2 && v[0] == '"' && string(v[1:len(v)-1]) == usual {
			w.addModel(usual, span{i, end}, n.model)
		} else {
			model, _ := unquote(v)
			w.addModel(model, span{i, end}, n.model)
		}
	}
	if n.id && v[0] == '"' {
		w.addID(v, n.item)
	}
	return end
}

// array reads the elements of an array as if each stood alone. Arrays in it are
// not looked into.
func (w *bodyWalk) array(i int, n *keyNode) int {
	text := w.text
	for i = skipSpace(text, i+1); i < len(text) && text[i] != ']'; {
		to := -1
		if text[i] == '[' {
			to = skipValue(text, i)
		} else {
			to = w.value(i, n, "")
		}
		if to < 0 {
			return -1
		}
		if i = skipSpace(text, to); i < len(text) && text[i] == ',' {
			i = skipSpace(text, i+1)
			continue
		}
		break
	}
	if i >= len(text) || text[i] != ']' {
		return -1
	}
	return i + 1
}

// object reads the members of an object.
func (w *bodyWalk) object(i int, n *keyNode) int {
	text := w.text
	var id span
	reference, plain := false, true
	for i = skipSpace(text, i+1); i < len(text) && text[i] == '"'; {
		key := span{i, skipString(text, i)}
		if key.to < 0 {
			return -1
		}
		if i = skipSpace(text, key.to); i >= len(text) || text[i] != ':' {
			return -1
		}
		k := key.in(text)
		value := span{from: skipSpace(text, i+1)}
		child := n.child(k)
		if n.entry && isKey(k, "id") {
			child = nil
		}
		if value.to = w.value(value.from, child, ""); value.to < 0 {
			return -1
		}
		if n.entry {
			v := value.in(text)
			switch {
			case isKey(k, "id"):
				id = value
			case isKey(k, "type"):
				plain = string(v) == "null"
				reference = string(v) == `"item_reference"` || string(v) == `"reasoning"` || string(v) == `"compaction"`
			case isKey(k, "role"):
				plain = false
			}
		}
		if i = skipSpace(text, value.to); i < len(text) && text[i] == ',' {
			i = skipSpace(text, i+1)
			continue
		}
		break
	}
	if i >= len(text) || text[i] != '}' {
		return -1
	}
	// Items are sent back with all that is in them, which binds the request to
	// nobody; a reference does, and what is encrypted for its maker.
	if id.to > 0 && (reference || plain) {
		w.addID(id.in(text), true)
	}
	return i + 1
}

// stream is readJSON for a body of any size, of which nothing is kept.
func (w *bodyWalk) stream(src io.Reader) error {
	tree := &keyNode{children: map[string]*keyNode{"background": {flag: true}}}
	for key, child := range w.tree.children {
		tree.children[key] = child
	}
	s := jsonScanner{root: tree, limit: 6 * maxModelName}
	p := make([]byte, 64<<10)
	for {
		n, err := src.Read(p)
		s.scan(p[:n], func(node *keyNode, value []byte, at span) {
			switch {
			case node.flag:
				w.naming.background = string(value) == "true"
			case node.model > 0:
				model, _ := unquote(value)
				w.addModel(model, at, node.model)
			case node.id && !node.item:
				w.addID(value, false)
			}
		})
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A jsonScanner looks for values at known places in JSON that passes in pieces,
// be it a body, an answer or the events of a stream. It keeps no more than the
// key or the value at hand. What is no JSON makes it find nothing, or nothing
// but what stands at such a place all the same.
type jsonScanner struct {
	root  *keyNode
	limit int  // a longer value is not one of those looked for
	lines bool // events of a stream: no string goes over the end of a line

	frames   [24]frame
	depth    int // of frames
	skipping int // depth of brackets inside a value that is not looked into
	node     *keyNode
	state    scanState
	offset   int // of the next piece
	from     int // of the value at hand

	inString, escaped bool // inside a string; behind a backslash in it
	taking            bool // the text at hand is kept
	blank             bool // the line so far is empty
	buf               []byte
}

type frame struct {
	node  *keyNode
	array bool
}

type scanState uint8

const (
	atValue scanState = iota
	atKey
	inScalar
	afterValue
)

func (s *jsonScanner) reset() {
	s.depth, s.skipping, s.inString, s.taking, s.escaped = 0, 0, false, false, false
	s.node, s.state = s.root, atValue
}

// scan reads a further piece.
func (s *jsonScanner) scan(p []byte, found func(n *keyNode, value []byte, at span)) {
	if s.offset == 0 {
		s.reset()
	}
	for i := 0; i < len(p); {
		if s.inString {
			i = s.string(p, i, found)
			continue
		}
		c := p[i]
		if s.lines {
			if c == '\n' {
				if s.blank {
					s.reset() // the next event, whatever this one was
				}
				s.blank = true
			} else if c != '\r' {
				s.blank = false
			}
		}
		if s.skipping > 0 {
			// Nothing but brackets and strings matters here.
			switch c {
			case '"':
				s.inString = true
			case '{', '[':
				s.skipping++
			case '}', ']':
				if s.skipping--; s.skipping == 0 {
					s.state = afterValue
				}
			}
			i++
			continue
		}
		if s.state == inScalar && strings.IndexByte(",]} \n\r\t", c) >= 0 {
			s.end(i, found)
		}
		switch c {
		case '"':
			if s.depth > 0 {
				s.inString, s.from = true, s.offset+i
				if s.taking = s.state == atKey || s.state == atValue && s.wanted(); s.taking {
					s.buf = append(s.buf[:0], '"')
				}
			}
		case '{', '[':
			s.open(c == '[')
		case '}', ']':
			if s.depth > 0 {
				s.depth--
				s.state = afterValue
			}
		case ',':
			if s.depth > 0 {
				if f := s.frames[s.depth-1]; f.array {
					s.state, s.node = atValue, f.node
				} else {
					s.state = atKey
				}
			}
		case ':':
			if s.depth > 0 && !s.frames[s.depth-1].array {
				s.state = atValue
			}
		case ' ', '\n', '\r', '\t':
		default:
			switch {
			case s.depth == 0:
			case s.state == atValue:
				s.state, s.from = inScalar, s.offset+i
				if s.taking = s.wanted(); s.taking {
					s.buf = append(s.buf[:0], c)
				}
			case s.state == inScalar && s.taking && len(s.buf) <= s.limit:
				s.buf = append(s.buf, c)
			}
		}
		i++
	}
	s.offset += len(p)
}

// wanted tells whether the value at hand is looked for.
func (s *jsonScanner) wanted() bool {
	return s.node != nil && (s.node.id || s.node.model > 0 || s.node.flag)
}

// open begins an object or an array.
func (s *jsonScanner) open(array bool) {
	nested := array && s.depth > 0 && s.frames[s.depth-1].array // an array in an array
	if s.state != atValue || nested || s.depth == len(s.frames) || s.node == nil || s.node.children == nil && !(array && s.node.id) {
		if s.depth > 0 {
			s.skipping = 1
		}
		return
	}
	s.frames[s.depth] = frame{s.node, array}
	s.depth++
	if s.state = atKey; array {
		s.state = atValue
	}
}

// string reads on in a string.
func (s *jsonScanner) string(p []byte, i int, found func(n *keyNode, value []byte, at span)) int {
	rest := p[i:]
	n := bytes.IndexByte(rest, '"')
	if n >= 0 {
		rest = rest[:n]
	}
	if s.lines {
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			s.reset() // it was cut
			s.blank = true
			return i + end + 1
		}
	}
	if s.taking {
		if len(s.buf)+len(rest) > s.limit+2 {
			rest2 := rest[:max(0, s.limit+2-len(s.buf))]
			s.buf = append(s.buf, rest2...)
		} else {
			s.buf = append(s.buf, rest...)
		}
	}
	// A quote ends the string unless an odd number of backslashes is before it.
	slashes := 0
	for slashes < len(rest) && rest[len(rest)-1-slashes] == '\\' {
		slashes++
	}
	odd := slashes%2 == 1
	if slashes == len(rest) && s.escaped {
		odd = !odd
	}
	if n < 0 {
		s.escaped = odd
		return len(p)
	}
	s.escaped = false
	if s.taking {
		s.buf = append(s.buf, '"')
	}
	i += n + 1
	if odd {
		return i
	}
	s.inString = false
	if s.skipping > 0 {
		return i
	}
	switch s.state {
	case atKey:
		if s.node = nil; s.taking && len(s.buf) <= s.limit {
			s.node = s.frames[s.depth-1].node.child(s.buf)
		}
		s.state = afterValue
	case atValue:
		s.end(i, found)
	}
	s.taking = false
	return i
}

// end ends a string or a scalar, before index i of the piece.
func (s *jsonScanner) end(i int, found func(n *keyNode, value []byte, at span)) {
	if s.taking && len(s.buf) <= s.limit {
		found(s.node, s.buf, span{s.from, s.offset + i})
	}
	s.taking, s.state = false, afterValue
}

// An idReader finds the ids in an answer that passes.
type idReader struct {
	scanner jsonScanner
	last    string // streams tell the same ones again and again
}

func newIDReader(r *request, stream bool) *idReader {
	tree := answerTree
	if r.spec().has(ofItems) {
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
