package spillover

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/replay"
)

// prefix begins the backend's paths, escaped.
func (b *backend) prefix() string {
	if b.bareBase {
		return b.base
	}
	return b.base + b.dialect.Prefix
}

// path is the escaped path of a request at the backend.
func (b *backend) path(t wire.Target, deployment string) string {
	slash := "/"
	if t.Operation == "" {
		slash = ""
	}
	switch {
	case t.Foundry && strings.HasPrefix(b.base, "/api/projects/"):
		return "/" + strings.TrimPrefix(t.RawPath, "/") // these are not below a project
	case t.Dialect == "":
		return b.base + "/" + strings.TrimPrefix(t.RawPath, "/")
	case !b.dialect.DeploymentInPath || !t.NamesDeployment(deployment):
		return b.prefix() + slash + t.Operation
	case deployment == t.Model:
		return b.prefix() + "/deployments/" + t.ModelSegment + slash + t.Operation // escaped as it came
	}
	return b.prefix() + "/deployments/" + url.PathEscape(deployment) + slash + t.Operation
}

// query is the caller's query, byte for byte except for api-version: the
// backend's own replaces it, and a version for classic Azure is not sent to
// other dialects.
func (b *backend) query(t wire.Target, raw string) string {
	version, own, caller := b.apiVersion, b.dialect.APIVersion, wire.SpecOf(t.Dialect).APIVersion
	fromClassic := caller == wire.RequiredAPIVersion
	if version == "" && own == wire.RequiredAPIVersion && !fromClassic && (caller == wire.OptionalAPIVersion || !wire.HasAPIVersion(raw)) {
		version = t.DefaultAPIVersion()
	}
	keep := version == "" && (own == wire.RequiredAPIVersion || own == wire.OptionalAPIVersion && !fromClassic) || t.Dialect == ""
	if keep || raw == "" && version == "" {
		return raw
	}
	if version != "" {
		version = "api-version=" + version
	}
	if !strings.Contains(strings.ToLower(raw), "api-version") {
		return wire.JoinQuery(raw, version)
	}
	query := wire.EditQuery(raw, func(name, parameter string) string {
		if strings.EqualFold(name, "api-version") {
			parameter, version = version, ""
		}
		return parameter
	})
	return wire.JoinQuery(query, version)
}

// edits are the changes of the body for a backend: the name of the deployment,
// and the fields of Backend.Defaults.
func (r *request) edits(d *deployment, deployment string) (replay.Edits, error) {
	b := d.backend
	name, err := r.rename(d, deployment)
	if err != nil || len(b.presets) == 0 || !generates(r.Operation) {
		return replay.Edits{name, r.renameSecond(b)}.Sorted(), err
	}
	if err := r.scan(); err != nil {
		return replay.Edits{}, err
	}
	n := &r.naming
	text := ""
	if n.CanInsert && n.Complete && n.Boundary == "" {
		text = r.leftOut(b)
	}
	put := replay.Edit{At: wire.Span{From: n.InsertAt, To: n.InsertAt}, Text: text}
	switch {
	case text == "":
		return replay.Edits{name}, nil
	case name == replay.Edit{} && !n.HasMembers:
		put.Text = strings.TrimSuffix(text, ",")
		return replay.Edits{put}, nil
	case name == replay.Edit{}:
		return replay.Edits{put}, nil
	case name.At == put.At:
		put.Text += name.Text
		return replay.Edits{put}, nil
	}
	return replay.Edits{put, name}, nil
}

// rename is the change of the body that names the deployment, if the backend
// looks for it there.
func (r *request) rename(d *deployment, deployment string) (replay.Edit, error) {
	inPath := d.backend.dialect.DeploymentInPath && r.NamesDeployment(deployment)
	switch {
	case r.Dialect == "" || deployment == "", inPath && !r.spec.HasTrait(wire.ModelOnlyInPath):
		return replay.Edit{}, nil
	}
	if err := r.scan(); err != nil {
		return replay.Edit{}, err
	}
	n := &r.naming
	switch {
	case inPath && n.HasModel && (n.Model == r.model || n.Model == deployment):
		return replay.Edit{At: n.MemberSpan, Text: ""}, nil
	case inPath, n.HasModel && n.Model == deployment:
		return replay.Edit{}, nil
	case n.HasModel && deployment == d.name && n.ModelIsQuoted():
		return replay.Edit{At: n.ModelSpan, Text: d.quotedName}, nil
	case n.HasModel:
		return replay.Edit{At: n.ModelSpan, Text: n.ModelText(deployment)}, nil
	case r.Target.Model != "" && n.CanInsert:
		return replay.Edit{At: wire.Span{From: n.InsertAt, To: n.InsertAt}, Text: n.ModelMember(deployment)}, nil
	}
	return replay.Edit{}, nil
}

// renameSecond is the change of a second model in the body, if the backend has
// another name for it.
func (r *request) renameSecond(b *backend) replay.Edit {
	n := &r.naming.SecondModel
	if n.Precedence == 0 || r.Dialect == "" {
		return replay.Edit{}
	}
	if m, ok := b.models[n.Model]; ok && m.Deployment != n.Model {
		return replay.Edit{At: n.Span, Text: wire.QuoteJSON(m.Deployment)}
	}
	return replay.Edit{}
}

// leftOut returns the members that a backend adds to the body, each followed by a
// comma.
func (r *request) leftOut(b *backend) string {
	var text strings.Builder
	for _, p := range b.presets {
		if !p.suits(r.Operation) || r.naming.PresentFields&p.bit != 0 || r.naming.HasMaxTokens && (p.name == wire.MaxTokensField || p.name == wire.MaxCompletionTokensField) {
			continue
		}
		text.WriteString(p.text)
		text.WriteByte(',')
	}
	return text.String()
}

// queryKey is the name of the query's model parameter at a backend.
func (r *request) queryKey(b *backend) string {
	if b.dialect.DeploymentInPath && r.upgrades() {
		return "deployment"
	}
	return "model"
}

// withoutKey is a query without the caller's key, unless the backend is to get
// it. Azure's realtime API and gateways accept a key there.
func (b *backend) withoutKey(raw string) string {
	names := credentialQuery
	inQuery := b.dialect.KeyHeader == keyHeader // a caller's key may be in the query
	if b.usesCallerCredential() {
		names = names[:1] // api-key, a credential for Azure alone
	}
	if b.usesCallerCredential() && inQuery || !strings.Contains(strings.ToLower(raw), "key") {
		return raw
	}
	return wire.EditQuery(raw, func(name, parameter string) string {
		if plain, err := url.QueryUnescape(name); err == nil && isOneOf(plain, names) {
			return ""
		}
		return parameter
	})
}

// header is a copy of the caller's header with the backend's credential instead of
// the caller's. A backend without a credential gets the caller's, if that has the
// form of its dialect. The backend's Headers replace the caller's.
func (b *backend) header(caller http.Header, own credential) http.Header {
	keyName := b.dialect.KeyHeader
	var key, authorization string // the caller's
	h := make(http.Header, len(caller)+1+len(b.headers))
	values := make([]string, 0, len(caller)+2+len(b.headers))
	for name, v := range caller {
		switch credential := isCredential(name); {
		case credential && b.hasCredential, len(b.headers) > 0 && b.setsHeader(name):
		case credential && sameHeader(name, authHeader):
			authorization = wire.Header(caller, name)
		case credential && sameHeader(name, keyName):
			key = wire.Header(caller, name)
		case credential && sameHeader(name, keyHeader): // a key for another dialect
		case b.hasCredential && sameHeader(name, protocolHeader):
			if v = protocols(v); len(v) > 0 {
				h[name] = v
			}
		default:
			from := len(values)
			if len(v) == 1 { // as nearly always
				values = append(values, v[0])
			} else {
				values = append(values, v...)
			}
			h[name] = values[from:len(values):len(values)]
		}
	}
	name, value := keyName, cmp.Or(own.secret, key)
	switch {
	case own.authorization != "":
		name, value = authHeader, own.authorization
	case value == "":
		name, value = authHeader, authorization
	}
	set := func(name, value string) {
		from := len(values)
		values = append(values, value)
		h[name] = values[from : from+1 : from+1]
	}
	if value != "" {
		set(name, value)
	}
	for name, value := range b.headers {
		set(name, value)
	}
	return h
}

// setsHeader reports whether the backend's Headers have a header.
func (b *backend) setsHeader(name string) bool {
	for own := range b.headers {
		if sameHeader(own, name) {
			return true
		}
	}
	return false
}

// credential returns the backend's key, or asks for its token. It is zero for the
// caller's own credential.
func (b *backend) credential(ctx context.Context) (credential, error) {
	if b.token == nil {
		return b.currentKey(), nil
	}
	token, err := b.token(ctx)
	switch {
	case err != nil:
		return credential{}, fmt.Errorf("token: %w", err)
	case token == "":
		return credential{}, fmt.Errorf("token: it is empty")
	case !wire.IsPrintableASCII(token):
		return credential{}, fmt.Errorf("token: it has a line break or a character that is not ASCII")
	}
	return credential{token, "Bearer " + token}, nil
}

// sharesAccount reports whether two backends spend the same quota.
func (b *backend) sharesAccount(other *backend) bool {
	return b.key.Load() != nil && b.sameKey(other) && b.host == other.host && maps.Equal(b.headers, other.headers)
}

// usesCallerCredential reports whether the backend gets callers' own
// credentials.
func (b *backend) usesCallerCredential() bool { return !b.hasCredential }

// A knownURL is the URL of an earlier request to a deployment.
type knownURL struct {
	of          *knownPath
	query, name string // of that request
	url         url.URL
}

// urlFor is the URL for a deployment. It is that of the last request if that
// was alike.
func (r *request) urlFor(d *deployment, name string) url.URL {
	query := r.URL.RawQuery
	if k := d.lastURL.Load(); k != nil && r.known == k.of && query == k.query && name == k.name {
		return k.url
	}
	// A query that may hold a key is not kept.
	remember := r.known != nil && !r.inQuery && len(query) <= maxKnownPath && !strings.Contains(strings.ToLower(query), "key")
	if remember {
		query, name = strings.Clone(query), strings.Clone(name)
	}
	b := d.backend
	u := url.URL{Scheme: b.scheme, Host: b.host, RawQuery: b.query(*r.Target, b.withoutKey(query))}
	if r.inQuery && name != "" {
		u.RawQuery = wire.ReplaceQueryModel(u.RawQuery, r.queryKey(b), name)
	}
	u.Path, u.RawPath = wire.SplitEscapedPath(b.path(*r.Target, name))
	if remember {
		d.lastURL.Store(&knownURL{r.known, query, name, u})
	}
	return u
}
