package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/wire"
)

// methods are those of the services' APIs. TRACE is not among them: a service that answers
// it shows the backend's credential.
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true,
	http.MethodPatch: true, http.MethodDelete: true, http.MethodOptions: true,
}

// roots begin the paths that are forwarded: those of the dialects, and Microsoft Foundry's.
var roots = []string{"/v1/", "/openai/", "/models/", "/anthropic/", "/api/projects/"}

// isForwarded reports whether a path is one of the APIs. Clients of OpenAI whose base URL
// has no /v1 send the operation alone.
func isForwarded(path string) bool {
	if beginsWithOneOf(path, roots) {
		return true
	}
	collection, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return strings.HasPrefix(path, "/") && wire.IsCollection(collection)
}

// checkTarget is what is wrong with the method or the path of a request.
func (p *Proxy) checkTarget(r *http.Request) *problem {
	if !methods[r.Method] {
		return methodNotAllowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	path := r.URL.Path
	if !isForwarded(path) {
		return notFound(r)
	}
	if hasDotSegments(path) || strings.ContainsAny(path, "\\\x00") {
		return badRequest("invalid_path", "The path has a segment that is . or .., or a character that is not allowed.")
	}
	return nil
}

// hasDotSegments reports whether a path, decoded once more or not, has a segment that leads
// elsewhere.
func hasDotSegments(path string) bool {
	again, err := url.PathUnescape(path)
	if err != nil {
		again = path
	}
	for _, p := range [...]string{path, again} {
		for segment := range strings.SplitSeq(p, "/") {
			if segment == "." || segment == ".." {
				return true
			}
		}
	}
	return false
}

func beginsWithOneOf(path string, roots []string) bool {
	for _, root := range roots {
		if strings.HasPrefix(path, root) {
			return true
		}
	}
	return false
}

type exchangeKey struct{}

// exchangeOf is the exchange of a context of prepare.
func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// prepare is the request as it is forwarded, apart from its header, or what is wrong with
// it.
func (p *Proxy) prepare(e *exchange, r *http.Request) (*http.Request, *problem) {
	o, problem := requestOptions(e, r)
	if problem != nil {
		return nil, problem
	}
	ctx := context.WithValue(r.Context(), exchangeKey{}, e)
	if o.hasClass {
		ctx = spillover.WithClass(ctx, o.class)
	}
	if len(o.tags) > 0 {
		ctx = spillover.WithTags(ctx, o.tags...)
	}
	if o.session != "" {
		ctx = spillover.WithSession(ctx, o.session)
	}
	ctx = spillover.WithTrail(ctx, &e.trail)
	out := r.WithContext(ctx)
	if upgrade := r.Header.Get("Upgrade"); upgrade != "" && !(strings.EqualFold(upgrade, "websocket") && r.Method == http.MethodGet && r.ProtoMajor == 1) {
		// A server may ignore the offer of another protocol, such as h2c.
		out.Header = r.Header.Clone()
		out.Header.Del("Upgrade")
	}
	if r.ContentLength > p.options.MaxBody {
		return nil, tooLarge(p.options.MaxBody)
	}
	if r.Body != nil && r.Body != http.NoBody {
		if out.Body = p.newBody(e, r); out.Body == nil {
			return nil, overloaded()
		}
	}
	if e.key != nil && e.key.Models != nil {
		if problem := p.checkModels(e, out); problem != nil {
			return nil, problem
		}
	}
	return out, nil
}

// A requestBody is the body of a caller's request: limited, with a deadline for each
// read, counted while it is held, and without the caller's key.
type requestBody struct {
	io.Reader
	io.Closer
}

// newBody is nil if there is no room for the body. Nothing of it has been read then: a
// caller that expects 100 (Continue) does not send it.
func (p *Proxy) newBody(e *exchange, r *http.Request) io.ReadCloser {
	// Otherwise net/http closes a body with the first piece of the response, even if all that
	// is left to read is its end.
	_ = e.controller.EnableFullDuplex()                            // HTTP/2 needs and has no such switch
	limited := http.MaxBytesReader(nil, r.Body, p.options.MaxBody) // with a ResponseWriter, a Read in the background would set a header
	held := e.hold(&timedReader{src: limited, e: e}, r.ContentLength)
	if held == nil {
		return nil
	}
	b := requestBody{held, limited}
	if e.presented != "" {
		b.Reader = &keyGuard{src: b.Reader, key: []byte(e.presented)}
	}
	return b
}

// A timedReader reads a body with a deadline for each read: each piece must arrive within
// the client timeout, and all together at the minimum rate. Otherwise a caller that sends a
// byte now and then would hold its place for as long as it likes. Its errors are bodyErrors.
type timedReader struct {
	src    io.Reader
	e      *exchange
	read   int64         // bytes
	waited time.Duration // for the caller
}

func (t *timedReader) Read(p []byte) (int, error) {
	begun := time.Now()
	t.e.allowRead(begun.Add(t.allowance()), t.read == 0)
	n, err := t.src.Read(p)
	t.read += int64(n)
	t.waited += time.Since(begun)
	if err == io.EOF || t.e.request.ProtoMajor >= 2 {
		// The server reads on, to see when the caller leaves. With HTTP/2 the deadline
		// ends the body even if nothing is being read. After an error it stays, so that
		// the server does not wait for the rest.
		t.e.allowRead(time.Time{}, false)
	}
	if err != nil && err != io.EOF {
		t.e.tooSlow.Store(errors.Is(err, os.ErrDeadlineExceeded))
		err = &bodyError{err}
	}
	return n, err
}

// allowance is how long the caller may take for the next piece.
func (t *timedReader) allowance() time.Duration {
	o := &t.e.proxy.options
	earned := time.Duration(float64(t.read) / float64(o.MinUploadRate) * float64(time.Second))
	return min(o.ClientTimeout, o.ClientTimeout+earned-t.waited)
}

// A bodyError is an error of reading the caller's body.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "reading the request body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// bodyProblem is the response to a request whose body cannot be read. ok is false if an
// error has another cause.
func (p *Proxy) bodyProblem(err error) (_ *problem, ok bool) {
	var large *http.MaxBytesError
	var reading *bodyError
	switch {
	case errors.Is(err, errKeyInBody):
		return badRequest("key_in_body", "The request body contains the caller's key."), true
	case errors.Is(err, errOverloaded):
		return overloaded(), true
	case errors.As(err, &large):
		return tooLarge(p.options.MaxBody), true
	case !errors.As(err, &reading):
		return nil, false
	case errors.Is(reading.err, os.ErrDeadlineExceeded):
		return tooSlow(), true
	}
	unreadable := badRequest("invalid_body", "The request body could not be read.")
	unreadable.header = endsConnection
	return unreadable, true
}
