package wire

import (
	"net/url"
	"strings"
)

// A Dialect is how a backend spells URLs, model names and credentials.
type Dialect string

// The dialects. The root package documents them for users.
const (
	Azure   Dialect = "azure"
	AzureV1 Dialect = "azure-v1"
	OpenAI  Dialect = "openai"
)

// A DialectSpec is everything that a dialect decides, but for the names of hosts.
type DialectSpec struct {
	Name Dialect
	// Prefix begins the paths, as escaped segments.
	Prefix string
	// DeploymentInPath means that paths of inference name the deployment:
	// {Prefix}/deployments/{deployment}/chat/completions. Otherwise the body does.
	DeploymentInPath bool
	// APIVersion is what the api-version of the query is for.
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
	NoAPIVersion       APIVersionUse = iota // it is removed
	OptionalAPIVersion                      // that of a backend or of the caller is passed on
	RequiredAPIVersion                      // a request without one gets a default
)

// HasAPIVersion reports whether requests of the dialect may have an api-version.
func (s *DialectSpec) HasAPIVersion() bool { return s.APIVersion != NoAPIVersion }

// Dialects is the one table of dialects. A new dialect is a row here, and a case in
// prefixAt if its prefix is not among those that are read there.
var Dialects = []DialectSpec{
	{Name: Azure, Prefix: "/openai", DeploymentInPath: true, APIVersion: RequiredAPIVersion, KeyHeader: "Api-Key", Credentials: AzureCredentials, Provider: "azure.ai.openai"},
	{Name: AzureV1, Prefix: "/openai/v1", APIVersion: OptionalAPIVersion, KeyHeader: "Api-Key", Credentials: AzureCredentials, Provider: "azure.ai.openai"},
	{Name: OpenAI, Prefix: "/v1", KeyHeader: "Authorization", Credentials: OpenAICredentials, Provider: "openai"},
}

var noDialect DialectSpec

// SpecOf is the row of a dialect. That of an unknown dialect is empty.
func SpecOf(d Dialect) *DialectSpec {
	for i := range Dialects {
		if Dialects[i].Name == d {
			return &Dialects[i]
		}
	}
	return &noDialect
}

// prefixAt reads the prefix of a dialect that begins with a segment of a path. rest
// is what follows the segment. It returns the dialect, the deployment if the path
// names one, and what follows the prefix. It is not ok if no prefix begins there.
func prefixAt(segment, rest string) (t Target, after string, ok bool) {
	next, behind := CutSegment(rest)
	switch {
	case segment == "openai" && next == "deployments":
		t.Segment, behind = CutSegment(behind)
		model, err := url.PathUnescape(t.Segment)
		t.Dialect, t.Model = Azure, model
		return t, behind, err == nil && t.Segment != ""
	case segment == "openai" && next == "v1":
		t.Dialect = AzureV1
		return t, behind, true
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

// ShortPath is the shortest path that BasePath reads like the given one.
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
