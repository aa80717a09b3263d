package spillover

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/objects"
)

// A backend is a configured Backend, ready for use.
type backend struct {
	*sharedState
	name          string
	hash          uint64 // of the name
	scheme, host  string
	base          string // escaped base path, without a slash at its end
	bareBase      bool   // the dialect's paths begin with it alone
	priority      int
	weight        int
	dialect       Dialect
	apiVersion    string
	key           string
	bearerKey     string // the same as OpenAI wants it
	token         TokenFunc
	headers       map[string]string // by their canonical names
	hasCredential bool              // it has a credential of its own: the callers' are not for it
	presets       []defaultField
	models        map[string]Model // by what callers ask for; nil: everything
	headerTimeout time.Duration
	idleTimeout   time.Duration
}

// newBackend takes a Backend over that was normalized.
func newBackend(b Backend) *backend {
	u, err := url.Parse(b.URL)
	if err != nil {
		panic(fmt.Sprintf("spillover: backend %q was not normalized: %v", b.Name, err))
	}
	base, bare := basePath(b.Dialect, u.EscapedPath())
	n := &backend{
		sharedState: new(sharedState), // unless it has one already
		name:        b.Name, hash: stableHash(b.Name), scheme: u.Scheme, host: u.Host, base: base, bareBase: bare,
		priority: b.Priority, weight: b.Weight, dialect: b.Dialect, apiVersion: b.APIVersion,
		key: b.APIKey, bearerKey: "Bearer " + b.APIKey, token: b.Token, presets: presets(b.Defaults), headerTimeout: b.HeaderTimeout, idleTimeout: b.IdleTimeout,
	}
	n.headers, n.hasCredential = b.Headers, b.hasCredential()
	n.latest.Store(n)
	if len(b.Models) > 0 {
		n.models = make(map[string]Model, len(b.Models))
		for _, m := range b.Models {
			n.models[m.Name] = m
		}
	}
	return n
}

// house gives each backend the resource that it is of: the one that its entry
// had in an earlier configuration, or that another entry of the same account
// has, now or before; else a new one.
func assignResources(backends, before []*backend) {
	for _, b := range backends {
		for _, others := range [...][]*backend{backends, before} {
			for _, other := range others {
				if b.resource == nil && other.resource != nil && b.sharesResource(other) {
					b.resource = other.resource
				}
			}
		}
		if b.resource == nil {
			b.resource = new(objects.Resource)
		}
	}
}

// sharesResource tells whether two backends are entries of one resource: at the
// same place, with the same account. A host of Azure's own is one resource,
// whichever of its two keys or tokens it is asked with; elsewhere the key tells
// the account.
func (b *backend) sharesResource(other *backend) bool {
	return b.scheme == other.scheme && strings.EqualFold(b.host, other.host) && b.base == other.base &&
		(b.key == other.key || b.dialect != OpenAI && other.dialect != OpenAI && ofAzure(b.host))
}

// outdated tells that by now the backend is asked otherwise.
func (b *backend) reconfigured() bool {
	latest := b.latest.Load()
	return latest != nil && !latest.sameRequests(b)
}

// asks tells whether another backend sends requests with the same credential,
// in the same form. Token functions cannot be compared.
func (b *backend) sameRequests(other *backend) bool {
	return b.key == other.key && (b.token == nil) == (other.token == nil) && b.dialect == other.dialect && b.apiVersion == other.apiVersion &&
		maps.Equal(b.headers, other.headers)
}

// stableHash is FNV-1a: the same in every process and every version.
func stableHash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// A link is what is known of a backend, which all its deployments share. It
// outlives the configuration.
type sharedState struct {
	health.Connection
	drained  atomic.Bool
	resource *objects.Resource       // that the backend is an entry of
	failure  atomic.Pointer[Failure] // the last one of any of its deployments
	latest   atomic.Pointer[backend] // the backend as it is configured
}

// presetNames assigns a bit to each name among the presets of backends.
func presetNames(backends []*backend) (names []string) {
	for _, b := range backends {
		for i := range b.presets {
			p := &b.presets[i]
			at := slices.Index(names, p.name)
			if at < 0 {
				at, names = len(names), append(names, p.name)
			}
			p.bit = 1 << at
		}
	}
	return names
}
