package litellm

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

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

// readCredentials reads credential_list.
func (c *converter) readCredentials(root object) {
	c.credentials = map[string]object{}
	list, _ := root.take("credential_list")
	for _, v := range list.list() {
		o, _ := v.object()
		name, _ := o.take("credential_name")
		values, _ := o.take("credential_values")
		if s, ok := name.scalar(); ok {
			c.credentials[s], _ = values.object()
		}
	}
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
	if v, ok := params.take("drop_params"); ok && v.isTrue() {
		c.note(Check, v, "%s", dropsNothing)
	}
	c.ignore(params, priceKeys)
	c.leaveOut(params, parameterReasons, "spillover has no such parameter")
	c.leaveOut(entry, nil, "spillover has no such setting")
	return d
}

// addCredential adds the values that an entry refers to.
func (c *converter) addCredential(params *object) {
	ref, ok := params.take("litellm_credential_name")
	if !ok {
		return
	}
	name, _ := ref.scalar()
	values, ok := c.credentials[name]
	if !ok {
		c.note(LeftOut, ref, "credential_list has no such credential")
		return
	}
	for _, key := range values.rest() {
		if _, given := params.members[key]; !given {
			params.set(key, values.members[key])
		}
	}
}

// A provider is a service with OpenAI's API.
type provider struct {
	url         string // "" if api_base is required
	urlVariable string // that LiteLLM reads if there is no api_base
	keyVariable string // that LiteLLM reads if there is no api_key; "" if none is needed
	native      bool   // OpenAI itself, or a server to which LiteLLM sends the same requests
}

// providers are those of https://docs.litellm.ai/docs/providers with OpenAI's API, with
// the URLs that LiteLLM uses (litellm_core_utils/get_llm_provider_logic.py).
var providers = map[string]provider{
	"openai":                 {url: "https://api.openai.com", keyVariable: "OPENAI_API_KEY", native: true},
	"text-completion-openai": {url: "https://api.openai.com", keyVariable: "OPENAI_API_KEY", native: true},
	"custom_openai":          {native: true},
	"openai_like":            {native: true},
	"hosted_vllm":            {urlVariable: "HOSTED_VLLM_API_BASE", native: true},
	"lm_studio":              {urlVariable: "LM_STUDIO_API_BASE", native: true},
	"llamafile":              {urlVariable: "LLAMAFILE_API_BASE", native: true},
	"litellm_proxy":          {urlVariable: "LITELLM_PROXY_API_BASE", keyVariable: "LITELLM_PROXY_API_KEY", native: true},
	"xinference":             {native: true},
	"groq":                   {url: "https://api.groq.com/openai/v1", keyVariable: "GROQ_API_KEY"},
	"openrouter":             {url: "https://openrouter.ai/api/v1", keyVariable: "OPENROUTER_API_KEY"},
	"mistral":                {url: "https://api.mistral.ai/v1", keyVariable: "MISTRAL_API_KEY"},
	"xai":                    {url: "https://api.x.ai/v1", keyVariable: "XAI_API_KEY"},
	"deepseek":               {url: "https://api.deepseek.com/v1", keyVariable: "DEEPSEEK_API_KEY"},
	"together_ai":            {url: "https://api.together.xyz/v1", keyVariable: "TOGETHERAI_API_KEY"},
	"fireworks_ai":           {url: "https://api.fireworks.ai/inference/v1", keyVariable: "FIREWORKS_API_KEY"},
	"cerebras":               {url: "https://api.cerebras.ai/v1", keyVariable: "CEREBRAS_API_KEY"},
	"nvidia_nim":             {url: "https://integrate.api.nvidia.com/v1", keyVariable: "NVIDIA_NIM_API_KEY"},
	"sambanova":              {url: "https://api.sambanova.ai/v1", keyVariable: "SAMBANOVA_API_KEY"},
}

// azureProviders are the names of Azure.
var azureProviders = []string{"azure", "azure_text", "azure_ai"}

// ofOpenAI matches the models that LiteLLM takes for OpenAI's without a provider.
var ofOpenAI = regexp.MustCompile(`^(gpt-|chatgpt-|o[1-9](-|$)|text-embedding-|text-moderation|omni-moderation|davinci|babbage|dall-e-|whisper-|tts-|codex-|computer-use-|sora-|ft:)`)

// providerOf splits the name of a model. The provider is "" if it is unknown.
func providerOf(full string, params *object) (provider, deployment string) {
	if v, ok := params.take("custom_llm_provider"); ok {
		name, _ := v.scalar()
		return name, strings.TrimPrefix(full, name+"/")
	}
	if before, after, ok := strings.Cut(full, "/"); ok {
		return before, after
	}
	if ofOpenAI.MatchString(full) {
		return "openai", full
	}
	return "", full
}

// chooseBackend sets URL, dialect and credential. It reports whether it could.
func (c *converter) chooseBackend(d *deployment, name string, at value, deployment string, params *object) bool {
	base, _ := params.take("api_base")
	if other, ok := params.take("base_url"); ok && base.isNull() {
		base = other
	}
	p, compatible := providers[name]
	switch {
	case slices.Contains(azureProviders, name):
		return c.azureBackend(d, name, at, deployment, base, params)
	case compatible:
		return c.openAIBackend(d, name, p, at, base, params)
	case name == "":
		c.note(LeftOut, at, "names no provider, such as openai/ or azure/")
	default:
		c.note(LeftOut, at, "the provider %s has another API; spillover speaks those of OpenAI and Azure OpenAI", strconv.Quote(printable(name)))
	}
	return false
}

func (c *converter) openAIBackend(d *deployment, name string, p provider, at, base value, params *object) bool {
	b := &d.backend
	d.hint = name
	raw, ok := c.text(base)
	switch {
	case ok && hasReference(raw):
		b.URL, b.Dialect, d.hint = raw, string(spillover.OpenAI), hintOf(raw)
	case ok:
		u, err := parseURL(raw)
		if err != nil {
			c.note(LeftOut, base, "%v", err)
			return false
		}
		c.noteQuery(base, u)
		u.RawQuery, u.Fragment = "", ""
		path := strings.TrimSuffix(strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/chat/completions"), "/")
		u.Path, u.RawPath = path, ""
		azure := isAzure(u.Hostname())
		switch {
		case azure && strings.HasSuffix(path, "/openai/v1"):
			b.Dialect = string(spillover.AzureV1)
		case path == "" && name != "xinference":
			c.note(Check, base, "has no path: LiteLLM sends requests to /chat/completions, spillover to /v1/chat/completions")
		case !strings.HasSuffix(path, "/v1"):
			c.note(LeftOut, base, "the path does not end in /v1: spillover would add that")
			return false
		case strings.HasSuffix(path, "/openai/v1"):
			b.Dialect = string(spillover.OpenAI)
		}
		b.URL = u.String()
		if name == "openai" || name == "custom_openai" || p.url == "" {
			d.hint = hintOf(b.URL)
		}
	case p.url != "":
		b.URL = p.url
		if strings.HasSuffix(b.URL, "/openai/v1") {
			b.Dialect = string(spillover.OpenAI)
		}
	case p.urlVariable != "":
		b.URL, b.Dialect = c.variable(p.urlVariable), string(spillover.OpenAI)
	default:
		c.note(LeftOut, at, "has no api_base")
		return false
	}
	if !p.native {
		c.note(Check, at, "%s is called as it is: LiteLLM adapts some parameters for it", name)
	}
	if key, ok := params.take("api_key"); ok {
		b.APIKey = c.secret(key, d.hint+"_KEY")
	} else if p.keyVariable != "" {
		b.APIKey = c.variable(p.keyVariable)
	} else {
		b.APIKey = "${" + c.optional(b.URL, d.hint) + ":-none}" // LiteLLM sends a placeholder, too
	}
	if org, ok := params.take("organization"); ok {
		if s, ok := c.text(org); ok {
			d.setHeader("OpenAI-Organization", s)
		} else {
			c.note(LeftOut, org, "is not one organization: write one entry for each")
		}
	}
	return true
}

func (c *converter) azureBackend(d *deployment, name string, at value, deployment string, base value, params *object) bool {
	b := &d.backend
	version, _ := params.take("api_version")
	apiVersion, _ := c.text(version)
	raw, ok := c.text(base)
	if name == "azure_ai" && (!ok || !hasReference(raw) && !isFoundry(raw) || strings.Contains(strings.ToLower(deployment), "claude")) {
		c.note(LeftOut, at, "only models of Foundry (services.ai.azure.com) with OpenAI's API can be converted")
		return false
	}
	v1 := name == "azure_ai" || slices.Contains([]string{"v1", "latest", "preview"}, apiVersion)
	switch {
	case !ok:
		b.URL, d.hint = c.variable("AZURE_API_BASE"), "azure"
	case hasReference(raw):
		b.URL, d.hint = raw, hintOf(raw)
	default:
		u, err := parseURL(raw)
		if err != nil {
			c.note(LeftOut, base, "%v", err)
			return false
		}
		query := u.Query()
		if s := query.Get("api-version"); s != "" && apiVersion == "" {
			apiVersion = c.ours(s)
		}
		query.Del("api-version")
		u.RawQuery = query.Encode()
		c.noteQuery(base, u)
		u.RawQuery, u.Fragment, u.RawPath = "", "", ""
		path := strings.TrimRight(u.Path, "/")
		if before, after, ok := strings.Cut(path, "/openai"); ok {
			v1 = v1 || after == "/v1" || strings.HasPrefix(after, "/v1/")
			path = before
		} else if isAzure(u.Hostname()) {
			path = ""
		}
		u.Path = path
		b.URL, d.hint = u.String(), hintOf(u.String())
	}
	if v1 {
		b.Dialect = string(spillover.AzureV1)
		if apiVersion != "preview" {
			apiVersion = ""
		}
	} else {
		b.Dialect = string(spillover.Azure)
	}
	if name == "azure_ai" {
		c.note(Check, at, "spillover uses the paths of OpenAI's API (/openai/v1), LiteLLM those of the model inference API (/models)")
	}
	b.APIVersion = apiVersion
	c.azureCredential(d, params)
	return true
}

// entraKeys are parameters of Entra ID.
var entraKeys = []string{"azure_ad_token", "azure_ad_token_provider", "tenant_id", "client_id", "client_secret", "azure_scope", "azure_username", "azure_password"}

func (c *converter) azureCredential(d *deployment, params *object) {
	b := &d.backend
	var entra []value
	for _, key := range entraKeys {
		if v, ok := params.take(key); ok {
			entra = append(entra, v)
		}
	}
	key, ok := params.take("api_key")
	switch {
	case ok:
		b.APIKey = c.secret(key, d.hint+"_KEY")
	case len(entra) > 0:
		b.Auth = "entra"
		c.note(Check, entra[0], "auth: entra uses the identity of the process: set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or use a managed or workload identity")
	case c.settings.entra:
		b.Auth = "entra"
	default:
		b.APIKey = c.variable("AZURE_API_KEY")
	}
}

// chooseNames sets the names of the model.
func (c *converter) chooseNames(d *deployment, name, at value, deployment string) bool {
	public, _ := name.scalar()
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

// isSecretHeader matches the names of headers whose values are not copied.
var isSecretHeader = regexp.MustCompile(`(?i)key|token|secret|auth|password|cookie|credential|signature`)

// looksSecret matches values that may be credentials, whatever the name of the header is:
// long ones without spaces that have both letters and digits, and schemes before one.
func looksSecret(s string) bool {
	return len(s) >= 16 && !strings.ContainsAny(s, " \t") && strings.ContainsAny(s, "0123456789") && strings.IndexFunc(s, unicode.IsLetter) >= 0 ||
		strings.HasPrefix(s, "sk-") || strings.HasPrefix(s, "Bearer ") || strings.HasPrefix(s, "Basic ")
}

func (c *converter) readHeader(d *deployment, name string, v value) {
	s, ok := c.text(v)
	if !ok {
		c.note(LeftOut, v, "is empty")
		return
	}
	if isSecretHeader.MatchString(name) || looksSecret(s) {
		s = "secret"
	}
	one := backend{Name: "x", URL: "https://example.com", APIKey: "x", Headers: map[string]string{name: s}}
	if err := accepted(spillover.Config{Backends: []spillover.Backend{one.config()}}); err != nil {
		c.note(LeftOut, v, "the header cannot be set: the credential belongs in api_key, and headers of the connection are those of the request")
		return
	}
	if s == "secret" {
		s = c.secret(v, d.hint+"_"+name)
	}
	if _, twice := d.backend.Headers[http.CanonicalHeaderKey(name)]; twice {
		c.note(LeftOut, v, "the header is set twice")
		return
	}
	d.setHeader(http.CanonicalHeaderKey(name), s)
}

func (d *deployment) setHeader(name, v string) {
	if d.backend.Headers == nil {
		d.backend.Headers = map[string]string{}
	}
	d.backend.Headers[name] = v
}

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

// readModelInfo reads model_info. What only describes a model is ignored.
func (c *converter) readModelInfo(d *deployment, info object) {
	if v, ok := info.take("max_input_tokens"); ok && !d.wildcard {
		d.model.ContextTokens = c.whole(v, 1)
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

// add adds a deployment to a backend with the same settings, or as a new one.
func (c *converter) add(d *deployment) {
	b := d.backend
	if !d.wildcard {
		b.Models = []*model{&d.model}
	}
	b.Name = "x"
	if err := accepted(spillover.Config{Backends: []spillover.Backend{b.config()}}); err != nil {
		c.note(LeftOut, d.at, "%s", strings.ReplaceAll(reason(err), `backend "x": `, ""))
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
	if b.settingsKey() != owner.settingsKey() {
		c.note(Check, d.at, "its deployment is also that of an entry before it, so priority, weight, timeouts and other settings are those of that entry")
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

// urlWords is what names of variables with a URL say of that.
var urlWords = regexp.MustCompile(`(^|_)(API_)?(BASE_URL|BASE|URL|ENDPOINT|HOST)(_|$)`)

// hintOf is a short name of a URL: of its host, or of its variable.
func hintOf(s string) string {
	if m := reference.FindStringSubmatch(s); m != nil && m[1] == "" {
		return urlWords.ReplaceAllString(m[2], "_")
	}
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	host := u.Hostname()
	labels := strings.Split(host, ".")
	switch {
	case strings.Trim(host, "0123456789.") == "" || strings.Contains(host, ":") || len(labels) == 1: // addresses, localhost
		return host + "-" + u.Port()
	case labels[0] == "api" || labels[0] == "www":
		return labels[1]
	default:
		return labels[0]
	}
}

// parseURL parses an absolute URL. Its error does not quote it: it may have a password.
func parseURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, errors.New("is not a valid URL")
	case u.User != nil:
		return nil, errors.New("has user info, which spillover does not send")
	}
	return u, nil
}

// noteQuery reports a query that is left out, without its values.
func (c *converter) noteQuery(at value, u *url.URL) {
	if u.RawQuery != "" {
		c.note(LeftOut, at, "the query of the URL")
	}
}

var azureHost = regexp.MustCompile(`(?i)\.(openai|cognitiveservices|services\.ai)\.azure\.[a-z]+$`)

func isAzure(host string) bool { return azureHost.MatchString(host) }

func isFoundry(raw string) bool {
	u, err := parseURL(raw)
	return err == nil && isAzure(u.Hostname())
}
