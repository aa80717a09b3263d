package batch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// A Part is the lines of an input that one process asks: the first of them is line Index,
// and then it is every line that is Of lines further. The zero value is all lines.
type Part struct{ Index, Of int64 }

// maxParts bounds the number of parts.
const maxParts = 10_000

// ParsePart reads "i/n", such as "1/3".
func ParsePart(s string) (Part, error) {
	i, n, _ := strings.Cut(s, "/")
	index, err1 := strconv.ParseInt(i, 10, 64)
	of, err2 := strconv.ParseInt(n, 10, 64)
	if err1 != nil || err2 != nil || of < 1 || of > maxParts || index < 1 || index > of {
		return Part{}, fmt.Errorf("%.40q is not a part: must be i/n with i from 1 to n, such as 1/3, and n at most %d", s, maxParts)
	}
	return Part{index, of}, nil
}

// String returns "i/n".
func (p Part) String() string {
	p = p.known()
	return fmt.Sprintf("%d/%d", p.Index, p.Of)
}

func (p Part) known() Part {
	if p.Of == 0 {
		return Part{1, 1}
	}
	return p
}

// has reports whether a line is in the part. Lines are numbered from 1.
func (p Part) has(line int64) bool { return (line-1)%p.Of == p.Index-1 }

// An inputID identifies the content of an input.
type inputID struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// scanInput reads the input once. It returns what identifies it, how many lines it
// has, and how many of those in a part have a request.
func scanInput(ctx context.Context, f io.ReadSeeker, part Part) (id inputID, lines, requests int64, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return id, 0, 0, err
	}
	hash := sha256.New()
	in := bufio.NewReaderSize(io.TeeReader(f, hash), readSize)
	beginning, _ := in.Peek(4) // shorter in a file of less; an error is that of the next read, too
	if err := checkFormat(beginning); err != nil {
		return id, 0, 0, err
	}
	blank, started := true, false
	end := func() {
		if lines++; !blank && part.has(lines) {
			requests++
		}
		blank, started = true, false
	}
	for ctx.Err() == nil {
		chunk, err := in.ReadSlice('\n')
		id.Bytes += int64(len(chunk))
		if len(chunk) > 0 {
			if lines == 0 && !started {
				chunk = bytes.TrimPrefix(chunk, byteOrderMark)
			}
			started = true
			blank = blank && isBlank(chunk)
		}
		switch {
		case err == nil:
			end()
		case errors.Is(err, io.EOF):
			if started {
				end()
			}
			id.SHA256 = hex.EncodeToString(hash.Sum(nil))
			return id, lines, requests, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return id, 0, 0, err
		}
	}
	return id, 0, 0, ctx.Err()
}

// readSize is the size of the buffers for reading the input and the output.
const readSize = 256 << 10

// byteOrderMark may be at the start of a file, once.
var byteOrderMark = []byte("\xef\xbb\xbf")

// isBlank reports whether a text has nothing but white space.
func isBlank(text []byte) bool { return len(bytes.TrimSpace(text)) == 0 }

// A lineReader reads the lines of a part. Its memory is bounded by the longest line
// that is allowed.
type lineReader struct {
	in     *bufio.Reader
	part   Part
	most   int   // bytes of a line
	number int64 // of the line read last
}

func newLineReader(f io.Reader, part Part, most int) *lineReader {
	return &lineReader{in: bufio.NewReaderSize(f, readSize), part: part, most: most}
}

// next returns the next line of the part for which wanted is true. Blank lines are
// skipped. A line that is too long is nil. The error is io.EOF at the end.
func (r *lineReader) next(wanted func(line int64) bool) (number int64, text []byte, err error) {
	for {
		r.number++
		keep := r.part.has(r.number) && wanted(r.number)
		text, blank, err := r.read(keep)
		switch {
		case err != nil:
			return 0, nil, err
		case keep && !blank:
			return r.number, text, nil
		}
	}
}

// read reads a line. It is nil if it is too long or not to be kept.
func (r *lineReader) read(keep bool) (text []byte, blank bool, err error) {
	blank, size := true, 0
	for {
		chunk, err := r.in.ReadSlice('\n')
		if size == 0 && r.number == 1 {
			chunk = bytes.TrimPrefix(chunk, byteOrderMark)
		}
		size += len(chunk)
		blank = blank && isBlank(chunk)
		switch {
		case !keep:
		case size > r.most:
			text, keep = nil, false
		default:
			text = append(text, chunk...)
		}
		if errors.Is(err, io.EOF) && size > 0 {
			err = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return text, blank, err
		}
	}
}

// openInput opens a file that can be read again.
func openInput(path string) (*os.File, error) {
	info, err := os.Stat(path) // opening a pipe would wait for somebody who writes to it
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: the input is read again when the batch is resumed", path)
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// otherFormats are the first bytes of files that are often given instead of JSON lines.
// Each of their lines would be an answer with an error.
var otherFormats = []struct{ magic, is string }{
	{"\x1f\x8b", "compressed with gzip: decompress it first"},
	{"\x28\xb5\x2f\xfd", "compressed with zstd: decompress it first"},
	{"PK\x03\x04", "a ZIP file: unpack it first"},
	{"\xff\xfe", "UTF-16: convert it to UTF-8 first"},
	{"\xfe\xff", "UTF-16: convert it to UTF-8 first"},
	{"[", "a JSON array: write each request on a line of its own"},
}

func checkFormat(beginning []byte) error {
	beginning = bytes.TrimPrefix(beginning, byteOrderMark)
	for _, other := range otherFormats {
		if bytes.HasPrefix(beginning, []byte(other.magic)) {
			return fmt.Errorf("the input is not JSON lines but %s", other.is)
		}
	}
	return nil
}
