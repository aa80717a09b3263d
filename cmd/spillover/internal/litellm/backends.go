package litellm

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spillover-go/spillover"
)

// add adds a deployment to a backend with the same settings, or as a new one.
func (c *converter) add(d *deployment) {
	b := d.backend
	if !d.wildcard {
		b.Models = []*model{&d.model}
	}
	b.Name = "x"
	if err := accepted(spillover.Config{Backends: []spillover.Backend{b.config()}}); err != nil {
		c.note(LeftOut, d.at, "%s", printable(b.without(strings.ReplaceAll(reason(err), `backend "x": `, ""))))
		return
	}
	b.Name = d.hint
	account := b.account(d.account)
	if owner := c.duplicates[account]; owner != nil {
		c.addDuplicate(d, owner)
		return
	}
	key := b.settingsKey()
	if !d.wildcard {
		for _, other := range c.backends {
			if len(other.Models) > 0 && other.settingsKey() == key && other.find(d.model.Name) == nil {
				other.Models = append(other.Models, &d.model)
				c.duplicates[account] = other
				return
			}
		}
	}
	c.backends = append(c.backends, &b)
	c.duplicates[account] = &b
}

// addDuplicate adds a deployment that a backend already has.
func (c *converter) addDuplicate(d *deployment, owner *backend) {
	b := d.backend
	for _, tag := range b.Tags {
		if !slices.Contains(owner.Tags, tag) {
			owner.Tags = append(owner.Tags, tag)
		}
	}
	b.Tags = owner.Tags
	existing := owner.find(d.model.Name)
	switch {
	case d.wildcard || existing != nil && existing.Deployment == d.model.Deployment:
		c.note(Check, d.at, "is the same deployment as an entry before it, so it is there once, with the settings of that and the tags of both")
		return
	case existing != nil:
		c.note(LeftOut, d.at, "its deployment belongs to backend %s, which has another deployment for this model", strconv.Quote(printable(owner.Name)))
		return
	}
	owner.Models = append(owner.Models, &d.model)
	if different := b.differences(owner); len(different) > 0 {
		c.note(LeftOut, d.at, "its deployment is also that of an entry before it, and a deployment has one set of settings, so those of that entry apply to both: %s",
			strings.Join(different, ", "))
	}
}

// nameBackends gives each backend its own name.
func (c *converter) nameBackends() {
	taken := map[string]bool{}
	for _, b := range c.backends {
		hint := nameOf(b.Name)
		name := hint
		for i := 2; taken[name]; i++ {
			name = fmt.Sprintf("%s-%d", hint, i)
		}
		taken[name] = true
		b.Name = name
	}
}

var notOfNames = regexp.MustCompile(`[^a-z0-9]+`)

// nameOf makes the name of a backend of a text.
func nameOf(s string) string {
	s = strings.Trim(notOfNames.ReplaceAllString(strings.ToLower(s), "-"), "-")
	if s == "" {
		return "backend"
	}
	return s[:min(len(s), 60)]
}
