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
	"github.com/spillover-go/spillover/internal/wire"
)

// A backend is a configured [Backend], ready for use.
type backend struct {
	*sharedState
	name          string
	hash          uint64 // of the name
	scheme, host  string
	base          string // escaped base path, without a trailing slash
	bareBase      bool   // the base path replaces the dialect's prefix
	priority      int
	weight        int
	dialect       *wire.DialectSpec
	apiVersion    string
	key           string
	bearerKey     string // the key as an Authorization header
	token         TokenFunc
	headers       map[string]string // by canonical name
	hasCredential bool              // its own; callers' credentials are not sent to it
	presets       []defaultField
	tags          []string
	models        map[string]Model // by the name that callers use; nil: every model
	headerTimeout time.Duration
	idleTimeout   time.Duration
	fingerprint   fingerprint
}

// newBackend makes a backend of a normalized Backend.
func newBackend(b Backend) *backend {
	u, err := url.Parse(b.URL)
	if err != nil {
		panic(fmt.Sprintf("spillover: backend %q was not normalized: %v", b.Name, err))
	}
	base, bare := wire.BasePath(b.Dialect, u.EscapedPath())
	n := &backend{
		sharedState: new(sharedState), // replaced if an earlier configuration has the backend
		name:        b.Name, hash: stableHash(b.Name), scheme: u.Scheme, host: u.Host, base: base, bareBase: bare,
		priority: b.Priority, weight: b.Weight, dialect: wire.SpecOf(b.Dialect), apiVersion: b.APIVersion,
		key: b.APIKey, bearerKey: "Bearer " + b.APIKey, token: b.Token, presets: presets(b.Defaults), headerTimeout: b.HeaderTimeout, idleTimeout: b.IdleTimeout,
	}
	n.headers, n.hasCredential, n.tags = b.Headers, b.hasCredential(), b.Tags
	n.fingerprint = fingerprintOf(b)
	n.latest.Store(n)
	if len(b.Models) > 0 {
		n.models = make(map[string]Model, len(b.Models))
		for _, m := range b.Models {
			n.models[m.Name] = m
		}
	}
	return n
}

// assignResources gives each backend its resource: that of the same account in
// this or the earlier configuration, else a new one.
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

// sharesResource reports whether two backends belong to one resource: the same
// URL and the same account. A host of Azure is one resource whichever of its
// two keys or tokens is used. Elsewhere the key identifies the account.
func (b *backend) sharesResource(other *backend) bool {
	return b.scheme == other.scheme && strings.EqualFold(b.host, other.host) && b.base == other.base &&
		(b.key == other.key || ofAzure(b.host) && b.azureCredentials() && other.azureCredentials())
}

func (b *backend) azureCredentials() bool {
	return b.dialect.Credentials == wire.AzureCredentials
}

// reconfigured reports whether the backend sends requests in another way by
// now.
func (b *backend) reconfigured() bool {
	latest := b.latest.Load()
	return latest != nil && !latest.sameRequests(b)
}

// sameRequests reports whether two backends send requests with the same
// credential and in the same form. Token functions cannot be compared.
func (b *backend) sameRequests(other *backend) bool {
	return b.key == other.key && (b.token == nil) == (other.token == nil) && b.dialect == other.dialect && b.apiVersion == other.apiVersion &&
		maps.Equal(b.headers, other.headers)
}

// stableHash is FNV-1a: equal in every process and every version.
func stableHash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// A sharedState is what all deployments of a backend share. It outlives the
// configuration.
type sharedState struct {
	health.Connection
	drained  atomic.Bool             // by [Transport.Drain]
	resource *objects.Resource       // where its stored objects are
	failure  atomic.Pointer[Failure] // the last of any of its deployments
	episode  episode
	latest   atomic.Pointer[backend] // the backend as it is configured now
}

// presetNames assigns a bit to each field that the Defaults of any backend set.
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

// provider is the attribute gen_ai.provider.name.
func (b *backend) provider() string { return b.dialect.Provider }
