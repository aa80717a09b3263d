package spillover

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
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
	r.ids = append(r.target.ids(r.Method), r.queryIDs(r.Method, r.URL.RawQuery)...)
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

// repeatable tells whether the request may be sent again after it may have been
// received: it creates nothing at the service.
func (r *request) repeatable() bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == "" || r.stateless() && !r.naming.background
}

// spec is the row of the table for a request with this target.
func (r *request) spec() *compiledSpec { return r.target.spec(r.Method) }

// stateless tells whether the operation leaves nothing behind at the service:
// any deployment of the model can answer it, and answer it again.
func (r *request) stateless() bool { return r.spec().has(stateless) }

// upgrades tells of a WebSocket, as the realtime API has it. It names its model
// in the query: deployment on classic Azure, model elsewhere.
func (r *request) upgrades() bool {
	return strings.EqualFold(field(r.Header, "Upgrade"), "websocket")
}

// queryKey is what a backend calls the model in the query of a request.
func (r *request) queryKey(b *backend) string {
	if b.dialect == Azure && r.upgrades() {
		return "deployment"
	}
	return "model"
}
