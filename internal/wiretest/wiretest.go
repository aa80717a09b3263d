// Package wiretest has the request bodies and encodings that the tests of the root
// package and of internal/wire share.
package wiretest

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// JSONTexts returns JSON texts of every shape, valid and invalid, as seeds for fuzzing.
func JSONTexts() []string {
	return []string{
		`{"model":"m"}`, ` { "a" : [ { } , [ ] , "x\"" ] , "model" : "m" , "b" : -1.5e+3 } `, `{"model":"a","model":"b"}`, `{"model":"a","model":null}`,
		`{"\u006dodel":"\ud83d\ude00\\"}`, `{"Model":"m"}`, `{"a":{"model":"m"}}`, `{}`, `[]`, `null`, `"model"`, `{"model":"m"`, `{"model":"m",`, `{"model":"`,
		`{"model":{"a":"}"},"b":tru}`, `{"model" "m"}`, `{"a":"\\","model":"\"}{"}`, "{\"model\":\"\xff\u2028\"}", `{"model":"m"}{"model":"n"}`, `{,"model":"m"}`, `{"a":1 2,"model":"m"}`,
	}
}

// ResponsesBody is a body of POST /responses with a value at every place that is
// searched for an id.
const ResponsesBody = `{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"},{"type":"input_text","text":"\"id\":\"no\""}]},` +
	`{"type":"item_reference","id":"item-1"},{"id":"item-2"},["x",{"id":"no"},[]],{"type":null,"id":"item-3" , "output":[{"file_id":"file-2"}]}],"tools":[{"type":"file_search",` +
	`"vector_store_ids":["vs-1", "vs-2" ,["no"],"auto"]},{"container":{"file_ids":["file-3",7,null,"file-4"]}},{"container":"cntr-1"}] , "conversation":{"id":"conv-1"},` +
	`"prompt":{"id":"pmpt-1","variables":{"id":"no"}},"previous_response_id":"resp-1","background":true}`

// A FormField is a part of a multipart form. With a file name it is a file.
type FormField struct{ Name, File, Content string }

// Field returns a part that is not a file.
func Field(name, content string) FormField { return FormField{Name: name, Content: content} }

// File returns a part that is a file.
func File(name, file, content string) FormField { return FormField{name, file, content} }

// ReadForm reads a form with mime/multipart and returns its parts in order.
func ReadForm(contentType, text string) (parts []FormField, err error) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, err
	}
	r := multipart.NewReader(strings.NewReader(text), params["boundary"])
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			return parts, nil
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(p)
		if err != nil {
			return nil, err
		}
		parts = append(parts, FormField{p.FormName(), p.FileName(), string(content)})
	}
}

// Compress returns each piece as a server sends it that flushes after each. The
// encoding is "gzip", "x-gzip", "deflate", or anything else for deflate without
// zlib's header.
func Compress(t testing.TB, encoding string, pieces ...string) (sent []string) {
	t.Helper()
	var to bytes.Buffer
	var w interface {
		io.WriteCloser
		Flush() error
	}
	switch encoding {
	case "gzip", "x-gzip":
		w = gzip.NewWriter(&to)
	case "deflate":
		w = zlib.NewWriter(&to)
	default:
		w, _ = flate.NewWriter(&to, flate.DefaultCompression)
	}
	for i, piece := range pieces {
		_, err := io.WriteString(w, piece)
		require.NoError(t, err)
		require.NoError(t, w.Flush())
		if i == len(pieces)-1 {
			require.NoError(t, w.Close())
		}
		sent = append(sent, to.String())
		to.Reset()
	}
	return sent
}
