package litellm

import (
	"net/http"
	"regexp"
	"strings"
	"unicode"

	"github.com/spillover-go/spillover"
)

// isSecretHeader matches the names of headers whose values are not copied.
var isSecretHeader = regexp.MustCompile(`(?i)key|token|secret|auth|password|cookie|credential|signature`)

// looksSecret matches values that may be credentials, whatever the name of the header is:
// long ones without spaces that have both letters and digits, and schemes before one.
func looksSecret(s string) bool {
	return len(s) >= 16 && !strings.ContainsAny(s, " \t") && strings.ContainsAny(s, "0123456789") && strings.IndexFunc(s, unicode.IsLetter) >= 0 ||
		strings.HasPrefix(s, "sk-") || strings.HasPrefix(s, "Bearer ") || strings.HasPrefix(s, "Basic ")
}

func (c *converter) readHeader(d *deployment, name string, v value) {
	s, ok := c.text(v)
	if !ok {
		c.note(LeftOut, v, "is empty")
		return
	}
	if isSecretHeader.MatchString(name) || looksSecret(s) {
		s = "secret"
	}
	one := backend{Name: "x", URL: "https://example.com", APIKey: "x", Headers: map[string]string{name: s}}
	if err := accepted(spillover.Config{Backends: []spillover.Backend{one.config()}}); err != nil {
		c.note(LeftOut, v, "the header cannot be set: the credential belongs in api_key, and headers of the connection are those of the request")
		return
	}
	if s == "secret" {
		s = c.secret(v, d.hint+"_"+name)
	}
	if _, twice := d.backend.Headers[http.CanonicalHeaderKey(name)]; twice {
		c.note(LeftOut, v, "the header is set twice")
		return
	}
	d.setHeader(http.CanonicalHeaderKey(name), s)
}

func (d *deployment) setHeader(name, v string) {
	if d.backend.Headers == nil {
		d.backend.Headers = map[string]string{}
	}
	d.backend.Headers[name] = v
}
