package spillover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Load reads a Config from a file in YAML or JSON. Its keys are the names of
// the fields of [Config], [Backend] and [Model] in snake_case, such as api_key;
// durations are written as 30s, 1m30s or 250ms. A key without a value is not
// set, but for api_key, where that is an error. Functions and interfaces, such as Token and Base, are for the program to
// set afterwards. docs/configuration.md lists the keys, and
// docs/config.schema.json is a JSON Schema for editors; a key $schema may point
// to it.
//
// In a value ${NAME} stands for a variable of the environment, which must be
// set, and ${NAME:-default} for one that may be unset or empty; a default is
// plain text. $${ stands for ${. Variables are put in after the text was
// understood as YAML or JSON, so what they hold cannot change its structure.
// They are read as what the field is, quoted or not; within Defaults, where
// anything may be, an unquoted value is read as if it stood in the file and a
// quoted one is a string.
//
// Unknown keys, keys that are there twice, values of a wrong type and all that
// [New] refuses are errors. The error joins them, each a [*LoadError], and
// holds no value of a variable and no key. Two checks are left to New for a
// backend without api_key, as the program may give it a Token: whether it needs
// a credential of its own, and whether it is there twice.
//
// The file must be a regular one of at most 1 MiB, in UTF-8. One that changes
// while it is read is read again, three times in all: whoever replaces a
// configuration should write a new file and rename it.
func Load(path string) (Config, error) {
	text, err := readConfigFile(path, openFile)
	if err != nil {
		return Config{}, &LoadError{File: path, Err: err}
	}
	return parseConfig(path, text, os.LookupEnv)
}

func openFile(path string) (fs.File, error) { return os.Open(path) }

// A LoadError is one mistake of a configuration file.
type LoadError struct {
	// File is the path that was given to [Load].
	File string
	// Line and Column are where it is, in characters from 1; 0 where that
	// cannot be told.
	Line, Column int
	// Path is the value that it is about, such as backends[1].priority, or
	// backends["eastus"].priority for a backend with a name. It is empty for
	// the file as a whole.
	Path string
	// Err is what is wrong. For a file that cannot be read it wraps the
	// system's error, such as [fs.ErrNotExist].
	Err error
}

// Error is file:line:column: path: what is wrong.
func (e *LoadError) Error() string {
	where := e.File
	if e.Line > 0 {
		where += fmt.Sprintf(":%d", e.Line)
		if e.Column > 0 {
			where += fmt.Sprintf(":%d", e.Column)
		}
	}
	if e.Path != "" {
		where += ": " + e.Path
	}
	return where + ": " + e.Err.Error()
}

// Unwrap is Err.
func (e *LoadError) Unwrap() error { return e.Err }

// maxMistakes is how many mistakes of a file are told.
const maxMistakes = 100

// parseConfig is Load for a text that was read already.
func parseConfig(file string, text []byte, lookup func(string) (string, bool)) (Config, error) {
	tree, mistake := parseTree(file, text)
	if mistake != nil {
		return Config{}, mistake
	}
	l := newLoader(file, variables{lookup: lookup, room: maxConfigFile})
	var cfg Config
	l.read(tree, &cfg)
	l.check(cfg)
	if len(l.errs) == 0 {
		return cfg, nil
	}
	slices.SortStableFunc(l.errs, func(a, b *LoadError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if more := len(l.errs) - maxMistakes; more > 0 {
		l.errs = append(l.errs[:maxMistakes], &LoadError{File: file, Err: fmt.Errorf("and %d mistakes more", more)})
	}
	var errs []error
	for _, e := range l.errs {
		errs = append(errs, e)
	}
	return Config{}, errors.Join(errs...)
}

// check tells what New has to say against what could be read.
func (l *loader) check(cfg Config) {
	if l.room <= 0 {
		return
	}
	cfg.Backends = slices.Clone(cfg.Backends)
	for i := range cfg.Backends {
		if b := &cfg.Backends[i]; b.APIKey == "" {
			b.Token = func(context.Context) (string, error) { return "", nil } // the program may set one
		}
	}
	for _, m := range cfg.mend() {
		in, whole := slot{m.backend, m.field}, slot{m.backend, ""}
		if l.failed[in] || l.failed[whole] || m.others && len(l.failed) > 0 {
			continue // it may be one only because of what could not be read
		}
		at, given := l.places[in]
		if !given {
			at = l.places[whole]
			at.path = join(at.path, snake(m.field))
		}
		args := slices.Clone(m.args)
		for i, arg := range args {
			if !l.fromEnvironment(arg) {
				continue
			}
			args[i] = hidden("…")
			if used := variableNames(at.node.Value); used != "" && !m.others {
				args[i] = hidden(used)
			}
		}
		l.tell(at, goNames.Replace(m.format), args...)
	}
}

// hidden is printed in the place of a value, whatever the verb.
type hidden string

func (h hidden) Format(f fmt.State, _ rune) { fmt.Fprint(f, string(h)) }

// fromEnvironment tells whether something is what variables have given, or has
// much of it.
func (l *loader) fromEnvironment(value any) bool {
	s := strings.ToLower(fmt.Sprint(value))
	return slices.ContainsFunc(l.secrets, func(secret string) bool {
		return s == secret || min(len(s), len(secret)) > 3 && (strings.Contains(secret, s) || strings.Contains(s, secret))
	})
}
