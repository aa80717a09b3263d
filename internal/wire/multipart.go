package wire

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"net/textproto"
	"strings"
)

// How much of a form is looked at a time, and how long the header of a part and
// a text in it may be.
const (
	FormWindow  = 64 << 10
	maxPartHead = 8 << 10
	MaxPartText = 1 << 20
)

// FindForm finds the model in a multipart form: the text of its "model" part,
// which may come after a file.
func FindForm(contentType string, text []byte) BodyInfo {
	w := BodyScanner{Tree: UnknownSpec.Models}
	w.ReadForm(contentType, bytes.NewReader(text))
	return w.Info
}

// ReadForm reads the parts of a form at the places of the tree. Nothing is kept
// but the part at hand, if it is one of those.
func (w *BodyScanner) ReadForm(contentType string, src io.Reader) {
	_, params, err := mime.ParseMediaType(contentType)
	boundary := params["boundary"]
	if err != nil || boundary == "" {
		return
	}
	w.Info.Boundary = boundary
	f := formReader{src: src, line: []byte("\r\n--" + boundary)}
	if !f.first() {
		w.Info.Boundary = ""
		return
	}
	w.Info.InsertAt, w.Info.Insertable = f.offset+f.at, true
	for f.begins() {
		at := f.offset + f.at // of the boundary
		n, text, to, ok := f.part(w.Tree)
		if n != nil && ok {
			w.formValue(n, text, Span{at, to + len("\r\n")})
			if w.Info.Rank == 1 && !w.wantsMore() {
				return
			}
		}
		if !ok {
			return
		}
	}
}

// wantsMore tells whether there is more to look for than the model.
func (w *BodyScanner) wantsMore() bool {
	for _, n := range w.Tree.Children {
		if n.ID || n.Children != nil {
			return true
		}
	}
	return false
}

// formValue reads the content of a part, which may be JSON. whole is the part
// with its boundary.
func (w *BodyScanner) formValue(n *FieldTree, text formText, whole Span) {
	value := text.bytes
	if brace := skipSpace(value, 0); n.Children != nil && brace < len(value) && value[brace] == '{' {
		inner := BodyScanner{Tree: n, text: value, MaxIDs: w.MaxIDs - len(w.IDs)}
		inner.object(brace, n)
		w.IDs = append(w.IDs, inner.IDs...)
		shift := func(s Span) Span { return Span{s.From + text.offset, s.To + text.offset} }
		if m := inner.Info; m.HasModel {
			w.addModel(m.Model, shift(m.ModelSpan), m.Rank)
			if w.Info.ModelSpan == shift(m.ModelSpan) {
				w.Info.InJSON = true
			}
			if s := m.Second; s.Rank > 0 {
				w.addModel(s.Model, shift(s.At), s.Rank)
			}
		}
		return
	}
	switch {
	case n.model > 0 && !w.Info.HasModel:
		w.addModel(string(value), Span{text.offset, text.offset + len(value)}, n.model)
		w.Info.MemberSpan = whole
	case n.ID && IsID(value) && len(w.IDs) < w.MaxIDs:
		w.IDs = append(w.IDs, ObjectID{ID: string(value)})
	}
}

// A formText is the content of a part, and where it is in the form.
type formText struct {
	bytes  []byte
	offset int
}

// A formReader goes through a form with a window that moves on.
type formReader struct {
	src    io.Reader
	line   []byte // a line's end and the boundary
	window []byte
	offset int // of the window in the form
	at     int // in the window: the boundary at hand
	ended  bool
	head   *bufio.Reader // for headers; nil until there is one to read
}

// dash is the boundary as a line begins with it.
func (f *formReader) dash() []byte { return f.line[2:] }

// more reads on. What is before at is given up.
func (f *formReader) more() bool {
	if f.ended {
		return false
	}
	if f.at > 0 {
		f.offset += f.at
		f.window = f.window[:copy(f.window, f.window[f.at:])]
		f.at = 0
	}
	if room := cap(f.window) - len(f.window); room < FormWindow {
		f.window = append(make([]byte, 0, 2*cap(f.window)+FormWindow), f.window...)
	}
	n, err := f.src.Read(f.window[len(f.window):cap(f.window)])
	f.window = f.window[:len(f.window)+n]
	f.ended = err != nil
	return true
}

// fill reads on until there are so many bytes behind at, if there are.
func (f *formReader) fill(n int) {
	for len(f.window)-f.at < n && f.more() {
	}
}

// begins tells whether the boundary at hand begins a part: the last one has two
// more dashes.
func (f *formReader) begins() bool {
	f.fill(len(f.line) + maxPartHead)
	return endsLine(f.window[f.at+len(f.dash()):])
}

// first finds the first boundary. A line before it may begin like one.
func (f *formReader) first() bool {
	for f.fill(len(f.line) + maxPartHead); ; {
		if rest, ok := bytes.CutPrefix(f.window[f.at:], f.dash()); ok {
			if endsLine(rest) {
				return true
			}
			if last, ok := bytes.CutPrefix(rest, []byte("--")); ok && (len(last) == 0 || endsLine(last)) {
				return false
			}
		}
		if !f.next() {
			return false
		}
		f.fill(len(f.line) + maxPartHead)
	}
}

// next moves on to the next boundary.
func (f *formReader) next() bool {
	for {
		if end := f.nextLine(f.at); end >= 0 {
			f.at = end + 2
			return true
		}
		// The end of the window may be the beginning of one.
		f.at = max(f.at, len(f.window)-len(f.line)-2)
		if !f.more() {
			return false
		}
	}
}

// nextLine is where the line before the next boundary ends, or -1.
func (f *formReader) nextLine(from int) int {
	for {
		i := bytes.Index(f.window[from:], f.line)
		if i < 0 {
			return -1
		}
		i += from
		from = i + len(f.line)
		if rest := f.window[from:]; len(rest) < 2 && !f.ended {
			return -1 // what follows tells whether it is one
		} else if endsBoundary(rest) {
			return i
		}
	}
}

// part reads the part at hand and moves on to the boundary behind it, where the
// content ends. It has a node, and a text, only if it is one of those that are
// looked for. It is not ok if there is no boundary any more.
func (f *formReader) part(tree *FieldTree) (n *FieldTree, text formText, to int, ok bool) {
	head := f.at + len(f.dash())
	end := f.nextLine(head)
	limit := len(f.window)
	if end >= 0 {
		limit = end
	}
	n, from := f.wanted(f.window[head:min(limit, head+maxPartHead)], tree)
	switch {
	case n == nil && end >= 0:
		f.at = end + 2
		return nil, formText{}, 0, true
	case n == nil:
		f.at = head
		return nil, formText{}, 0, f.next()
	}
	for end < 0 {
		seen := len(f.window) - f.at // no boundary ends in that
		if seen > MaxPartText || !f.more() {
			f.at = min(f.at+len(f.dash()), len(f.window))
			return nil, formText{}, 0, f.next()
		}
		head = f.at + len(f.dash())
		end = f.nextLine(max(head, f.at+seen-len(f.line)-1))
	}
	text = formText{f.window[head+from : end], f.offset + head + from}
	f.at = end + 2
	return n, text, f.offset + end, true
}

// endsLine tells whether what follows a boundary makes it the beginning of a
// part: the last boundary has two more dashes.
func endsLine(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t"), []byte("\r\n"))
}

// endsBoundary tells whether a boundary ends where the text begins: a line may
// begin like one and be content.
func endsBoundary(text []byte) bool {
	return len(text) == 0 || strings.IndexByte(" \t\r\n", text[0]) >= 0 || bytes.HasPrefix(text, []byte("--"))
}

// wanted is the node that a part is at, if it is a text that is looked for, and
// where its content begins. The part begins with what is left of its boundary's
// line.
func (f *formReader) wanted(part []byte, tree *FieldTree) (n *FieldTree, from int) {
	if !mayBeWanted(part, tree) {
		return nil, 0
	}
	_, rest, _ := bytes.Cut(part, []byte("\r\n"))
	src := bytes.NewReader(rest)
	if f.head == nil {
		f.head = bufio.NewReader(src)
	} else {
		f.head.Reset(src)
	}
	h, err := textproto.NewReader(f.head).ReadMIMEHeader()
	if err != nil || h.Get("Content-Transfer-Encoding") != "" {
		return nil, 0
	}
	disposition, params, err := mime.ParseMediaType(h.Get("Content-Disposition"))
	if err != nil || disposition != "form-data" {
		return nil, 0
	}
	// Parts inside of others are called video[id].
	n = tree
	for key := range strings.FieldsFuncSeq(params["name"], func(r rune) bool { return r == '[' || r == ']' }) {
		if n = n.Children[key]; n == nil {
			return nil, 0
		}
	}
	// A file is none of the texts, but browsers call a part of JSON one.
	if n == tree || params["filename"] != "" && !(n.Children != nil && strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "application/json")) {
		return nil, 0
	}
	return n, len(part) - src.Len() - f.head.Buffered()
}

// mayBeWanted tells, at little cost, whether the header of a part has one of the
// names that are looked for: there may be very many parts.
func mayBeWanted(part []byte, tree *FieldTree) bool {
	if end := bytes.Index(part, []byte("\r\n\r\n")); end >= 0 {
		part = part[:end]
	}
	named := false
	for name := range tree.Children {
		named = named || bytes.Contains(part, []byte(name))
	}
	const disposition = "form-data"
	for i := 0; named && i+len(disposition) <= len(part); i++ {
		if bytes.EqualFold(part[i:i+len(disposition)], []byte(disposition)) {
			return true
		}
	}
	return false
}
