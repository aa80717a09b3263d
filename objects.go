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

// findRoute finds the deployments that may take the request: those of its
// model, of all backends if it names none, or of the resource that stores the
// object which it is about, always of those backends that have its tags. The route
// stays nil if there is none.
func (c *call) findRoute() {
	c.every = c.table.withFallbacks(c.model, !c.options.explain)
	nameless := func() *route { return c.table.nameless.withTags(c.options.tags) }
	c.route = c.every.withTags(c.options.tags)
	switch {
	case c.HasDotSegments:
		// The path may lead to another deployment than the one that it names.
		c.route = nameless().filter(func(b *backend) bool { return b.models == nil })
		return
	case c.Foundry:
		c.route = c.toFoundry(c.route, nameless())
		return
	}
	if c.every == nil && !c.stateless() && c.Target.Model == "" && !c.upgrades() {
		// A request that is not about a deployment may name any model.
		c.every, c.route, c.model = c.table.nameless, nameless(), ""
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
		only := c.route.atResource(home)
		if only == nil {
			only = nameless().atResource(home)
		}
		if only != nil {
			c.fallbackRoute, c.route = c.route, only
			return
		}
	}
	c.seek(c.route)
}

// skipTooLong leaves out the deployments whose model does not take as many tokens as
// the request is estimated to need, if there are others. The service decides where
// none is left: an estimate may be wrong.
func (c *call) skipTooLong() {
	if !c.table.contextLimits || c.route == nil {
		return
	}
	fits := func(d *deployment) bool { return d.contextTokens == 0 || c.tokens <= d.contextTokens }
	if c.route.ofOneModel().keep(fits) != nil {
		c.route = c.route.keep(fits)
	} else if longer := c.route.longer.keep(fits); longer != nil {
		c.route, c.fallenBack = longer, true
	}
}

// seek makes the request ask the deployments of a route one after the other.
func (c *call) seek(r *route) {
	c.seeking, c.route, c.fallbackRoute = true, r.ofOneModel().free(), nil
}

// toFoundry is the route of an operation of Microsoft Foundry: backends of that
// kind, or those at the caller's own host, else all.
func (c *call) toFoundry(r, nameless *route) *route {
	suits := func(b *backend) bool { return ofFoundry(b.host) || strings.EqualFold(b.host, c.URL.Host) }
	for _, r := range [...]*route{r, nameless} {
		if r = r.filter(suits); r != nil {
			return r
		}
	}
	return nameless
}

// atResource is the part of the route that is at one resource.
func (r *route) atResource(home *objects.Resource) *route {
	return r.filter(func(b *backend) bool { return b.resource == home })
}

// saysNotFound reports whether a response says that something the request is
// about does not exist there. Another resource may have it.
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

// namesID reports whether a message contains one of the request's ids.
func (c *call) namesID(message string) bool {
	return slices.ContainsFunc(c.ids, func(id wire.ObjectID) bool { return strings.Contains(message, id.ID) })
}

// namesOwn reports whether a message names something in the body other than the
// model.
func (c *call) namesOwn(message string) bool {
	if !c.body.Present || !c.body.CanSend() || !c.body.CanRepeat() {
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

// notFound handles a response that says that something does not exist there. If
// the resource was known, the others are asked next. A response that was just
// created may be found by its own resource a moment later.
func (c *call) notFound(o outcome) {
	switch {
	case c.fallbackRoute != nil:
		c.notFoundAtHome, c.mayAskHomeAgain = true, o.responseNotFound && !c.askedAgain
	case !c.seeking:
		c.seek(c.route)
	}
}

// searchElsewhere continues with the other backends after an object's own
// resource did not find it. Its response is kept: if nobody has the object,
// that is the one to return.
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

// notFoundStatus reports whether a status can mean that an object does not
// exist there.
func notFoundStatus(status int) bool {
	return status == http.StatusNotFound || status == http.StatusBadRequest
}
