package spillover

import (
	"bytes"
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
	scanned bool     // naming is known
	ids     []string // of stored objects that the request is about
	tokens  int64    // an estimate of what it costs

	fields []string              // that backends set, by their bits
	count  func(body []byte) int // Config.CountTokens
	stores bool                  // any stored object is known
}

// naming is where a body names its model, and what else it says of itself.
type naming struct {
	model string // "" when it is no string
	at    span   // of the value, quotes included
	named bool   // there is a value
	// Where a name can be put if there is none: behind the opening brace of an
	// object, or before the first part of a form.
	gap        int
	open, more bool   // whether there is a gap, and anything behind it
	boundary   string // of a form
	most       int64  // tokens of output; 0 when it does not say
	prompt     int64  // tokens of the prompt, as the caller's counter says; 0 when there is none
	pictures   int64
	pictured   int64  // bytes of the pictures
	cacheKey   string // prompt_cache_key
	background bool   // the answer is stored and made later: it is begun once
	streams    bool   // the answer is to be a stream of events
	given      uint64 // which of the fields are there that backends set
	capped     bool   // a maximum of output tokens is, under either name
	whole      bool   // all of the body was read
}

// read looks at the body once, for all that must be found there.
func (r *request) read() error {
	r.target = parsePath(r.URL.EscapedPath())
	r.model = r.target.model
	if err := r.body.prepare(r.GetBody, r.ContentLength); err != nil {
		return err
	}
	r.tokens = estimate(min(r.body.length, mostUnread), 0)
	if r.dialect == "" {
		return nil
	}
	if r.upgrades() {
		r.model = queryModel(r.URL.RawQuery)
		return nil
	}
	if !stateless[r.op] {
		r.ids = pathIDs(r.op)
	}
	if r.target.model == "" || r.worthReading() {
		if err := r.scan(); err != nil {
			return err
		}
		r.tokens = r.naming.cost(r.body.length)
	}
	if r.model == "" {
		r.model = r.naming.model
	}
	return nil
}

// worthReading tells whether the body is read although the path names the
// model: for the session and the size of the request, unless that takes long.
func (r *request) worthReading() bool {
	return stateless[r.op] && r.body.again != nil && r.body.length < worthReadingLimit && !isForm(field(r.Header, "Content-Type"))
}

const worthReadingLimit = 1 << 20

func isForm(contentType string) bool {
	return len(contentType) >= 10 && strings.EqualFold(contentType[:10], "multipart/")
}

// estimate is what a request costs, in tokens, as Azure reckons it: a quarter
// of the text, and the output it may have (Azure's quota page).
func estimate(length, most int64) int64 {
	if most <= 0 {
		most = usualOutput
	}
	return max(length, 0)/4 + most
}

// cost is the estimate for a body that was read: pictures in it count as such,
// and the prompt is what the caller's own counter says if there is one.
func (n naming) cost(length int64) int64 {
	if n.prompt > 0 {
		return estimate(4*n.prompt, n.most)
	}
	return estimate(length-n.pictured, n.most) + n.pictures*pictureTokens
}

// pictureTokens is what a picture costs, whatever its bytes (as measured on
// OpenAI's counters).
const pictureTokens = 765

// findPictures counts the pictures that a JSON text holds as data URLs, and
// their bytes. It looks for what is rare in other text.
func findPictures(text []byte) (count, bytesOf int64) {
	const mark, kind, longestKind = ";base64,", "data:image/", 64
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte(mark))
		if i < 0 {
			return count, bytesOf
		}
		at := from + i
		begin := at - min(longestKind, at-from)
		from = at + len(mark)
		if !bytes.Contains(text[begin:at], []byte(kind)) {
			continue
		}
		end := skipString(text, from-1)
		if end < 0 {
			end = len(text)
		}
		count++
		bytesOf += int64(end - at)
		from = end
	}
}

// mostUnread is how many bytes of a body that is not read count: a large one is
// mostly sound or pictures.
const mostUnread = 16 << 10

// usualOutput is the output of a request that names no maximum, or whose body
// is not read, in tokens.
const usualOutput = 250

// scan finds the model in a body of JSON or of a form. What is neither has
// none: the service shall answer that.
func (r *request) scan() error {
	if r.scanned || !r.body.present || field(r.Header, "Content-Encoding") != "" {
		return nil
	}
	r.scanned = true
	contentType := field(r.Header, "Content-Type")
	form := isForm(contentType)
	if form && !stateless[r.op] {
		return nil // an upload: of no model
	}
	return r.body.peek(func(text []byte) {
		if form {
			r.naming = findForm(contentType, text)
			return
		}
		r.naming = findNaming(text, r.target.model, r.fields)
		r.naming.whole = len(text) < maxBuffered
		r.naming.pictures, r.naming.pictured = findPictures(text)
		if r.count != nil {
			r.naming.prompt = int64(max(0, r.count(text)))
		}
		if r.refers() || r.stores && bytes.Contains(text, []byte(`"file_id"`)) {
			bodyIDs(text, func(id []byte) bool {
				r.ids = append(r.ids, string(id))
				return len(r.ids) < maxIDs
			})
		}
	})
}

// maxIDs bounds the ids that one request is searched for.
const maxIDs = 64

// refers tells whether the body may name stored objects: all operations but
// those that take nothing but text.
func (r *request) refers() bool {
	return !stateless[r.op] || strings.HasPrefix(r.op, "responses")
}

// findNaming reads what a JSON body says of itself. usual is the name that the
// model is likely to have, and fields those that backends may set.
func findNaming(text []byte, usual string, fields []string) naming {
	var n naming
	for key, value := range members(text) {
		k := key.in(text)
		for i, field := range fields {
			if isKey(k, field) {
				n.given |= 1 << i
			}
		}
		switch {
		case isKey(k, "model"):
			n.at, n.named = value, true
			if v := value.in(text); len(v) == len(usual)+2 && v[0] == '"' && string(v[1:len(v)-1]) == usual {
				n.model = usual
			} else {
				n.model, _ = unquote(v)
			}
		case isKey(k, maxTokens), isKey(k, maxCompletionTokens), isKey(k, maxOutputTokens):
			n.capped = true
			if most, err := strconv.ParseInt(string(value.in(text)), 10, 32); err == nil {
				n.most = max(n.most, most)
			}
		case isKey(k, "prompt_cache_key"):
			n.cacheKey, _ = unquote(value.in(text))
		case isKey(k, "background"):
			n.background = string(value.in(text)) == "true"
		case isKey(k, "stream"):
			n.streams = string(value.in(text)) == "true"
		}
	}
	brace := skipSpace(text, 0)
	if n.open = brace < len(text) && text[brace] == '{'; n.open {
		n.gap = brace + 1
		next := skipSpace(text, n.gap)
		n.more = next < len(text) && text[next] != '}'
	}
	return n
}

// edits are what must change in the body for a backend: the name of the
// deployment, and the fields that the backend sets.
func (r *request) edits(b *backend, deployment string) (edits, error) {
	name, err := r.rename(b, deployment)
	if err != nil || len(b.presets) == 0 || !generates(r.op) {
		return edits{name}, err
	}
	if err := r.scan(); err != nil {
		return edits{}, err
	}
	n := r.naming
	text := ""
	if n.open && n.whole && n.boundary == "" {
		text = r.leftOut(b)
	}
	put := splice{span{n.gap, n.gap}, text}
	switch {
	case text == "":
		return edits{name}, nil
	case name == splice{} && !n.more:
		put.text = strings.TrimSuffix(text, ",")
		return edits{put}, nil
	case name == splice{}:
		return edits{put}, nil
	case name.at == put.at:
		put.text += name.text
		return edits{put}, nil
	}
	return edits{put, name}, nil
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
		return splice{n.at, n.text(deployment)}, nil
	case r.target.model != "" && n.open:
		return splice{span{n.gap, n.gap}, n.member(deployment)}, nil
	}
	return splice{}, nil
}

// text is a name as the body spells it.
func (n naming) text(name string) string {
	if n.boundary != "" {
		return name
	}
	return quote(name)
}

// member is a name with all that a body without one needs.
func (n naming) member(name string) string {
	switch {
	case n.boundary != "":
		return "--" + n.boundary + "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n" + name + "\r\n"
	case n.more:
		return `"model":` + quote(name) + ","
	}
	return `"model":` + quote(name)
}

// repeatable tells whether the request may be sent again after it may have been
// received: it creates nothing at the service.
func (r *request) repeatable() bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == "" || stateless[r.op] && !r.naming.background
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
