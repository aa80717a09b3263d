package configfile

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// variables are the environment variables that a file may use.
type variables struct {
	lookup    func(name string) (value string, set bool)
	remaining int // bytes of values, so that a small file cannot grow without bound
}

// expand replaces ${NAME} by the value of a variable, which must be set, and
// ${NAME:-default} by the default where the variable is unset or empty. A default
// is plain text up to the next brace. $${ stands for ${. It also returns the
// values that it used. Its errors contain no such value, and no part of the text
// but names.
func (v *variables) expand(text string) (out string, used []string, errs []error) {
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var b strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			b.WriteString(text)
			return b.String(), used, errs
		}
		if i > 0 && text[i-1] == '$' {
			b.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		b.WriteString(text[:i])
		inside, rest, closed := strings.Cut(text[i+2:], "}")
		if !closed {
			report("has a ${ without }; write $${ for ${ itself")
			return "", used, errs
		}
		text = rest
		name, fallback, optional := strings.Cut(inside, ":-")
		if !isName.MatchString(name) {
			report("has a ${…} that is neither ${NAME} nor ${NAME:-default}; write $${ for ${ itself")
			continue
		}
		if strings.Contains(fallback, "${") {
			report("the default of ${%s} contains a variable", Shorten(name))
			continue
		}
		value, set := v.lookup(name)
		switch {
		case optional && (!set || value == ""):
			value = fallback
		case !set:
			report("the variable %s is not set", Shorten(name))
		case len(value) > v.remaining:
			return "", used, append(errs, errors.New("the values of variables make the file too large"))
		default:
			v.remaining -= len(value)
			used = append(used, value)
		}
		b.WriteString(value)
	}
}

// hasVariable reports whether expand would change a text, or fail.
func hasVariable(text string) bool { return strings.Contains(text, "${") }

var (
	isName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	reference = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(?:}|:-)`)
)

// variableNames lists the variables of a text, as an error names them.
func variableNames(text string) string {
	var names []string
	for _, m := range reference.FindAllStringSubmatch(text, 4) {
		names = append(names, "${"+Shorten(m[1])+"}")
	}
	return strings.Join(names, " and ")
}
