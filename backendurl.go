package spillover

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spillover-go/spillover/internal/wire"
)

// normalizeURL reduces URL to scheme://host and the base path, without the part
// that the dialect adds. It returns nil if the URL cannot be parsed.
func (b *Backend) normalizeURL(report reportFunc) *url.URL {
	if b.URL == "" {
		report("URL", "is missing")
		b.Dialect = cmp.Or(b.Dialect, OpenAI)
		return nil
	}
	text := b.URL
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		// The parser's error quotes the URL, which may hold a password.
		report("URL", "is not a valid URL")
		b.Dialect = cmp.Or(b.Dialect, OpenAI)
		return nil
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		report("URL", "scheme %q is neither https nor http", u.Scheme)
	}
	if u.Hostname() == "" {
		report("URL", "has no host")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			report("URL", "port %q is not between 1 and 65535", port)
		}
	}
	path := wire.CleanPath(u.EscapedPath())
	if path != "" {
		path = "/" + path
	}
	operation, isOperation := parseOperationURL(u.Hostname(), path, b.Dialect)
	if u.User != nil {
		report("URL", "has user info: the credential belongs in APIKey or Token")
	}
	if (u.RawQuery != "" || u.ForceQuery) && !(isOperation && onlyVersion(u)) {
		report("URL", "has a query: an api-version belongs in APIVersion, a credential in APIKey")
	}
	if u.Fragment != "" {
		report("URL", "has a fragment")
	}
	if isOperation {
		reportOperationURL(u, operation, report)
		path, b.Dialect = operation.path, cmp.Or(b.Dialect, operation.dialect)
	}
	if b.Dialect == "" {
		b.Dialect = inferDialect(u.Hostname(), path)
	}
	if b.Dialect == Azure && strings.HasSuffix(path, "/openai/v1") {
		report("URL", fmt.Sprintf("ends in /openai/v1, the path of dialect %q, but the dialect is %q", AzureV1, Azure))
	}
	u.Path, u.RawPath = wire.SplitEscapedPath(wire.ShortPath(b.Dialect, path))
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	b.URL = u.String()
	return u
}

// azureDomains are the domains of Azure without the last label, which depends on
// the cloud (.com, .net, .us, .cn), and their dialects.
var azureDomains = []struct {
	domain  string
	dialect Dialect
	gateway bool // its owner chooses its paths
}{
	{".services.ai.azure", AzureV1, false},
	{".openai.azure", Azure, false},
	{".cognitiveservices.azure", Azure, false},
	{".api.cognitive.microsoft", Azure, false}, // regional
	{".api.cognitive.azure", Azure, false},     // the same in China
	{".azure-api", Azure, true},                // API Management
}

// azureHost returns the dialect of a host of Azure, and whether it is a gateway.
// The dialect is "" for any other host.
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

// ofAzure reports whether a host is a resource of Azure.
func ofAzure(host string) bool {
	return underAzure(host, ".openai.azure", ".cognitiveservices.azure", ".services.ai.azure")
}

// ofFoundry reports whether a host is a resource of Microsoft Foundry.
func ofFoundry(host string) bool { return underAzure(host, ".services.ai.azure") }

// underAzure reports whether a host is under one of the domains, in any cloud:
// .com, .us, .cn.
func underAzure(host string, domains ...string) bool {
	host, _, _ = strings.Cut(strings.ToLower(host), ":")
	dot := strings.LastIndexByte(host, '.')
	return dot > 0 && slices.ContainsFunc(domains, func(d string) bool { return strings.HasSuffix(host[:dot], d) })
}

// inferDialect infers the dialect from a backend's URL.
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

// An operationURL holds the parts of the URL of one operation or deployment, as
// portals and references show it.
type operationURL struct {
	path       string // of the backend's URL
	dialect    Dialect
	deployment string // "" when it names none
}

// parseOperationURL parses a clean path that begins with a slash. ok is false for
// the base path of a backend.
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
	// The name of the deployment follows the segment "deployments".
	deployment := func(i int) operationURL { // i is where "deployments" is
		name, _ := url.PathUnescape(at(i + 1))
		o := operationURL{upTo(i + 1), Azure, name}
		if at(i-1) == "openai" {
			o.path = upTo(i - 1)
		}
		return o
	}
	last := len(segments) - 1
	// The part closest to the operation decides.
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
	// Otherwise only the path of a whole operation is recognized.
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

// isVersion matches what may be an api-version.
var isVersion = regexp.MustCompile(`^[A-Za-z0-9.-]{1,32}$`)

// onlyVersion reports whether a query has no parameter but an api-version.
func onlyVersion(u *url.URL) bool {
	for name := range u.Query() {
		if !strings.EqualFold(name, "api-version") {
			return false
		}
	}
	return true
}

// reportOperationURL reports what to write instead of the URL of an operation. It
// shows nothing of the query but an api-version.
func reportOperationURL(u *url.URL, o operationURL, report reportFunc) {
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
		format, args = format+", and model %q if it should serve no other", append(args, o.deployment)
	}
	report("URL", format, args...)
}

// pathOf returns what follows the path of the backend.
func (o operationURL) pathOf(u *url.URL) string {
	return strings.TrimPrefix("/"+wire.CleanPath(u.EscapedPath()), o.path)
}
