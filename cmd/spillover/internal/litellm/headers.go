package litellm

import (
	"net/http"

	"github.com/spillover-go/spillover"
)

// readHeader adds a header to requests. Its value may be a secret, so it becomes a variable.
func (c *converter) readHeader(d *deployment, name string, v value) {
	if s, ok := v.scalar(); !ok || s == "" {
		c.note(LeftOut, v, "is empty")
		return
	}
	one := backend{Name: "x", URL: "https://example.com", APIKey: "x", Headers: map[string]string{name: "x"}}
	if err := accepted(spillover.Config{Backends: []spillover.Backend{one.config()}}); err != nil {
		c.note(LeftOut, v, "the header cannot be set: the credential belongs in api_key, and headers of the connection are those of the request")
		return
	}
	name = http.CanonicalHeaderKey(name)
	if _, twice := d.backend.Headers[name]; twice {
		c.note(LeftOut, v, "the header is set twice")
		return
	}
	d.setHeader(name, c.secret(v, d.hint+"_HEADER"))
}

func (d *deployment) setHeader(name, v string) {
	if d.backend.Headers == nil {
		d.backend.Headers = map[string]string{}
	}
	d.backend.Headers[name] = v
}
