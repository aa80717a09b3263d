package spillover

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Fallback lists the models to try after the one that a caller asked for. They are
// tried in order, each with all of its deployments, by the same rules as the first.
// The list is complete: the Fallbacks of its models are not added to it.
//
// A request falls back when no deployment of its model can take it (all are
// rate-limited, ejected or have failed it), when it is too long for the model, or
// both: see On. It never falls back because of a content filter, or of another
// mistake in the request. X-Spillover-Model in the response names the model that was
// used.
type Fallback struct {
	// Model is the name that callers use. A second Fallback for the same model must
	// have another On.
	Model string

	// To are the names of the models to try after it, in order. At least one.
	To []string

	// On is when the request falls back. 0 means in both cases.
	On FallbackOn
}

// A FallbackOn is when a request falls back to another model.
//
// In a configuration file it is "exhausted", "context_length" or "both".
type FallbackOn int

const (
	// OnExhausted is when no deployment of the model can take the request.
	OnExhausted FallbackOn = 1 << iota
	// OnContextLength is when the request is too long for the model: the service
	// says so (context_length_exceeded), or it exceeds [Model.ContextTokens].
	OnContextLength

	onBoth = OnExhausted | OnContextLength
)

// fallbackNames are the names in a file.
var fallbackNames = map[string]FallbackOn{"exhausted": OnExhausted, "context_length": OnContextLength, "both": onBoth}

// String returns the name that a configuration file has for it.
func (o FallbackOn) String() string {
	for name, on := range fallbackNames {
		if on == o {
			return name
		}
	}
	return fmt.Sprintf("FallbackOn(%d)", int(o))
}

// UnmarshalText reads the name that a configuration file has for it.
func (o *FallbackOn) UnmarshalText(text []byte) error {
	on, ok := fallbackNames[string(text)]
	if !ok {
		return fmt.Errorf("must be one of %q, %q, %q", "exhausted", "context_length", "both")
	}
	*o = on
	return nil
}

// checkFallbacks sets the defaults of Fallbacks and returns what is wrong with those
// that could be read, see [Config.check].
func (cfg *Config) checkFallbacks(read func(field string) bool) (found []*fieldError) {
	served := cfg.knows(read)
	cfg.Fallbacks = slices.Clone(cfg.Fallbacks)
	next := map[string][]string{}
	covered := map[string]FallbackOn{}
	for i := range cfg.Fallbacks {
		f := &cfg.Fallbacks[i]
		if f.On == 0 {
			f.On = onBoth
		}
		where := fmt.Sprintf("Fallbacks[%d]", i)
		if !read(where) {
			continue
		}
		report := func(field, format string, args ...any) {
			found = append(found, &fieldError{backend: -1, field: where + "." + field, format: format, args: args})
		}
		switch {
		case f.Model == "":
			report("Model", "is missing")
		case f.Model == "." || f.Model == "..":
			report("Model", "%q would change the path of a URL", f.Model)
		case !served(f.Model):
			report("Model", "no backend serves %.64q", f.Model)
		case covered[f.Model]&f.On != 0:
			report("Model", "%.64q is listed twice for the same On", f.Model)
		}
		covered[f.Model] |= f.On
		if f.On&^onBoth != 0 {
			report("On", "%d is unknown", int(f.On))
		}
		if len(f.To) == 0 {
			report("To", "is missing: list at least one model")
		}
		f.To = slices.Clone(f.To)
		for j, to := range f.To {
			switch field := fmt.Sprintf("To[%d]", j); {
			case to == "":
				report(field, "is empty")
			case to == f.Model:
				report(field, "is the model itself")
			case to == "." || to == "..":
				report(field, "%q would change the path of a URL", to)
			case slices.Contains(f.To[:j], to):
				report(field, "%.64q is listed twice", to)
			case !served(to):
				report(field, "no backend serves %.64q", to)
			}
			if to != f.Model {
				next[f.Model] = append(next[f.Model], to)
			}
		}
	}
	if cycle := cycleOf(next); cycle != nil {
		found = append(found, &fieldError{backend: -1, field: "Fallbacks", related: true, format: "they form a cycle: %s", args: []any{strings.Join(cycle, " → ")}})
	}
	return found
}

// knows reports whether some backend serves a model. If the models of a backend could
// not be read, it may serve any.
func (cfg *Config) knows(read func(field string) bool) func(model string) bool {
	every := len(cfg.Backends) == 0
	names := map[string]bool{}
	for i, b := range cfg.Backends {
		every = every || len(b.Models) == 0 || !read(backendField(i, "Models"))
		for _, m := range b.Models {
			names[m.Name] = true
		}
	}
	return func(model string) bool { return every || names[model] }
}

// cycleOf is a cycle in a graph, from a node to itself, or nil. Models that fall back
// to each other would pass on their load in a circle when all are overloaded.
func cycleOf(next map[string][]string) []string {
	done := map[string]bool{}
	var path []string
	var visit func(string) []string
	visit = func(node string) []string {
		if i := slices.Index(path, node); i >= 0 {
			return append(slices.Clone(path[i:]), node)
		}
		if done[node] {
			return nil
		}
		path = append(path, node)
		for _, to := range next[node] {
			if cycle := visit(to); cycle != nil {
				return cycle
			}
		}
		path = path[:len(path)-1]
		done[node] = true
		return nil
	}
	for _, node := range slices.Sorted(maps.Keys(next)) {
		if cycle := visit(node); cycle != nil {
			return cycle
		}
	}
	return nil
}
