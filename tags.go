package spillover

import (
	"context"
	"slices"
)

// WithTags restricts the requests of a context to backends that have all of the
// tags, see [Backend.Tags]: for example region=eu. This holds for everything that
// happens to the request: failover, fallback to other models, redirects, stored
// objects and probes. If no backend has all of the tags, nothing is sent and the
// response is a 400 that names them. Tags of an outer context, and those of
// [Config.Tags], apply as well. An empty tag matches no backend.
func WithTags(ctx context.Context, tags ...string) context.Context {
	return withOptions(ctx, func(o *options) { o.tags = slices.Concat(o.tags, tags) })
}

// hasTags reports whether the backend has all of the tags.
func (b *backend) hasTags(tags []string) bool {
	if len(tags) > maxTags {
		return false
	}
	for _, tag := range tags {
		if !slices.Contains(b.tags, tag) {
			return false
		}
	}
	return true
}

// withTags is the part of the route that a request with these tags may use, or nil
// if there is none.
func (r *route) withTags(tags []string) *route {
	if len(tags) == 0 || r == nil {
		return r
	}
	return r.filter(func(b *backend) bool { return b.hasTags(tags) })
}
