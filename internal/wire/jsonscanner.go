package wire

import (
	"bytes"
	"strings"
)

// A JsonScanner looks for values at known places in JSON that passes in pieces,
// be it a body, an answer or the events of a stream. It keeps no more than the
// key or the value at hand. What is no JSON makes it find nothing, or nothing
// but what stands at such a place all the same.
type JsonScanner struct {
	Root  *FieldTree
	Limit int  // a longer value is not one of those looked for
	Lines bool // events of a stream: no string goes over the end of a line

	frames   [24]frame
	depth    int // of frames
	skipping int // depth of brackets inside a value that is not looked into
	node     *FieldTree
	state    scanState
	offset   int // of the next piece
	from     int // of the value at hand

	inString, escaped bool // inside a string; behind a backslash in it
	taking            bool // the text at hand is kept
	blank             bool // the line so far is empty
	Buf               []byte
}

type frame struct {
	node  *FieldTree
	array bool
}

type scanState uint8

const (
	atValue scanState = iota
	atKey
	inScalar
	afterValue
)

func (s *JsonScanner) reset() {
	s.depth, s.skipping, s.inString, s.taking, s.escaped = 0, 0, false, false, false
	s.node, s.state = s.Root, atValue
}

// scan reads a further piece.
func (s *JsonScanner) scan(p []byte, found func(n *FieldTree, value []byte, at Span)) {
	if s.offset == 0 {
		s.reset()
	}
	for i := 0; i < len(p); {
		if s.inString {
			i = s.string(p, i, found)
			continue
		}
		c := p[i]
		if s.Lines {
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
					s.Buf = append(s.Buf[:0], '"')
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
					s.Buf = append(s.Buf[:0], c)
				}
			case s.state == inScalar && s.taking && len(s.Buf) <= s.Limit:
				s.Buf = append(s.Buf, c)
			}
		}
		i++
	}
	s.offset += len(p)
}

// wanted tells whether the value at hand is looked for.
func (s *JsonScanner) wanted() bool {
	return s.node != nil && (s.node.ID || s.node.model > 0 || s.node.flag)
}

// open begins an object or an array.
func (s *JsonScanner) open(array bool) {
	nested := array && s.depth > 0 && s.frames[s.depth-1].array // an array in an array
	if s.state != atValue || nested || s.depth == len(s.frames) || s.node == nil || s.node.Children == nil && !(array && s.node.ID) {
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
func (s *JsonScanner) string(p []byte, i int, found func(n *FieldTree, value []byte, at Span)) int {
	rest := p[i:]
	n := bytes.IndexByte(rest, '"')
	if n >= 0 {
		rest = rest[:n]
	}
	if s.Lines {
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			s.reset() // it was cut
			s.blank = true
			return i + end + 1
		}
	}
	if s.taking {
		if len(s.Buf)+len(rest) > s.Limit+2 {
			rest2 := rest[:max(0, s.Limit+2-len(s.Buf))]
			s.Buf = append(s.Buf, rest2...)
		} else {
			s.Buf = append(s.Buf, rest...)
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
		s.Buf = append(s.Buf, '"')
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
		if s.node = nil; s.taking && len(s.Buf) <= s.Limit {
			s.node = s.frames[s.depth-1].node.child(s.Buf)
		}
		s.state = afterValue
	case atValue:
		s.end(i, found)
	}
	s.taking = false
	return i
}

// end ends a string or a scalar, before index i of the piece.
func (s *JsonScanner) end(i int, found func(n *FieldTree, value []byte, at Span)) {
	if s.taking && len(s.Buf) <= s.Limit {
		found(s.node, s.Buf, Span{s.from, s.offset + i})
	}
	s.taking, s.state = false, afterValue
}
