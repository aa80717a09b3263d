package spillover

import (
	"io"
	"strconv"
)

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
