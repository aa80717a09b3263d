package wire

import (
	"io"
	"maps"
	"strconv"
)

// A BodyScanner reads the body of a request, where the table of operations
// says, and nowhere else.
type BodyScanner struct {
	Tree   *FieldTree
	text   []byte
	Info   BodyInfo
	Rare   RareKeys
	IDs    []ObjectID
	MaxIDs int // ids
}

func (w *BodyScanner) addID(quoted []byte, item bool) {
	if len(w.IDs) >= w.MaxIDs {
		return
	}
	if id, ok := unquote(quoted); ok && IsID(id) {
		w.IDs = append(w.IDs, ObjectID{ID: id, Item: item})
	}
}

// addModel takes note of a model's place. Of several the first of the table decides.
func (w *BodyScanner) addModel(model string, at Span, place int) {
	n := &w.Info
	switch {
	case !n.HasModel || place == n.Rank:
	case place < n.Rank:
		n.Second = ModelRef{n.Model, n.ModelSpan, n.Rank}
	default:
		n.Second = ModelRef{model, at, place}
		return
	}
	n.Model, n.ModelSpan, n.HasModel, n.Rank = model, at, true, place
}

// ReadJSON reads what a JSON body says of itself, up to where it breaks off.
// usual is the name that the model is likely to have, and fields those that
// backends may set.
func (w *BodyScanner) ReadJSON(text []byte, usual string, fields []string) {
	w.text = text
	n := &w.Info
	brace := skipSpace(text, 0)
	if n.Insertable = brace < len(text) && text[brace] == '{'; !n.Insertable {
		return
	}
	n.InsertAt = brace + 1
	next := skipSpace(text, n.InsertAt)
	n.HasMembers = next < len(text) && text[next] != '}'
	before := 0 // where the member before ends
	for i := next; i < len(text) && text[i] == '"'; i = skipSpace(text, i+1) {
		key := Span{i, skipString(text, i)}
		if key.To < 0 {
			return
		}
		if i = skipSpace(text, key.To); i >= len(text) || text[i] != ':' {
			return
		}
		name := keyName(key.in(text))
		for i, field := range fields {
			if string(name) == field {
				n.Present |= 1 << i
			}
		}
		value := Span{From: skipSpace(text, i+1)}
		child := w.Tree.Children[string(name)]
		if value.To = w.value(value.From, child, usual); value.To < 0 {
			return
		}
		w.noteMember(name, value.in(text))
		i = skipSpace(text, value.To)
		if child != nil && child.model > 0 && n.ModelSpan == value {
			switch {
			case i < len(text) && text[i] == ',':
				n.MemberSpan = Span{key.From, i + 1}
			case before > 0:
				n.MemberSpan = Span{before, value.To}
			default:
				n.MemberSpan = Span{key.From, value.To}
			}
		}
		if i >= len(text) || text[i] != ',' {
			return
		}
		before = i
	}
}

// note reads a member of the body that is no matter of the operation.
func (w *BodyScanner) noteMember(key, value []byte) {
	w.noteString(key)
	n := &w.Info
	switch string(key) {
	case MaxTokens, MaxCompletionTokens, MaxOutputTokens:
		n.HasMaxTokens = true
		if most, err := strconv.ParseInt(string(value), 10, 32); err == nil {
			n.MaxOutput = max(n.MaxOutput, most)
		}
	case "prompt_cache_key":
		n.PromptCacheKey, _ = unquote(value)
	case "background":
		n.Background = string(value) == "true"
	case "stream":
		n.Stream = string(value) == "true"
	case "store":
		n.Stored = n.Stored || string(value) == "true"
	case "audio":
		n.Stored = n.Stored || len(value) > 0 && value[0] == '{'
	}
}

// noteString notes the rare keys among the strings of a body.
func (w *BodyScanner) noteString(s []byte) {
	switch string(s) {
	case "file_id", "audio":
		w.Rare.IDs = true
	case "file_data", "input_audio":
		w.Rare.Files = true
	}
}

// skip is skipValue, but for the rare keys in the value.
func (w *BodyScanner) skip(i int) int {
	text := w.text
	if i >= len(text) || text[i] != '{' && text[i] != '[' {
		return skipValue(text, i)
	}
	for depth := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			end := skipString(text, i)
			if end < 0 {
				return -1
			}
			w.noteString(text[i+1 : end-1])
			i = end - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// value reads the value that begins at i, and returns where it ends, or -1.
func (w *BodyScanner) value(i int, n *FieldTree, usual string) (end int) {
	if n == nil || i >= len(w.text) {
		return w.skip(i)
	}
	switch c := w.text[i]; {
	case c == '{' && n.Children != nil:
		end = w.object(i, n)
	case c == '[' && (n.Children != nil || n.ID):
		end = w.array(i, n)
	default:
		end = w.skip(i)
	}
	if end < 0 {
		return end
	}
	v := w.text[i:end]
	if n.model > 0 {
		if len(v) == len(usual)+2 && v[0] == '"' && string(v[1:len(v)-1]) == usual {
			w.addModel(usual, Span{i, end}, n.model)
		} else {
			model, _ := unquote(v)
			w.addModel(model, Span{i, end}, n.model)
		}
	}
	if n.ID && v[0] == '"' {
		w.addID(v, n.item)
	}
	return end
}

// array reads the elements of an array as if each stood alone. Arrays in it are
// not looked into.
func (w *BodyScanner) array(i int, n *FieldTree) int {
	text := w.text
	for i = skipSpace(text, i+1); i < len(text) && text[i] != ']'; {
		var to int
		if text[i] == '[' {
			to = w.skip(i)
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
func (w *BodyScanner) object(i int, n *FieldTree) int {
	text := w.text
	var id Span
	reference, plain := false, true
	for i = skipSpace(text, i+1); i < len(text) && text[i] == '"'; {
		key := Span{i, skipString(text, i)}
		if key.To < 0 {
			return -1
		}
		if i = skipSpace(text, key.To); i >= len(text) || text[i] != ':' {
			return -1
		}
		name := keyName(key.in(text))
		w.noteString(name)
		value := Span{From: skipSpace(text, i+1)}
		child := n.Children[string(name)]
		if n.listOfItems && string(name) == "id" {
			child = nil
		}
		if value.To = w.value(value.From, child, ""); value.To < 0 {
			return -1
		}
		if n.listOfItems {
			v := value.in(text)
			switch string(name) {
			case "id":
				id = value
			case "type":
				plain = string(v) == "null"
				reference = string(v) == `"item_reference"` || string(v) == `"reasoning"` || string(v) == `"compaction"`
			case "role":
				plain = false
			}
		}
		if i = skipSpace(text, value.To); i < len(text) && text[i] == ',' {
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
	if id.To > 0 && (reference || plain) {
		w.addID(id.in(text), true)
	}
	return i + 1
}

// Stream is readJSON for a body of any size, of which nothing is kept.
func (w *BodyScanner) Stream(src io.Reader) error {
	tree := &FieldTree{Children: map[string]*FieldTree{"background": {flag: true}}}
	maps.Copy(tree.Children, w.Tree.Children)
	s := JsonScanner{Root: tree, Limit: 6 * MaxModelName}
	p := make([]byte, 64<<10)
	for {
		n, err := src.Read(p)
		s.scan(p[:n], func(node *FieldTree, value []byte, at Span) {
			switch {
			case node.flag:
				w.Info.Background = string(value) == "true"
			case node.model > 0:
				model, _ := unquote(value)
				w.addModel(model, at, node.model)
			case node.ID && !node.item:
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
