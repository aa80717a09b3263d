package wire

import (
	"net/url"
	"strings"
)

// A Dialect is an API flavour: how a backend spells URLs, model names and credentials.
// The root package exports the type and its values.
type Dialect string

const (
	// Azure is classic Azure OpenAI: the path names the deployment, and the query
	// has an api-version.
	Azure Dialect = "azure"
	// AzureV1 is Azure's v1 API: the body names the deployment, as with OpenAI.
	AzureV1 Dialect = "azure-v1"
	// OpenAI is the API of OpenAI itself, and of services that are compatible with it.
	OpenAI Dialect = "openai"
)

// A DialectSpec is everything that depends on the dialect, except for the names of hosts.
type DialectSpec struct {
	Name Dialect
	// Prefix is the beginning of all paths, as escaped segments.
	Prefix string
	// DeploymentInPath means that paths of inference name the deployment:
	// {Prefix}/deployments/{deployment}/chat/completions. Otherwise the body does.
	DeploymentInPath bool
	// APIVersion is how the dialect uses the query parameter api-version.
	APIVersion APIVersionUse
	// KeyHeader carries a key; Authorization carries it as a bearer token. Other
	// tokens are always in Authorization.
	KeyHeader string
	// Credentials names the kind of credential. Callers' credentials are only sent to
	// backends of their kind.
	Credentials string
	// Provider is gen_ai.provider.name in OpenTelemetry's conventions for GenAI.
	Provider string
}

// The kinds of credentials.
const (
	AzureCredentials  = "azure"
	OpenAICredentials = "openai"
)

// An APIVersionUse is what a dialect does with the api-version of a query.
type APIVersionUse int

const (
	NoAPIVersion       APIVersionUse = iota // the api-version is removed
	OptionalAPIVersion                      // the api-version of the backend or of the caller is passed on
	RequiredAPIVersion                      // a request without an api-version gets a default
)

// HasAPIVersion reports whether requests of the dialect may have an api-version.
func (s *DialectSpec) HasAPIVersion() bool { return s.APIVersion != NoAPIVersion }

// Dialects is the table of dialects. A new dialect is a row here, and a case in
// prefixAt if that does not parse its prefix yet.
var Dialects = []DialectSpec{
	{Name: Azure, Prefix: "/openai", DeploymentInPath: true, APIVersion: RequiredAPIVersion, KeyHeader: "Api-Key", Credentials: AzureCredentials, Provider: "azure.ai.openai"},
	{Name: AzureV1, Prefix: "/openai/v1", APIVersion: OptionalAPIVersion, KeyHeader: "Api-Key", Credentials: AzureCredentials, Provider: "azure.ai.openai"},
	{Name: OpenAI, Prefix: "/v1", KeyHeader: "Authorization", Credentials: OpenAICredentials, Provider: "openai"},
}

// noDialect is the row of unknown dialects.
var noDialect DialectSpec

// SpecOf returns the row of a dialect, which is empty for an unknown one.
func SpecOf(d Dialect) *DialectSpec {
	for i := range Dialects {
		if Dialects[i].Name == d {
			return &Dialects[i]
		}
	}
	return &noDialect
}

// prefixAt parses the prefix of a dialect that begins with a segment of a path. rest is
// the path after the segment. prefixAt returns the dialect, the deployment if the path
// names one, and the path after the prefix. ok is false if no prefix begins there.
func prefixAt(segment, rest string) (t Target, remaining string, ok bool) {
	next, after := CutSegment(rest)
	switch {
	case segment == "openai" && next == "deployments":
		t.ModelSegment, after = CutSegment(after)
		model, err := url.PathUnescape(t.ModelSegment)
		t.Dialect, t.Model = Azure, model
		return t, after, err == nil && t.ModelSegment != ""
	case segment == "openai" && next == "v1":
		t.Dialect = AzureV1
		return t, after, true
	case segment == "openai":
		t.Dialect = Azure
		return t, rest, true
	case segment == "v1" && next != "openai":
		t.Dialect = OpenAI
		return t, rest, true
	}
	return t, "", false
}

// BasePath splits the escaped path of a backend's URL. Paths of the dialect begin
// with base and the dialect's prefix, or with base alone if that is bare: a path that
// already ends as the dialect's paths begin is taken literally. So /ai/v1 of an
// AzureV1 backend does not become /ai/openai/v1, nor /ai/deployments of an Azure
// backend /ai/openai/deployments.
func BasePath(d Dialect, path string) (base string, bare bool) {
	spec := SpecOf(d)
	path = strings.TrimSuffix(path, "/")
	base, atDeployments := path, false
	if spec.DeploymentInPath {
		base, atDeployments = strings.CutSuffix(path, "/deployments")
	}
	if base, usual := strings.CutSuffix(base, spec.Prefix); usual {
		return base, false
	}
	parent, versioned := strings.CutSuffix(spec.Prefix, "/v1") // of /openai/v1 the path may have a part
	switch {
	case atDeployments, versioned && strings.HasSuffix(path, "/v1"):
		return base, true
	case versioned:
		return strings.TrimSuffix(path, parent), false
	}
	return path, false
}

// ShortPath returns the shortest path for which BasePath returns the same.
func ShortPath(d Dialect, path string) string {
	base, bare := BasePath(d, path)
	again, _ := BasePath(d, base)
	switch {
	case bare && SpecOf(d).DeploymentInPath:
		return base + "/deployments"
	case !bare && again != base:
		return base + SpecOf(d).Prefix
	}
	return base
}
