package proxy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/spillover-go/spillover"
)

// credentialHeaders carry callers' credentials, or say what these are used for.
var credentialHeaders = []string{
	"Authorization", "Api-Key", "X-Api-Key", "Ocp-Apim-Subscription-Key", "X-Functions-Key", "X-Goog-Api-Key",
	"Proxy-Authorization", "Cookie", "Openai-Organization", "Openai-Project",
}

// credentialQuery are the query parameters that may hold a credential.
var credentialQuery = []string{"api-key", "subscription-key", "key"}

// Browsers cannot set headers for a WebSocket. OpenAI's realtime API accepts their key,
// organization and project as protocols.
const (
	headerProtocol    = "Sec-Websocket-Protocol"
	protocolKey       = "openai-insecure-api-key."
	protocolOrg       = "openai-organization."
	protocolProject   = "openai-project."
	headerKey         = "Api-Key"
	headerKeyX        = "X-Api-Key"
	bearer            = "bearer "
	headerOwnPrefix   = "X-Spillover-"
	headerClass       = "X-Spillover-Class"
	headerTags        = "X-Spillover-Tags"
	headerSession     = "X-Spillover-Session"
	maxCallersTags    = 64
	maxCallersTag     = 256 // bytes
	maxCallersSession = 256 // bytes
)

// admit finds out whose request it is. If the caller may not send requests, admit answers.
func (p *Proxy) admit(e *exchange, r *http.Request) bool {
	set := p.keys.Load()
	if set == nil {
		return p.fromThisHost(e, r)
	}
	admin := isAdminPath(r.URL.Path)
	presented := presentedKey(r, admin)
	if presented == "" {
		unauthorized("A key is required: in Authorization as a bearer token, in api-key or in x-api-key.", admin).write(e)
		return false
	}
	k := set.Find(presented)
	if k == nil {
		unauthorized("The key is not valid.", admin).write(e)
		return false
	}
	e.held.key = k.Name
	if e.key, e.presented = k, presented; containsKey(e.id, presented) {
		e.id = rand.Text()
	}
	if containsKey(r.URL.Path, presented) {
		badRequest("key_in_path", "The path contains the caller's key.").write(e)
		return false
	}
	return true
}

// admitAdmin answers requests for administration by keys that do not allow it.
func (p *Proxy) admitAdmin(e *exchange, _ *http.Request) bool {
	if e.key == nil || e.key.Admin {
		return true
	}
	forbidden("admin_required", "The key does not have admin: true.").write(e)
	return false
}

// fromThisHost guards a proxy without keys, which listens on loopback: pages that a
// browser on this host shows may not use it. It answers those.
func (p *Proxy) fromThisHost(e *exchange, r *http.Request) bool {
	// A name of somebody else's domain may have been made to resolve to this host (DNS rebinding).
	host := strings.ToLower((&url.URL{Host: r.Host}).Hostname())
	if host != "" && host != "localhost" && !strings.HasSuffix(host, ".localhost") && net.ParseIP(host) == nil {
		(&problem{status: http.StatusMisdirectedRequest, kind: invalidRequest, code: "unknown_host",
			message: "Without -keys this proxy answers only requests to localhost or to an IP address: the Host header has another name."}).write(e)
		return false
	}
	err := p.crossOrigin.Check(r)
	if origin := r.Header.Get("Origin"); err == nil && origin != "" {
		// Browsers open WebSockets to any host, and send a GET without asking first.
		if u, parseErr := url.Parse(origin); parseErr != nil || u.Host != r.Host {
			err = errors.New("another origin")
		}
	}
	if err != nil {
		forbidden("cross_origin", "Without keys this proxy does not answer pages of other origins.").write(e)
		return false
	}
	return true
}

// presentedKey is the key that a caller has sent, or "". Of several it is the first of
// these places. The last one is for browsers, which show a dialog for it.
func presentedKey(r *http.Request, basic bool) string {
	authorization := r.Header.Get("Authorization")
	if len(authorization) > len(bearer) && strings.EqualFold(authorization[:len(bearer)], bearer) {
		return strings.TrimSpace(authorization[len(bearer):])
	}
	for _, name := range [...]string{headerKey, headerKeyX} {
		if key := r.Header.Get(name); key != "" {
			return key
		}
	}
	if strings.Contains(r.URL.RawQuery, "key") {
		if key := r.URL.Query().Get("api-key"); key != "" {
			return key
		}
	}
	for _, line := range r.Header[headerProtocol] {
		for name := range strings.SplitSeq(line, ",") {
			if key, ok := strings.CutPrefix(strings.TrimSpace(name), protocolKey); ok {
				return key
			}
		}
	}
	if _, password, ok := r.BasicAuth(); ok && basic {
		return password
	}
	return ""
}

// containsKey ignores case: names of headers change theirs.
func containsKey(text, key string) bool {
	for i := 0; i+len(key) <= len(text); i++ {
		if (text[i]|0x20) == (key[0]|0x20) && strings.EqualFold(text[i:i+len(key)], key) {
			return true
		}
	}
	return false
}

// cleanHeader removes from a header what backends must not see: credentials, the caller's
// address, and what is meant for the proxy.
func (p *Proxy) cleanHeader(h http.Header, e *exchange) {
	for name, values := range h {
		switch {
		case !p.options.PassCredentials && slices.Contains(credentialHeaders, name),
			strings.HasPrefix(name, headerOwnPrefix), isAddress(name):
			delete(h, name)
		case e.presented != "" && (containsKey(name, e.presented) || slices.ContainsFunc(values, func(v string) bool { return containsKey(v, e.presented) })):
			if name != headerProtocol {
				delete(h, name) // wherever the caller has put it
			}
		}
	}
	if proposed := h[headerProtocol]; proposed != nil && !p.options.PassCredentials {
		if kept := withoutKeys(proposed, e.presented); len(kept) > 0 {
			h[headerProtocol] = []string{strings.Join(kept, ", ")}
		} else {
			delete(h, headerProtocol)
		}
	}
	delete(h, "Expect") // the server has answered it
	h.Set(headerRequestID, e.id)
}

// isAddress reports whether a header says where a request comes from.
func isAddress(name string) bool {
	switch name {
	case "Forwarded", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip", "X-Original-Forwarded-For":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// withoutKeys are the protocols that a caller proposes, without its credential.
func withoutKeys(proposed []string, key string) (kept []string) {
	for _, line := range proposed {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.TrimSpace(name)
			lower := strings.ToLower(name)
			credential := key != "" && containsKey(name, key)
			for _, prefix := range [...]string{protocolKey, protocolOrg, protocolProject} {
				credential = credential || strings.HasPrefix(lower, prefix)
			}
			if name != "" && !credential {
				kept = append(kept, name)
			}
		}
	}
	return kept
}

// cleanQuery removes credentials from a query. What is left keeps its bytes and its order.
func (p *Proxy) cleanQuery(raw string, e *exchange) string {
	if p.options.PassCredentials || raw == "" || e.presented == "" && !strings.Contains(raw, "%") && !strings.Contains(strings.ToLower(raw), "key") {
		return raw
	}
	var kept []string
	for parameter := range strings.SplitSeq(raw, "&") {
		if !hasCredentialIn(parameter, e) {
			kept = append(kept, parameter)
		}
	}
	return strings.Join(kept, "&")
}

// hasCredentialIn reports whether a parameter of a query has a credential, or may have one
// because it cannot be decoded. Some servers separate parameters by semicolons, too.
func hasCredentialIn(parameter string, e *exchange) bool {
	for part := range strings.SplitSeq(parameter, ";") {
		name, _, _ := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(name)
		if err != nil || slices.Contains(credentialQuery, strings.ToLower(plain)) {
			return true
		}
	}
	whole, err := url.QueryUnescape(parameter)
	return err != nil || e.presented != "" && containsKey(whole, e.presented)
}

// errKeyInBody is the error of reading a body that contains the caller's key.
var errKeyInBody = errors.New("the request body contains the caller's key")

// A keyGuard reads a body, and fails before it passes on the caller's key.
type keyGuard struct {
	src   io.Reader
	key   []byte
	buf   *[]byte // nil after the end
	ready []byte  // of buf: may be passed on
	rest  []byte  // of buf, after ready: may be the beginning of the key
	err   error
}

var guardBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Read implements [io.Reader].
func (g *keyGuard) Read(p []byte) (int, error) {
	for len(g.ready) == 0 {
		if g.err != nil {
			if g.buf != nil {
				guardBuffers.Put(g.buf)
				g.buf = nil
			}
			return 0, g.err
		}
		if g.buf == nil {
			g.buf = guardBuffers.Get().(*[]byte)
		}
		buf := *g.buf
		held := copy(buf, g.rest)
		n, err := g.src.Read(buf[held:])
		g.err = err
		text := buf[:held+n]
		if bytes.Contains(text, g.key) {
			g.ready, g.rest, g.err = nil, nil, errKeyInBody
			continue
		}
		whole := len(text)
		if err == nil {
			whole -= beginningAtEnd(text, g.key)
		}
		g.ready, g.rest = text[:whole], text[whole:]
	}
	n := copy(p, g.ready)
	g.ready = g.ready[n:]
	return n, nil
}

// beginningAtEnd is the length of the longest end of a text with which the key begins.
func beginningAtEnd(text, key []byte) int {
	for n := min(len(key)-1, len(text)); n > 0; n-- {
		if bytes.HasSuffix(text, key[:n]) {
			return n
		}
	}
	return 0
}

// requestOptions are the class, the tags and the session of a request, as its header and
// its key ask for them.
func requestOptions(e *exchange, r *http.Request) (ctx requestContext, problem *problem) {
	for name := range r.Header {
		if strings.HasPrefix(name, headerOwnPrefix) && name != headerClass && name != headerTags && name != headerSession {
			return ctx, badRequest("unknown_header", "The header %.64s is unknown: there are %s, %s and %s.", name, headerClass, headerTags, headerSession)
		}
	}
	if e.key != nil {
		ctx.class, ctx.hasClass, ctx.tags = e.key.Class, true, e.key.Tags
	}
	if values, ok := r.Header[headerClass]; ok {
		var class spillover.Class
		if len(values) != 1 || class.UnmarshalText([]byte(values[0])) != nil {
			return ctx, badRequest("invalid_class", "%s must be interactive or background.", headerClass)
		}
		if ctx.hasClass = true; ctx.class != spillover.Background {
			ctx.class = class
		}
	}
	if values, ok := r.Header[headerTags]; ok {
		tags := slices.Clone(ctx.tags)
		for _, line := range values {
			for tag := range strings.SplitSeq(line, ",") {
				if tag = strings.TrimSpace(tag); tag == "" || len(tag) > maxCallersTag || len(tags) >= maxCallersTags {
					return ctx, badRequest("invalid_tags", "%s must be a list of tags with commas between them, at most %d of at most %d bytes.", headerTags, maxCallersTags, maxCallersTag)
				}
				tags = append(tags, tag)
			}
		}
		ctx.tags = tags
	}
	if values, ok := r.Header[headerSession]; ok {
		if len(values) != 1 || values[0] == "" || len(values[0]) > maxCallersSession {
			return ctx, badRequest("invalid_session", "%s must be one id of at most %d bytes.", headerSession, maxCallersSession)
		}
		ctx.session = values[0]
	}
	return ctx, nil
}

// A requestContext is what the context of a request says to the transport.
type requestContext struct {
	class    spillover.Class
	hasClass bool
	tags     []string
	session  string
}
