package litellm

import (
	"math"
	"slices"
	"strconv"
)

// readLimits reads limits of the deployment.
func (c *converter) readLimits(d *deployment, entry, params *object) {
	for _, l := range []struct {
		key string
		to  *any
	}{{"rpm", &d.model.RPM}, {"tpm", &d.model.TPM}, {"max_parallel_requests", &d.model.MaxInFlight}} {
		outer, _ := entry.take(l.key)
		v, ok := params.take(l.key)
		if !ok {
			v = outer
		}
		if !v.isNull() {
			*l.to = c.whole(v, 1)
		}
	}
	if d.wildcard {
		if d.model.RPM != nil || d.model.TPM != nil || d.model.MaxInFlight != nil {
			c.note(LeftOut, d.at, "limits of all models together: spillover has them for one model")
		}
		d.model = model{Name: d.model.Name}
	}
}

// readBackendSettings reads what applies to the backend.
func (c *converter) readBackendSettings(d *deployment, params *object) {
	b := &d.backend
	b.HeaderTimeout, b.IdleTimeout = c.settings.headerTimeout, c.settings.idleTimeout
	if v, ok := params.take("timeout"); ok {
		b.HeaderTimeout = c.seconds(v)
	}
	if v, ok := params.take("stream_timeout"); ok {
		b.IdleTimeout = c.seconds(v)
	}
	d.order, d.hasOrder = params.take("order")
	if v, ok := params.take("weight"); ok {
		s, _ := v.scalar()
		f, err := strconv.ParseFloat(s, 64)
		switch {
		case err != nil || !(f >= 0 && f <= 1000):
			c.note(LeftOut, v, "is not a number between 0 and 1000")
		case f == 0:
			b.Drained = true
			c.note(Check, v, "0: the backend is drained")
		default:
			d.weight = f
		}
	}
	if v, ok := params.take("tags"); ok {
		for _, tag := range v.texts() {
			if s, ok := c.text(tag); ok && !slices.Contains(b.Tags, s) {
				b.Tags = append(b.Tags, s)
			}
		}
		if c.settings.tagFiltering {
			c.note(Check, v, "a request must demand tags that the backend has all of; requests without tags go to any backend")
		}
	}
	if v, ok := params.take("region_name"); ok {
		if s, ok := c.text(v); ok {
			b.Tags = append(b.Tags, "region="+s)
			c.note(Check, v, "a request that must stay in the region demands the tag region=…")
		}
	}
	for _, key := range []string{"extra_headers", "headers"} {
		v, _ := params.take(key)
		o, _ := v.object()
		for _, name := range o.keys {
			c.readHeader(d, name, o.members[name])
		}
	}
}

// setPriorities turns the orders and weights of entries into tiers and weights.
func (c *converter) setPriorities(all []*deployment) {
	ordered, weighted := map[string]bool{}, map[string]bool{}
	least, most := 1, 1
	orders := map[*deployment]int{}
	fractions := false
	for _, d := range all {
		fractions = fractions || d.weight != math.Trunc(d.weight)
		weighted[d.model.Name] = weighted[d.model.Name] || d.weight > 0
		if !d.hasOrder {
			continue
		}
		s, _ := d.order.scalar()
		n, err := parseWhole(s)
		if err != nil || n < -1000 || n > 1000 {
			c.note(LeftOut, d.order, "is not a whole number between -1000 and 1000")
			d.hasOrder = false
			continue
		}
		ordered[d.model.Name], orders[d] = true, n
		least, most = min(least, n), max(most, n)
	}
	shift := 1 - least
	for _, d := range all {
		priority := 1
		switch {
		case d.wildcard:
			priority = most + shift + 2 // after all models that are listed
		case d.hasOrder:
			priority = orders[d] + shift
		case ordered[d.model.Name]:
			priority = most + shift + 1 // LiteLLM uses them if none with an order is left
			c.note(Check, d.at, "has no order, other entries of the model have one: it is used after them")
		}
		if priority > 1 {
			d.backend.Priority = priority
		}
		if weighted[d.model.Name] && d.weight == 0 && !d.backend.Drained {
			c.note(Check, d.at, "has no weight, other entries of the model have one: spillover gives it the weight 1")
		}
		if weight := d.weight; weight > 0 {
			if fractions {
				weight = max(1, math.Round(weight*100))
			}
			if weight != 1 {
				d.backend.Weight = int(weight)
			}
		}
	}
}
