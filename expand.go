package spillover

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// variables are the environment as a configuration file may use it.
type variables struct {
	lookup func(name string) (value string, set bool)
	room   int // for values, so that a small file does not grow without bound
}

// expand puts variables in the place of their names: ${NAME}, and
// ${NAME:-default} for one that may be unset or empty. A default is plain text
// up to the next brace. $${ stands for ${. It also tells the values that it
// used. Its errors hold none of them, and no part of the text but names.
func (v *variables) expand(text string) (out string, used []string, errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
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
			bad("a ${ without }; for ${ itself write $${")
			return "", used, errs
		}
		text = rest
		name, other, optional := strings.Cut(inside, ":-")
		if !isName.MatchString(name) {
			bad("a ${…} that is neither ${NAME} nor ${NAME:-default}; for ${ itself write $${")
			continue
		}
		if strings.Contains(other, "${") {
			bad("the default of ${%s} is a variable, too", shorten(name))
			continue
		}
		value, set := v.lookup(name)
		switch {
		case optional && (!set || value == ""):
			value = other
		case !set:
			bad("the variable %s is not set", shorten(name))
		case len(value) > v.room:
			return "", used, append(errs, errors.New("variables have made the file too long"))
		default:
			v.room -= len(value)
			used = append(used, value)
		}
		b.WriteString(value)
	}
}

// hasVariable tells whether expand has anything to do.
func hasVariable(text string) bool { return strings.Contains(text, "${") }

var (
	isName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	nameInUse = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(?:}|:-)`)
)

// variableNames are the variables of a text, as an error names them.
func variableNames(text string) string {
	var names []string
	for _, m := range nameInUse.FindAllStringSubmatch(text, 4) {
		names = append(names, "${"+shorten(m[1])+"}")
	}
	return strings.Join(names, " and ")
}
