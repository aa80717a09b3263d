package spillover

import (
	"hash/maphash"
	"net/http"
	"slices"
	"strings"
)

// The headers that carry a credential for Azure and for OpenAI.
const (
	keyHeader  = "Api-Key"
	authHeader = "Authorization"
)

// gatewayKeys are headers with a key of API Management and of other gateways.
var gatewayKeys = []string{"Ocp-Apim-Subscription-Key", "X-Api-Key", "X-Functions-Key", "X-Goog-Api-Key"}

// credentialHeaders are all headers that belong to a caller's credential, with
// the account that a key is used for and what is meant for another host.
var credentialHeaders = slices.Concat([]string{keyHeader, authHeader}, gatewayKeys,
	[]string{"Openai-Organization", "Openai-Project", "Proxy-Authorization", "Cookie"})

// credentialQuery are the query parameters that may hold a credential.
var credentialQuery = []string{"api-key", "subscription-key", "key"}

// isCredential reports whether a header belongs to a credential. It ignores
// case, as a map made by hand may not be canonical.
func isCredential(name string) bool {
	if len(name) >= len(credentialsByLength) {
		return false
	}
	similar := credentialsByLength[len(name)]
	return similar != nil && isOneOf(name, similar)
}

// credentialsByLength are the credentialHeaders, as few have the length of another
// header.
var credentialsByLength = func() (names [32][]string) {
	for _, name := range credentialHeaders {
		names[len(name)] = append(names[len(name)], name)
	}
	return names
}()

// sameHeader compares two names in any case.
func sameHeader(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// isOneOf reports whether a list has a name in any case.
func isOneOf(name string, names []string) bool {
	for _, n := range names {
		if sameHeader(n, name) {
			return true
		}
	}
	return false
}

// withoutCredentials is a copy of a caller's headers.
func withoutCredentials(caller http.Header) http.Header {
	h := caller.Clone()
	for name := range h {
		if isCredential(name) {
			delete(h, name)
		}
	}
	return h
}

// protocols are the WebSocket protocols that a caller proposes, without the
// credential that OpenAI's realtime API accepts there from browsers.
func protocols(proposed []string) (kept []string) {
	for _, line := range proposed {
		var names []string
		for name := range strings.SplitSeq(line, ",") {
			plain := strings.ToLower(strings.TrimSpace(name))
			if !slices.ContainsFunc([]string{protocolKey, "openai-organization.", "openai-project."}, func(p string) bool {
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

// callersSecrets are the credentials that a caller has sent.
func callersSecrets(r *http.Request) (secrets []string) {
	for name, values := range r.Header {
		for _, value := range values {
			switch {
			case sameHeader(name, protocolHeader):
				for proposed := range strings.SplitSeq(value, ",") {
					if proposed = strings.TrimSpace(proposed); len(proposed) > len(protocolKey) && strings.EqualFold(proposed[:len(protocolKey)], protocolKey) {
						secrets = append(secrets, proposed[len(protocolKey):])
					}
				}
			case sameHeader(name, authHeader), sameHeader(name, "Proxy-Authorization"):
				_, token, _ := strings.Cut(value, " ") // after the scheme
				secrets = append(secrets, value, strings.TrimSpace(token))
			case isCredential(name):
				secrets = append(secrets, value)
			}
		}
	}
	if r.URL != nil && r.URL.RawQuery != "" {
		for name, values := range r.URL.Query() {
			if isOneOf(name, credentialQuery) {
				secrets = append(secrets, values...)
			}
		}
	}
	return secrets
}

// protocolHeader lists the protocols that a WebSocket client proposes.
const protocolHeader = "Sec-WebSocket-Protocol"

// protocolKey begins the protocol that is a key.
const protocolKey = "openai-insecure-api-key."

var callerSeed = maphash.MakeSeed()

// noCredential is the caller of requests without a credential.
const noCredential = 1

// callerOf identifies a caller by a hash of its credential. The credential
// itself is not kept.
func callerOf(r *http.Request) uint64 {
	var h maphash.Hash
	found := false
	h.SetSeed(callerSeed)
	for _, name := range [...]string{keyHeader, authHeader} {
		for n, values := range r.Header {
			if strings.EqualFold(n, name) {
				for _, v := range values {
					_, _ = h.WriteString(v)
					found = true
				}
			}
		}
		_ = h.WriteByte(0)
	}
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if name, value, _ := strings.Cut(part, "="); strings.EqualFold(name, keyHeader) {
			_, _ = h.WriteString(value)
			found = true
		}
	}
	if !found {
		return noCredential
	}
	return max(noCredential+1, h.Sum64())
}
