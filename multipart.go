package spillover

import (
	"bufio"
	"bytes"
	"mime"
	"net/textproto"
)

// findForm finds the model in a multipart form: the text of its "model" part,
// which may come after a file.
func findForm(contentType string, text []byte) naming {
	_, params, err := mime.ParseMediaType(contentType)
	n := naming{boundary: params["boundary"]}
	if err != nil || n.boundary == "" {
		return naming{}
	}
	dash := []byte("--" + n.boundary)
	first := firstPart(text, dash)
	if first < 0 {
		return naming{}
	}
	n.gap, n.open = first, true
	for at := first; endsLine(text[at+len(dash):]); {
		head := at + len(dash)
		end := nextPart(text[head:], dash)
		if end < 0 {
			return n
		}
		if from := modelPart(text[head : head+end]); from > 0 {
			n.at, n.named = span{head + from, head + end}, true
			n.model = string(n.at.in(text))
			return n
		}
		at = head + end + 2
	}
	return n
}

// endsLine tells whether what follows a boundary makes it the beginning of a
// part: the last boundary has two more dashes.
func endsLine(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t"), []byte("\r\n"))
}

// firstPart is where the first boundary is, or -1. A line before it may begin
// like one.
func firstPart(text, dash []byte) int {
	for at := 0; ; {
		if rest, ok := bytes.CutPrefix(text[at:], dash); ok {
			if endsLine(rest) {
				return at
			}
			if last, ok := bytes.CutPrefix(rest, []byte("--")); ok && (len(last) == 0 || endsLine(last)) {
				return -1
			}
		}
		next := nextPart(text[at:], dash)
		if next < 0 {
			return -1
		}
		at += next + 2
	}
}

// nextPart is where the line before the next boundary ends, or -1.
func nextPart(text, dash []byte) int {
	line := append([]byte("\r\n"), dash...)
	for from := 0; ; {
		i := bytes.Index(text[from:], line)
		if i < 0 {
			return -1
		}
		i += from
		from = i + len(line)
		if endsBoundary(text[from:]) {
			return i
		}
	}
}

// endsBoundary tells whether a boundary ends where the text begins: a line may
// begin like one and be content.
func endsBoundary(text []byte) bool {
	return len(text) == 0 || bytes.IndexByte([]byte(" \t\r\n"), text[0]) >= 0 || bytes.HasPrefix(text, []byte("--"))
}

// modelPart is where the content of a part begins, if it is the model; else 0.
// The part begins with what is left of its boundary's line.
func modelPart(part []byte) int {
	_, rest, _ := bytes.Cut(part, []byte("\r\n"))
	src := bytes.NewReader(rest)
	r := bufio.NewReader(src)
	h, err := textproto.NewReader(r).ReadMIMEHeader()
	if err != nil || h.Get("Content-Transfer-Encoding") != "" {
		return 0
	}
	disposition, params, err := mime.ParseMediaType(h.Get("Content-Disposition"))
	if err != nil || disposition != "form-data" || params["name"] != "model" || params["filename"] != "" {
		return 0
	}
	return len(part) - src.Len() - r.Buffered()
}
