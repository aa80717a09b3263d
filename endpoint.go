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
	name            string
	hash            uint64 // of the name
	scheme, host    string
	base            string // escaped base path, without a trailing slash
	bareBase        bool   // the base path replaces the dialect's prefix
	priority        int
	weight          int
	dialect         *wire.DialectSpec
	apiVersion      string
	key             atomic.Pointer[credential] // nil without a key
	keyFile         *keyFile                   // that the key is read from; nil if it is fixed
	auth            string                     // the name of the source of token
	token           TokenFunc
	headers         map[string]string // by canonical name
	hasCredential   bool              // its own; callers' credentials are not sent to it
	drainedByConfig bool              // by Backend.Drained
	presets         []defaultField
	tags            []string
	models          map[string]Model // by the name that callers use; nil: every model
	headerTimeout   time.Duration
	idleTimeout     time.Duration
	failsOverOn     []int // FailoverStatuses
	fingerprint     fingerprint
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
		auth: b.Auth, token: b.Token, drainedByConfig: b.Drained, presets: presets(b.Defaults), headerTimeout: b.HeaderTimeout, idleTimeout: b.IdleTimeout,
	}
	if b.APIKey != "" {
		n.setKey(b.APIKey)
	}
	if b.APIKeyFile != "" {
		n.keyFile = newKeyFile(b.APIKeyFile)
	}
	n.headers, n.hasCredential, n.tags = b.Headers, b.hasCredential(), b.Tags
	n.fingerprint = fingerprintOf(b.asGiven())
	n.failsOverOn = b.FailoverStatuses
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
// two keys or tokens is used. Elsewhere the key, or the file that it is read from,
// identifies the account.
func (b *backend) sharesResource(other *backend) bool {
	return b.scheme == other.scheme && strings.EqualFold(b.host, other.host) && b.base == other.base &&
		(b.sameKey(other) || ofAzure(b.host) && b.azureCredentials() && other.azureCredentials())
}

func (b *backend) azureCredentials() bool {
	return b.dialect.Credentials == wire.AzureCredentials
}

// reconfigured reports whether the backend sends requests in another way by now
// than when an attempt was sent with a key, "" for none.
func (b *backend) reconfigured(key string) bool {
	latest := b.latest.Load()
	return latest != nil && (latest.currentKey().secret != key || !latest.sameForm(b))
}

// sameRequests reports whether two backends send requests with the same
// credential and in the same form.
func (b *backend) sameRequests(other *backend) bool {
	return b.currentKey().secret == other.currentKey().secret && b.sameForm(other)
}

// sameForm is sameRequests without the key. Token functions cannot be compared.
func (b *backend) sameForm(other *backend) bool {
	return b.auth == other.auth && (b.token == nil) == (other.token == nil) && b.dialect == other.dialect && b.apiVersion == other.apiVersion &&
		maps.Equal(b.headers, other.headers)
}

// A credential is what a request is sent with.
type credential struct {
	secret        string // the key or the bearer token; "" for the caller's own credential
	authorization string // the value of the Authorization header, if the secret belongs there
}

// setKey changes the key.
func (b *backend) setKey(key string) {
	c := credential{secret: key}
	if b.dialect.KeyHeader == authHeader {
		c.authorization = "Bearer " + key
	}
	b.key.Store(&c)
}

// currentKey returns the key; the zero value if the backend has none.
func (b *backend) currentKey() credential {
	if k := b.key.Load(); k != nil {
		return *k
	}
	return credential{}
}

// sameKey reports whether two backends have the same key, or both none. A file is
// the same key even if only one of them has noticed that it changed.
func (b *backend) sameKey(other *backend) bool {
	return b.keyFile != nil && other.keyFile != nil && b.keyFile.path == other.keyFile.path || b.currentKey().secret == other.currentKey().secret
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
	drained  atomic.Bool             // by [Transport.Drain] or [Backend.Drained]
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
