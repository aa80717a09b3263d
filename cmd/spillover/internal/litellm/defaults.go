package litellm

import (
	"regexp"
	"strings"

	"github.com/spillover-go/spillover"
)

// bodyFields are fields of requests that LiteLLM adds where the caller left them out.
// The fields of extra_body are such, too.
var bodyFields = []string{
	"temperature", "top_p", "max_tokens", "max_completion_tokens", "n", "stop", "seed", "presence_penalty", "frequency_penalty",
	"logit_bias", "logprobs", "top_logprobs", "response_format", "reasoning_effort", "verbosity", "service_tier", "user",
	"parallel_tool_calls", "tools", "tool_choice", "store", "modalities", "audio", "prediction", "top_k", "min_p", "repetition_penalty",
}

func (c *converter) readDefaults(d *deployment, params *object) {
	for _, key := range bodyFields {
		if v, ok := params.take(key); ok {
			c.readDefault(d, key, v)
		}
	}
	v, _ := params.take("extra_body")
	o, _ := v.object()
	for _, key := range o.keys {
		c.readDefault(d, key, o.members[key])
	}
}

// isSecretField matches the names of fields whose values are not copied.
var isSecretField = regexp.MustCompile(`(?i)api_?key|secret|password|credential|authorization`)

func (c *converter) readDefault(d *deployment, key string, v value) {
	if isSecretField.MatchString(key) {
		c.note(LeftOut, v, "looks like a secret")
		return
	}
	field, ok := c.any(v)
	if !ok {
		return
	}
	one := backend{Name: "x", URL: "https://example.com", APIKey: "x", Defaults: map[string]any{key: field}}
	if strings.Contains(key, "${") || accepted(spillover.Config{Backends: []spillover.Backend{one.config()}}) != nil {
		c.note(LeftOut, v, "spillover cannot add this field to requests")
		return
	}
	if d.backend.Defaults == nil {
		d.backend.Defaults = map[string]any{}
	}
	d.backend.Defaults[key] = field
}
