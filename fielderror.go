package spillover

import "fmt"

// A fieldError says what is wrong with one field of a configuration.
type fieldError struct {
	backend int    // its index, or -1 for a field of the Config
	name    string // of the backend, if it has one
	host    string // of its URL, for a backend without a name
	field   string // such as Weight, Models[0].Name or Headers["X-Team"]
	related bool   // it depends on other fields, too, all of which could be read
	format  string
	args    []any // only parts of the configuration, so that Load can redact them
}

func (e *fieldError) Error() string {
	where := ""
	switch {
	case e.name != "":
		where = fmt.Sprintf("backend %q: ", e.name)
	case e.host != "":
		where = fmt.Sprintf("backend %d (%s): ", e.backend, e.host)
	case e.backend >= 0:
		where = fmt.Sprintf("backend %d: ", e.backend)
	}
	return "spillover: " + where + e.field + ": " + fmt.Sprintf(e.format, e.args...)
}

// path is the field as seen from the Config, such as Backends[1].Priority.
func (e *fieldError) path() string {
	if e.backend < 0 {
		return e.field
	}
	return backendField(e.backend, e.field)
}

// backendField names a field of a backend as seen from the Config.
func backendField(backend int, field string) string {
	return fmt.Sprintf("Backends[%d].%s", backend, field)
}

// memberField names a member of a field that is a map.
func memberField(field, key string) string { return fmt.Sprintf("%s[%q]", field, key) }

// A reportFunc is called for each error in a backend. args are what fieldError
// says of them.
type reportFunc func(field, format string, args ...any)
