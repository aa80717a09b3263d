package wire

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"net/textproto"
	"strings"
)

// The limits for reading a form: formWindow is how much is read at a time,
// maxPartHeader the length of a part's header, and maxPartText the length of a part
// with a model or an id.
const (
	formWindow    = 64 << 10
	maxPartHeader = 8 << 10
	maxPartText   = 1 << 20
)

// ReadForm reads the parts of a multipart form whose names are in Fields. It keeps
// nothing but the current part.
func (w *BodyScanner) ReadForm(contentType string, src io.Reader) {
	_, params, err := mime.ParseMediaType(contentType)
	boundary := params["boundary"]
	if err != nil || boundary == "" {
		return
	}
	w.Info.Boundary = boundary
	f := formReader{src: src, delimiter: []byte("\r\n--" + boundary)}
	if !f.findFirst() {
		w.Info.Boundary = ""
		return
	}
	w.Info.InsertAt, w.Info.CanInsert = f.offset+f.pos, true
	for f.atPart() {
		at := f.offset + f.pos // of the part's boundary delimiter
		n, text, to, ok := f.readPart(w.Fields)
		if n != nil && ok {
			w.readPart(n, text, Span{at, to + len("\r\n")})
			if w.Info.ModelPrecedence == 1 && !w.wantsIDs() {
				return
			}
		}
		if !ok {
			return
		}
	}
}

// wantsIDs reports whether there is more to search for than a model at the top level.
func (w *BodyScanner) wantsIDs() bool {
	for _, n := range w.Fields.children {
		if n.isID || n.children != nil {
			return true
		}
	}
	return false
}

// readPart reads the content of a part, which may be JSON. whole is the part including
// its boundary delimiter.
func (w *BodyScanner) readPart(n *fieldNode, text partContent, whole Span) {
	value := text.text
	if brace := skipSpace(value, 0); n.children != nil && brace < len(value) && value[brace] == '{' {
		inner := BodyScanner{Fields: n, text: value, MaxIDs: w.MaxIDs - len(w.IDs)}
		inner.readObject(brace, n)
		w.IDs = append(w.IDs, inner.IDs...)
		shift := func(s Span) Span { return Span{s.From + text.offset, s.To + text.offset} }
		if m := inner.Info; m.HasModel {
			w.addModel(m.Model, shift(m.ModelSpan), m.ModelPrecedence)
			if w.Info.ModelSpan == shift(m.ModelSpan) {
				w.Info.ModelInJSON = true
			}
			if s := m.SecondModel; s.Precedence > 0 {
				w.addModel(s.Model, shift(s.Span), s.Precedence)
			}
		}
		return
	}
	switch {
	case n.modelPrecedence > 0 && !w.Info.HasModel:
		w.addModel(string(value), Span{text.offset, text.offset + len(value)}, n.modelPrecedence)
		w.Info.MemberSpan = whole
	case n.isID && IsID(value) && len(w.IDs) < w.MaxIDs:
		w.IDs = append(w.IDs, ObjectID{ID: string(value)})
	}
}

// A partContent is the content of a part, with its position in the form.
type partContent struct {
	text   []byte
	offset int
}

// A formReader reads a form through a moving window.
type formReader struct {
	src       io.Reader
	delimiter []byte // CR LF, two dashes and the boundary
	window    []byte
	offset    int // of the window in the form
	pos       int // of the current boundary delimiter in the window
	ended     bool
	head      *bufio.Reader // reads headers; nil until the first one
}

// firstDelimiter returns the boundary delimiter as it is at the beginning of the form,
// without a preceding CR LF.
func (f *formReader) firstDelimiter() []byte { return f.delimiter[2:] }

// readMore reads further text into the window. It discards the text before pos.
func (f *formReader) readMore() bool {
	if f.ended {
		return false
	}
	if f.pos > 0 {
		f.offset += f.pos
		f.window = f.window[:copy(f.window, f.window[f.pos:])]
		f.pos = 0
	}
	if room := cap(f.window) - len(f.window); room < formWindow {
		f.window = append(make([]byte, 0, 2*cap(f.window)+formWindow), f.window...)
	}
	n, err := f.src.Read(f.window[len(f.window):cap(f.window)])
	f.window = f.window[:len(f.window)+n]
	f.ended = err != nil
	return true
}

// fill reads until there are n bytes after pos, or the form has ended.
func (f *formReader) fill(n int) {
	for len(f.window)-f.pos < n && f.readMore() {
	}
}

// atPart reports whether a part follows the current boundary delimiter. Two dashes
// follow the last one.
func (f *formReader) atPart() bool {
	f.fill(len(f.delimiter) + maxPartHeader)
	return endsLine(f.window[f.pos+len(f.firstDelimiter()):])
}

// findFirst moves to the first boundary delimiter. The preamble may contain lines with
// the same beginning.
func (f *formReader) findFirst() bool {
	for f.fill(len(f.delimiter) + maxPartHeader); ; {
		if rest, ok := bytes.CutPrefix(f.window[f.pos:], f.firstDelimiter()); ok {
			if endsLine(rest) {
				return true
			}
			if last, ok := bytes.CutPrefix(rest, []byte("--")); ok && (len(last) == 0 || endsLine(last)) {
				return false
			}
		}
		if !f.findNext() {
			return false
		}
		f.fill(len(f.delimiter) + maxPartHeader)
	}
}

// findNext moves to the next boundary delimiter.
func (f *formReader) findNext() bool {
	for {
		if end := f.nextDelimiter(f.pos); end >= 0 {
			f.pos = end + 2
			return true
		}
		// The window may end inside a boundary delimiter.
		f.pos = max(f.pos, len(f.window)-len(f.delimiter)-2)
		if !f.readMore() {
			return false
		}
	}
}

// nextDelimiter returns the index of the next boundary delimiter in the window, or -1.
func (f *formReader) nextDelimiter(from int) int {
	for {
		i := bytes.Index(f.window[from:], f.delimiter)
		if i < 0 {
			return -1
		}
		i += from
		from = i + len(f.delimiter)
		if rest := f.window[from:]; len(rest) < 2 && !f.ended {
			return -1 // the bytes that follow decide whether this is a boundary delimiter
		} else if endsBoundary(rest) {
			return i
		}
	}
}

// readPart reads the current part and moves to the next boundary delimiter. It returns
// the part's node and content only if the part is searched for, with the position where
// the content ends. ok is false if there is no further boundary delimiter.
func (f *formReader) readPart(tree *fieldNode) (n *fieldNode, text partContent, to int, ok bool) {
	head := f.pos + len(f.firstDelimiter())
	end := f.nextDelimiter(head)
	limit := len(f.window)
	if end >= 0 {
		limit = end
	}
	n, from := f.partNode(f.window[head:min(limit, head+maxPartHeader)], tree)
	switch {
	case n == nil && end >= 0:
		f.pos = end + 2
		return nil, partContent{}, 0, true
	case n == nil:
		f.pos = head
		return nil, partContent{}, 0, f.findNext()
	}
	for end < 0 {
		seen := len(f.window) - f.pos // no boundary delimiter is complete in these bytes
		if seen > maxPartText || !f.readMore() {
			f.pos = min(f.pos+len(f.firstDelimiter()), len(f.window))
			return nil, partContent{}, 0, f.findNext()
		}
		head = f.pos + len(f.firstDelimiter())
		end = f.nextDelimiter(max(head, f.pos+seen-len(f.delimiter)-1))
	}
	text = partContent{f.window[head+from : end], f.offset + head + from}
	f.pos = end + 2
	return n, text, f.offset + end, true
}

// endsLine reports whether the text after a boundary delimiter ends its line, so that a
// part follows. Two dashes follow the last delimiter.
func endsLine(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t"), []byte("\r\n"))
}

// endsBoundary reports whether the boundary is complete where the text begins. A line
// of the content may begin with the boundary and continue.
func endsBoundary(text []byte) bool {
	return len(text) == 0 || strings.IndexByte(" \t\r\n", text[0]) >= 0 || bytes.HasPrefix(text, []byte("--"))
}

// partNode returns the node of a part if the part is searched for, and where its
// content begins. The part begins with the rest of the boundary delimiter's line.
func (f *formReader) partNode(part []byte, tree *fieldNode) (n *fieldNode, from int) {
	if !mayHaveNode(part, tree) {
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
	// Nested members are separate parts with names such as video[id].
	n = tree
	for key := range strings.FieldsFuncSeq(params["name"], func(r rune) bool { return r == '[' || r == ']' }) {
		if n = n.children[key]; n == nil {
			return nil, 0
		}
	}
	// A file is not searched, except for a JSON part: browsers send a Blob as a
	// file.
	if n == tree || params["filename"] != "" && !(n.children != nil && strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "application/json")) {
		return nil, 0
	}
	return n, len(part) - src.Len() - f.head.Buffered()
}

// mayHaveNode reports whether the header of a part may contain a name that is searched
// for. It is cheap, because a form may have very many parts.
func mayHaveNode(part []byte, tree *fieldNode) bool {
	if end := bytes.Index(part, []byte("\r\n\r\n")); end >= 0 {
		part = part[:end]
	}
	named := false
	for name := range tree.children {
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
