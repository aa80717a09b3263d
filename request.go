package spillover

import (
	"bytes"
	"cmp"
	"fmt"
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
	inQuery bool   // the query names it
	body    body
	naming  naming
	scanned bool       // naming is known
	ids     []objectID // of stored objects that the request is about
	tokens  int64      // an estimate of what it costs

	fields []string              // that backends set, by their bits
	count  func(body []byte) int // Config.CountTokens
}

// naming is where a body names its model, and what else it says of itself.
type naming struct {
	model string // "" when it is no string
	at    span   // of the value, quotes included
	named bool   // there is a value
	// Where a name can be put if there is none: behind the opening brace of an
	// object, or before the first part of a form.
	gap        int
	open, more bool       // whether there is a gap, and anything behind it
	boundary   string     // of a form
	place      int        // which of the operation's places of a model that is; the first decides
	inJSON     bool       // it is a JSON string, though in a form
	entire     span       // the whole member of an object, or part of a form, with what separates it
	second     namedModel // another model that the request names
	most       int64      // tokens of output; 0 when it does not say
	prompt     int64      // tokens of the prompt, as the caller's counter says; 0 when there is none
	media      int64      // tokens of what is no text
	mediaBytes int64      // of that
	cacheKey   string     // prompt_cache_key
	background bool       // the answer is stored and made later: it is begun once
	streams    bool       // the answer is to be a stream of events
	keeps      bool       // chat: the answer is stored, or has sound that can be referred to
	given      uint64     // which of the fields are there that backends set
	capped     bool       // a maximum of output tokens is, under either name
	whole      bool       // all of the body was read
}

// A namedModel is a model at its place in a body.
type namedModel struct {
	model string
	at    span
	place int
}

// read looks at the body once, for all that must be found there.
func (r *request) read() error {
	r.target = parsePath(r.URL.EscapedPath())
	r.model = r.target.model
	if err := r.body.prepare(r.GetBody, r.ContentLength); err != nil {
		return err
	}
	r.tokens = estimate(min(r.body.length, mostUnread), 0)
	if r.dialect == "" && !r.foundry {
		return nil
	}
	r.ids = append(r.pathIDs(), r.queryIDs()...)
	spec := r.spec()
	if r.upgrades() || spec.has(modelInQuery) && r.Method == http.MethodPost {
		r.model = cmp.Or(r.model, queryModel(r.URL.RawQuery))
		r.inQuery = r.model != "" && r.target.model == ""
	}
	if r.upgrades() {
		return nil
	}
	if r.target.model == "" || r.worthReading() {
		if err := r.scan(); err != nil {
			return err
		}
		r.tokens = r.naming.cost(r.body.length)
	}
	if r.model == "" && !spec.has(baseModel) {
		r.model = r.naming.model
	}
	return nil
}

// worthReading tells whether the body is read although the path names the
// model: for the session and the size of the request, unless that takes long.
func (r *request) worthReading() bool {
	return r.stateless() && r.body.again != nil && r.body.length < worthReadingLimit && !isForm(field(r.Header, "Content-Type"))
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

// cost is the estimate for a body that was read: what is no text in it counts
// by its kind, and the prompt is what the caller's own counter says if there is
// one.
func (n naming) cost(length int64) int64 {
	if n.prompt > 0 {
		return estimate(4*n.prompt, n.most)
	}
	return estimate(length-n.mediaBytes, n.most) + n.media
}

// mostUnread is how many bytes of a body that is not read count: a large one is
// mostly sound or pictures.
const mostUnread = 16 << 10

// usualOutput is the output of a request that names no maximum, or whose body
// is not read, in tokens.
const usualOutput = 250

// scan finds the model and ids in a body of JSON or of a form. What is neither
// has none: the service shall answer that.
func (r *request) scan() error {
	if r.scanned || !r.body.present || field(r.Header, "Content-Encoding") != "" {
		return nil
	}
	r.scanned = true
	spec := r.spec()
	contentType := field(r.Header, "Content-Type")
	form := isForm(contentType)
	w := bodyWalk{tree: spec.body, most: maxIDs}
	if form {
		if w.tree = spec.form; len(w.tree.children) == 0 {
			return nil // an upload: of no model
		}
	}
	seen := 0
	if err := r.body.peek(func(text []byte) {
		if seen = len(text); form {
			w.readForm(contentType, bytes.NewReader(text))
			return
		}
		if r.op == "chat/completions" && !bytes.Contains(text, []byte(`"file_id"`)) && !bytes.Contains(text, []byte(`"audio"`)) {
			w.tree = spec.models // there are no ids in it
		}
		w.readJSON(text, r.target.model, r.fields)
		w.naming.whole = len(text) < maxBuffered
		w.naming.media, w.naming.mediaBytes = findMedia(text)
		if r.count != nil {
			w.naming.prompt = int64(max(0, r.count(text)))
		}
	}); err != nil {
		return err
	}
	if seen >= maxBuffered {
		if err := r.scanOn(&w, form, contentType); err != nil {
			return err
		}
	}
	r.naming, r.ids = w.naming, append(r.ids, w.ids...)
	if spec.has(baseModel) {
		r.naming.named, r.naming.second = false, namedModel{}
	}
	return nil
}

// scanOn looks for the model behind what peek shows of a large body. It keeps
// nothing of it, so the body must be one that can be had again.
func (r *request) scanOn(w *bodyWalk, form bool, contentType string) error {
	if w.naming.named || r.body.again == nil || r.spec().has(baseModel) {
		return nil
	}
	src, err := r.body.again()
	if err != nil {
		return fmt.Errorf("spillover: GetBody: %w", err)
	}
	defer src.Close()
	whole := bodyWalk{tree: w.tree, most: maxIDs}
	if form {
		whole.readForm(contentType, src)
		*w = whole
		return nil
	}
	if err := whole.stream(src); err != nil {
		return fmt.Errorf("spillover: reading the request's body: %w", err)
	}
	n := whole.naming
	w.naming.at, w.naming.named, w.naming.model, w.naming.place = n.at, n.named, n.model, n.place
	w.naming.second, w.naming.background, w.ids = n.second, w.naming.background || n.background, whole.ids
	return nil
}

// maxIDs bounds the ids that one request is searched for.
const maxIDs = 64

// tellsIDs tells whether answers to the request tell ids of stored objects.
func (r *request) tellsIDs() bool {
	return r.spec().has(answersIDs) || r.naming.keeps
}

// edits are what must change in the body for a backend: the name of the
// deployment, and the fields that the backend sets.
func (r *request) edits(b *backend, deployment string) (edits, error) {
	name, err := r.rename(b, deployment)
	if err != nil || len(b.presets) == 0 || !generates(r.op) {
		return edits{name, r.renameSecond(b)}.sorted(), err
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
	inPath := b.dialect == Azure && r.namesDeployment(deployment)
	switch {
	case r.dialect == "" || deployment == "", inPath && !r.spec().has(noModelBesidePath):
		return splice{}, nil
	}
	if err := r.scan(); err != nil {
		return splice{}, err
	}
	n := r.naming
	switch {
	case inPath && n.named && (n.model == r.model || n.model == deployment):
		return splice{n.entire, ""}, nil
	case inPath, n.named && n.model == deployment:
		return splice{}, nil
	case n.named:
		return splice{n.at, n.text(deployment)}, nil
	case r.target.model != "" && n.open:
		return splice{span{n.gap, n.gap}, n.member(deployment)}, nil
	}
	return splice{}, nil
}

// renameSecond is what must change of a second model that the request names, if
// the backend has another name for it.
func (r *request) renameSecond(b *backend) splice {
	n := r.naming.second
	if m, ok := b.models[n.model]; ok && n.place > 0 && m.Deployment != n.model && r.dialect != "" {
		return splice{n.at, quote(m.Deployment)}
	}
	return splice{}
}

// sorted puts two edits in the order of the text.
func (e edits) sorted() edits {
	if e[1] != (splice{}) && e[1].at.from < e[0].at.from {
		e[0], e[1] = e[1], e[0]
	}
	return e
}

// text is a name as the body spells it.
func (n naming) text(name string) string {
	if n.boundary != "" && !n.inJSON {
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
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == "" || r.stateless() && !r.naming.background
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
