package litellm

import (
	"slices"
	"strings"
)

// addFallbacks adds the fallbacks that spillover has.
func (c *converter) addFallbacks(router, library object, out *file) {
	take := func(key string) value {
		v, ok := router.take(key)
		other, _ := library.take(key)
		if ok {
			return v
		}
		return other
	}
	has := map[string]bool{}
	exhausted, tooLong := take("fallbacks"), take("context_window_fallbacks")
	for _, list := range []struct {
		all value
		on  string
	}{{exhausted, "exhausted"}, {tooLong, "context_length"}} {
		for _, e := range list.all.list() {
			o, _ := e.object()
			for _, name := range o.keys {
				if name == "*" {
					continue
				}
				has[c.ours(name)] = has[c.ours(name)] || list.on == "exhausted"
				c.addFallback(out, o.members[name], c.ours(name), list.on)
			}
		}
	}
	// Those for all other models.
	defaults := []value{take("default_fallbacks")}
	for _, e := range exhausted.list() {
		o, _ := e.object()
		if v, ok := o.members["*"]; ok {
			defaults = append(defaults, v)
		}
	}
	for _, v := range defaults {
		if v.isNull() {
			continue
		}
		for _, name := range c.modelNames() {
			if !has[name] && !slices.ContainsFunc(v.texts(), func(t value) bool { return c.ours(t.node.Value) == name }) {
				c.addFallback(out, v, name, "exhausted")
			}
		}
	}
	if v := take("content_policy_fallbacks"); !v.isNull() {
		c.note(LeftOut, v, "spillover never falls back because of a content filter")
	}
	c.joinFallbacks(out)
}

// modelNames are the names of all models, in order.
func (c *converter) modelNames() (all []string) {
	for _, b := range c.backends {
		for _, m := range b.Models {
			if !slices.Contains(all, m.Name) {
				all = append(all, m.Name)
			}
		}
	}
	return all
}

// serves reports whether a backend serves a model. One that takes all models serves
// those that the file does not name.
func (c *converter) serves(name string) bool {
	return slices.ContainsFunc(c.backends, func(b *backend) bool {
		return b.find(name) != nil || len(b.Models) == 0 && !c.listed[name]
	})
}

// addFallback adds one fallback, as far as its models are there.
func (c *converter) addFallback(out *file, at value, name, on string) {
	at = c.withName(at, name)
	if !c.serves(name) {
		c.note(LeftOut, at, "%s", c.notServed(name))
		return
	}
	f := &fallback{Model: name, On: on}
	for _, e := range at.list() {
		to, ok := c.text(e)
		switch {
		case !ok:
			c.note(LeftOut, e, "a fallback with parameters of its own")
		case to == name || slices.Contains(f.To, to):
		case !c.serves(to):
			c.note(LeftOut, e, "%s", c.notServed(to))
		default:
			f.To = append(f.To, to)
		}
	}
	if len(f.To) == 0 {
		return
	}
	with := &file{Backends: []*backend{{Name: "x", URL: "https://example.com", APIKey: "x"}}, Fallbacks: append(slices.Clone(out.Fallbacks), f)}
	if err := accepted(with.config()); err != nil {
		text := "spillover rejects it, such as a cycle"
		if c.listed[name] && !slices.ContainsFunc(f.To, func(to string) bool { return !c.listed[to] }) {
			text = printable(strings.ReplaceAll(reason(err), "Fallbacks: ", ""))
		}
		c.note(LeftOut, at, "%s", text)
		return
	}
	out.Fallbacks = append(out.Fallbacks, f)
}

// joinFallbacks writes two fallbacks of a model with the same list as one.
func (c *converter) joinFallbacks(out *file) {
	var joined []*fallback
	for _, f := range out.Fallbacks {
		i := slices.IndexFunc(joined, func(o *fallback) bool {
			return o.Model == f.Model && o.On != f.On && slices.Equal(o.To, f.To)
		})
		if i >= 0 {
			joined[i].On = ""
			continue
		}
		joined = append(joined, f)
	}
	out.Fallbacks = joined
}
