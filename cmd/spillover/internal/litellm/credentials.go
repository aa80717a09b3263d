package litellm

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

// takeKey takes api_key. LiteLLM treats an empty one as missing.
func takeKey(params *object) (key value, ok bool) {
	key, ok = params.take("api_key")
	s, isText := key.scalar()
	return key, ok && (s != "" || !isText)
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
	key, ok := takeKey(params)
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
