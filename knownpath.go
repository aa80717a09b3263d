package spillover

import (
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/spillover-go/spillover/internal/wire"
)

// A knownPath is the path of an earlier request and what it means. It is of a
// stateless operation, so there is no id in it.
type knownPath struct {
	path, rawPath, method string
	target                wire.Target
	spec                  *wire.Spec
	operation             int // see wire.OperationIndex
}

// knownPaths has the latest path of each length, modulo their number. Most
// programs use very few paths.
type knownPaths [8]atomic.Pointer[knownPath]

const maxKnownPath = 256

// readPath reads the request's path, unless that was done for an earlier
// request.
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
	// A copy, as it is part of the whole URL, whose query may hold a key.
	u = &url.URL{Path: strings.Clone(u.Path), RawPath: strings.Clone(u.RawPath)}
	k := &knownPath{path: u.Path, rawPath: u.RawPath, method: method, target: wire.ParsePath(u.EscapedPath())}
	k.spec, k.operation = k.target.Spec(method), wire.OperationIndex(k.target.Operation)
	if r.Target, r.spec = &k.target, k.spec; r.stateless() {
		r.known = k
		last.Store(k)
	}
}

// operationIndex is the index of the request's operation.
func (r *request) operationIndex() int {
	if r.known != nil {
		return r.known.operation
	}
	return wire.OperationIndex(r.Operation)
}
