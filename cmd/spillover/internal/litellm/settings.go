package litellm

import (
	"slices"
	"time"
)

// readSettings reads what applies to all deployments. router_settings take precedence
// over litellm_settings.
func (c *converter) readSettings(router, library object, out *file) {
	take := func(key string) (value, bool) {
		v, ok := router.take(key)
		other, found := library.take(key)
		if ok {
			return v, true
		}
		return other, found
	}
	if v, ok := library.take("request_timeout"); ok {
		c.settings.headerTimeout = c.seconds(v)
	}
	if v, ok := take("timeout"); ok {
		c.settings.headerTimeout = c.seconds(v)
	}
	if v, ok := take("stream_timeout"); ok {
		c.settings.idleTimeout = c.seconds(v)
	}
	if v, ok := library.take("enable_azure_ad_token_refresh"); ok {
		c.settings.entra = v.isTrue()
	}
	if v, ok := take("enable_tag_filtering"); ok {
		c.settings.tagFiltering = v.isTrue()
	}
	if v, ok := take("num_retries"); ok {
		switch n := c.whole(v, 0).(type) {
		case int:
			out.MaxAttempts = min(n, 1000) + 1
		case string:
			c.note(LeftOut, v, "max_attempts is one more than it, which a variable cannot say")
		}
	}
	if v, ok := take("cooldown_time"); ok {
		if s, _ := v.scalar(); s == "0" {
			c.note(LeftOut, v, "0: a throttled deployment is skipped for as long as its response says, else for 10s")
		} else if d := c.seconds(v); hasReference(d) || duration(d) <= mostCooldown {
			out.DefaultCooldown = d
			if hasReference(d) || duration(d) > usualCooldown {
				out.MaxCooldown = d
			}
		} else {
			c.note(LeftOut, v, "is more than 90 days")
		}
	}
	if v, ok := take("routing_strategy"); ok {
		if s, _ := v.scalar(); s != "simple-shuffle" {
			c.note(Check, v, "spillover uses the power of two choices: of two deployments the one with more headroom")
		}
	}
	if v, ok := library.take("drop_params"); ok && v.isTrue() {
		c.note(Check, v, "%s", dropsNothing)
	}
	c.readDefaultParams(router.section("default_litellm_params"))
	for _, key := range []string{"enable_pre_call_checks", "optional_pre_call_checks", "set_verbose", "telemetry", "json_logs"} {
		take(key)
	}
}

// The default and the maximum of max_cooldown.
const (
	usualCooldown = time.Minute
	mostCooldown  = 90 * 24 * time.Hour
)

// readAlias is the model that an alias stands for.
func readAlias(v value) (target value, ok bool) {
	if _, ok := v.scalar(); ok {
		return v, true
	}
	o, _ := v.object()
	return o.take("model")
}

// addAliases adds the names of model_group_alias to the backends of their models.
func (c *converter) addAliases(router, library object) {
	for _, aliases := range []object{router.section("model_group_alias"), library.section("model_group_alias"), library.section("model_alias_map")} {
		for _, alias := range aliases.keys {
			v := aliases.members[alias]
			target, ok := readAlias(v)
			name, isText := c.text(target)
			if !ok || !isText {
				c.note(LeftOut, v, "names no model")
				continue
			}
			c.addAlias(v, c.ours(alias), name)
		}
	}
}

func (c *converter) addAlias(at value, alias, name string) {
	found := false
	for _, b := range c.backends {
		m := b.find(name)
		if m == nil || b.find(alias) != nil {
			continue
		}
		again := *m
		again.Name = alias
		if again.Deployment == "" {
			again.Deployment = name
		}
		if again.Deployment == alias {
			again.Deployment = ""
		}
		with := *b
		with.Models = append(slices.Clone(b.Models), &again)
		if (&file{Backends: []*backend{&with}}).valid() {
			b.Models = with.Models
			found = true
		}
	}
	if !found {
		c.note(LeftOut, at, "%s", c.notServed(name))
	}
}

func (f *file) valid() bool { return accepted(f.config()) == nil }
