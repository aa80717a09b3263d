package spillover

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A backend is a configured Backend, ready for use.
type backend struct {
	*link
	name          string
	hash          uint64 // of the name
	scheme, host  string
	base          string // escaped base path, without a slash at its end
	bare          bool   // the dialect's paths begin with it alone
	priority      int
	weight        int
	dialect       Dialect
	apiVersion    string
	key           string
	bearerKey     string // the same as OpenAI wants it
	token         TokenFunc
	presets       []preset
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
	base, bare := b.Dialect.basePath(u.EscapedPath())
	n := &backend{
		link: new(link), // unless it has one already
		name: b.Name, hash: stableHash(b.Name), scheme: u.Scheme, host: u.Host, base: base, bare: bare,
		priority: b.Priority, weight: b.Weight, dialect: b.Dialect, apiVersion: b.APIVersion,
		key: b.APIKey, bearerKey: "Bearer " + b.APIKey, token: b.Token, presets: presets(b.Defaults), headerTimeout: b.HeaderTimeout, idleTimeout: b.IdleTimeout,
	}
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
	if b.bare {
		return b.base
	}
	return b.base + b.dialect.prefix()
}

// attemptRequest is the request as it is sent to a deployment: a clone of the
// caller's own, so that nothing of an earlier attempt is left in it.
// Its body, if it has one, is s.body.
func (r *request) attemptRequest(ctx context.Context, d *deployment, bearer string, s *sending) (*http.Request, error) {
	b := d.backend
	name := d.name
	if name == "" {
		name = r.model
	}
	change, err := r.edits(b, name)
	if err != nil {
		return nil, err
	}
	out := r.WithContext(ctx)
	s.url = url.URL{Scheme: b.scheme, Host: b.host, RawQuery: r.query(b, b.withoutKey(r.URL.RawQuery))}
	out.URL = &s.url
	if r.upgrades() && name != "" {
		out.URL.RawQuery = renameQuery(out.URL.RawQuery, b.dialect, name)
	}
	out.URL.Path, out.URL.RawPath = unescapePath(r.path(b, name))
	out.Host = b.host
	out.Header = b.header(r.Header, bearer)
	if !r.body.present {
		return out, nil
	}
	if err := r.body.open(&s.space, change); err != nil {
		return nil, err
	}
	s.body = &s.space
	out.Body, out.ContentLength, out.GetBody = s.body, r.body.edited(change), nil
	if r.body.again != nil {
		// net/http sends again by itself what a dead connection did not take.
		out.GetBody = func() (io.ReadCloser, error) {
			s.body.settle(&r.body)
			next := new(attemptBody)
			if err := r.body.open(next, change); err != nil {
				return nil, err
			}
			s.body = next
			return next, nil
		}
	}
	return out, nil
}

// The headers that carry a credential.
const (
	keyHeader  = "Api-Key"
	authHeader = "Authorization"
)

// field is a header that net/http has made canonical.
func field(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// withoutKey is a query without the caller's key, which Azure's realtime API
// takes there, too, for a backend that is not to be sent it.
func (b *backend) withoutKey(raw string) string {
	if b.anonymous() && b.dialect != OpenAI || !strings.Contains(strings.ToLower(raw), "key") {
		return raw
	}
	var query string
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err != nil || !strings.EqualFold(plain, keyHeader) {
			query = joinQuery(query, part)
		}
	}
	return query
}

// header is a copy of the caller's with the backend's credential in the place
// of the caller's. A backend without one is sent the caller's, but only in its
// own form.
func (b *backend) header(caller http.Header, bearer string) http.Header {
	var key, authorization string
	h := make(http.Header, len(caller)+1)
	values := make([]string, 0, len(caller)+2)
	for name, v := range caller {
		switch {
		// Whatever the case: a map made by hand is not canonical.
		case len(name) == len(keyHeader) && strings.EqualFold(name, keyHeader):
			key = field(caller, name)
		case len(name) == len(authHeader) && strings.EqualFold(name, authHeader):
			authorization = field(caller, name)
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
	return h
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
	case !visible(token):
		return "", fmt.Errorf("token: it has a line break or a character that is not ASCII")
	}
	return token, nil
}

// sharesAccount tells whether what one has spent the other has spent too.
func (b *backend) sharesAccount(other *backend) bool {
	return b.key != "" && b.key == other.key && b.host == other.host
}

// anonymous tells that the backend is sent the callers' own credentials.
func (b *backend) anonymous() bool { return b.key == "" && b.token == nil }
