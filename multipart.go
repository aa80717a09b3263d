package spillover

import (
	"bytes"
	"mime"
	"net/textproto"
	"strings"
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
	first := bytes.Index(text, dash)
	if first < 0 || first > 0 && text[first-1] != '\n' {
		return naming{}
	}
	n.gap, n.open = first, true
	for at := first; ; {
		head := at + len(dash)
		end := bytes.Index(text[head:], append([]byte("\r\n"), dash...))
		if end < 0 {
			return n
		}
		part := text[head : head+end]
		if split := bytes.Index(part, []byte("\r\n\r\n")); split >= 0 && isModelPart(part[:split]) {
			from := head + split + 4
			n.model, n.at, n.named = string(text[from:head+end]), span{from, head + end}, true
			return n
		}
		at = head + end + 2
	}
}

func isModelPart(head []byte) bool {
	for line := range strings.SplitSeq(string(head), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)) != "Content-Disposition" {
			continue
		}
		_, params, err := mime.ParseMediaType(value)
		return err == nil && params["name"] == "model" && params["filename"] == ""
	}
	return false
}
