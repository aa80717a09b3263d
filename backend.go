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

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/spillover-go/spillover/internal/wire"
)

// A Backend is one endpoint: its URL, its credential, its tier and the models it
// serves.
type Backend struct {
	// Name identifies the backend in responses, errors and [Status]. At most 128
	// characters of printable ASCII. Default: the URL's host, with its port.
	Name string

	// URL is https://host[:port][/base/path], or http; a host alone means https.
	// The start of the dialect's own paths (/openai, /openai/v1, /v1) may be
	// written at the end or left out. If the paths of a gateway have no /openai,
	// write the part that they do have: /base/path/deployments for [Azure],
	// /base/path/v1 for [AzureV1]. User info, a query and a fragment are errors. So
	// is the URL of a single operation or deployment, as portals show it: the error
	// says what to write instead.
	URL string

	// Priority is the tier: backends with 1 are used first, those with 2 when no
	// backend with 1 can take the request, and so on. 0 means 1.
	Priority int

	// Weight is the backend's share of the traffic within the tier, relative to the
	// weights of the others, at most 1,000,000. 0 means 1. If all weights of a tier are
	// 1, the shares follow the token limits that are configured or reported.
	Weight int

	// Dialect is the API flavour of the backend: its URLs, model names and
	// credentials. Default: inferred from the URL, see [Dialect].
	Dialect Dialect

	// APIVersion replaces the api-version of requests, for [Azure] and [AzureV1].
	// Default: the api-version of the request. A request to Azure without one, as
	// sent by callers of other dialects, gets 2024-10-21, the latest stable
	// version, or 2025-04-01-preview for what that version lacks: responses,
	// realtime, images, speech, assistants, threads, vector stores and all unknown
	// operations. AzureV1 needs none.
	APIVersion string

	// APIKey is the key of the backend. A backend without APIKey, APIKeyFile, Auth
	// and Token, and without a key in Headers, is sent the caller's own credential,
	// if it has the form of the dialect. If other backends have a credential, a
	// warning about that is logged to [Config.Logger].
	APIKey string

	// APIKeyFile is the path of a file that contains the key, such as a mounted
	// Secret of Kubernetes. A relative path is relative to the directory of the
	// configuration file, or, if it is set in a program, to the working directory.
	// White space around the key is ignored. The file must be a regular file of at
	// most 64 KiB. It is read by New and Reconfigure, and again by requests: at most
	// once a second, and when the backend answers 401 or 403. If the file is missing
	// or invalid by then, the last key stays in use and a warning is logged. Replace
	// the file by a rename, so that half a key is never read. APIKeyFile cannot be
	// combined with APIKey, Auth or Token.
	APIKeyFile string

	// Auth is the name of a registered source of bearer tokens, see [RegisterAuth].
	// Importing the module github.com/spillover-go/spillover/entra registers
	// "entra", which uses the Entra ID identity that the program runs with. Auth
	// cannot be combined with APIKey, APIKeyFile or Token.
	Auth string

	// Token returns a bearer token, for example of Entra ID. It cannot be combined
	// with APIKey, APIKeyFile or Auth.
	Token TokenFunc

	// Headers are set on each request to this backend and replace the caller's
	// headers of the same name: for example Ocp-Apim-Subscription-Key of API
	// Management, or OpenAI-Organization. Their values are never printed. A header
	// with a key (Ocp-Apim-Subscription-Key, X-Api-Key, X-Functions-Key or
	// X-Goog-Api-Key) is a credential of the backend, as APIKey is.
	// Authorization and api-key cannot be set here, as they hold the credential of
	// APIKey, APIKeyFile, Auth or Token, nor can headers of the connection (Host,
	// Content-…, Transfer-Encoding and the like).
	Headers map[string]string

	// Tags are properties of the backend that requests may demand, such as region=eu:
	// see [WithTags]. At most 64, each of 1 to 128 bytes of printable ASCII.
	Tags []string

	// Drained takes the backend out of use, as [Transport.Drain] does: it gets no
	// new request, and requests in flight finish. Removing it from the configuration
	// brings the backend back, unless Drain was called for it, too.
	Drained bool

	// Models are the models that the backend serves. Empty means every model, each
	// under its own name.
	Models []Model

	// Defaults are fields that this backend adds to the JSON body of a request that
	// generates text (chat completions, completions and responses) where the caller
	// left them out, for example max_completion_tokens or temperature. The name of
	// the maximum of output tokens depends on the operation (max_tokens,
	// max_completion_tokens or max_output_tokens): it is added only where it is
	// valid, and only if the caller set no maximum. The values can be
	// anything that [encoding/json] can marshal; model and stream cannot be set.
	// Bodies larger than 32 MiB are not changed. [Load] returns numbers as
	// [json.Number], so they are sent exactly as written in the file.
	Defaults map[string]any

	// FailoverStatuses are statuses from 400 to 599 that mean at this backend that another
	// one may serve the request, in addition to those that docs/failover.md lists: for
	// example 451, or 400 of a gateway that validates requests. The request fails over;
	// nothing is held against the deployment. What creates something at the service is
	// not sent again, nor is a request that a content filter has refused. It is the status
	// of the response that counts, not an error within a stream.
	FailoverStatuses []int

	// HeaderTimeout is the time limit for the first token: how long an attempt may
	// take until its response begins, with the first byte of the body or, for a
	// stream, with the first content. Keep-alive events are not content. After that
	// the request fails over. The time counts from when the attempt is sent and
	// includes connecting and sending the body. JSON responses usually arrive as a
	// whole when they are complete: allow for the longest. For operations that
	// store something, the limit ends with the response header. 0 means no limit.
	HeaderTimeout time.Duration

	// IdleTimeout is the longest pause inside a response after it has begun. In a
	// stream only content ends a pause: events and comments that keep the
	// connection alive do not. After that the caller's read fails with an error
	// whose Timeout method returns true; with [Config.HoldStreams] the request
	// fails over. 0 means no limit.
	IdleTimeout time.Duration
}

// String returns the name and the URL of the backend, without its credential.
func (b Backend) String() string { return fmt.Sprintf("%s(%s)", b.Name, withoutUser(b.URL)) }

// GoString returns String, so that %#v does not print the credential either.
func (b Backend) GoString() string { return b.String() }

// withoutUser returns the parts of a URL that cannot hold a password or a key.
func withoutUser(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// A Model maps the name that callers use to a deployment of the backend.
type Model struct {
	// Name is the name that callers use: the model of a JSON body, or the
	// deployment of a classic Azure path.
	Name string

	// Deployment is the name that the backend uses. Default: Name.
	Deployment string

	// ContextTokens is how many tokens the deployment takes in one request, prompt and
	// maximum output together. A request that is estimated to be longer is sent to
	// deployments that take more, and with [Config.Fallbacks] to other models; if there
	// are none it is sent anyway. 0 means unknown.
	ContextTokens int

	// MaxInFlight is how many requests of this process the deployment takes at a time,
	// for a self-hosted server that queues requests instead of refusing them. A stream
	// keeps its place until its body has ended or is closed. A full deployment is
	// skipped. If all are full a request waits for a place with [Config.MaxWait], and is
	// answered 429 otherwise. 0 means no limit.
	MaxInFlight int

	// RPM and TPM are limits in requests and tokens per minute, for a service that
	// does not report them. A deployment that has reached one is skipped while
	// another can take the request. 0 means unknown.
	RPM, TPM int
}

// A TokenFunc returns the bearer token for one attempt. It is called for each
// attempt with the request's context, by many goroutines at once, so it should
// cache its token until shortly before that expires. If it returns an error, the
// request fails over to another backend.
type TokenFunc func(context.Context) (string, error)

// A Dialect is the API flavour of a backend: its URLs, model names and
// credentials.
//
// If it is not set it is inferred from the backend's URL. A path that ends in
// /openai/v1 is [AzureV1], one that ends in /v1 is [OpenAI], and one that ends in
// /deployments is [Azure]. Otherwise the host decides: one under
// services.ai.azure.com is AzureV1; another host of Azure (openai.azure.com,
// cognitiveservices.azure.com, api.cognitive.microsoft.com, azure-api.net and
// their sovereign clouds) is Azure; every other host is OpenAI.
//
// It is a string: "azure", "azure-v1" or "openai".
type Dialect = wire.Dialect

const (
	// Azure, "azure", has the paths /openai/deployments/{deployment}/…?api-version=…, with
	// the key in api-key or the bearer token in Authorization.
	Azure = wire.Azure
	// AzureV1, "azure-v1", has the paths /openai/v1/…, with the deployment as the model of the
	// body, and credentials as for Azure.
	AzureV1 = wire.AzureV1
	// OpenAI, "openai", has the paths /v1/…, with the model in the body and the credential in
	// Authorization.
	OpenAI = wire.OpenAI
)

// dialects lists the dialects that suit, for an error.
func dialects(separator string, suit func(*wire.DialectSpec) bool) string {
	var names []string
	for i := range wire.Dialects {
		if suit(&wire.Dialects[i]) {
			names = append(names, strconv.Quote(string(wire.Dialects[i].Name)))
		}
	}
	return strings.Join(names, separator)
}

// normalize sets the defaults and reports every error of a single field. It returns
// the URL, nil if that cannot be parsed.
func (b *Backend) normalize(report reportFunc) (u *url.URL) {
	u = b.normalizeURL(report)
	if b.Name == "" && u != nil {
		b.Name = u.Host
	}
	if !wire.IsPrintableASCII(b.Name) || len(b.Name) > 128 {
		report("Name", "must be at most 128 printable ASCII characters, because it is sent in a header")
	}
	if b.Priority < 0 {
		report("Priority", "%d is negative", b.Priority)
	}
	b.Priority = cmp.Or(b.Priority, 1)
	if b.Weight < 0 || b.Weight > maxWeight {
		report("Weight", "%d is not between 0 and "+strconv.Itoa(maxWeight), b.Weight)
	}
	b.Weight = cmp.Or(b.Weight, 1)
	if b.HeaderTimeout < 0 {
		report("HeaderTimeout", "%v is negative", b.HeaderTimeout)
	}
	if b.IdleTimeout < 0 {
		report("IdleTimeout", "%v is negative", b.IdleTimeout)
	}
	if wire.SpecOf(b.Dialect).Name == "" {
		var names []string
		for i := range wire.Dialects {
			names = append(names, string(wire.Dialects[i].Name))
		}
		report("Dialect", "must be one of "+dialects(", ", func(*wire.DialectSpec) bool { return true })+", not %q"+configfile.Suggestion(string(b.Dialect), names), b.Dialect)
	}
	if url.QueryEscape(b.APIVersion) != b.APIVersion {
		report("APIVersion", "%q is not a valid api-version", b.APIVersion)
	}
	b.checkCredentials(report)
	b.normalizeHeaders(report)
	b.normalizeTags(report)
	b.normalizeFailoverStatuses(report)
	b.normalizeModels(report)
	b.normalizeDefaults(report)
	return u
}

// checkCredentials reports the errors in the credentials. It reads no file and asks
// no source of tokens.
func (b *Backend) checkCredentials(report reportFunc) {
	first := ""
	for _, c := range []struct {
		field string
		set   bool
	}{{"APIKey", b.APIKey != ""}, {"APIKeyFile", b.APIKeyFile != ""}, {"Auth", b.Auth != ""}, {"Token", b.Token != nil}} {
		switch {
		case c.set && first == "":
			first = c.field
		case c.set:
			report(first, "cannot be combined with "+c.field)
		}
	}
	if variable := variableReference(b.APIKey); variable != "" {
		report("APIKey", "is the name of a variable, not a key: in a file write %s, in a program use os.Getenv", variable)
	}
	// The key itself must not appear in the error.
	if err := checkKey(b.APIKey); err != nil {
		report("APIKey", err.Error())
	}
}

// resolveCredentials reads the key from APIKeyFile into APIKey, and gets Token from
// the source that Auth names.
func (b *Backend) resolveCredentials(u *url.URL, report reportFunc) {
	if b.APIKeyFile != "" && b.APIKey == "" {
		key, err := readKeyFile(b.APIKeyFile)
		if err != nil {
			report("APIKeyFile", "%q "+strings.ReplaceAll(err.Error(), "%", "%%"), b.APIKeyFile)
		}
		b.APIKey = key
	}
	if b.Auth == "" || b.Token != nil {
		return
	}
	newToken, err := authSource(b.Auth)
	switch {
	case err != nil:
		report("Auth", "%q "+err.Error(), b.Auth)
	case u != nil:
		own := *u // the source may change it
		if b.Token, err = newToken(&own); err != nil {
			report("Auth", "%q: %v", b.Auth, err)
		}
	}
}

// asGiven returns the backend without what resolveCredentials has set.
func (b Backend) asGiven() Backend {
	if b.APIKeyFile != "" {
		b.APIKey = ""
	}
	if b.Auth != "" {
		b.Token = nil
	}
	return b
}

// hasCredential reports whether the backend has a credential of its own.
func (b *Backend) hasCredential() bool {
	return b.APIKey != "" || b.APIKeyFile != "" || b.Auth != "" || b.Token != nil ||
		slices.ContainsFunc(gatewayKeys, func(name string) bool { return b.Headers[name] != "" })
}

// connectionHeaders are set by net/http and belong to a single connection.
var connectionHeaders = []string{
	"Host", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect",
}

// normalizeHeaders makes the names of Headers canonical. Their values must not
// appear in an error.
func (b *Backend) normalizeHeaders(report reportFunc) {
	if len(b.Headers) == 0 {
		b.Headers = nil
		return
	}
	named := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(b.Headers)) {
		value, canonical := b.Headers[name], http.CanonicalHeaderKey(name)
		_, twice := named[canonical]
		named[canonical] = value
		field := memberField("Headers", name)
		switch {
		case !isToken(canonical):
			report(field, "is not a valid header name")
		case twice:
			report(field, "is set twice, with different upper and lower case")
		case canonical == keyHeader || canonical == authHeader:
			report(field, "cannot be set here: the credential belongs in APIKey, APIKeyFile, Auth or Token")
		case isOneOf(canonical, connectionHeaders) || strings.HasPrefix(canonical, "Content-") || strings.HasPrefix(canonical, headerPrefix):
			report(field, "cannot be set")
		case value == "":
			report(field, "is empty")
		case !wire.IsPrintableASCII(value) || strings.TrimSpace(value) != value:
			report(field, "starts or ends with a space, or contains a line break or a character that is not ASCII")
		}
	}
	b.Headers = named
}

// isToken reports whether a text can be the name of a header (RFC 9110, 5.6.2).
func isToken(s string) bool {
	return s != "" && wire.IsPrintableASCII(s) && !strings.ContainsAny(s, " \"(),/:;<=>?@[\\]{}")
}

// maxTags limits the tags of a backend, and maxTagLength their length. A request with
// more tags matches no backend.
const (
	maxTags      = 64
	maxTagLength = 128
)

func (b *Backend) normalizeTags(report reportFunc) {
	b.Tags = slices.Clone(b.Tags)
	if len(b.Tags) > maxTags {
		report("Tags", "there are %d; at most "+strconv.Itoa(maxTags)+" are allowed", len(b.Tags))
	}
	for i, tag := range b.Tags {
		switch field := fmt.Sprintf("Tags[%d]", i); {
		case tag == "":
			report(field, "is empty")
		case len(tag) > maxTagLength || !wire.IsPrintableASCII(tag) || strings.TrimSpace(tag) != tag:
			report(field, "%.64q must be at most "+strconv.Itoa(maxTagLength)+" printable ASCII characters, without a space at its ends", tag)
		case slices.Contains(b.Tags[:i], tag):
			report(field, "%q is listed twice", tag)
		}
	}
}

func (b *Backend) normalizeFailoverStatuses(report reportFunc) {
	b.FailoverStatuses = slices.Clone(b.FailoverStatuses)
	for i, status := range b.FailoverStatuses {
		switch field := fmt.Sprintf("FailoverStatuses[%d]", i); {
		case status < 400 || status > 599:
			report(field, "%d is not between 400 and 599", status)
		case slices.Contains(b.FailoverStatuses[:i], status):
			report(field, "%d is listed twice", status)
		}
	}
}

// maxWeight keeps the sum of the weights of many backends within an int32.
const maxWeight = 1_000_000

func (b *Backend) normalizeModels(report reportFunc) {
	b.Models = slices.Clone(b.Models)
	seen := map[string]bool{}
	for i := range b.Models {
		m := &b.Models[i]
		field := func(name string) string { return fmt.Sprintf("Models[%d].%s", i, name) }
		if m.Name == "" {
			report(field("Name"), "is missing")
		} else if seen[m.Name] {
			report(field("Name"), "%q is listed twice", m.Name)
		}
		seen[m.Name] = true
		for _, n := range [...]struct {
			field string
			value int
		}{{"RPM", m.RPM}, {"TPM", m.TPM}, {"ContextTokens", m.ContextTokens}, {"MaxInFlight", m.MaxInFlight}} {
			if n.value < 0 {
				report(field(n.field), "%d is negative", n.value)
			}
		}
		m.Deployment = cmp.Or(m.Deployment, m.Name)
		if m.Deployment == "." || m.Deployment == ".." {
			report(field("Deployment"), "%q would change the path of a URL", m.Deployment)
		}
	}
}
