package spillover

import (
	"net/url"
	"strings"
)

// A target is what a request's path asks for, apart from how its dialect
// spells that.
type target struct {
	dialect Dialect   // as the caller spelt it; "" where the path is none we know
	op      string    // escaped, without a leading slash: "chat/completions"
	node    *pathNode // of op in the table of operations; nil when it is not there
	model   string    // the deployment of a classic Azure path
	segment string    // the same as it stood in the path, escaped
	raw     string    // the whole escaped path
	foundry bool      // an operation of Microsoft Foundry: sent as it came, to backends of that kind
	dots    bool      // the path has a segment that would lead elsewhere, as ".." does
}

// parsePath reads an escaped URL path. What stands before the dialect's prefix
// is the caller's base path and no concern of a backend: of several prefixes
// the one that is nearest to an operation counts. Segments are compared as
// segments, so that a deployment called "chat" or "v1" is only a name.
func parsePath(escaped string) target {
	best := target{raw: escaped}
	if best.dots = hasDots(escaped); best.dots {
		return best
	}
	rank := 0 // of best: 1 for a prefix alone, 2 with something behind it, 3 with a collection of the table, 4 with an operation of it
	for segment, rest := cutSegment(escaped); segment != ""; segment, rest = cutSegment(rest) {
		if rank == 0 && (segment == "models" || segment == "anthropic") {
			if op := clean(segment + rest); foundryTree.find(op).isOperation() {
				return target{op: op, node: foundryTree.find(op), raw: escaped, foundry: true}
			}
		}
		t := target{raw: escaped}
		next, after := cutSegment(rest)
		switch {
		case segment == "openai" && next == "deployments":
			var err error
			t.segment, after = cutSegment(after)
			if t.model, err = url.PathUnescape(t.segment); err != nil || t.segment == "" {
				continue
			}
			t.dialect, rest = Azure, after
		case segment == "openai" && next == "v1":
			t.dialect, rest = AzureV1, after
		case segment == "openai":
			t.dialect = Azure
		case segment == "v1" && next != "openai":
			t.dialect = OpenAI
		default:
			continue
		}
		t.op = clean(rest)
		root, _ := cutSegment(t.op)
		n := 1
		if t.op != "" {
			n = 2
		}
		if isCollection(root) {
			n = 3
			if operationTree.find(t.op).isOperation() {
				n = 4
			}
		}
		// What looks like a prefix inside of a whole operation is an id.
		if n > rank || n == rank && n < 4 {
			rank, best = n, t
		}
	}
	if rank == 0 {
		// A caller whose base URL has no /v1. Below models there are only names:
		// /models/a/b is another service's.
		root, rest := cutSegment(escaped)
		if !isCollection(root) || root == "models" && strings.Count(clean(rest), "/") > 0 {
			return best
		}
		best.dialect, best.op = OpenAI, clean(escaped)
	}
	best.node = operationTree.find(best.op)
	return best
}

// isOperation tells whether the table has an operation of exactly this path.
func (n *pathNode) isOperation() bool { return n != nil && len(n.specs) > 0 }

// hasDots tells whether a segment of an escaped path is "." or "..", or has one
// in it once it is unescaped: servers and proxies resolve these. The name of a
// deployment is a name, unless it is nothing else.
func hasDots(escaped string) bool {
	if !strings.Contains(escaped, ".") && !strings.Contains(escaped, "%2") {
		return false
	}
	name := false // the segment at hand is the name of a deployment
	last := ""
	for segment, rest := cutSegment(escaped); segment != ""; segment, rest = cutSegment(rest) {
		plain, err := url.PathUnescape(segment)
		if err != nil {
			plain = segment
		}
		if name {
			if plain == "." || plain == ".." {
				return true
			}
		} else {
			for part := range strings.FieldsFuncSeq(plain, func(r rune) bool { return r == '/' || r == '\\' }) {
				if part == "." || part == ".." {
					return true
				}
			}
		}
		name = !name && last == "openai" && segment == "deployments"
		last = segment
	}
	return false
}

// namesDeployment tells whether a classic Azure path for this names the deployment.
func (t target) namesDeployment(deployment string) bool {
	return deployment != "" && (t.model != "" || deployedPaths[t.op])
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
// the latest stable one for what that has, else the latest preview (Azure's
// specifications of its data plane). Of the models that make pictures the stable
// one knows DALL-E alone.
func (t target) defaultVersion() string {
	switch root, _ := cutSegment(t.op); root {
	case "chat", "completions", "embeddings", "files", "uploads", "batches", "fine_tuning", "models", "":
		return stableVersion
	case "audio":
		if t.op != "audio/speech" {
			return stableVersion
		}
	}
	return previewVersion
}

const (
	stableVersion  = "2024-10-21"
	previewVersion = "2025-04-01-preview"
)

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
	path, _ = url.PathUnescape(escaped) // which it can be
	return path, escaped                // always both: Path alone is escaped in a way of its own
}

func queryModel(raw string) string {
	for part := range strings.SplitSeq(raw, "&") {
		if name, value, _ := strings.Cut(part, "="); name == "model" || name == "deployment" {
			if model, err := url.QueryUnescape(value); err == nil && model != "" {
				return model
			}
		}
	}
	return ""
}

// renameQuery puts a deployment in the place of the model that a query names,
// under a key. Everything else stays as it was.
func renameQuery(raw string, key, deployment string) string {
	var query string
	for part := range strings.SplitSeq(raw, "&") {
		if name, _, _ := strings.Cut(part, "="); name == "model" || name == "deployment" {
			if key == "" {
				continue // named twice
			}
			part, key = key+"="+url.QueryEscape(deployment), ""
		}
		query = joinQuery(query, part)
	}
	return query
}

// spec is the row of the table for a request with this target.
func (t target) spec(method string) *compiledSpec {
	if t.op == "" {
		return unknownSpec
	}
	return t.node.spec(method)
}
