package spillover

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"strings"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/replay"
)

// A request is what is read of the caller's request, once, before the first
// attempt.
type request struct {
	*http.Request
	*wire.Target
	spec        *wire.Spec // the row of the table of operations
	known       *knownPath // nil unless the path is remembered
	model       string     // the model that the caller names; "" if none
	inQuery     bool       // the model is in the query
	scanned     bool       // the body has been read
	renames     bool       // some backend has another name for a model
	limited     bool       // some model has ContextTokens: the size of a large body decides too
	promptBytes uint32     // Config.PromptAffinity
	contentType string
	body        replay.Body
	naming      wire.BodyInfo
	ids         []wire.ObjectID // of stored objects that the request is about
	tokens      int64           // an estimate of its cost

	fields []string              // that Defaults set; a field's index is its bit
	count  func(body []byte) int // Config.CountTokens
	paths  *knownPaths           // where paths are remembered; nil where they are not

	knownModel func(name []byte) string // see [wire.BodyScanner]; may be nil
}

// unread is the target of a request whose path has not been read.
var unread wire.Target

func newRequest(in *http.Request) request {
	return request{Request: in, Target: &unread, spec: wire.UnknownSpec, contentType: wire.Header(in.Header, "Content-Type"), body: replay.New(in.Body)}
}

// read looks at the request once, for everything that is needed of it.
func (r *request) read() error {
	r.readPath()
	r.model = r.Target.Model
	r.body.ExpectEdits = r.renames && r.model == "" // the body names the model
	if err := r.body.Prepare(r.GetBody, r.ContentLength); err != nil {
		return err
	}
	r.tokens = wire.EstimateTokens(min(r.body.Length, wire.MaxUnreadBytes), 0)
	if r.Dialect == "" && !r.Foundry {
		return nil
	}
	if !r.stateless() {
		r.ids = append(r.Target.PathIDs(r.Method), r.QueryIDs(r.Method, r.URL.RawQuery)...)
	}
	spec, upgrades := r.spec, r.upgrades()
	if upgrades || spec.HasTrait(wire.ModelInQuery) && r.Method == http.MethodPost {
		r.model = cmp.Or(r.model, wire.QueryModel(r.URL.RawQuery))
		r.inQuery = r.model != "" && r.Target.Model == ""
	}
	if upgrades {
		return nil
	}
	if r.Target.Model == "" || r.worthReading() {
		if err := r.scan(); err != nil {
			return err
		}
		r.tokens = r.naming.EstimateTokens(r.body.Length)
	}
	if r.model == "" && !spec.HasTrait(wire.UsesBaseModel) {
		r.model = r.naming.Model
	}
	return nil
}

// worthReading reports whether the body is read although the path names the
// model: for the session and the size of the request. A large one is read only if
// a model has a limit of its size.
func (r *request) worthReading() bool {
	return r.stateless() && r.body.CanRepeat() && (r.limited || r.body.Length < worthReadingLimit) && !wire.IsForm(r.contentType)
}

const worthReadingLimit = 1 << 20

// scan finds the model and the ids in a body of JSON or of a multipart form.
// Other bodies have none: the service answers them.
func (r *request) scan() error {
	if r.scanned || !r.body.Present || wire.Header(r.Header, "Content-Encoding") != "" {
		return nil
	}
	r.scanned = true
	spec := r.spec
	form := wire.IsForm(r.contentType)
	w := wire.BodyScanner{Fields: spec.Body, MaxIDs: wire.MaxIDs, KnownModel: r.knownModel}
	if form {
		if w.Fields = spec.Form; w.Fields.IsEmpty() {
			return nil // an upload without a model
		}
	}
	seen := 0
	if err := r.body.Peek(func(text []byte) {
		if seen = len(text); form {
			w.ReadForm(r.contentType, bytes.NewReader(text))
			return
		}
		if r.Operation == "chat/completions" {
			w.Fields = spec.Models // there are hardly ever ids in it
		}
		if w.ReadJSON(text, r.Target.Model, r.fields); w.Rare.IDs && w.Fields != spec.Body {
			w = wire.BodyScanner{Fields: spec.Body, MaxIDs: wire.MaxIDs, KnownModel: r.knownModel}
			w.ReadJSON(text, r.Target.Model, r.fields)
		}
		if r.promptBytes > 0 && generates(r.Operation) {
			w.HashPrompt(int(r.promptBytes))
		}
		w.Info.Complete = len(text) < replay.MaxBuffered
		w.Info.MediaTokens, w.Info.MediaBytes = wire.MediaTokens(text, w.Rare)
		if r.count != nil {
			w.Info.PromptTokens = int64(max(0, r.count(text)))
		}
	}); err != nil {
		return err
	}
	if seen >= replay.MaxBuffered {
		if err := r.scanOn(&w, form); err != nil {
			return err
		}
	}
	r.naming, r.ids = w.Info, append(r.ids, w.IDs...)
	if spec.HasTrait(wire.UsesBaseModel) {
		r.naming.HasModel, r.naming.SecondModel = false, wire.NamedModel{}
	}
	return nil
}

// scanOn looks for the model beyond the part of a large body that Peek shows.
// It keeps nothing of the body, so the body must be available once more.
func (r *request) scanOn(w *wire.BodyScanner, form bool) error {
	if w.Info.HasModel || !r.body.CanRepeat() || r.spec.HasTrait(wire.UsesBaseModel) {
		return nil
	}
	src, err := r.body.Repeat()
	if err != nil {
		return err
	}
	defer src.Close()
	whole := wire.BodyScanner{Fields: w.Fields, MaxIDs: wire.MaxIDs}
	if form {
		whole.ReadForm(r.contentType, src)
		*w = whole
		return nil
	}
	if err := whole.ReadStream(src); err != nil {
		return fmt.Errorf("spillover: reading the request's body: %w", err)
	}
	n := whole.Info
	w.Info.ModelSpan, w.Info.HasModel, w.Info.Model, w.Info.ModelPrecedence = n.ModelSpan, n.HasModel, n.Model, n.ModelPrecedence
	w.Info.SecondModel, w.Info.Background, w.IDs = n.SecondModel, w.Info.Background || n.Background, whole.IDs
	return nil
}

// answersIDs reports whether responses contain ids of stored objects.
func (r *request) answersIDs() bool {
	return r.spec.HasTrait(wire.ReturnsIDs) || r.naming.StoresResponse
}

// repeatable reports whether the request may be sent again after it may have
// been received: it creates nothing at the service.
func (r *request) repeatable() bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == "" || r.stateless() && !r.naming.Background
}

// stateless reports whether the operation leaves nothing behind at the service:
// any deployment of the model can answer it, and answer it again.
func (r *request) stateless() bool { return r.spec.HasTrait(wire.Stateless) }

// upgrades reports whether the request opens a WebSocket, as in the realtime
// API. Its model is in the query: deployment on classic Azure, model elsewhere.
func (r *request) upgrades() bool {
	return strings.EqualFold(wire.Header(r.Header, "Upgrade"), "websocket")
}

// generates reports whether an operation generates text. Only such operations have
// presets.
func generates(op string) bool {
	return op == "chat/completions" || op == "completions" || op == "responses"
}

// fetchesResponse reports whether an operation reads a stored response.
func fetchesResponse(method, op string) bool {
	id, ok := strings.CutPrefix(op, "responses/")
	return ok && !strings.Contains(id, "/") && (method == http.MethodGet || method == "")
}
