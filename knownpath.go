package spillover

import (
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/spillover-go/spillover/internal/wire"
)

// A knownPath is the path of an earlier request's URL, and what it was read as. It is
// of a stateless operation: there is no id in it.
type knownPath struct {
	path, rawPath, method string
	target                wire.Target
	spec                  *wire.Spec
}

// knownPaths has the last path of each length, modulo their number: most programs
// send their requests to very few.
type knownPaths [8]atomic.Pointer[knownPath]

const maxKnownPath = 256

// readPath reads the request's path, unless that was done for an earlier request.
func (r *request) readPath() {
	u, method := r.URL, r.Method
	if r.paths == nil || len(u.Path) > maxKnownPath {
		target := wire.ParsePath(u.EscapedPath())
		r.Target, r.spec = &target, target.Spec(method)
		return
	}
	last := &r.paths[len(u.Path)%len(r.paths)]
	if k := last.Load(); k != nil && k.path == u.Path && k.rawPath == u.RawPath && k.method == method {
		r.Target, r.spec, r.known = &k.target, k.spec, k
		return
	}
	// A copy: it is a part of the whole URL, whose query may have a key.
	u = &url.URL{Path: strings.Clone(u.Path), RawPath: strings.Clone(u.RawPath)}
	k := &knownPath{path: u.Path, rawPath: u.RawPath, method: method, target: wire.ParsePath(u.EscapedPath())}
	k.spec = k.target.Spec(method)
	if r.Target, r.spec = &k.target, k.spec; r.stateless() {
		r.known = k
		last.Store(k)
	}
}

// A knownURL is the URL that an earlier request was sent to a deployment with.
type knownURL struct {
	of          *knownPath
	query, name string // of the request
	url         url.URL
}

// urlFor is the URL for a deployment under its name, from the last request if that
// was alike.
func (r *request) urlFor(d *deployment, name string) url.URL {
	query := r.URL.RawQuery
	if k := d.lastURL.Load(); k != nil && r.known == k.of && query == k.query && name == k.name {
		return k.url
	}
	// A key is not remembered, nor what is only a part of a longer text.
	remember := r.known != nil && !r.inQuery && len(query) <= maxKnownPath && !strings.Contains(strings.ToLower(query), "key")
	if remember {
		query, name = strings.Clone(query), strings.Clone(name)
	}
	b := d.backend
	u := url.URL{Scheme: b.scheme, Host: b.host, RawQuery: b.query(*r.Target, b.withoutKey(query))}
	if r.inQuery && name != "" {
		u.RawQuery = wire.RenameQuery(u.RawQuery, r.queryKey(b), name)
	}
	u.Path, u.RawPath = wire.SplitEscapedPath(b.path(*r.Target, name))
	if remember {
		d.lastURL.Store(&knownURL{r.known, query, name, u})
	}
	return u
}
