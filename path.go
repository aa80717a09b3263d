package spillover

import (
	"net/url"
	"strings"
)

// A target is what a request's path asks for, apart from how its dialect
// spells that.
type target struct {
	dialect Dialect // as the caller spelt it; "" where the path is none we know
	op      string  // escaped, without a leading slash: "chat/completions"
	model   string  // the deployment of a classic Azure path
	segment string  // the same as it stood in the path, escaped
	raw     string  // the whole escaped path
}

// parsePath reads an escaped URL path. What stands before the dialect's prefix
// is the caller's base path and no concern of a backend. Segments are compared
// as segments, so that a deployment called "chat" or "v1" is only a name.
func parsePath(escaped string) target {
	for segment, rest := cutSegment(escaped); segment != ""; segment, rest = cutSegment(rest) {
		next, after := cutSegment(rest)
		switch {
		case segment == "openai" && next == "deployments":
			name, op := cutSegment(after)
			model, err := url.PathUnescape(name)
			if name == "" || err != nil {
				return target{raw: escaped}
			}
			return target{dialect: Azure, op: clean(op), model: model, segment: name, raw: escaped}
		case segment == "openai" && next == "v1":
			return target{dialect: AzureV1, op: clean(after), raw: escaped}
		case segment == "openai":
			return target{dialect: Azure, op: clean(rest), raw: escaped}
		case segment == "v1" && next != "openai":
			return target{dialect: OpenAI, op: clean(rest), raw: escaped}
		}
	}
	// A caller whose base URL has no /v1.
	if root, rest := cutSegment(escaped); operationRoots[root] && (root != "models" || strings.Count(clean(rest), "/") == 0) {
		return target{dialect: OpenAI, op: clean(escaped), raw: escaped}
	}
	return target{raw: escaped}
}

// operationRoots are the first segments of OpenAI's operations (its API
// reference). Below models there are only names: /models/chat/completions is
// another service's.
var operationRoots = set("assistants", "audio", "batches", "chat", "completions", "containers", "conversations",
	"embeddings", "evals", "files", "fine_tuning", "images", "models", "moderations", "realtime", "responses",
	"threads", "uploads", "vector_stores", "videos")

// deploymentRouted are the operations for which a classic Azure path names the
// deployment; the others take the model from the body (the SDKs' own tables,
// and Azure's reference).
var deploymentRouted = set("chat/completions", "completions", "embeddings", "audio/transcriptions",
	"audio/translations", "audio/speech", "images/generations", "images/edits")

// stateless are the operations that leave nothing behind at the service: any
// deployment of the model can answer them, and answer them again.
var stateless = set("chat/completions", "completions", "embeddings", "moderations", "responses",
	"responses/input_tokens", "responses/compact", "audio/speech", "audio/transcriptions", "audio/translations",
	"images/generations", "images/edits", "images/variations")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

// path is the escaped path for a backend, under the name that the backend has
// for the model.
func (t target) path(b *backend, deployment string) string {
	slash := "/"
	if t.op == "" {
		slash = ""
	}
	switch {
	case t.dialect == "":
		return b.base + "/" + strings.TrimPrefix(t.raw, "/")
	case b.dialect != Azure || !t.namesDeployment(deployment):
		return b.prefix() + slash + t.op
	case deployment == t.model:
		return b.prefix() + "/deployments/" + t.segment + slash + t.op // escaped as it came
	}
	return b.prefix() + "/deployments/" + url.PathEscape(deployment) + slash + t.op
}

// namesDeployment tells whether a classic Azure path for this names the deployment.
func (t target) namesDeployment(deployment string) bool {
	return deployment != "" && (t.model != "" || deploymentRouted[t.op])
}

// query is the query for a backend, byte for byte the caller's but for
// api-version: a backend's own replaces it, and one that was meant for a
// classic path goes no further than that.
func (t target) query(b *backend, raw string) string {
	version := b.apiVersion
	if version == "" && b.dialect == Azure && t.dialect != Azure && (t.dialect == AzureV1 || !hasVersion(raw)) {
		version = t.defaultVersion()
	}
	keep := version == "" && (b.dialect == Azure || b.dialect == AzureV1 && t.dialect != Azure) || t.dialect == ""
	if keep || raw == "" && version == "" {
		return raw
	}
	if version != "" {
		version = "api-version=" + version
	}
	if !strings.Contains(strings.ToLower(raw), "api-version") {
		return joinQuery(raw, version)
	}
	var query string
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if !strings.EqualFold(name, "api-version") {
			query = joinQuery(query, part)
			continue
		}
		query, version = joinQuery(query, version), ""
	}
	return joinQuery(query, version)
}

func hasVersion(raw string) bool {
	for part := range strings.SplitSeq(raw, "&") {
		if name, value, _ := strings.Cut(part, "="); value != "" && strings.EqualFold(name, "api-version") {
			return true
		}
	}
	return false
}

// defaultVersion is the api-version of a request to classic Azure that has none:
// the latest stable one, or the latest preview for what that lacks.
func (t target) defaultVersion() string {
	switch root, _ := cutSegment(t.op); root {
	case "responses", "realtime":
		return "2025-04-01-preview"
	}
	return "2024-10-21"
}

func joinQuery(query, part string) string {
	if query == "" || part == "" {
		return query + part
	}
	return query + "&" + part
}

// cutSegment is the first segment of an escaped path and what comes after it;
// doubled slashes make no segment.
func cutSegment(path string) (segment, rest string) {
	path = strings.TrimLeft(path, "/")
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// clean is an escaped path without slashes at its ends and without doubled ones.
func clean(path string) string {
	path = strings.Trim(path, "/")
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// unescapePath is an escaped path as the two fields of a URL.
func unescapePath(escaped string) (path, rawPath string) {
	path, err := url.PathUnescape(escaped)
	if err != nil {
		return escaped, ""
	}
	return path, escaped // always both: Path alone is escaped in a way of its own
}
