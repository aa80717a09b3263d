package spillover

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/objects"

	"github.com/spillover-go/spillover/internal/replay"
)

// A backend is a configured Backend, ready for use.
type backend struct {
	*sharedState
	name          string
	hash          uint64 // of the name
	scheme, host  string
	base          string // escaped base path, without a slash at its end
	bareBase      bool   // the dialect's paths begin with it alone
	priority      int
	weight        int
	dialect       Dialect
	apiVersion    string
	key           string
	bearerKey     string // the same as OpenAI wants it
	token         TokenFunc
	headers       map[string]string // by their canonical names
	hasCredential bool              // it has a credential of its own: the callers' are not for it
	presets       []defaultField
	models        map[string]Model // by what callers ask for; nil: everything
	headerTimeout time.Duration
	idleTimeout   time.Duration
}

// newBackend takes a Backend over that was normalized.
func newBackend(b Backend) *backend {
	u, err := url.Parse(b.URL)
	if err != nil {
		panic(fmt.Sprintf("spillover: backend %q was not normalized: %v", b.Name, err))
	}
	base, bare := basePath(b.Dialect, u.EscapedPath())
	n := &backend{
		sharedState: new(sharedState), // unless it has one already
		name:        b.Name, hash: stableHash(b.Name), scheme: u.Scheme, host: u.Host, base: base, bareBase: bare,
		priority: b.Priority, weight: b.Weight, dialect: b.Dialect, apiVersion: b.APIVersion,
		key: b.APIKey, bearerKey: "Bearer " + b.APIKey, token: b.Token, presets: presets(b.Defaults), headerTimeout: b.HeaderTimeout, idleTimeout: b.IdleTimeout,
	}
	n.headers, n.hasCredential = b.Headers, b.hasCredential()
	n.latest.Store(n)
	if len(b.Models) > 0 {
		n.models = make(map[string]Model, len(b.Models))
		for _, m := range b.Models {
			n.models[m.Name] = m
		}
	}
	return n
}

// prefix is what the backend's paths begin with, escaped.
func (b *backend) prefix() string {
	if b.bareBase {
		return b.base
	}
	return b.base + wire.Prefix(b.dialect)
}

// attemptRequest is the request as it is sent to a deployment: a clone of the
// caller's own, so that nothing of an earlier attempt is left in it.
// Its body, if it has one, is s.body.
func (r *request) attemptRequest(ctx context.Context, d *deployment, bearer string, a *attempt) (*http.Request, error) {
	b := d.backend
	name := d.name
	if name == "" {
		name = r.model
	}
	if err := r.body.WaitIdle(ctx); err != nil {
		return nil, err
	}
	change, err := r.edits(b, name)
	if err != nil {
		return nil, err
	}
	out := r.WithContext(ctx)
	a.url = url.URL{Scheme: b.scheme, Host: b.host, RawQuery: b.query(r.Target, b.withoutKey(r.URL.RawQuery))}
	out.URL = &a.url
	if r.inQuery && name != "" {
		out.URL.RawQuery = wire.RenameQuery(out.URL.RawQuery, r.queryKey(b), name)
	}
	out.URL.Path, out.URL.RawPath = wire.SplitEscapedPath(b.path(r.Target, name))
	out.Host = b.host
	out.Header = b.header(r.Header, bearer)
	if !r.body.Present {
		return out, nil
	}
	if err := r.body.Open(&a.firstBody, change); err != nil {
		return nil, err
	}
	a.body = &a.firstBody
	out.Body, out.ContentLength, out.GetBody = a.body, r.body.EditedLength(change), nil
	if r.body.Again != nil {
		// net/http sends again by itself what a dead connection did not take.
		out.GetBody = func() (io.ReadCloser, error) {
			a.body.Settle(&r.body)
			if err := r.body.WaitIdle(ctx); err != nil {
				return nil, err
			}
			next := new(replay.Attempt)
			if err := r.body.Open(next, change); err != nil {
				return nil, err
			}
			a.body = next
			return next, nil
		}
	}
	return out, nil
}

// The headers that carry a credential of Azure and of OpenAI.
const (
	keyHeader  = "Api-Key"
	authHeader = "Authorization"
)

// gatewayKeys are headers with a key of API Management and of other gateways.
var gatewayKeys = []string{"Ocp-Apim-Subscription-Key", "X-Api-Key", "X-Functions-Key", "X-Goog-Api-Key"}

// credentialHeaders are all that belongs to a caller's credential: the account
// that a key is used for as well, and what is meant for another host.
var credentialHeaders = slices.Concat([]string{keyHeader, authHeader}, gatewayKeys,
	[]string{"Openai-Organization", "Openai-Project", "Proxy-Authorization", "Cookie"})

// credentialQuery are the parameters of a query that do.
var credentialQuery = []string{"api-key", "subscription-key", "key"}

// isCredential tells whether a header is one of a credential. Its case is of no
// matter: a map made by hand is not canonical.
func isCredential(name string) bool { return isOneOf(name, credentialHeaders) }

func isOneOf(name string, names []string) bool {
	for _, n := range names {
		if len(n) == len(name) && strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// withoutCredentials is a copy of a caller's header.
func withoutCredentials(caller http.Header) http.Header {
	h := caller.Clone()
	for name := range h {
		if isCredential(name) {
			delete(h, name)
		}
	}
	return h
}

// protocols are those of a WebSocket that a caller proposes, without the
// credential that OpenAI's realtime API takes there from browsers.
func protocols(proposed []string) (kept []string) {
	for _, line := range proposed {
		var names []string
		for name := range strings.SplitSeq(line, ",") {
			plain := strings.ToLower(strings.TrimSpace(name))
			if !slices.ContainsFunc([]string{"openai-insecure-api-key.", "openai-organization.", "openai-project."}, func(p string) bool {
				return strings.HasPrefix(plain, p)
			}) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			kept = append(kept, strings.TrimSpace(strings.Join(names, ",")))
		}
	}
	return kept
}

// withoutKey is a query without the caller's key, which Azure's realtime API and
// gateways take there, too, for a backend that is not to be sent it.
func (b *backend) withoutKey(raw string) string {
	names := credentialQuery
	if b.usesCallerCredential() {
		names = names[:1] // which is a credential of Azure's
	}
	if b.usesCallerCredential() && b.dialect != OpenAI || !strings.Contains(strings.ToLower(raw), "key") {
		return raw
	}
	var query string
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err != nil || !isOneOf(plain, names) {
			query = wire.JoinQuery(query, part)
		}
	}
	return query
}

// header is a copy of the caller's with the backend's credential in the place
// of the caller's. A backend without one is sent the caller's, but only in its
// own form. The headers that a backend has replace the caller's.
func (b *backend) header(caller http.Header, bearer string) http.Header {
	var key, authorization string
	h := make(http.Header, len(caller)+1+len(b.headers))
	values := make([]string, 0, len(caller)+2+len(b.headers))
	for name, v := range caller {
		switch {
		case b.hasCredential && isCredential(name), b.setsHeader(name):
		case len(name) == len(keyHeader) && strings.EqualFold(name, keyHeader):
			key = wire.Header(caller, name)
		case len(name) == len(authHeader) && strings.EqualFold(name, authHeader):
			authorization = wire.Header(caller, name)
		case b.hasCredential && len(name) == len(protocolHeader) && strings.EqualFold(name, protocolHeader):
			if v = protocols(v); len(v) > 0 {
				h[name] = v
			}
		default:
			from := len(values)
			values = append(values, v...)
			h[name] = values[from:len(values):len(values)]
		}
	}
	set := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1:]
	}
	switch {
	case bearer != "":
		set(authHeader, "Bearer "+bearer)
	case b.key != "" && b.dialect == OpenAI:
		set(authHeader, b.bearerKey)
	case b.key != "":
		set(keyHeader, b.key)
	case b.dialect != OpenAI && key != "":
		set(keyHeader, key)
	case authorization != "":
		set(authHeader, authorization)
	}
	for name, value := range b.headers {
		set(name, value)
	}
	return h
}

// protocolHeader is what a WebSocket's client proposes.
const protocolHeader = "Sec-WebSocket-Protocol"

// replaces tells whether the backend has such a header of its own.
func (b *backend) setsHeader(name string) bool {
	for own := range b.headers {
		if len(own) == len(name) && strings.EqualFold(own, name) {
			return true
		}
	}
	return false
}

// bearer asks for the backend's token; "" when it has another credential.
func (b *backend) bearer(ctx context.Context) (string, error) {
	if b.token == nil {
		return "", nil
	}
	token, err := b.token(ctx)
	switch {
	case err != nil:
		return "", fmt.Errorf("token: %w", err)
	case token == "":
		return "", fmt.Errorf("token: it is empty")
	case !wire.IsPrintableASCII(token):
		return "", fmt.Errorf("token: it has a line break or a character that is not ASCII")
	}
	return token, nil
}

// sharesAccount tells whether what one has spent the other has spent too.
func (b *backend) sharesAccount(other *backend) bool {
	return b.key != "" && b.key == other.key && b.host == other.host && maps.Equal(b.headers, other.headers)
}

// anonymous tells that the backend is sent the callers' own credentials.
func (b *backend) usesCallerCredential() bool { return !b.hasCredential }

// path is the escaped path for a backend, under the name that the backend has
// for the model.
func (b *backend) path(t wire.Target, deployment string) string {
	slash := "/"
	if t.Operation == "" {
		slash = ""
	}
	switch {
	case t.Foundry && strings.HasPrefix(b.base, "/api/projects/"):
		return "/" + strings.TrimPrefix(t.Raw, "/") // these are not below a project
	case t.Dialect == "":
		return b.base + "/" + strings.TrimPrefix(t.Raw, "/")
	case b.dialect != Azure || !t.NamesDeployment(deployment):
		return b.prefix() + slash + t.Operation
	case deployment == t.Model:
		return b.prefix() + "/deployments/" + t.Segment + slash + t.Operation // escaped as it came
	}
	return b.prefix() + "/deployments/" + url.PathEscape(deployment) + slash + t.Operation
}

// query is the query for a backend, byte for byte the caller's but for
// api-version: a backend's own replaces it, and one that was meant for a
// classic path goes no further than that.
func (b *backend) query(t wire.Target, raw string) string {
	version := b.apiVersion
	if version == "" && b.dialect == Azure && t.Dialect != Azure && (t.Dialect == AzureV1 || !wire.HasVersion(raw)) {
		version = t.DefaultVersion()
	}
	keep := version == "" && (b.dialect == Azure || b.dialect == AzureV1 && t.Dialect != Azure) || t.Dialect == ""
	if keep || raw == "" && version == "" {
		return raw
	}
	if version != "" {
		version = "api-version=" + version
	}
	if !strings.Contains(strings.ToLower(raw), "api-version") {
		return wire.JoinQuery(raw, version)
	}
	var query string
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if !strings.EqualFold(name, "api-version") {
			query = wire.JoinQuery(query, part)
			continue
		}
		query, version = wire.JoinQuery(query, version), ""
	}
	return wire.JoinQuery(query, version)
}

// house gives each backend the resource that it is of: the one that its entry
// had in an earlier configuration, or that another entry of the same account
// has, now or before; else a new one.
func assignResources(backends, before []*backend) {
	for _, b := range backends {
		for _, others := range [...][]*backend{backends, before} {
			for _, other := range others {
				if b.resource == nil && other.resource != nil && b.sharesResource(other) {
					b.resource = other.resource
				}
			}
		}
		if b.resource == nil {
			b.resource = new(objects.Resource)
		}
	}
}

// sharesResource tells whether two backends are entries of one resource: at the
// same place, with the same account. A host of Azure's own is one resource,
// whichever of its two keys or tokens it is asked with; elsewhere the key tells
// the account.
func (b *backend) sharesResource(other *backend) bool {
	return b.scheme == other.scheme && strings.EqualFold(b.host, other.host) && b.base == other.base &&
		(b.key == other.key || b.dialect != OpenAI && other.dialect != OpenAI && ofAzure(b.host))
}

var callerSeed = maphash.MakeSeed()

// noCredential is the caller of those without a credential.
const noCredential = 1

// callerOf tells callers apart by their credentials, which it does not keep.
func callerOf(r *http.Request) uint64 {
	var h maphash.Hash
	any := false
	h.SetSeed(callerSeed)
	for _, name := range [...]string{keyHeader, authHeader} {
		for n, values := range r.Header {
			if strings.EqualFold(n, name) {
				for _, v := range values {
					_, _ = h.WriteString(v)
					any = true
				}
			}
		}
		_ = h.WriteByte(0)
	}
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if name, value, _ := strings.Cut(part, "="); strings.EqualFold(name, keyHeader) {
			_, _ = h.WriteString(value)
			any = true
		}
	}
	if !any {
		return noCredential
	}
	return max(noCredential+1, h.Sum64())
}
