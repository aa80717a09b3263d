package spillover

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// A Backend is one endpoint: a URL, its credential, its place among the others
// and the models it serves.
type Backend struct {
	// Name tells the backend in answers, errors and [Status].
	// Default: the URL's host.
	Name string

	// URL is https://host[:port][/base/path], or http; a bare host means
	// https. A path that ends as the dialect's own paths begin (/openai,
	// /openai/v1, /v1) may be given or left out. A gateway whose paths have no
	// /openai is written with what they do have: /base/path/deployments for
	// [Azure], /base/path/v1 for [AzureV1]. User info, query and fragment are
	// mistakes, and so is the URL of one operation or deployment, as a portal
	// shows it: the error says what to write.
	URL string

	// Priority is the tier: 1 is used first, 2 when no backend of 1 can take
	// the request, and so on. 0 means 1.
	Priority int

	// Weight is the share of the traffic within the tier. 0 means 1.
	Weight int

	// Dialect is how the backend spells URLs, models and credentials.
	// Default: read from the URL, see [Dialect].
	Dialect Dialect

	// APIVersion replaces the api-version of requests, for [Azure] and
	// [AzureV1]. Default: the request's own. A request to Azure that has none, as
	// callers of other dialects send it, gets 2024-10-21, the latest stable one,
	// or 2025-04-01-preview for what that lacks: responses, realtime, images,
	// speech, assistants, threads, vector stores and all that is not known.
	// AzureV1 needs none.
	APIVersion string

	// APIKey is the backend's key. Without it, without Token and without a key
	// in Headers the backend is sent the caller's own credential, if that has the
	// dialect's form. Where other backends have a credential, [Config.Logger] gets
	// a warning of that.
	APIKey string

	// Token gives a bearer token, such as one of Entra ID. It excludes APIKey.
	Token TokenFunc

	// Headers are set on each request to this backend, in the place of the
	// caller's of the same name: such as an Ocp-Apim-Subscription-Key of API
	// Management, or an OpenAI-Organization. Their values are never printed. One
	// with a key (Ocp-Apim-Subscription-Key, X-Api-Key, X-Functions-Key or
	// X-Goog-Api-Key) is a credential of the backend's own, as APIKey and Token
	// are. Authorization and api-key are left to those; headers of the connection
	// (Host, Content-…, Transfer-Encoding and the like) cannot be set.
	Headers map[string]string

	// Models are what the backend serves. Empty: every model, each under its
	// own name.
	Models []Model

	// Defaults are fields of the body that this backend sets where the caller
	// left them out, such as a max_completion_tokens or a temperature, in JSON
	// requests that generate text: chat completions, completions and responses.
	// Of the maximum of output tokens each has its own name (max_tokens or
	// max_completion_tokens, and max_output_tokens): it is set only where it
	// belongs, and not beside one of the caller's. Values are what
	// [encoding/json] can marshal; model and stream cannot be set. Bodies beyond
	// 32 MiB are left as they are. [Load] gives numbers as [json.Number], so that
	// they are sent as they stand in the file.
	Defaults map[string]any

	// HeaderTimeout is how long an attempt may take until its answer begins:
	// with the first byte of its body or, for a stream, with its first content,
	// which keep-alive events are not. Then the request fails over. It counts
	// from the send, the time to connect and to send the body included. JSON
	// answers usually come as a whole at their end: allow for the longest. For
	// operations that store something it ends with the header. 0 means no limit.
	HeaderTimeout time.Duration

	// IdleTimeout is the longest silence inside an answer after it has begun.
	// In a stream only content ends a silence: events and comments that keep
	// the connection alive do not. Then the caller's read fails with an error
	// whose Timeout method reports true; with [Config.HoldStreams] the request
	// fails over. 0 means no limit.
	IdleTimeout time.Duration
}

// String is the backend without its credential, so that a configuration can be
// printed.
func (b Backend) String() string { return fmt.Sprintf("%s(%s)", b.Name, withoutUser(b.URL)) }

// GoString is String.
func (b Backend) GoString() string { return b.String() }

// withoutUser is a URL as far as it is sure to hold no password and no key.
func withoutUser(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// A Model is what callers ask for and what a backend calls it.
type Model struct {
	// Name is what callers ask for: the model of a JSON body, or the
	// deployment of a classic Azure path.
	Name string

	// Deployment is what the backend calls it. Default: Name.
	Deployment string

	// RPM and TPM are limits in requests and tokens a minute, for a service
	// that does not report them. A deployment that has spent one is passed over
	// while another can take the request. 0 means unknown.
	RPM, TPM int
}

// A TokenFunc gives the bearer token for one attempt. It is called for each
// attempt with the request's context, by many goroutines at once: it should
// keep its token until that is about to expire. Its error moves the request on
// to another backend.
type TokenFunc func(context.Context) (string, error)

// A Dialect is how a backend spells URLs, model names and credentials.
//
// Unless it is given it is read from the backend's URL: a path that ends in
// /openai/v1 is [AzureV1], one that ends in /v1 is [OpenAI], and one that ends in
// /deployments is [Azure]; else a host under services.ai.azure.com is AzureV1,
// another of Azure's (openai.azure.com, cognitiveservices.azure.com,
// api.cognitive.microsoft.com, azure-api.net and their sovereign clouds) is
// Azure, and every other host is OpenAI.
type Dialect = wire.Dialect

const (
	// Azure is /openai/deployments/{deployment}/…?api-version=…, with the
	// credential in api-key, or in Authorization where it is a token.
	Azure = wire.Azure
	// AzureV1 is /openai/v1/… with the deployment as the model of the body,
	// and credentials as for Azure.
	AzureV1 = wire.AzureV1
	// OpenAI is /v1/… with the model in the body and the credential in
	// Authorization.
	OpenAI = wire.OpenAI
)

// ofAzure tells of a host that is one of Azure's resources.
func ofAzure(host string) bool {
	return underAzure(host, ".openai.azure", ".cognitiveservices.azure", ".services.ai.azure")
}

// ofFoundry tells of a host of Microsoft Foundry.
func ofFoundry(host string) bool { return underAzure(host, ".services.ai.azure") }

// underAzure tells whether a host is under one of the domains, in any cloud:
// .com, .us, .cn.
func underAzure(host string, domains ...string) bool {
	host, _, _ = strings.Cut(strings.ToLower(host), ":")
	dot := strings.LastIndexByte(host, '.')
	return dot > 0 && slices.ContainsFunc(domains, func(d string) bool { return strings.HasSuffix(host[:dot], d) })
}

func credentialForm(d Dialect) string {
	if d == OpenAI {
		return "openai"
	}
	return "azure"
}

// normalize fills in the defaults and tells every mistake.
func (b *Backend) normalize(bad func(field, format string, args ...any)) {
	u := b.normalizeURL(bad)
	if b.Name == "" && u != nil {
		b.Name = u.Host
	}
	if !wire.IsPrintableASCII(b.Name) || len(b.Name) > 128 {
		bad("Name", "must be at most 128 printable ASCII characters, as it is sent in a header")
	}
	if b.Priority < 0 {
		bad("Priority", "%d is negative", b.Priority)
	}
	b.Priority = cmp.Or(b.Priority, 1)
	if b.Weight < 0 || b.Weight > maxWeight {
		bad("Weight", "%d is not between 0 and "+strconv.Itoa(maxWeight), b.Weight)
	}
	b.Weight = cmp.Or(b.Weight, 1)
	if b.HeaderTimeout < 0 {
		bad("HeaderTimeout", "%v is negative", b.HeaderTimeout)
	}
	if b.IdleTimeout < 0 {
		bad("IdleTimeout", "%v is negative", b.IdleTimeout)
	}
	switch b.Dialect {
	case Azure, AzureV1, OpenAI:
		if b.APIVersion != "" && b.Dialect == OpenAI {
			bad("APIVersion", fmt.Sprintf("is for the dialects %q and %q, this is %q", Azure, AzureV1, b.Dialect))
		}
	default:
		bad("Dialect", fmt.Sprintf("%%q is none of %q, %q, %q", Azure, AzureV1, OpenAI), b.Dialect)
	}
	if url.QueryEscape(b.APIVersion) != b.APIVersion {
		bad("APIVersion", "%q needs escaping in a URL, so it is none", b.APIVersion)
	}
	if b.APIKey != "" && b.Token != nil {
		bad("APIKey", "excludes Token")
	}
	if variable := asVariable(b.APIKey); variable != "" {
		bad("APIKey", "is the name of a variable, not a key: in a file write %s; a program reads it with os.Getenv", variable)
	}
	// The key itself must not appear in the error.
	if !wire.IsPrintableASCII(b.APIKey) || strings.Contains(b.APIKey, " ") {
		bad("APIKey", "has a space, a line break or a character that is not ASCII")
	}
	b.normalizeHeaders(bad)
	b.normalizeModels(bad)
	b.normalizeDefaults(bad)
}

// hasCredential tells whether the backend has one of its own.
func (b *Backend) hasCredential() bool {
	return b.APIKey != "" || b.Token != nil ||
		slices.ContainsFunc(gatewayKeys, func(name string) bool { return b.Headers[name] != "" })
}

// connectionHeaders are for net/http to set, and concern one connection alone.
var connectionHeaders = []string{
	"Host", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect",
}

// normalizeHeaders leaves Headers with canonical names. No value of theirs may
// appear in an error.
func (b *Backend) normalizeHeaders(bad func(field, format string, args ...any)) {
	if len(b.Headers) == 0 {
		b.Headers = nil
		return
	}
	named := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(b.Headers)) {
		value, canonical := b.Headers[name], http.CanonicalHeaderKey(name)
		_, twice := named[canonical]
		named[canonical] = value
		switch name := shorten(name); {
		case !isToken(canonical):
			bad("Headers", "%q is not the name of a header", name)
		case twice:
			bad("Headers", "%q is there twice, in upper and lower case", name)
		case canonical == keyHeader || canonical == authHeader:
			bad("Headers", "%q belongs in APIKey or Token", name)
		case isOneOf(canonical, connectionHeaders) || strings.HasPrefix(canonical, "Content-") || strings.HasPrefix(canonical, headerPrefix):
			bad("Headers", "%q cannot be set", name)
		case value == "":
			bad("Headers", "%q is empty", name)
		case !wire.IsPrintableASCII(value) || strings.TrimSpace(value) != value:
			bad("Headers", "the value of %q has a space at an end, a line break or a character that is not ASCII", name)
		}
	}
	b.Headers = named
}

// isToken tells whether a text can be the name of a header (RFC 9110, 5.6.2).
func isToken(s string) bool {
	return s != "" && wire.IsPrintableASCII(s) && !strings.ContainsAny(s, " \"(),/:;<=>?@[\\]{}")
}

// maxWeight keeps the sum of the weights of many backends within an int32.
const maxWeight = 1_000_000

// normalizeURL leaves URL as scheme://host and the base path, without the part
// that the dialect adds itself. It is nil when there is no telling.
func (b *Backend) normalizeURL(bad func(field, format string, args ...any)) *url.URL {
	if b.URL == "" {
		bad("URL", "is missing")
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
		bad("URL", "is not a URL")
		b.Dialect = cmp.Or(b.Dialect, OpenAI)
		return nil
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		bad("URL", "scheme %q is neither https nor http", u.Scheme)
	}
	if u.Hostname() == "" {
		bad("URL", "has no host")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			bad("URL", "port %q is not between 1 and 65535", port)
		}
	}
	path := wire.CleanPath(u.EscapedPath())
	if path != "" {
		path = "/" + path
	}
	operation, isOperation := parseOperationURL(u.Hostname(), path, b.Dialect)
	if u.User != nil {
		bad("URL", "has user info: the credential belongs into APIKey or Token")
	}
	if (u.RawQuery != "" || u.ForceQuery) && !(isOperation && onlyVersion(u)) {
		bad("URL", "has a query: an api-version belongs into APIVersion, a credential into APIKey")
	}
	if u.Fragment != "" {
		bad("URL", "has a fragment")
	}
	if isOperation {
		badOperationURL(u, operation, bad)
		path, b.Dialect = operation.path, cmp.Or(b.Dialect, operation.dialect)
	}
	if b.Dialect == "" {
		b.Dialect = inferDialect(u.Hostname(), path)
	}
	if b.Dialect == Azure && strings.HasSuffix(path, "/openai/v1") {
		bad("URL", fmt.Sprintf("ends in /openai/v1, which is dialect %q, this is %q", AzureV1, Azure))
	}
	u.Path, u.RawPath = wire.SplitEscapedPath(plainPath(b.Dialect, path))
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	b.URL = u.String()
	return u
}

func (b *Backend) normalizeModels(bad func(field, format string, args ...any)) {
	b.Models = slices.Clone(b.Models)
	seen := map[string]bool{}
	for i := range b.Models {
		m := &b.Models[i]
		if m.Name == "" {
			bad("Models", fmt.Sprintf("model %d has no Name", i))
			continue
		}
		if seen[m.Name] {
			bad("Models", "%q is there twice", m.Name)
		}
		seen[m.Name] = true
		if m.RPM < 0 || m.TPM < 0 {
			bad("Models", "model %q: RPM or TPM is negative", m.Name)
		}
		m.Deployment = cmp.Or(m.Deployment, m.Name)
		if m.Deployment == "." || m.Deployment == ".." {
			bad("Models", "model %q: Deployment %q would change the path of a URL", m.Name, m.Deployment)
		}
	}
}
