package litellm

import (
	"strings"

	"github.com/spillover-go/spillover"
)

// A deployment is one entry of model_list.
type deployment struct {
	at       value
	model    model
	account  string // the deployment's name there; "" for all models
	backend  backend
	hint     string // for names
	order    value
	hasOrder bool
	weight   float64 // 0 if it has none
	wildcard bool
}

// readEntries reads model_list.
func (c *converter) readEntries(list value) (all []*deployment) {
	for _, v := range list.list() {
		if d := c.readEntry(v); d != nil {
			all = append(all, d)
		}
	}
	return all
}

// readEntry reads one entry; nil and a note if it cannot be converted.
func (c *converter) readEntry(at value) *deployment {
	entry, _ := at.object()
	nameValue, _ := entry.take("model_name")
	name, ok := c.text(nameValue)
	if !ok {
		c.note(LeftOut, at, "has no model_name")
		return nil
	}
	c.listed[name] = true
	params := entry.section("litellm_params")
	modelValue, _ := params.take("model")
	full, ok := modelValue.scalar()
	if !ok {
		c.note(LeftOut, at, "has no litellm_params.model")
		return nil
	}
	c.addCredential(&params)
	for _, key := range c.defaults.keys {
		params.set(key, c.defaults.members[key])
	}
	d := &deployment{at: at, model: model{Name: name}}
	provider, deploymentName := providerOf(full, &params)
	if !c.chooseBackend(d, provider, modelValue, deploymentName, &params) {
		return nil
	}
	if !c.chooseNames(d, nameValue, modelValue, deploymentName) {
		return nil
	}
	c.readLimits(d, &entry, &params)
	c.readBackendSettings(d, &params)
	c.readDefaults(d, &params)
	c.readModelInfo(d, entry.section("model_info"))
	if v, ok := params.take("drop_params"); ok && (v.isTrue() || v.isList()) {
		c.note(Check, v, "%s", dropsNothing)
	}
	c.ignore(params, priceKeys)
	c.leaveOut(params, parameterReasons, "spillover has no such parameter")
	c.leaveOut(entry, nil, "spillover has no such setting")
	return d
}

// chooseNames sets the names of the model.
func (c *converter) chooseNames(d *deployment, name, at value, deployment string) bool {
	public, _ := name.scalar()
	if strings.HasPrefix(deployment, "responses/") {
		c.note(Check, at, "%s", callsResponses)
	}
	if d.backend.Dialect == string(spillover.Azure) || d.backend.Dialect == string(spillover.AzureV1) {
		for _, route := range []string{"o_series/", "gpt5_series/", "responses/", "chat/"} { // how LiteLLM treats a model
			deployment = strings.TrimPrefix(deployment, route)
		}
	} else {
		deployment = strings.TrimPrefix(deployment, "responses/")
	}
	if strings.Contains(public, "*") || strings.Contains(deployment, "*") {
		if public != "*" || deployment != "*" {
			c.note(LeftOut, name, "a pattern: list its models, or use the name * for all models")
			return false
		}
		c.note(Check, name, "the backend takes every model, under the name that callers use, also models of other backends if those cannot take a request")
		d.wildcard = true
		return true
	}
	if deployment == "" {
		c.note(LeftOut, at, "names no deployment")
		return false
	}
	d.account = c.ours(deployment)
	if d.account != d.model.Name {
		d.model.Deployment = d.account
	}
	return true
}

// readModelInfo reads model_info. What only describes a model is ignored.
func (c *converter) readModelInfo(d *deployment, info object) {
	if v, ok := info.take("max_input_tokens"); ok && !d.wildcard {
		d.model.ContextTokens = c.whole(v, 1)
	}
	if v, ok := info.take("mode"); ok {
		if s, _ := v.scalar(); s == "responses" {
			c.note(Check, v, "%s", callsResponses)
		}
	}
	for _, key := range []string{"access_groups", "team_id", "supported_environments"} {
		if v, ok := info.take(key); ok {
			c.note(LeftOut, v, "%s", infoReasons[key])
		}
	}
	if v, ok := info.take("blocked"); ok && v.isTrue() {
		d.backend.Drained = true
	}
}

const callsResponses = "LiteLLM calls the Responses API for it, whatever the caller asks for; spillover passes requests on unchanged"
