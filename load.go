package spillover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/spillover-go/spillover/internal/configfile"
)

// Load reads a Config from a YAML or JSON file. The keys are the names of the
// fields of [Config], [Backend] and [Model] in snake_case, such as api_key.
// Durations are written as 30s, 1m30s or 250ms. A key without a value counts as
// not set, except api_key, api_key_file, auth and the values of headers, where that
// is an error. A relative api_key_file is relative to the directory of the file.
// Functions and interfaces, such as Token and Base, cannot be set in a file: the
// program sets them afterwards. docs/configuration.md lists the keys.
// docs/config.schema.json is a JSON Schema for editors; the key $schema may point
// to it.
//
// In a value, ${NAME} is replaced by the environment variable NAME, which must be
// set. ${NAME:-default} also works if NAME is unset or empty; the default is
// plain text. $${ stands for ${ itself. Variables are replaced after the file has
// been parsed, so their values cannot change its structure. The result is read as
// the type of the field, whether it is quoted or not. Within Defaults, where any
// type is allowed, an unquoted value is read as if it were written in the file,
// and a quoted one is a string.
//
// Unknown keys, duplicate keys, values of a wrong type and everything that [New]
// rejects are errors. The returned error joins all of them, each as a
// [*LoadError]; it never contains the value of a variable or a key. Two checks
// are left to New for a backend without a credential, because the program may still
// set its Token: whether it needs a credential of its own, and whether it is
// listed twice.
//
// The file must be a regular file of at most 1 MiB, in UTF-8. If it changes while
// it is read, Load reads it again, up to three times in all. Programs that
// replace a configuration should therefore write a new file and rename it.
func Load(path string) (Config, error) {
	text, err := readConfigFile(path)
	if err != nil {
		return Config{}, err
	}
	return parseConfig(path, text, os.LookupEnv)
}

// A LoadError is one error in a configuration file.
type LoadError struct {
	// File is the path that was given to [Load].
	File string
	// Line and Column are the position of the error, in characters from 1; 0 if
	// it is unknown.
	Line, Column int
	// Path is the value that the error is about, such as backends[1].priority, or
	// backends["eastus"].priority for a backend with a name. It is empty if the
	// error is about the file as a whole.
	Path string
	// Err says what is wrong. For a file that cannot be read it wraps the error of
	// the operating system, such as [fs.ErrNotExist].
	Err error
}

// Error returns file:line:column: path: what is wrong.
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

// Unwrap returns Err.
func (e *LoadError) Unwrap() error { return e.Err }

// maxLoadErrors is how many errors of a file are reported.
const maxLoadErrors = 100

func readConfigFile(path string) ([]byte, error) {
	text, err := configfile.Read(path, configfile.MaxSize)
	if err != nil {
		return nil, &LoadError{File: path, Err: err}
	}
	return text, nil
}

// parseConfig is Load for the content of a file.
func parseConfig(file string, text []byte, lookup func(string) (string, bool)) (Config, error) {
	var cfg Config
	source, problems := configfile.Decode(file, text, &cfg, lookup, examples)
	resolvePaths(file, &cfg)
	if other := otherProgram(problems); other != nil && source != nil && !source.Find("Backends").Read {
		return Config{}, &LoadError{file, other.Line, other.Column, "", other.Err}
	}
	var found []*LoadError
	for _, p := range problems {
		if errors.Is(p.Err, configfile.ErrEmpty) {
			p.Err = fmt.Errorf("%w: at least one backend is required", p.Err)
		}
		found = append(found, &LoadError{file, p.Line, p.Column, p.Path, p.Err})
	}
	if source != nil {
		found = append(found, checkLoaded(file, cfg, source)...)
	}
	if len(found) == 0 {
		return cfg, nil
	}
	slices.SortStableFunc(found, func(a, b *LoadError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if more := len(found) - maxLoadErrors; more > 0 {
		found = append(found[:maxLoadErrors], &LoadError{File: file, Err: fmt.Errorf("and %d more errors", more)})
	}
	var errs []error
	for _, e := range found {
		errs = append(errs, e)
	}
	return Config{}, errors.Join(errs...)
}

const migrationPage = "https://github.com/spillover-go/spillover/blob/main/docs/migration.md"

// otherPrograms are the programs whose configurations have these keys at their top,
// and what to do instead.
var otherPrograms = []struct {
	program string
	keys    []string
	remedy  string
}{
	{"LiteLLM", []string{"model_list", "litellm_settings", "router_settings"}, `"spillover convert" turns it into a file for spillover, see ` + migrationPage + "#litellm-proxy"},
	{"Bifrost", []string{"providers", "config_store", "encryption_key"}, migrationPage + "#bifrost shows how to write it for spillover"},
	{"Envoy", []string{"static_resources", "dynamic_resources"}, migrationPage + " shows how to write files for spillover"},
	{"Kubernetes", []string{"apiVersion"}, "a ConfigMap's data has the file to load"},
}

// otherProgram returns the problem of a file that was written for another program,
// or nil.
func otherProgram(problems []configfile.Problem) *configfile.Problem {
	for _, p := range problems {
		key := (*configfile.UnknownKey)(nil)
		if p.Path != "" || !errors.As(p.Err, &key) {
			continue
		}
		for _, other := range otherPrograms {
			if slices.Contains(other.keys, key.Key) {
				p.Err = fmt.Errorf("is a file for %s, because it has the key %q: %s", other.program, key.Key, other.remedy)
				return &p
			}
		}
	}
	return nil
}

// keyNames replaces names of fields by keys in the errors of New.
var keyNames = configfile.KeyReplacer(reflect.TypeFor[Config]())

// examples are what errors show for what is not a mapping.
var examples = map[reflect.Type]string{
	reflect.TypeFor[Backend](): "{url: https://eastus.openai.azure.com}",
	reflect.TypeFor[Model]():   "{name: gpt-4o}",
}

// checkLoaded returns what New rejects in a configuration, as far as it could be
// read from its file.
func checkLoaded(file string, cfg Config, source *configfile.Source) (found []*LoadError) {
	report := func(field string, err error) {
		at := source.Find(field)
		found = append(found, &LoadError{file, at.Line, at.Column, at.Path, err})
	}
	cfg.Backends = slices.Clone(cfg.Backends)
	empty := map[string]bool{}
	for i := range cfg.Backends {
		b := &cfg.Backends[i]
		for _, c := range []struct{ field, value string }{{"APIKey", b.APIKey}, {"APIKeyFile", b.APIKeyFile}, {"Auth", b.Auth}} {
			if field := backendField(i, c.field); c.value == "" && source.Find(field).Read {
				report(field, errors.New("is empty: leave it out if callers send their own credentials"))
				empty[field] = true
			}
		}
		if b.APIKey == "" && b.APIKeyFile == "" && b.Auth == "" {
			b.Token = func(context.Context) (string, error) { return "", nil } // the program may set one
		}
	}
	known := func(field string) bool { return source.Reliable(field) && !empty[field] }
	for _, e := range cfg.check(known) {
		if !e.related && !known(e.path()) {
			continue // possibly caused by what could not be read
		}
		about := e.path()
		if e.related {
			about = "" // args may come from variables in other fields
		}
		report(e.path(), fmt.Errorf(keyNames.Replace(e.format), source.Redact(about, e.args)...))
	}
	return found
}

// resolvePaths makes relative paths relative to the directory of the file.
func resolvePaths(file string, cfg *Config) {
	for i := range cfg.Backends {
		if path := &cfg.Backends[i].APIKeyFile; *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(filepath.Dir(file), *path)
		}
	}
}
