// Package litellm converts the configuration of LiteLLM's proxy into one of spillover.
//
// The format is documented at https://docs.litellm.ai/docs/proxy/config_settings and
// https://docs.litellm.ai/docs/routing.
package litellm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/spillover-go/spillover"
)

// A Result is a converted configuration.
type Result struct {
	// YAML is a file for [spillover.Load]. It contains no secret: a key that the input
	// has is a variable.
	YAML []byte
	// Notes are in the order of the input.
	Notes []Note
}

// Complete reports whether nothing was left out.
func (r Result) Complete() bool {
	return !slices.ContainsFunc(r.Notes, func(n Note) bool { return n.Kind == LeftOut })
}

// A Note is about one value of the input. It contains no secret.
type Note struct {
	Kind Kind
	File string
	Line int    // from 1; 0 if it is about something that is not there
	Path string // such as model_list[0].litellm_params.rpm
	More int    // how many other values of the same name it is about, too
	Text string
}

// A Kind is what a [Note] is about.
type Kind string

// The kinds of notes.
const (
	LeftOut Kind = "left out" // the result lacks it
	Check   Kind = "check"    // it was converted, and may work differently
	Set     Kind = "set"      // an environment variable that must be set
)

// String returns the note as one line.
func (n Note) String() string {
	where := n.File
	if n.Line > 0 {
		where += fmt.Sprintf(":%d", n.Line)
	}
	if n.Path != "" {
		where += ": " + n.Path
	}
	if n.More > 0 {
		where += fmt.Sprintf(" and %d more", n.More)
	}
	return fmt.Sprintf("%s: %s: %s", where, n.Kind, n.Text)
}

// maxDepth limits includes and nested values.
const maxDepth = 20

// Convert converts a file. read returns the content of a file that it includes. The
// error is that the input cannot be read, or that nothing of it can be converted;
// the notes of the result then say why.
func Convert(file string, text []byte, read func(path string) ([]byte, error)) (Result, error) {
	c := &converter{file: file, secrets: map[string]string{}, optionals: map[string]string{}, taken: map[string]bool{}, used: map[string]bool{}, noted: map[notePlace]bool{}}
	root, err := c.load(file, text, read, 0)
	if err != nil {
		return Result{}, err
	}
	out, err := c.convert(root)
	slices.SortStableFunc(c.notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(slices.Index(c.files, a.File), slices.Index(c.files, b.File)), cmp.Compare(a.Line, b.Line))
	})
	notes := merged(c.notes)
	if err != nil {
		return Result{Notes: notes}, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Converted from %s by spillover convert.\n", printable(filepath.Base(file)))
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(out); err != nil {
		return Result{Notes: notes}, err
	}
	return Result{YAML: b.Bytes(), Notes: notes}, nil
}

// A converter converts one input.
type converter struct {
	file  string
	files []string // that were read
	notes []Note
	noted map[notePlace]bool

	secrets   map[string]string // from a literal key to the variable that replaces it
	optionals map[string]string // from a URL to the variable for its key
	taken     map[string]bool   // names of variables that exist
	used      map[string]bool   // variables of the result

	credentials map[string]object // of credential_list
	defaults    object            // of default_litellm_params
	settings    settings
	backends    []*backend
	duplicates  map[account]*backend
	listed      map[string]bool // names of all entries, whether they could be converted or not
}

// An account is a deployment at a resource, as one credential reaches it.
type account struct{ url, credential, headers, deployment string }

func (c *converter) note(kind Kind, at value, format string, args ...any) {
	n := Note{Kind: kind, File: at.file, Path: at.path, Text: fmt.Sprintf(format, args...)}
	if at.node != nil {
		n.Line = at.node.Line
	}
	if n.File == "" {
		n.File = c.file
	}
	place := notePlace{at.node, n}
	if at.node == nil || !c.noted[place] { // default_litellm_params are read for each entry
		c.notes = append(c.notes, n)
	}
	c.noted[place] = true
}

// A notePlace is a note about a part of the input.
type notePlace struct {
	node *yaml.Node
	note Note
}

// merged puts notes together that say the same about values of the same name.
func merged(notes []Note) (all []Note) {
	type key struct{ name, text string }
	seen := map[key]int{}
	for _, n := range notes {
		k := key{n.Path[strings.LastIndexByte(n.Path, '.')+1:], string(n.Kind) + n.Text}
		if i, ok := seen[k]; ok && strings.Contains(n.Path, ".") && k.name != unknownName {
			all[i].More++
			continue
		}
		seen[k] = len(all)
		all = append(all, n)
	}
	return all
}

// load reads a file and those that it includes.
func (c *converter) load(file string, text []byte, read func(string) ([]byte, error), depth int) (object, error) {
	if depth > maxDepth {
		return object{}, fmt.Errorf("%s: files include each other more than %d levels deep", file, maxDepth)
	}
	c.files = append(c.files, file)
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		if strings.Contains(text, "anchor") {
			text = "refers to an unknown anchor" // its name may be a key that begins with *
		}
		return object{}, fmt.Errorf("%s: %s", file, text)
	}
	if document.Kind == 0 || len(document.Content) == 0 {
		return object{}, fmt.Errorf("%s: is empty", file)
	}
	root, ok := value{file: file, node: document.Content[0]}.object()
	if !ok {
		return object{}, fmt.Errorf("%s: is not a mapping", file)
	}
	c.collectVariables(&document, 0)
	include, ok := root.take("include")
	if !ok {
		return root, nil
	}
	for _, name := range include.texts() {
		path := name.node.Value
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(file), path)
		}
		text, err := read(path)
		if err != nil {
			return object{}, fmt.Errorf("%s:%d: include: the file cannot be read: %w", file, name.node.Line, err)
		}
		other, err := c.load(path, text, read, depth+1)
		if err != nil {
			return object{}, err
		}
		root.merge(other)
	}
	return root, nil
}

// A settings is what applies to all deployments.
type settings struct {
	headerTimeout, idleTimeout string
	entra                      bool // keys are not needed: litellm_settings.enable_azure_ad_token_refresh
	tagFiltering               bool
}

// convert converts the whole file.
func (c *converter) convert(root object) (*file, error) {
	out := &file{}
	c.duplicates, c.listed = map[account]*backend{}, map[string]bool{}
	c.readCredentials(root)
	router, library := root.section("router_settings"), root.section("litellm_settings")
	c.readSettings(router, library, out)
	list, _ := root.take("model_list")
	entries := c.readEntries(list)
	c.setPriorities(entries)
	for _, e := range entries {
		c.add(e)
	}
	c.nameBackends()
	c.dropConflicts()
	c.addAliases(router, library)
	c.addFallbacks(router, library, out)
	if inner := root.section("proxy_config").members["model_list"]; list.node == nil && inner.isList() {
		return nil, fmt.Errorf("%s:%d: the file has no model_list, but proxy_config has one: convert the part below proxy_config as a file of its own",
			inner.file, inner.node.Line)
	}
	c.leaveOutRest(root, router, library)
	if len(c.backends) == 0 {
		return nil, fmt.Errorf("%s: no deployment could be converted", c.file)
	}
	out.Backends = c.backends
	if err := accepted(out.config()); err != nil {
		return nil, fmt.Errorf("the result is not valid: %w", err)
	}
	return out, nil
}

// dropConflicts drops backends that spillover rejects beside those before them.
func (c *converter) dropConflicts() {
	if len(c.backends) == 0 || (&file{Backends: c.backends}).valid() {
		return
	}
	var kept []*backend
	for _, b := range c.backends {
		if err := accepted((&file{Backends: append(slices.Clone(kept), b)}).config()); err != nil {
			c.note(LeftOut, value{}, "backend %s: %s", b.Name, printable(b.without(reason(err))))
			continue
		}
		kept = append(kept, b)
	}
	c.backends = kept
}

// accepted reports what spillover rejects in a configuration.
func accepted(cfg spillover.Config) error {
	lb, err := spillover.New(cfg)
	if err != nil {
		return err
	}
	return lb.Close()
}

// reason is an error of spillover as one line.
func reason(err error) string {
	return strings.ReplaceAll(strings.TrimPrefix(err.Error(), "spillover: "), "\n", "; ")
}

var errNotWhole = errors.New("is not a whole number")
