package spillover

import "fmt"

// A fieldError says what is wrong with one field of a configuration.
type fieldError struct {
	backend int    // its index, or -1 for a field of the Config
	name    string // of the backend, if it has one
	field   string
	related bool // it depends on other fields, too
	format  string
	args    []any // only parts of the configuration, so that Load can redact them
}

func (e *fieldError) Error() string {
	where := ""
	switch {
	case e.name != "":
		where = fmt.Sprintf("backend %q: ", e.name)
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
	return fmt.Sprintf("Backends[%d].%s", e.backend, e.field)
}

// A reportFunc is called for each error in a backend. args are what fieldError
// says of them.
type reportFunc func(field, format string, args ...any)
