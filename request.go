package spillover

import (
	"net/http"
	"strconv"
	"strings"
)

// A request is what was read of the caller's request, once, before the first
// attempt.
type request struct {
	*http.Request
	target
	model   string // what the caller asks for; "" when it names none
	body    body
	naming  naming
	scanned bool // naming is known
}

// naming is where a JSON body names its model.
type naming struct {
	model string
	at    span // of the value, quotes included
	named bool
	// Where a name can be put if there is none: behind the opening brace.
	brace       int
	object, any bool // whether there is an object, and anything in it
}

// read looks at the body only if the model must be found there, or if it could
// not be sent again otherwise.
func (r *request) read() error {
	r.target = parsePath(r.URL.EscapedPath())
	r.model = r.target.model
	if err := r.body.prepare(r.GetBody, r.ContentLength); err != nil {
		return err
	}
	if r.dialect != "" && r.model == "" {
		if err := r.scan(); err != nil {
			return err
		}
		r.model = r.naming.model
	}
	return nil
}

// scan finds the model in a JSON body. What is no JSON object has none: the
// service shall answer that.
func (r *request) scan() error {
	if r.scanned || !r.body.present || !r.mayBeJSON() {
		return nil
	}
	r.scanned = true
	return r.body.peek(func(text []byte) { r.naming = findNaming(text) })
}

func (r *request) mayBeJSON() bool {
	return !strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/") &&
		r.Header.Get("Content-Encoding") == ""
}

func findNaming(text []byte) naming {
	var n naming
	n.model, n.at, n.named = findModel(text)
	brace := skipSpace(text, 0)
	if n.object = brace < len(text) && text[brace] == '{'; n.object {
		n.brace = brace + 1
		next := skipSpace(text, n.brace)
		n.any = next < len(text) && text[next] != '}'
	}
	return n
}

// rename is what must change in the body so that it names the deployment, if
// the body is where the backend looks for it.
func (r *request) rename(b *backend, deployment string) (splice, error) {
	if r.dialect == "" || deployment == "" || b.dialect == Azure && r.namesDeployment(deployment) {
		return splice{}, nil
	}
	if err := r.scan(); err != nil {
		return splice{}, err
	}
	n := r.naming
	switch {
	case n.named && n.model == deployment:
		return splice{}, nil
	case n.named:
		return splice{n.at, quote(deployment)}, nil
	case r.target.model != "" && n.object:
		text := `"model":` + quote(deployment)
		if n.any {
			text += ","
		}
		return splice{span{n.brace, n.brace}, text}, nil
	}
	return splice{}, nil
}

// repeatable tells whether the request may be sent again after it may have been
// received: it creates nothing at the service.
func (r *request) repeatable() bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == "" || stateless[r.op]
}

// quote is a JSON string. strconv.Quote is not: it escapes what JSON cannot.
func quote(s string) string {
	if plain([]byte(s)) && !strings.ContainsRune(s, '"') {
		return `"` + s + `"`
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ':
			b.WriteString(`\u00`)
			b.WriteString(strconv.FormatInt(int64(r)>>4, 16) + strconv.FormatInt(int64(r)&15, 16))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
