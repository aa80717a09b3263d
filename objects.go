package spillover

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/wire"

	"github.com/spillover-go/spillover/internal/objects"
)

// direct finds the route: the deployments of the model, or of all backends
// where the request names none, or those of the resource that has the object
// that the request is about. It stays nil for a model that nobody serves.
func (c *call) findRoute() {
	c.route = c.table.find(c.model)
	switch {
	case c.Dots:
		// It may lead to another deployment than the one that is named.
		c.route = c.table.nameless.filter(func(b *backend) bool { return b.models == nil })
		return
	case c.Foundry:
		c.route = c.toFoundry(c.route)
		return
	}
	if c.route == nil && !c.stateless() && c.Target.Model == "" && !c.upgrades() {
		// What is not about a deployment may name any model.
		c.route, c.model = c.table.nameless, ""
	}
	if len(c.ids) == 0 || c.route == nil {
		return
	}
	now := time.Now()
	for _, id := range c.ids {
		home := c.pool.stored.Find(now, id.ID)
		if home == nil {
			continue
		}
		for _, r := range [...]*route{c.route, c.table.nameless} {
			if only := r.atResource(home); only != nil {
				c.fallbackRoute, c.route = c.route, only
				return
			}
		}
	}
	c.seek(c.route)
}

// seek lets the request be asked around on a route.
func (c *call) seek(r *route) { c.seeking, c.route, c.fallbackRoute = true, r.free(), nil }

// toFoundry is the route of an operation of Microsoft Foundry: backends of that
// kind, or at the caller's own host.
func (c *call) toFoundry(r *route) *route {
	suits := func(b *backend) bool { return ofFoundry(b.host) || strings.EqualFold(b.host, c.URL.Host) }
	for _, r := range [...]*route{r, c.table.nameless} {
		if r != nil {
			if r = r.filter(suits); r != nil {
				return r
			}
		}
	}
	return c.table.nameless
}

// where is the route to some backends, nil if it has none of them.
func (r *route) filter(suits func(*backend) bool) *route {
	w := &route{model: r.model}
	for _, t := range r.tiers {
		var members []*deployment
		for _, d := range t.members {
			if suits(d.backend) {
				members = append(members, d)
			}
		}
		if len(members) > 0 {
			w.tiers = append(w.tiers, t.with(members, new(weights), t.budget))
		}
	}
	if len(w.tiers) == 0 {
		return nil
	}
	return w
}

// only is the route to one resource, as far as the route has it.
func (r *route) atResource(home *objects.Resource) *route {
	return r.filter(func(b *backend) bool { return b.resource == home })
}

// misses tells whether an answer says that something the request is about does
// not exist there: another resource may have it.
func (c *call) saysNotFound(o outcome) bool {
	switch {
	case o.noDeployment || o.status != http.StatusNotFound && o.status != http.StatusBadRequest:
		return false
	case len(c.ids) > 0 && o.status == http.StatusNotFound:
		return true
	case len(c.ids) > 0:
		return o.missing && (c.namesID(o.message) || !strings.ContainsAny(o.message, "'\"`"))
	}
	return o.missing && o.status == http.StatusNotFound && c.namesOwn(o.message)
}

// namesID tells whether a message has one of the ids that the request is about.
func (c *call) namesID(message string) bool {
	return slices.ContainsFunc(c.ids, func(id wire.ObjectID) bool { return strings.Contains(message, id.ID) })
}

// namesOwn tells whether a message names something that stands in the body,
// other than the model.
func (c *call) namesOwn(message string) bool {
	if !c.body.Present || !c.body.CanSend() || c.body.Again == nil {
		return false
	}
	var words [][]byte
	for word := range strings.FieldsFuncSeq(message, func(r rune) bool {
		return r != '_' && r != '-' && r != ':' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		word = strings.Trim(word, ":-")
		if len(words) < wire.MaxIDs && len(word) > 3 && len(word) <= wire.MaxIDLength && strings.ContainsAny(word, "_-0123456789") && word != c.model && word != c.naming.Model {
			words = append(words, []byte(`"`+word+`"`))
		}
	}
	named := false
	if len(words) > 0 {
		_ = c.body.PeekAgain(func(text []byte) {
			named = slices.ContainsFunc(words, func(w []byte) bool { return bytes.Contains(text, w) })
		})
	}
	return named
}

// miss takes note of an answer that says that something does not exist there.
// Where the home was known the others are asked after it; a response that its
// maker does not find may be found a moment later.
func (c *call) notFound(o outcome) {
	switch {
	case c.fallbackRoute != nil:
		c.notFoundAtHome, c.mayAskHomeAgain = true, o.responseNotFound && !c.askedAgain
	case !c.seeking:
		c.seek(c.route)
	}
}

// widen goes on with the others where the home of an object says that it has it
// not. The answer is kept: if nobody has it, it is the one to hand over.
func (c *call) searchElsewhere() bool {
	if !c.notFoundAtHome || c.final || !c.body.CanSend() || c.failedAnswer.Response == nil {
		return false
	}
	c.notFoundAtHome = false
	if c.mayAskHomeAgain {
		c.mayAskHomeAgain, c.askedAgain = false, true
		c.failedAnswer.discard()
		c.tried = slices.DeleteFunc(c.tried, func(d *deployment) bool { return slices.Contains(c.unsuitable, d) })
		c.unsuitable = c.unsuitable[:0]
		return true
	}
	c.notFoundAnswer, c.failedAnswer = c.failedAnswer, fallbackAnswer{}
	c.seek(c.fallbackRoute)
	return true
}

// notFoundStatus tells of the statuses that say, of an object that is asked
// around for, that it is not there.
func notFoundStatus(status int) bool {
	return status == http.StatusNotFound || status == http.StatusBadRequest
}
