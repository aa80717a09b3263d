package proxy

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

// A body is passed on byte for byte, in whatever pieces it arrives and is read, unless it
// contains the key. Then the key is not passed on.
func FuzzKeyGuard(f *testing.F) {
	for _, s := range []string{"", "key", "kkeykey-key-1", "key-1", "key-key-1", "a key-", "kekkey-1key-1", strings.Repeat("key-", 20_000) + "1", strings.Repeat("key-", 20_000)} {
		f.Add([]byte(s), "key-1", uint8(0), uint8(0))
		f.Add([]byte(s), "key-1", uint8(3), uint8(200))
	}
	f.Fuzz(func(t *testing.T, body []byte, key string, arrives, reads uint8) {
		if key == "" || len(key) > 1000 {
			return
		}
		g := &keyGuard{src: &pieces{text: body, size: 1 + int(arrives)}, key: []byte(key)}
		var passed []byte
		p := make([]byte, 1+int(reads))
		for {
			n, err := g.Read(p)
			passed = append(passed, p[:n]...)
			if err != nil {
				if bytes.Contains(body, []byte(key)) {
					require.ErrorIs(t, err, errKeyInBody)
					require.NotContains(t, string(passed), key)
					require.True(t, bytes.HasPrefix(body, passed))
				} else {
					require.Equal(t, io.EOF, err)
					require.Equal(t, string(body), string(passed))
				}
				n, again := g.Read(p)
				require.Zero(t, n)
				require.Equal(t, err, again)
				return
			}
		}
	})
}

// pieces are a text that arrives in pieces of a size, the last one with the end.
type pieces struct {
	text []byte
	size int
}

func (r *pieces) Read(p []byte) (int, error) {
	n := copy(p, r.text[:min(r.size, len(r.text))])
	if r.text = r.text[n:]; len(r.text) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// token is what a name of a header consists of (RFC 9110, section 5.6.2).
var token = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// Whatever a caller sends, no credential is left in the header and the query that backends
// get, and what has nothing to do with one keeps its bytes.
func FuzzCallersCredentials(f *testing.F) {
	const key, other = "sk-spillover-caller", "openai-key-of-the-caller"
	for _, query := range []string{
		"", "api-version=1&api-key=" + other, "API-KEY=" + other + "&x", "a%70i-ke%79=" + other, "subscription-key=" + other + ";key=x", ";", "a;api-key=" + other + "&b", "%zz=" + other, "a=" + url.QueryEscape(key) + "&b=%2B+", "x=%73k-spillover-caller", "x=SK-Spillover-Caller",
	} {
		for _, known := range []bool{false, true} {
			f.Add("X-Other", "a "+key, query, known)
			f.Add("Sec-Websocket-Protocol", "realtime, openai-insecure-api-key."+other+", OpenAI-Organization."+other+",, x", query, known)
			f.Add("Sec-Websocket-Protocol", "OPENAI-INSECURE-API-KEY."+key, query, known)
			f.Add("cookie", other, query, known)
			f.Add("X-SPILLOVER-"+key, other, query, known)
			f.Add("Proxy-Authorization", "Basic "+other, query, known)
		}
	}
	f.Fuzz(func(t *testing.T, name, value, query string, known bool) {
		if !token.MatchString(name) {
			return // net/http's server refuses it
		}
		p, e := &Proxy{}, &exchange{id: "id"}
		if known {
			e.presented = key
		}
		const kept = "X-Kept"
		h := http.Header{kept: {"a, b"}}
		h.Add(name, value) // as net/http's server does
		canonical := http.CanonicalHeaderKey(name)
		p.cleanHeader(h, e)
		if canonical != kept {
			require.Equal(t, []string{"a, b"}, h[kept])
		}
		require.Equal(t, []string{"id"}, h["X-Request-Id"])
		for name, values := range h {
			text := strings.ToLower(name + ": " + strings.Join(values, "\n"))
			require.False(t, known && strings.Contains(text, key), text)
			require.False(t, strings.HasPrefix(text, "x-spillover-"), text)
			require.NotContains(t, credentialHeaders, name)
			if name == headerProtocol {
				for proposed := range strings.SplitSeq(text[len(name)+1:], ",") {
					require.False(t, strings.HasPrefix(strings.TrimSpace(proposed), "openai-insecure-api-key."), text)
				}
			}
		}

		cleaned := p.cleanQuery(query, e)
		left, err := url.ParseQuery(cleaned)
		require.True(t, err == nil || strings.Contains(cleaned, ";") || !known && !strings.Contains(query, "%"), cleaned)
		for part := range strings.FieldsFuncSeq(cleaned, func(c rune) bool { return c == '&' || c == ';' }) {
			name, _, _ := strings.Cut(part, "=")
			plain, err := url.QueryUnescape(name)
			require.NoError(t, err, cleaned)
			require.NotContains(t, []string{"api-key", "subscription-key", "key"}, strings.ToLower(plain), cleaned)
		}
		for name, values := range left {
			require.NotContains(t, []string{"api-key", "subscription-key", "key"}, strings.ToLower(name))
			require.False(t, known && strings.Contains(strings.ToLower(name+"="+strings.Join(values, "&")), key), cleaned)
		}
		given := strings.Split(query, "&")
		for parameter := range strings.SplitSeq(cleaned, "&") {
			require.True(t, cleaned == "" || slices.Contains(given, parameter), "%q of %q", parameter, query)
		}
		if !strings.ContainsAny(query, "%;") && !strings.Contains(strings.ToLower(query), "key") && !strings.Contains(strings.ToLower(query), "sk-") {
			require.Equal(t, query, cleaned)
		}
	})
}

// The options of a request are within what its key allows, and bounded; or the request is
// refused.
func FuzzRequestOptions(f *testing.F) {
	for _, s := range []string{"", "background", "interactive", "Background", "a, b=c", ",", "a,,b", strings.Repeat("a,", 70) + "a", strings.Repeat("x", 257), "session", " a "} {
		f.Add("X-Spillover-Class", s, "", true, false)
		f.Add("X-Spillover-Tags", s, s, false, true)
		f.Add("X-Spillover-Session", s, "", true, true)
		f.Add("X-Spillover-Session", s, s, false, false)
		f.Add("X-Spillover-Other", s, "", false, false)
	}
	f.Fuzz(func(t *testing.T, name, value, second string, hasKey, background bool) {
		h := http.Header{}
		h.Add(name, value)
		if second != "" {
			h.Add(name, second)
		}
		e := &exchange{}
		if hasKey {
			e.key = &keys.Key{Tags: []string{"of-the-key"}}
			if background {
				e.key.Class = spillover.Background
			}
		}
		canonical := http.CanonicalHeaderKey(name)
		ctx, problem := requestOptions(e, &http.Request{Header: h})
		if problem != nil {
			require.Equal(t, http.StatusBadRequest, problem.status)
			require.True(t, strings.HasPrefix(canonical, "X-Spillover-"))
			require.Less(t, len(problem.message), 300)
			return
		}
		require.False(t, hasKey && background && ctx.class != spillover.Background, "a caller cannot raise its class")
		require.True(t, ctx.hasClass || ctx.class == spillover.Interactive)
		require.Equal(t, hasKey || canonical == "X-Spillover-Class", ctx.hasClass)
		if canonical == "X-Spillover-Class" && !background {
			require.Equal(t, value, ctx.class.String())
		}
		if hasKey {
			require.Contains(t, ctx.tags, "of-the-key", "a caller cannot remove its key's tags")
			require.Equal(t, []string{"of-the-key"}, e.key.Tags)
		}
		require.LessOrEqual(t, len(ctx.tags), 64)
		if canonical == "X-Spillover-Tags" {
			for tag := range strings.SplitSeq(value, ",") {
				require.Contains(t, ctx.tags, strings.TrimSpace(tag))
			}
		}
		require.LessOrEqual(t, len(ctx.session), 256)
		require.Equal(t, canonical == "X-Spillover-Session", ctx.session != "")
		require.True(t, ctx.session == "" || ctx.session == value)
		switch canonical {
		case "X-Spillover-Class", "X-Spillover-Tags", "X-Spillover-Session":
		default:
			require.False(t, strings.HasPrefix(canonical, "X-Spillover-"), "an unknown option is refused")
		}
	})
}
