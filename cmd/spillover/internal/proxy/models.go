package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spillover-go/spillover/internal/wire"
)

// checkModels checks the request of a key that may ask for some models only. Every model
// that the request names must be one of them: in the path, the query, and anywhere in the body. So
// it does not matter which of several a service would take. There is one exception: where
// the path names the deployment, a model beside it in JSON chooses nothing, and LangChain sends
// gpt-3.5-turbo there for every deployment. That one is replaced by the path's. A request that could be served by
// a model that it does not name is refused: a model counts as named only where the operation
// reads it. Therefore an operation that is not in the table is refused, whatever it names:
// nobody knows where it reads its model.
//
// It reads the body into memory.
func (p *Proxy) checkModels(e *exchange, out *http.Request) *problem {
	target := wire.ParsePath(out.URL.EscapedPath())
	spec, socket := specOf(target, out), isResponsesSocket(out)
	if spec == wire.UnknownSpec && !socket || target.Dialect == "" && !target.Foundry {
		return forbidden("unknown_operation", "The key allows some models only, and this operation is not one that the proxy knows, so that its model cannot be checked.")
	}
	c := modelCheck{allowed: e.key.Models, places: spec.ModelPlaces(), transcribes: strings.HasSuffix(target.Operation, "/transcription_sessions")}
	if target.Model != "" {
		decides := spec.HasTrait(wire.DeploymentInPath)
		if c.add(target.Model, decides); decides {
			c.ofPath = target.Model
		}
	}
	if id, ok := strings.CutPrefix(target.Operation, "models/"); ok && out.Method != http.MethodGet {
		if model, err := url.PathUnescape(id); err == nil {
			c.add(model, false)
		}
	}
	query, err := url.ParseQuery(out.URL.RawQuery)
	if err != nil {
		return badRequest("invalid_query", "The key allows some models only, so the query must be valid.")
	}
	for name, values := range query {
		if strings.EqualFold(name, "model") || strings.EqualFold(name, "deployment") {
			for _, v := range values {
				c.add(v, spec.HasTrait(wire.ModelInQuery))
			}
		}
	}
	if out.Body != nil && out.Body != http.NoBody {
		text, err := io.ReadAll(out.Body)
		if err != nil {
			if bad, ok := p.bodyProblem(err); ok {
				return bad
			}
			return badRequest("invalid_body", "The request body could not be read.")
		}
		if len(text) > 0 {
			if err := c.readBody(out.Header, text); err != nil {
				return badRequest("invalid_body", "The key allows some models only, so the body must show the model: %v.", err)
			}
			text = c.replaced(text)
		}
		out.ContentLength = int64(len(text))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
		out.Body, _ = out.GetBody()
	}
	switch {
	case c.refused != nil:
		return modelRefused(*c.refused)
	case c.named() || reads(out) || socket: // its frames are checked later
		return nil
	}
	return forbidden("model_required", "The key allows some models only, and the request names none where the service reads it.")
}

// specOf is the row of the table of operations for a request. A service may ignore the
// case of a path, and does ignore escapes, which the table does not.
func specOf(target wire.Target, r *http.Request) *wire.Spec {
	if spec := target.Spec(r.Method); spec != wire.UnknownSpec {
		return spec
	}
	return wire.ParsePath(strings.ToLower(r.URL.Path)).Spec(r.Method)
}

// serveModels answers the list of models for a key that allows some only: with these,
// whatever the backends have.
func (p *Proxy) serveModels(e *exchange, r *http.Request) bool {
	target := wire.ParsePath(r.URL.EscapedPath())
	id, one := strings.CutPrefix(target.Operation, "models/")
	if e.key == nil || e.key.Models == nil || r.Method != http.MethodGet || target.Dialect == "" || !one && target.Operation != "models" {
		return false
	}
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int    `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	var list []model
	for _, name := range e.key.Models {
		list = append(list, model{ID: name, Object: "model", OwnedBy: "spillover"})
	}
	var answer any = map[string]any{"object": "list", "data": list}
	if one {
		name, err := url.PathUnescape(id)
		i := slices.Index(e.key.Models, name)
		if err != nil || i < 0 {
			problem := modelRefused(name)
			problem.status = http.StatusNotFound
			problem.write(e)
			return true
		}
		answer = list[i]
	}
	e.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(e).Encode(answer) // a caller that has left
	return true
}

// modelRefused is the response to a request for a model that a key does not allow.
func modelRefused(model string) *problem {
	return &problem{status: http.StatusForbidden, kind: invalidRequest, code: "model_not_allowed", param: "model",
		message: fmt.Sprintf("The key does not allow the model %.100q.", model)}
}

// reads reports whether a request only reads or deletes, which no model is needed for.
func reads(r *http.Request) bool {
	if r.Header.Get("Upgrade") != "" {
		return false
	}
	return r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodDelete
}

// A modelCheck collects the models that a request names.
type modelCheck struct {
	allowed []string
	places  []string // of the body, at which the operation reads the model
	refused *string  // the first one that is not allowed
	ofPath  string   // the model that the path names, if that decides; "" otherwise
	others  [][2]int // where the body names another one beside it: from the end of the member's name to that of the value

	found         bool // there is a model where the operation reads it
	transcription bool // there is one where a session reads the model that transcribes
	transcribes   bool // the session says that it only transcribes
	answers       bool // the session says that it does something else
}

// A session for speech has two models, and the service has a default for the one that
// answers. So the model that transcribes counts only in a session that has no other.
const (
	transcriptionPlace = "transcription.model"
	transcriptionType  = "transcription"
)

// named reports whether the request names each model that it could use.
func (c *modelCheck) named() bool {
	return c.found || c.transcription && c.transcribes && !c.answers
}

// addAt adds a model of the body.
func (c *modelCheck) addAt(place, model string) {
	counts := slices.Contains(c.places, place)
	ofTranscription := strings.HasSuffix(place, transcriptionPlace)
	c.transcription = c.transcription || counts && ofTranscription
	c.add(model, counts && !ofTranscription)
}

// replaced is the body with the model of the path instead of others.
func (c *modelCheck) replaced(text []byte) []byte {
	if c.others == nil {
		return text
	}
	name, _ := json.Marshal(c.ofPath) // a string
	var b bytes.Buffer
	from := 0
	for _, span := range c.others {
		b.Write(text[from:span[0]])
		b.WriteByte(':')
		b.Write(name)
		from = span[1]
	}
	b.Write(text[from:])
	return b.Bytes()
}

// addType adds the type of a session.
func (c *modelCheck) addType(kind string) {
	c.transcribes = c.transcribes || kind == transcriptionType
	c.answers = c.answers || kind != transcriptionType
}

func (c *modelCheck) add(model string, counts bool) {
	c.found = c.found || counts
	if c.refused == nil && !slices.Contains(c.allowed, model) {
		c.refused = &model
	}
}

func (c *modelCheck) readBody(h http.Header, text []byte) error {
	if encoding := h.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return errors.New("it has a Content-Encoding")
	}
	kinds := h["Content-Type"]
	if len(kinds) > 1 {
		return errors.New("it has several Content-Types")
	}
	kind := ""
	if len(kinds) == 1 {
		kind = kinds[0]
	}
	mediaType, parameters, err := mime.ParseMediaType(kind)
	switch {
	case kind != "" && err != nil:
		return errors.New("its Content-Type cannot be parsed")
	case strings.HasPrefix(mediaType, "multipart/"):
		if parameters["boundary"] == "" {
			return errors.New("its Content-Type has no boundary")
		}
		return c.readForm(multipart.NewReader(bytes.NewReader(text), parameters["boundary"]))
	case mediaType == "application/sdp" && bytes.HasPrefix(text, []byte("v=")):
		return nil // the description of a call: its model is in the query
	}
	return c.readJSON("", text) // whatever its Content-Type says, the transport does the same
}

// readForm reads the parts of a form that name a model, and those that are JSON.
func (c *modelCheck) readForm(r *multipart.Reader) error {
	for {
		part, err := r.NextRawPart()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return errors.New("the form cannot be parsed")
		}
		_, parameters, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		if err != nil || len(part.Header["Content-Disposition"]) != 1 {
			return errors.New("a part of the form has no valid Content-Disposition")
		}
		mediaType, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		name := parameters["name"]
		isModel := strings.EqualFold(name, "model")
		isJSON := mediaType == "application/json" || strings.EqualFold(name, "session")
		if !isModel && !isJSON {
			continue
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return errors.New("the form cannot be parsed")
		}
		if isModel {
			c.addAt(name, string(text))
		} else if err := c.readJSON(name+".", text); err != nil {
			return err
		}
	}
}

// Bounds of places: those of the table are shorter, and never begin with a dot.
const (
	maxPlace = 200
	nowhere  = "."
)

// readJSON reads every member with the name model whose value is text, at any depth. The
// place of the text begins with prefix.
func (c *modelCheck) readJSON(prefix string, text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	// A level is an object or an array. Its place is that of its members; value means that
	// the next token is the value of a member.
	type level struct {
		object, value bool
		place         string
	}
	var levels []level
	name := "" // of the member whose value is the next token; "" in an array
	for {
		before := int(d.InputOffset())
		token, err := d.Token()
		if err == io.EOF && len(levels) == 0 {
			return nil
		}
		if err != nil || len(levels) > 1000 {
			return errors.New("it is not valid JSON")
		}
		top := &level{place: prefix}
		if len(levels) > 0 {
			top = &levels[len(levels)-1]
		}
		if top.object && !top.value && token != json.Delim('}') {
			name, _ = token.(string)
			top.value = true
			continue
		}
		if top.object && top.value {
			text, isText := token.(string)
			switch place := top.place + name; {
			case isText && strings.EqualFold(place, "model") && c.ofPath != "":
				if text != c.ofPath {
					c.others = append(c.others, [2]int{before, int(d.InputOffset())})
				}
			case isText && strings.EqualFold(name, "model"):
				c.addAt(place, text)
			case strings.EqualFold(place, "type"), strings.EqualFold(place, "session.type"):
				c.addType(text)
			}
		}
		top.value = false
		switch token {
		case json.Delim('{'), json.Delim('['):
			place := top.place
			if top.object {
				if place += name + "."; len(place) > maxPlace {
					place = nowhere
				}
			}
			levels = append(levels, level{object: token == json.Delim('{'), place: place})
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
		}
	}
}
