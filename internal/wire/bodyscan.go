package wire

import (
	"io"
	"maps"
	"strconv"
)

// A BodyScanner reads the model, the ids and other facts from the body of a request. It
// looks only at the places in Fields, and at a few members of every body.
type BodyScanner struct {
	Fields *fieldNode
	text   []byte
	Info   BodyInfo
	Rare   RareKeys // the rare keys of a JSON body
	IDs    []ObjectID
	MaxIDs int // maximum number of IDs

	instructions, prompt []byte // the members that have the prompt

	// KnownModel returns a string that is equal to a name, if there is one already, else
	// "". It saves the allocation of the model's name. It may be nil.
	KnownModel func(name []byte) string
}

// addID records an id. It ignores ids beyond MaxIDs.
func (w *BodyScanner) addID(quoted []byte, item bool) {
	if len(w.IDs) >= w.MaxIDs {
		return
	}
	if id, ok := unquote(quoted); ok && IsID(id) {
		w.IDs = append(w.IDs, ObjectID{ID: id, Item: item})
	}
}

// addModel records a model. The one with the lowest precedence decides.
func (w *BodyScanner) addModel(model string, at Span, place int) {
	n := &w.Info
	switch {
	case !n.HasModel || place == n.ModelPrecedence:
	case place < n.ModelPrecedence:
		n.SecondModel = NamedModel{n.Model, n.ModelSpan, n.ModelPrecedence}
	default:
		n.SecondModel = NamedModel{model, at, place}
		return
	}
	n.Model, n.ModelSpan, n.HasModel, n.ModelPrecedence = model, at, true, place
}

// ReadJSON reads a JSON body, up to the point where it ends or is not valid. usual is
// the most likely model, which saves its allocation. fields are those that backends may
// set.
func (w *BodyScanner) ReadJSON(text []byte, usual string, fields []string) {
	w.text = text
	n := &w.Info
	brace := skipSpace(text, 0)
	if n.CanInsert = brace < len(text) && text[brace] == '{'; !n.CanInsert {
		return
	}
	n.InsertAt = brace + 1
	next := skipSpace(text, n.InsertAt)
	n.HasMembers = next < len(text) && text[next] != '}'
	before := 0 // where the previous member ends
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
				n.PresentFields |= 1 << i
			}
		}
		value := Span{From: skipSpace(text, i+1)}
		child := w.Fields.children[string(name)]
		if value.To = w.readValue(value.From, child, usual); value.To < 0 {
			return
		}
		w.addMember(name, value.in(text))
		i = skipSpace(text, value.To)
		if child != nil && child.modelPrecedence > 0 && n.ModelSpan == value {
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

// addMember reads a top-level member that is the same for all operations.
func (w *BodyScanner) addMember(key, value []byte) {
	w.addString(key)
	n := &w.Info
	switch string(key) {
	case MaxTokensField, MaxCompletionTokensField, MaxOutputTokensField:
		n.HasMaxTokens = true
		if most, err := strconv.ParseInt(string(value), 10, 32); err == nil {
			n.MaxOutput = max(n.MaxOutput, most)
		}
	case "prompt_cache_key":
		n.PromptCacheKey, _ = unquote(value)
	case "instructions":
		w.instructions = value
	case "messages", "input", "prompt":
		w.prompt = value
	case "background":
		n.Background = string(value) == "true"
	case "stream":
		n.Stream = string(value) == "true"
	case "store":
		n.StoresResponse = n.StoresResponse || string(value) == "true"
	case "audio":
		n.StoresResponse = n.StoresResponse || len(value) > 0 && value[0] == '{'
	}
}

// HashPrompt sets the PromptHash of a body of JSON that was read: of as many bytes of
// the prompt as given. A shorter prompt has none. It is the same in every process.
func (w *BodyScanner) HashPrompt(bytes int) {
	if len(w.instructions)+len(w.prompt) < bytes {
		return
	}
	h := uint32(2166136261) // FNV-1a
	for _, part := range [...][]byte{w.instructions, w.prompt} {
		for _, c := range part[:min(len(part), bytes)] {
			h = (h ^ uint32(c)) * 16777619
		}
		bytes -= min(len(part), bytes)
	}
	w.Info.PromptHash = max(h, 1)
}

// addString takes note of a string in the body, if it is one of the rare keys.
func (w *BodyScanner) addString(s []byte) {
	switch string(s) {
	case "file_id", "audio":
		w.Rare.IDs = true
	case "file_data", "input_audio":
		w.Rare.Media = true
	}
}

// skipValue returns the index after the value that begins at i, or -1. It takes note of
// the rare keys in the value.
func (w *BodyScanner) skipValue(i int) int {
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
			w.addString(text[i+1 : end-1])
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

// readValue reads the value that begins at i. It returns the index after it, or -1.
func (w *BodyScanner) readValue(i int, n *fieldNode, usual string) (end int) {
	if n == nil || i >= len(w.text) {
		return w.skipValue(i)
	}
	switch c := w.text[i]; {
	case c == '{' && n.children != nil:
		end = w.readObject(i, n)
	case c == '[' && (n.children != nil || n.isID):
		end = w.readArray(i, n)
	default:
		end = w.skipValue(i)
	}
	if end < 0 {
		return end
	}
	v := w.text[i:end]
	if n.modelPrecedence > 0 {
		w.addModel(w.model(v, usual), Span{i, end}, n.modelPrecedence)
	}
	if n.isID && v[0] == '"' {
		w.addID(v, n.isItem)
	}
	return end
}

// model returns the model that a value names, or "" if it is not a string.
func (w *BodyScanner) model(value []byte, usual string) string {
	if len(value) >= 2 && value[0] == '"' {
		name := value[1 : len(value)-1]
		if string(name) == usual {
			return usual
		}
		if w.KnownModel != nil && isPlain(name) {
			if model := w.KnownModel(name); model != "" {
				return model
			}
		}
	}
	model, _ := unquote(value)
	return model
}

// readArray reads each element of an array as if it were the value itself. It does not
// search arrays in the array.
func (w *BodyScanner) readArray(i int, n *fieldNode) int {
	text := w.text
	for i = skipSpace(text, i+1); i < len(text) && text[i] != ']'; {
		var to int
		if text[i] == '[' {
			to = w.skipValue(i)
		} else {
			to = w.readValue(i, n, "")
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

// readObject reads the members of an object. It returns the index after it, or -1.
func (w *BodyScanner) readObject(i int, n *fieldNode) int {
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
		w.addString(name)
		value := Span{From: skipSpace(text, i+1)}
		child := n.children[string(name)]
		if n.hasItems && string(name) == "id" {
			child = nil
		}
		if value.To = w.readValue(value.From, child, ""); value.To < 0 {
			return -1
		}
		if n.hasItems {
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
	// An item that is sent back with its content does not bind the request to a
	// resource. A reference does, and so does an item that is encrypted for its
	// creator.
	if id.To > 0 && (reference || plain) {
		w.addID(id.in(text), true)
	}
	return i + 1
}

// ReadStream reads the model, the ids and background from a JSON body of any size. It
// does not keep the body.
func (w *BodyScanner) ReadStream(src io.Reader) error {
	tree := &fieldNode{children: map[string]*fieldNode{"background": {isFlag: true}}}
	maps.Copy(tree.children, w.Fields.children)
	s := jsonScanner{root: tree, limit: 6 * MaxModelName}
	p := make([]byte, 64<<10)
	for {
		n, err := src.Read(p)
		s.scan(p[:n], func(node *fieldNode, value []byte, at Span) {
			switch {
			case node.isFlag:
				w.Info.Background = string(value) == "true"
			case node.modelPrecedence > 0:
				model, _ := unquote(value)
				w.addModel(model, at, node.modelPrecedence)
			case node.isID && !node.isItem:
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
