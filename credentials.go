package spillover

import (
	"hash/maphash"
	"iter"
	"net/http"
	"net/url"
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

// keyHeaders are the headers with a key or a token, and accountHeaders those that name
// the account that it is used for.
var (
	keyHeaders     = slices.Concat([]string{keyHeader, authHeader}, gatewayKeys)
	accountHeaders = []string{"Openai-Organization", "Openai-Project"}
)

// credentialHeaders are all headers that belong to a caller's credential, with what is
// meant for another host.
var credentialHeaders = slices.Concat(keyHeaders, accountHeaders, []string{"Proxy-Authorization", "Cookie"})

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

// protocolKey begins a WebSocket protocol that is a key: OpenAI's realtime API accepts
// one there from browsers.
const protocolKey = "openai-insecure-api-key."

// protocols are the WebSocket protocols that a caller proposes, without the
// credential that may be among them.
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
					proposed = strings.TrimSpace(proposed)
					if n := min(len(protocolKey), len(proposed)); strings.EqualFold(proposed[:n], protocolKey) {
						secrets = append(secrets, proposed[n:])
					}
				}
			case sameHeader(name, authHeader), sameHeader(name, "Proxy-Authorization"):
				secrets = append(secrets, value)
				if words := strings.Fields(value); len(words) > 1 {
					secrets = append(secrets, words[1:]...) // after the scheme
				}
			case isCredential(name):
				secrets = append(secrets, value)
			}
		}
	}
	for _, key := range queryKeys(r) {
		secrets = append(secrets, key)
	}
	return secrets
}

// queryKeys are the credentials in the query, by their place in credentialQuery. The
// query may be one that net/url does not parse.
func queryKeys(r *http.Request) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		if r.URL == nil || !strings.Contains(strings.ToLower(r.URL.RawQuery), "key") {
			return
		}
		for part := range strings.FieldsFuncSeq(r.URL.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
			name, value, _ := strings.Cut(part, "=")
			if plain, err := url.QueryUnescape(name); err == nil {
				name = plain
			}
			i := slices.IndexFunc(credentialQuery, func(known string) bool { return sameHeader(known, name) })
			if i < 0 {
				continue
			}
			if plain, err := url.QueryUnescape(value); err == nil {
				value = plain
			}
			if !yield(i, value) {
				return
			}
		}
	}
}

// protocolHeader lists the protocols that a WebSocket client proposes.
const protocolHeader = "Sec-WebSocket-Protocol"

var callerSeed = maphash.MakeSeed()

// noCredential is the caller of requests without a credential.
const noCredential = 1

// callerOf identifies a caller by a hash of its credential, with the account that it
// is used for. The credential itself is not kept.
func callerOf(r *http.Request) uint64 {
	sum, found := uint64(0), false
	add := func(place int, value string) {
		var h maphash.Hash
		h.SetSeed(callerSeed)
		_ = h.WriteByte(byte(place))
		_, _ = h.WriteString(value)
		sum += h.Sum64() // in any order, as that of a map
	}
	for name, values := range r.Header {
		for i, known := range credentialHeaders[:len(keyHeaders)+len(accountHeaders)] {
			if sameHeader(known, name) {
				for _, value := range values {
					add(i, value)
					found = found || i < len(keyHeaders)
				}
			}
		}
	}
	for i, key := range queryKeys(r) {
		add(len(credentialHeaders)+i, key)
		found = true
	}
	if !found {
		return noCredential
	}
	return max(noCredential+1, sum)
}
