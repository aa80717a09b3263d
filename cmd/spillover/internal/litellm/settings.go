package litellm

import (
	"slices"
	"strconv"
	"strings"
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
		c.note(LeftOut, at, "no backend serves %s", strconv.Quote(printable(name)))
	}
}

func (f *file) valid() bool { return accepted(f.config()) == nil }

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
	if !c.serves(name) {
		c.note(LeftOut, at, "no backend serves %s", strconv.Quote(printable(name)))
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
			c.note(LeftOut, e, "no backend serves %s", strconv.Quote(printable(to)))
		default:
			f.To = append(f.To, to)
		}
	}
	if len(f.To) == 0 {
		return
	}
	with := &file{Backends: []*backend{{Name: "x", URL: "https://example.com", APIKey: "x"}}, Fallbacks: append(slices.Clone(out.Fallbacks), f)}
	if err := accepted(with.config()); err != nil {
		text := strings.ReplaceAll(reason(err), "Fallbacks: ", "")
		c.note(LeftOut, at, "%s", printable(text))
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

// leaveOutRest reports what is left of the file.
func (c *converter) leaveOutRest(root, router, library object) {
	c.leaveOut(router, routerReasons, "spillover has no such setting")
	c.leaveOut(library, libraryReasons, "spillover has no such setting")
	variables := root.section("environment_variables")
	for _, name := range variables.keys {
		if c.used[name] {
			c.note(Set, variables.members[name], "the value was not copied: set the environment variable %s to it", printable(name))
		}
	}
	general := root.section("general_settings")
	c.leaveOut(general, generalReasons, "spillover has no such setting")
	for _, key := range root.rest() {
		why, ok := sectionReasons[key]
		if !ok {
			why = "spillover has no such section"
		}
		c.note(LeftOut, root.members[key], "%s", why)
	}
}

// leaveOut reports the members that were not taken.
func (c *converter) leaveOut(o object, reasons map[string]string, otherwise string) {
	for _, key := range o.rest() {
		why, ok := reasons[key]
		if !ok {
			why = otherwise
		}
		c.note(LeftOut, o.members[key], "%s", why)
	}
}

// ignore takes the members that have no effect on requests.
func (c *converter) ignore(o object, keys []string) {
	for _, key := range o.rest() {
		if slices.ContainsFunc(keys, func(part string) bool { return strings.Contains(key, part) }) {
			o.take(key)
		}
	}
}

// priceKeys are parts of the names of parameters that only describe a deployment.
var priceKeys = []string{"cost_per", "base_model", "use_in_pass_through", "merge_reasoning_content", "litellm_trace_id"}

// Why parameters and settings have no counterpart.

var parameterReasons = map[string]string{
	"num_retries":          "max_attempts is for all deployments",
	"max_retries":          "max_attempts is for all deployments",
	"cooldown_time":        "default_cooldown is for all deployments",
	"stream":               "callers decide whether they want a stream",
	"mock_response":        "spillover simulate has simulated deployments",
	"mock_timeout":         "spillover simulate has simulated deployments",
	"max_budget":           "spillover has no budgets",
	"budget_duration":      "spillover has no budgets",
	"itpm":                 "spillover limits input and output tokens together: tpm",
	"otpm":                 "spillover limits input and output tokens together: tpm",
	"tag_regex":            "spillover compares tags as a whole",
	"cache_control_points": "requests are passed on unchanged",
}

var infoReasons = map[string]string{
	"access_groups":          "the keys of spillover serve have the models that a caller may use",
	"team_id":                "the keys of spillover serve have the models that a caller may use",
	"supported_environments": "every deployment of a file is used: write one file for each environment",
}

const dropsNothing = "requests are passed on unchanged: a service may refuse parameters that LiteLLM drops"

var routerReasons = map[string]string{
	"allowed_fails":                 "spillover ejects a deployment by its own rules (docs/failover.md)",
	"allowed_fails_policy":          "spillover ejects a deployment by its own rules (docs/failover.md)",
	"retry_policy":                  "spillover decides by the kind of failure (docs/failover.md)",
	"model_group_retry_policy":      "spillover decides by the kind of failure (docs/failover.md)",
	"retry_after":                   "spillover does not wait between attempts",
	"disable_cooldowns":             "a throttled deployment is always skipped",
	"redis_host":                    "replicas share what they learn through fleet/redis (docs/fleet.md)",
	"redis_port":                    "replicas share what they learn through fleet/redis (docs/fleet.md)",
	"redis_password":                "replicas share what they learn through fleet/redis (docs/fleet.md)",
	"redis_url":                     "replicas share what they learn through fleet/redis (docs/fleet.md)",
	"routing_strategy_args":         "the choice of a deployment has no parameters",
	"tag_filtering_match_any":       "a backend must have all tags that a request demands",
	"max_fallbacks":                 "a request tries all models of its fallback",
	"default_max_parallel_requests": "max_in_flight is for each model",
}

var libraryReasons = map[string]string{
	"allowed_fails":         routerReasons["allowed_fails"],
	"callbacks":             "spillover has metrics, traces and logs of its own (docs/telemetry.md)",
	"success_callback":      "spillover has metrics, traces and logs of its own (docs/telemetry.md)",
	"failure_callback":      "spillover has metrics, traces and logs of its own (docs/telemetry.md)",
	"service_callbacks":     "spillover has metrics, traces and logs of its own (docs/telemetry.md)",
	"cache":                 "spillover does not cache responses",
	"cache_params":          "spillover does not cache responses",
	"max_budget":            "spillover has no budgets",
	"budget_duration":       "spillover has no budgets",
	"default_team_settings": "spillover has no teams",
}

var generalReasons = map[string]string{
	"master_key":                   "the keys of callers are those of spillover serve",
	"database_url":                 "spillover has no database",
	"store_model_in_db":            "spillover has no database",
	"max_parallel_requests":        "max_in_flight is for each model",
	"global_max_parallel_requests": "max_in_flight is for each model",
	"pass_through_endpoints":       "spillover passes on the operations of OpenAI and Azure OpenAI only",
}

var sectionReasons = map[string]string{
	"guardrails":        "spillover has no guardrails",
	"callback_settings": "spillover has metrics, traces and logs of its own (docs/telemetry.md)",
	"files_settings":    "files are routed to the backends of the configuration (docs/routing.md)",
	"finetune_settings": "fine-tuning jobs are routed to the backends of the configuration (docs/routing.md)",
	"mcp_servers":       "spillover has no MCP gateway",
}
