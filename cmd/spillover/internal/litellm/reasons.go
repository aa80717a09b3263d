package litellm

import (
	"slices"
	"strings"
)

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
	c.leaveOut(root, sectionReasons, "spillover has no such section")
}

// leaveOut reports the members that were not taken.
func (c *converter) leaveOut(o object, reasons map[string]string, otherwise string) {
	for _, key := range o.rest() {
		why, ok := reasons[key]
		switch {
		case !knownSettings[key]:
			why = unknownReason
		case !ok:
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
