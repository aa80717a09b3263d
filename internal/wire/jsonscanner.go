package wire

import (
	"bytes"
	"strings"
)

// A jsonScanner finds the values at known places in JSON that arrives in pieces: a
// body, a response or the events of a stream. It keeps no more than the current key or
// value. In a text that is not valid JSON it finds nothing, or only values that are at
// such a place anyway.
type jsonScanner struct {
	root        *fieldNode
	limit       int  // maximum length of a value in quotes; longer ones are ignored
	eventStream bool // the text is a stream of events, in which a string cannot continue on the next line

	frames     [24]frame
	depth      int // number of open frames
	skipDepth  int // number of open brackets inside a value that is skipped
	node       *fieldNode
	state      scanState
	offset     int // of the current piece in the whole text
	valueStart int // of the current value in the whole text

	inString, escaped bool // inside a string; after an odd number of backbackslashes in it
	buffering         bool // the current key or value is appended to buf
	blankLine         bool // the current line is empty so far
	buf               []byte
}

// A frame is an open object or array that is searched.
type frame struct {
	node  *fieldNode
	array bool
}

// A scanState is what the scanner expects next.
type scanState uint8

const (
	atValue scanState = iota
	atKey
	inScalar
	afterValue
)

// reset moves to the beginning of a JSON text.
func (s *jsonScanner) reset() {
	s.depth, s.skipDepth, s.inString, s.buffering, s.escaped = 0, 0, false, false, false
	s.node, s.state = s.root, atValue
}

// scan reads a further piece and calls found for each value that ends in it.
func (s *jsonScanner) scan(p []byte, found func(n *fieldNode, value []byte, at Span)) {
	if s.offset == 0 {
		s.reset()
	}
	for i := 0; i < len(p); {
		if s.inString {
			i = s.scanString(p, i, found)
			continue
		}
		c := p[i]
		if s.eventStream {
			if c == '\n' {
				if s.blankLine {
					s.reset() // the next event begins, even if this one is incomplete
				}
				s.blankLine = true
			} else if c != '\r' {
				s.blankLine = false
			}
		}
		if s.skipDepth > 0 {
			// In a skipped value only brackets and strings matter.
			switch c {
			case '"':
				s.inString = true
			case '{', '[':
				s.skipDepth++
			case '}', ']':
				if s.skipDepth--; s.skipDepth == 0 {
					s.state = afterValue
				}
			}
			i++
			continue
		}
		if s.state == inScalar && strings.IndexByte(",]} \n\r\t", c) >= 0 {
			s.endValue(i, found)
		}
		switch c {
		case '"':
			if s.depth > 0 {
				s.inString, s.valueStart = true, s.offset+i
				if s.buffering = s.state == atKey || s.state == atValue && s.wantsValue(); s.buffering {
					s.buf = append(s.buf[:0], '"')
				}
			}
		case '{', '[':
			s.openValue(c == '[')
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
				s.state, s.valueStart = inScalar, s.offset+i
				if s.buffering = s.wantsValue(); s.buffering {
					s.buf = append(s.buf[:0], c)
				}
			case s.state == inScalar && s.buffering && len(s.buf) <= s.limit:
				s.buf = append(s.buf, c)
			}
		}
		i++
	}
	s.offset += len(p)
}

// wantsValue reports whether the current value is searched for.
func (s *jsonScanner) wantsValue() bool {
	return s.node != nil && (s.node.isID || s.node.modelPrecedence > 0 || s.node.isFlag)
}

// openValue begins an object or an array.
func (s *jsonScanner) openValue(array bool) {
	nested := array && s.depth > 0 && s.frames[s.depth-1].array // an array is the direct element of an array
	if s.state != atValue || nested || s.depth == len(s.frames) || s.node == nil || s.node.children == nil && !(array && s.node.isID) {
		if s.depth > 0 {
			s.skipDepth = 1
		}
		return
	}
	s.frames[s.depth] = frame{s.node, array}
	s.depth++
	if s.state = atKey; array {
		s.state = atValue
	}
}

// scanString continues a string at index i of a piece, and returns the index after what
// it has read.
func (s *jsonScanner) scanString(p []byte, i int, found func(n *fieldNode, value []byte, at Span)) int {
	rest := p[i:]
	n := bytes.IndexByte(rest, '"')
	if n >= 0 {
		rest = rest[:n]
	}
	if s.eventStream {
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			s.reset() // the event was truncated
			s.blankLine = true
			return i + end + 1
		}
	}
	if s.buffering {
		if len(s.buf)+len(rest) > s.limit+2 {
			s.buf = append(s.buf, rest[:max(0, s.limit+2-len(s.buf))]...)
		} else {
			s.buf = append(s.buf, rest...)
		}
	}
	// A quote ends the string unless an odd number of backbackslashes precedes it.
	backslashes := 0
	for backslashes < len(rest) && rest[len(rest)-1-backslashes] == '\\' {
		backslashes++
	}
	odd := backslashes%2 == 1
	if backslashes == len(rest) && s.escaped {
		odd = !odd
	}
	if n < 0 {
		s.escaped = odd
		return len(p)
	}
	s.escaped = false
	if s.buffering {
		s.buf = append(s.buf, '"')
	}
	i += n + 1
	if odd {
		return i
	}
	s.inString = false
	if s.skipDepth > 0 {
		return i
	}
	switch s.state {
	case atKey:
		if s.node = nil; s.buffering && len(s.buf) <= s.limit {
			s.node = s.frames[s.depth-1].node.child(s.buf)
		}
		s.state = afterValue
	case atValue:
		s.endValue(i, found)
	}
	s.buffering = false
	return i
}

// endValue ends a string or a scalar before index i of the piece.
func (s *jsonScanner) endValue(i int, found func(n *fieldNode, value []byte, at Span)) {
	if s.buffering && len(s.buf) <= s.limit {
		found(s.node, s.buf, Span{s.valueStart, s.offset + i})
	}
	s.buffering, s.state = false, afterValue
}
