package spillover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spillover-go/spillover/internal/wire"
)

// A defaultField is a field of Backend.Defaults: a member of a JSON body that
// the backend adds if the caller left it out.
type defaultField struct {
	name string
	text string // the member, as JSON
	bit  uint64 // identifies the name among those of all backends
}

// maxPresets is how many different names all backends together may have: one scan
// of a body finds for each whether it is there, as a bit of a word.
const maxPresets = 64

// presetText returns a field of Backend.Defaults as JSON.
func presetText(name string, value any) (string, error) {
	switch name {
	case "":
		return "", errors.New("a field has no name")
	case "model", "stream":
		return "", errors.New("cannot be a default, because it decides what the response is")
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return "", err
	}
	return wire.QuoteJSON(name) + ":" + strings.TrimSuffix(b.String(), "\n"), nil
}

// normalizeDefaults reports the errors in Defaults.
func (b *Backend) normalizeDefaults(report reportFunc) {
	for _, name := range slices.Sorted(maps.Keys(b.Defaults)) {
		if _, err := presetText(name, b.Defaults[name]); err != nil {
			report(memberField("Defaults", name), "%v", err)
		}
	}
	_, one := b.Defaults[wire.MaxTokensField]
	_, other := b.Defaults[wire.MaxCompletionTokensField]
	if one && other {
		report("Defaults", fmt.Sprintf("%q cannot be combined with %q", wire.MaxTokensField, wire.MaxCompletionTokensField))
	}
}

// presets returns the presets for Defaults that have been normalized.
func presets(defaults map[string]any) (all []defaultField) {
	for _, name := range slices.Sorted(maps.Keys(defaults)) {
		text, err := presetText(name, defaults[name])
		if err != nil {
			panic("spillover: Defaults were not normalized: " + err.Error())
		}
		all = append(all, defaultField{name: name, text: text})
	}
	return all
}

// suits reports whether an operation has a field of that name: the maximum of
// output tokens has different names.
func (p defaultField) suits(op string) bool {
	switch p.name {
	case wire.MaxTokensField:
		return op != "responses"
	case wire.MaxCompletionTokensField:
		return op == "chat/completions"
	case wire.MaxOutputTokensField:
		return op == "responses"
	}
	return true
}
