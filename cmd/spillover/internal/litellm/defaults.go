package litellm

import (
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/spillover-go/spillover"
)

// bodyFields are fields of requests that LiteLLM adds where the caller left them out.
// The fields of extra_body are such, too.
var bodyFields = []string{
	"temperature", "top_p", "max_tokens", "max_completion_tokens", "n", "stop", "seed", "presence_penalty", "frequency_penalty",
	"logit_bias", "logprobs", "top_logprobs", "response_format", "reasoning_effort", "verbosity", "service_tier", "user",
	"parallel_tool_calls", "tools", "tool_choice", "store", "modalities", "audio", "prediction", "top_k", "min_p", "repetition_penalty",
}

// requestParams are the parameters that change requests.
var requestParams = append([]string{"extra_body", "extra_headers", "headers"}, bodyFields...)

// readDefaultParams reads default_litellm_params. LiteLLM adds them to each request, so
// they take precedence over those of an entry.
func (c *converter) readDefaultParams(defaults object) {
	c.defaults.members = map[string]value{}
	for _, key := range requestParams {
		if v, ok := defaults.take(key); ok {
			c.defaults.set(key, v)
		}
	}
	c.leaveOut(defaults, nil, "only fields and headers of requests can be defaults")
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

func (c *converter) readDefault(d *deployment, key string, v value) {
	if strings.Contains(key, "${") || !canAdd(key, 1) {
		c.note(LeftOut, v, "spillover cannot add this field to requests")
		return
	}
	field, ok := c.any(v, d.hint+"_FIELD")
	if !ok {
		return
	}
	if !canAdd(key, field) {
		c.note(LeftOut, v, "spillover cannot add such a value to requests")
		return
	}
	if d.backend.Defaults == nil {
		d.backend.Defaults = map[string]any{}
	}
	d.backend.Defaults[key] = field
}

// canAdd reports whether spillover can add a field to requests.
func canAdd(key string, field any) bool {
	one := backend{Name: "x", URL: "https://example.com", APIKey: "x", Defaults: map[string]any{key: field}}
	return accepted(spillover.Config{Backends: []spillover.Backend{one.config()}}) == nil
}

// wordsOfFields are values that OpenAI's API defines. They are copied; other texts may be secrets.
var wordsOfFields = nameSet(`
	auto none required default flex priority scale minimal low medium high xhigh json_object json_schema text audio image
	function object string number integer boolean array null content prediction concise detailed
	system developer user assistant tool web_search web_search_preview file_search code_interpreter mcp
`)

// any is any value, for the fields of a request; ok is false and there is a note if
// it cannot be one. A text may be a secret, so it becomes a variable, for whose name hint is.
func (c *converter) any(v value, hint string) (result any, ok bool) {
	left := 10_000
	result, ok = c.anyWithin(v, hint, 0, &left)
	if !ok {
		c.note(LeftOut, v, "cannot be a value in JSON")
	}
	return result, ok
}

func (c *converter) anyWithin(v value, hint string, depth int, left *int) (any, bool) {
	n := v.resolve()
	if *left--; *left < 0 || depth > maxDepth || n == nil {
		return nil, false
	}
	switch n.Kind {
	case yaml.SequenceNode:
		list := []any{}
		for _, e := range v.list() {
			member, ok := c.anyWithin(e, hint, depth+1, left)
			if !ok {
				return nil, false
			}
			list = append(list, member)
		}
		return list, true
	case yaml.MappingNode:
		o, _ := v.object()
		members := map[string]any{}
		for _, key := range o.keys {
			if strings.Contains(key, "${") || key == "<<" {
				return nil, false
			}
			member, ok := c.anyWithin(o.members[key], hint, depth+1, left)
			if !ok {
				return nil, false
			}
			members[key] = member
		}
		return members, true
	case yaml.ScalarNode:
		return c.anyScalar(v, n, hint)
	default:
		return nil, false
	}
}

func (c *converter) anyScalar(v value, n *yaml.Node, hint string) (any, bool) {
	switch n.ShortTag() {
	case "!!null":
		return nil, true
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), true
	case "!!int":
		i, err := parseWhole(n.Value)
		return i, err == nil
	case "!!float":
		f, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64)
		return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
	default:
		if n.Value == "" || wordsOfFields[n.Value] {
			return n.Value, true
		}
		return c.secret(v, hint), true
	}
}
