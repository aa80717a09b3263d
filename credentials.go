package spillover

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spillover-go/spillover/internal/wire"
)

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
