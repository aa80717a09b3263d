package configfile

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A Source is the file that a struct was decoded from. It answers where the value
// of a field came from, so that checks of the struct can report problems as
// Decode does. A field is named as in Go: MaxWait, Backends[1].Priority or
// Backends[1].Headers["X-Team"].
type Source struct {
	places     map[string]location // of each value that is in the file, by field
	failed     map[string]bool     // fields whose own value has a problem
	incomplete map[string]bool     // these, and the fields that contain them
	secrets    []string            // values of variables, in lower case
}

// A Place is where a field is in a file.
type Place struct {
	Line, Column int
	Path         string // see Problem
	Read         bool   // whether the file has a value for the field, without a problem
}

// Find returns the place of a field. Without a value of its own it has the line
// and column of the mapping that it would be in.
func (s *Source) Find(field string) Place {
	at, given := s.nearest(field)
	return Place{at.node.Line, at.node.Column, at.path, given && !s.incomplete[field]}
}

func (s *Source) nearest(field string) (at location, given bool) {
	if at, given := s.places[field]; given {
		return at, true
	}
	outer, name := split(field)
	at, _ = s.nearest(outer)
	if strings.HasPrefix(name, "[") {
		at.path += Shorten(name)
	} else {
		at.path = join(at.path, Key(name))
	}
	return at, false
}

// split cuts the last part off a field: a name, the index of an element, or the key
// of a member.
func split(field string) (outer, last string) {
	if strings.HasSuffix(field, `"]`) {
		i := strings.LastIndex(field, `["`) // within a key, quotes are escaped
		return field[:i], field[i:]
	}
	i := max(strings.LastIndexByte(field, '.'), strings.LastIndexByte(field, '['), 0)
	return field[:i], strings.TrimPrefix(field[i:], ".")
}

// fail records that the value of a field could not be read.
func (s *Source) fail(field string) {
	s.failed[field] = true
	for !s.incomplete[field] {
		s.incomplete[field] = true
		field, _ = split(field)
	}
}

// Complete reports whether all fields were read.
func (s *Source) Complete() bool { return !s.incomplete[""] }

// Reliable reports whether a field holds what the file says: neither its value nor
// something in it has a problem, nor the mapping or list that it is in.
func (s *Source) Reliable(field string) bool {
	outer, _ := split(field)
	return !s.incomplete[field] && !s.failed[outer]
}

func (s *Source) addSecret(value string) {
	if value != "" {
		s.secrets = append(s.secrets, strings.ToLower(value))
	}
}

// Redact replaces those of args that came from variables, for an error about a
// field: by the names of the variables in the field's value, or else by "…".
// Whatever verb they are formatted with, that is what is printed.
func (s *Source) Redact(field string, args []any) []any {
	at, _ := s.nearest(field)
	args = slices.Clone(args)
	for i, arg := range args {
		if s.isSecret(fmt.Sprint(arg)) {
			args[i] = redacted("…")
			if names := variableNames(at.node.Value); names != "" {
				args[i] = redacted(names)
			}
		}
	}
	return args
}

// isSecret reports whether a text is the value of a variable, or shares much with
// one, also where the text is escaped for a URL.
func (s *Source) isSecret(text string) bool {
	if plain, err := url.PathUnescape(text); err == nil && plain != text && s.isSecret(plain) {
		return true
	}
	text = strings.ToLower(text)
	return slices.ContainsFunc(s.secrets, func(secret string) bool {
		return text == secret || min(len(text), len(secret)) > 3 && (strings.Contains(secret, text) || strings.Contains(text, secret))
	})
}

// redacted is printed in place of a value, whatever the verb.
type redacted string

// Format prints the text.
func (r redacted) Format(f fmt.State, _ rune) { fmt.Fprint(f, string(r)) }
