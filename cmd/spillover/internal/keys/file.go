package keys

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/configfile"
)

// Bounds of what a file contains. The requests of a key with more tags than a backend can
// have would reach no backend.
const (
	maxKeys    = 10_000
	maxName    = 100 // bytes of a name, a tag, or a model
	maxEntries = 64  // tags of a key
	maxModels  = 1000
	maxErrors  = 100
)

// Load reads a file of keys. The error names the file and joins everything that is wrong
// with it. It contains no value that may be a key.
func Load(path string) (*Set, error) {
	text, err := Read(path)
	if err != nil {
		return nil, err
	}
	set, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return set, nil
}

// Read returns the content of a file of keys.
func Read(path string) ([]byte, error) {
	text, err := configfile.Read(path, configfile.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// Parse reads the content of a file of keys:
//
//	keys:
//	  - name: search
//	    sha256: 64 hexadecimal digits
//	    class: background
//	    tags: [region=eu]
//	    models: [gpt-4o]
//	    max_in_flight: 20
//	    admin: true
//
// Only name and sha256 are required.
func Parse(text []byte) (*Set, error) {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New("is not valid YAML" + lineOf(err))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more than one YAML document")
	}
	p := &parser{}
	set := &Set{}
	if len(doc.Content) == 0 {
		return nil, errors.New("is empty: it needs a list of keys")
	}
	top := p.fields(doc.Content[0], "", map[string]bool{"keys": true})
	list := top["keys"]
	switch {
	case list == nil && len(p.errs) == 0:
		p.report(doc.Content[0], "keys", "is missing")
	case list == nil:
	case list.Kind != yaml.SequenceNode:
		p.report(list, "keys", "is not a list")
	case len(list.Content) == 0:
		p.report(list, "keys", "has no entry: nobody could use the proxy")
	case len(list.Content) > maxKeys:
		p.report(list, "keys", fmt.Sprintf("has more than %d entries", maxKeys))
	default:
		for i, entry := range list.Content {
			set.keys = append(set.keys, p.entry(entry, i))
		}
		p.duplicates(list, set.keys)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return set, nil
}

// lineOf is the line of a syntax error. Its text may contain a value of the file.
func lineOf(err error) string {
	_, rest, found := strings.Cut(err.Error(), "line ")
	digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if !found || digits < 1 {
		return ""
	}
	return ": line " + rest[:digits]
}

// A parser collects what is wrong with a file.
type parser struct {
	errs []fileError
}

type fileError struct {
	line int
	text string
}

func (p *parser) report(at *yaml.Node, where, what string) {
	p.errs = append(p.errs, fileError{at.Line, fmt.Sprintf("line %d: %s %s", at.Line, where, what)})
}

func (p *parser) err() error {
	slices.SortStableFunc(p.errs, func(a, b fileError) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for i, e := range p.errs {
		if i == maxErrors {
			errs = append(errs, fmt.Errorf("and %d more errors", len(p.errs)-i))
			break
		}
		errs = append(errs, errors.New(e.text))
	}
	return errors.Join(errs...)
}

// fields are the members of a mapping, of which it reports those that are unknown or
// listed twice.
func (p *parser) fields(n *yaml.Node, where string, known map[string]bool) map[string]*yaml.Node {
	n = resolved(n)
	if n.Kind != yaml.MappingNode {
		p.report(n, cmp.Or(where, "the file"), "is not a mapping with the keys "+strings.Join(sorted(known), ", "))
		return nil
	}
	members := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolved(n.Content[i+1])
		name := key.Value
		at := name
		if where != "" {
			at = where + "." + name
		}
		switch {
		case key.Kind != yaml.ScalarNode || !known[name]:
			if name = configfile.Shorten(name); strings.Contains(name, prefix) {
				name = "(hidden)"
			}
			p.report(key, cmp.Or(where, "the file"), fmt.Sprintf(`has the unknown key %q: it can have "%s"`, name, strings.Join(sorted(known), `", "`)))
		case members[name] != nil:
			p.report(key, at, "is listed twice")
		default:
			members[name] = value
		}
	}
	return members
}

func sorted(set map[string]bool) []string {
	var names []string
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func resolved(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

var entryFields = map[string]bool{"name": true, "sha256": true, "class": true, "tags": true, "models": true, "max_in_flight": true, "admin": true}

// entry reads one key.
func (p *parser) entry(n *yaml.Node, index int) (k Key) {
	where := fmt.Sprintf("keys[%d]", index)
	from := len(p.errs)
	members := p.fields(n, where, entryFields)
	if name := members["name"]; name != nil {
		if k.Name = p.text(name, where+".name"); k.Name != "" {
			// From here on, errors name the entry.
			where = fmt.Sprintf("keys[%q]", k.Name)
		}
	} else if len(p.errs) == from {
		p.report(n, where+".name", "is missing: it identifies the key in log records")
	}
	sum := members["sha256"]
	switch {
	case sum == nil && members != nil:
		p.report(n, where+".sha256", `is missing: "spillover key" prints a new key and its entry`)
	case sum != nil:
		raw, err := hex.DecodeString(sum.Value)
		switch {
		case sum.Kind != yaml.ScalarNode || err != nil || len(raw) != sha256.Size:
			p.report(sum, where+".sha256", "is not 64 hexadecimal digits: it is the SHA-256 of the key, not the key itself")
		case sha256.Sum256(nil) == [sha256.Size]byte(raw):
			p.report(sum, where+".sha256", "is that of an empty key")
		default:
			k.sum = [sha256.Size]byte(raw)
		}
	}
	if class := members["class"]; class != nil {
		if err := k.Class.UnmarshalText([]byte(class.Value)); err != nil || class.Kind != yaml.ScalarNode {
			p.report(class, where+".class", fmt.Sprintf("must be %s or %s", spillover.Interactive, spillover.Background))
		}
	}
	k.Tags = p.list(members["tags"], where+".tags", maxEntries)
	k.Models = p.list(members["models"], where+".models", maxModels)
	if limit := members["max_in_flight"]; limit != nil {
		if err := limit.Decode(&k.MaxInFlight); limit.ShortTag() != "!!int" || err != nil || k.MaxInFlight < 1 {
			p.report(limit, where+".max_in_flight", "must be a whole number of at least 1: leave it out if there is no limit")
		}
	}
	if admin := members["admin"]; admin != nil {
		if err := admin.Decode(&k.Admin); err != nil || admin.Kind != yaml.ScalarNode {
			p.report(admin, where+".admin", "must be true or false")
		}
	}
	return k
}

// list reads a list of texts. An empty one is an error: for models it could mean all or
// none.
func (p *parser) list(n *yaml.Node, where string, limit int) (texts []string) {
	switch {
	case n == nil:
		return nil
	case n.Kind != yaml.SequenceNode:
		p.report(n, where, "is not a list")
		return nil
	case len(n.Content) == 0:
		p.report(n, where, "is an empty list: leave it out if there is no restriction")
		return nil
	case len(n.Content) > limit:
		p.report(n, where, fmt.Sprintf("has more than %d entries", limit))
		return nil
	}
	for i, element := range n.Content {
		element = resolved(element)
		at := fmt.Sprintf("%s[%d]", where, i)
		text := p.text(element, at)
		if text != "" && slices.Contains(texts, text) {
			p.report(element, at, "is listed twice")
		}
		texts = append(texts, text)
	}
	return texts
}

// text reads a name, which is shown in log records and compared with what callers send. It
// returns "" after an error.
func (p *parser) text(n *yaml.Node, where string) string {
	printable := !strings.ContainsFunc(n.Value, func(r rune) bool { return r < ' ' || r > '~' || r == ',' })
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null":
		p.report(n, where, "is not text")
	case n.Value == "" || strings.TrimSpace(n.Value) != n.Value:
		p.report(n, where, "is empty, or begins or ends with a space")
	case !printable:
		p.report(n, where, "has a comma, or a character that is not printable ASCII")
	case len(n.Value) > maxName:
		p.report(n, where, fmt.Sprintf("is longer than %d bytes", maxName))
	case strings.Contains(n.Value, prefix):
		p.report(n, where, "contains a key: keys do not belong in this file")
	default:
		return n.Value
	}
	return ""
}

// duplicates reports entries that have the same name or the same key.
func (p *parser) duplicates(list *yaml.Node, keys []Key) {
	names, sums := map[string]bool{}, map[[sha256.Size]byte]string{}
	for i, k := range keys {
		at := resolved(list.Content[i])
		if k.Name != "" && names[k.Name] {
			p.report(at, fmt.Sprintf("keys[%q]", k.Name), "is there twice: each name stands for one key")
		}
		names[k.Name] = true
		if k.sum == [sha256.Size]byte{} {
			continue
		}
		if other, ok := sums[k.sum]; ok {
			p.report(at, fmt.Sprintf("keys[%q].sha256", k.Name), fmt.Sprintf("is the same as that of %q", other))
		}
		sums[k.sum] = k.Name
	}
}
