package spillover

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/spillover-go/spillover/internal/wire"
)

// azureDomains are the hosts of Azure without the last label, which is the cloud
// (.com, .net, .us, .cn), and the dialect that they speak.
var azureDomains = []struct {
	domain  string
	dialect Dialect
	gateway bool // its paths are whatever its owner made them
}{
	{".services.ai.azure", AzureV1, false},
	{".openai.azure", Azure, false},
	{".cognitiveservices.azure", Azure, false},
	{".api.cognitive.microsoft", Azure, false}, // regional
	{".api.cognitive.azure", Azure, false},     // the same in China
	{".azure-api", Azure, true},                // API Management
}

// azureHost tells the dialect of a host of Azure, and whether it is a gateway;
// "" for any other host.
func azureHost(host string) (d Dialect, gateway bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if dot := strings.LastIndexByte(host, '.'); dot > 0 {
		for _, a := range azureDomains {
			if strings.HasSuffix(host[:dot], a.domain) {
				return a.dialect, a.gateway
			}
		}
	}
	return "", false
}

// inferDialect reads the dialect from a backend's URL.
func inferDialect(host, path string) Dialect {
	switch {
	case strings.HasSuffix(path, "/openai/v1"):
		return AzureV1
	case strings.HasSuffix(path, "/v1"):
		return OpenAI
	case strings.HasSuffix(path, "/deployments"):
		return Azure
	}
	if d, _ := azureHost(host); d != "" {
		return d
	}
	return OpenAI
}

// basePath is the base path that the escaped path of a backend's URL has. The
// dialect's paths begin with its prefix there, unless it is bare: a path that
// ends as they do is taken at its word, so that /ai/v1 of an AzureV1 backend is
// not /ai/openai/v1, nor /ai/deployments of an Azure one /ai/openai/deployments.
func basePath(d Dialect, path string) (base string, bare bool) {
	path = strings.TrimSuffix(path, "/")
	base, within := path, false
	if d == Azure {
		base, within = strings.CutSuffix(path, "/deployments")
	}
	if base, usual := strings.CutSuffix(base, wire.Prefix(d)); usual {
		return base, false
	}
	switch {
	case within, d == AzureV1 && strings.HasSuffix(path, "/v1"):
		return base, true
	case d == AzureV1:
		return strings.TrimSuffix(path, "/openai"), false
	}
	return path, false
}

// plainPath is a path without what goes without saying. basePath reads it as it
// reads the path itself.
func plainPath(d Dialect, path string) string {
	base, bare := basePath(d, path)
	again, _ := basePath(d, base)
	switch {
	case bare && d == Azure:
		return base + "/deployments"
	case !bare && again != base:
		return base + wire.Prefix(d)
	}
	return base
}

// An operationURL is the URL of one operation or deployment, such as portals
// and references show, taken apart.
type operationURL struct {
	path       string // of the backend's URL
	dialect    Dialect
	deployment string // "" when it names none
}

// parseOperationURL takes a clean path apart, which begins with a slash. It is
// not ok for the base path of a backend.
func parseOperationURL(host, path string, given Dialect) (o operationURL, ok bool) {
	own, gateway := azureHost(host)
	resource := own != "" && !gateway
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	at := func(i int) string {
		if i < 0 || i >= len(segments) {
			return ""
		}
		return segments[i]
	}
	upTo := func(n int) string {
		if n <= 0 {
			return ""
		}
		return "/" + strings.Join(segments[:n], "/")
	}
	// In the path the deployment comes after what it is in.
	deployment := func(i int) operationURL { // i is where "deployments" is
		name, _ := url.PathUnescape(at(i + 1))
		o := operationURL{upTo(i + 1), Azure, name}
		if at(i-1) == "openai" {
			o.path = upTo(i - 1)
		}
		return o
	}
	last := len(segments) - 1
	// What stands nearest to the operation counts.
	for i := last; i >= 0; i-- {
		if !wire.IsCollection(at(i)) && at(i) != "messages" {
			continue
		}
		switch {
		case at(i-2) == "deployments":
			return deployment(i - 2), true
		case at(i-1) == "v1" && at(i-2) == "anthropic" && resource:
			return operationURL{upTo(i - 2), AzureV1, ""}, true
		case at(i-1) == "v1":
			o = operationURL{path: upTo(i), dialect: inferDialect(host, upTo(i))}
			if at(i-2) == "openai" && resource {
				o.path = upTo(i - 2)
			}
			if given != "" && given != Azure {
				o.dialect = given
			}
			return o, true
		case at(i-1) == "openai":
			o = operationURL{path: upTo(i), dialect: given}
			if o.dialect == "" {
				o.dialect = inferDialect(host, o.path)
			}
			if resource {
				o = operationURL{upTo(i - 1), Azure, ""}
			}
			return o, true
		case at(i-1) == "models" && own != "":
			return operationURL{upTo(i - 1), AzureV1, ""}, true
		}
	}
	switch {
	case at(last-1) == "deployments" && (at(last-2) == "openai" || cmp.Or(given, inferDialect(host, path)) == Azure):
		return deployment(last - 1), true
	case resource && (at(last) == "models" || at(last) == "anthropic"):
		return operationURL{upTo(last), AzureV1, ""}, true
	}
	// Without any of these it takes a whole operation.
	for i := range segments {
		if op := strings.Join(segments[i:], "/"); strings.Contains(op, "/") && wire.DeploymentPaths[op] {
			o = operationURL{path: upTo(i), dialect: given}
			if o.dialect == "" {
				o.dialect = inferDialect(host, o.path)
			}
			return o, true
		}
	}
	return o, false
}

// isVersion is what an api-version looks like.
var isVersion = regexp.MustCompile(`^[A-Za-z0-9.-]{1,32}$`)

// onlyVersion tells that a query has nothing but an api-version.
func onlyVersion(u *url.URL) bool {
	for name := range u.Query() {
		if !strings.EqualFold(name, "api-version") {
			return false
		}
	}
	return true
}

// badOperationURL tells what to write in the place of the URL of an operation.
// Nothing of its query is shown but an api-version.
func badOperationURL(u *url.URL, o operationURL, bad func(field, format string, args ...any)) {
	path, _ := wire.SplitEscapedPath(o.path)
	backend := url.URL{Scheme: u.Scheme, Host: u.Host, Path: path, RawPath: o.path}
	format, args := "is the URL of one operation or deployment; write %q with dialect %q", []any{backend.String(), o.dialect}
	query := u.Query()
	for name, values := range query {
		if strings.EqualFold(name, "api-version") && o.dialect != OpenAI && isVersion.MatchString(values[0]) && !strings.HasPrefix(o.pathOf(u), "/models") {
			format, args = format+", APIVersion %q", append(args, values[0])
		}
	}
	if o.deployment != "" {
		format, args = format+", and model %q if it is to serve no other", append(args, o.deployment)
	}
	bad("URL", format, args...)
}

// pathOf is what comes after the backend's path.
func (o operationURL) pathOf(u *url.URL) string {
	return strings.TrimPrefix("/"+wire.CleanPath(u.EscapedPath()), o.path)
}

// A key is never the name of a variable, whatever writes those so: a shell, a
// Kubernetes manifest, a template, or the file of another gateway.
var variableName = regexp.MustCompile(`^(?:\$([A-Za-z_]\w{2,})|\$?\$\{([A-Za-z_]\w*).*|\$\(([A-Za-z_]\w*)\)|%([A-Za-z_]\w{2,})%|os\.environ/(\w*)|env[.:]([A-Za-z_]\w*)|\{\{.*\}\})$`)

// upperName is a name that nobody takes for a key.
var upperName = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)

// asVariable is what should be written for a key that is the name of a variable;
// "" for any other.
func asVariable(key string) string {
	m := variableName.FindStringSubmatch(key)
	if m == nil {
		return ""
	}
	name := "NAME"
	for _, found := range m[1:] {
		if upperName.MatchString(found) && len(found) <= 64 {
			name = found
		}
	}
	return fmt.Sprintf("${%s}", name)
}
