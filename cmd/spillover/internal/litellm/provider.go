package litellm

import (
	"regexp"
	"slices"
	"strings"

	"github.com/spillover-go/spillover"
)

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
	case name == "" && deployment == "*" && d.model.Name == "*":
		c.note(LeftOut, at, "models of other providers: LiteLLM finds the provider in the name that callers use; the backend is that of OpenAI")
		return c.openAIBackend(d, "openai", providers["openai"], at, base, params)
	case name == "":
		c.note(LeftOut, at, "names no provider, such as openai/ or azure/")
	case strings.HasPrefix(at.node.Value, environPrefix):
		c.note(LeftOut, at, "is a variable: write the model")
	case name == "ollama" || name == "ollama_chat":
		c.note(LeftOut, at, "write openai/ instead of %s/, and add /v1 to api_base: there Ollama has OpenAI's API", name)
	case otherProviders[name]:
		c.note(LeftOut, at, "the provider %q has another API; spillover speaks those of OpenAI and Azure OpenAI", name)
	default:
		c.note(LeftOut, at, "the text before / is not a provider that can be converted; if the service has OpenAI's API, write openai/ and api_base")
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
	if key, ok := takeKey(params); ok {
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

// isVersion matches versions of Azure's API.
var isVersion = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2}(-preview)?|v1|latest|preview)$`)

func (c *converter) azureBackend(d *deployment, name string, at value, deployment string, base value, params *object) bool {
	b := &d.backend
	version, _ := params.take("api_version")
	apiVersion, _ := c.text(version)
	if apiVersion != "" && !hasReference(apiVersion) && !isVersion.MatchString(apiVersion) {
		c.note(LeftOut, version, "is not a version of Azure's API")
		apiVersion = ""
	}
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
		if s := query.Get("api-version"); isVersion.MatchString(s) && apiVersion == "" {
			apiVersion = s
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
