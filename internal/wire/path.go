package wire

import (
	"net/url"
	"strings"
)

// A Target is what a request's path asks for, apart from how its dialect
// spells that.
type Target struct {
	Dialect   Dialect   // as the caller spelt it; "" where the path is none we know
	Operation string    // escaped, without a leading slash: "chat/completions"
	node      *pathNode // of op in the table of operations; nil when it is not there
	Model     string    // the deployment of a classic Azure path
	Segment   string    // the same as it stood in the path, escaped
	Raw       string    // the whole escaped path
	Foundry   bool      // an operation of Microsoft Foundry: sent as it came, to backends of that kind
	Dots      bool      // the path has a segment that would lead elsewhere, as ".." does
}

// ParsePath reads an escaped URL path. What stands before the dialect's prefix
// is the caller's base path and no concern of a backend: of several prefixes
// the one that is nearest to an operation counts. Segments are compared as
// segments, so that a deployment called "chat" or "v1" is only a name.
func ParsePath(escaped string) Target {
	best := Target{Raw: escaped}
	if best.Dots = hasDots(escaped); best.Dots {
		return best
	}
	Rank := 0 // of best: 1 for a prefix alone, 2 with something behind it, 3 with a collection of the table, 4 with an operation of it
	for segment, rest := CutSegment(escaped); segment != ""; segment, rest = CutSegment(rest) {
		if Rank == 0 && (segment == "models" || segment == "anthropic") {
			if op := CleanPath(segment + rest); FoundryTree.Find(op).isOperation() {
				return Target{Operation: op, node: FoundryTree.Find(op), Raw: escaped, Foundry: true}
			}
		}
		t, after, ok := prefixAt(segment, rest)
		if !ok {
			continue
		}
		rest, t.Raw = after, escaped
		t.Operation = CleanPath(rest)
		root, _ := CutSegment(t.Operation)
		n := 1
		if t.Operation != "" {
			n = 2
		}
		if IsCollection(root) {
			n = 3
			if OperationTree.Find(t.Operation).isOperation() {
				n = 4
			}
		}
		// What looks like a prefix inside of a whole operation is an id.
		if n > Rank || n == Rank && n < 4 {
			Rank, best = n, t
		}
	}
	if Rank == 0 {
		// A caller whose base URL has no /v1. Below models there are only names:
		// /models/a/b is another service's.
		root, rest := CutSegment(escaped)
		if !IsCollection(root) || root == "models" && strings.Count(CleanPath(rest), "/") > 0 {
			return best
		}
		best.Dialect, best.Operation = OpenAI, CleanPath(escaped)
	}
	best.node = OperationTree.Find(best.Operation)
	return best
}

// isOperation tells whether the table has an operation of exactly this path.
func (n *pathNode) isOperation() bool { return n != nil && len(n.Specs) > 0 }

// hasDots tells whether a segment of an escaped path is "." or "..", or has one
// in it once it is unescaped: servers and proxies resolve these. The name of a
// deployment is a name, unless it is nothing else.
func hasDots(escaped string) bool {
	if !strings.Contains(escaped, ".") && !strings.Contains(escaped, "%2") {
		return false
	}
	name := false // the segment at hand is the name of a deployment
	last := ""
	for segment, rest := CutSegment(escaped); segment != ""; segment, rest = CutSegment(rest) {
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

// NamesDeployment tells whether a classic Azure path for this names the deployment.
func (t Target) NamesDeployment(deployment string) bool {
	return deployment != "" && (t.Model != "" || DeploymentPaths[t.Operation])
}

func HasVersion(raw string) bool {
	for part := range strings.SplitSeq(raw, "&") {
		if name, value, _ := strings.Cut(part, "="); value != "" && strings.EqualFold(name, "api-version") {
			return true
		}
	}
	return false
}

// DefaultVersion is the api-version of a request to classic Azure that has none:
// the latest stable one for what that has, else the latest preview (Azure's
// specifications of its data plane). Of the models that make pictures the stable
// one knows DALL-E alone.
func (t Target) DefaultVersion() string {
	switch root, _ := CutSegment(t.Operation); root {
	case "chat", "completions", "embeddings", "files", "uploads", "batches", "fine_tuning", "models", "":
		return stableVersion
	case "audio":
		if t.Operation != "audio/speech" {
			return stableVersion
		}
	}
	return previewVersion
}

const (
	stableVersion  = "2024-10-21"
	previewVersion = "2025-04-01-preview"
)

func JoinQuery(query, part string) string {
	if query == "" || part == "" {
		return query + part
	}
	return query + "&" + part
}

// CutSegment is the first segment of an escaped path and what comes after it;
// doubled slashes make no segment.
func CutSegment(path string) (segment, rest string) {
	path = strings.TrimLeft(path, "/")
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// CleanPath is an escaped path without slashes at its ends and without doubled ones.
func CleanPath(path string) string {
	path = strings.Trim(path, "/")
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// SplitEscapedPath is an escaped path as the two fields of a URL.
func SplitEscapedPath(escaped string) (path, rawPath string) {
	path, _ = url.PathUnescape(escaped) // which it can be
	return path, escaped                // always both: Path alone is escaped in a way of its own
}

func QueryModel(raw string) string {
	for part := range strings.SplitSeq(raw, "&") {
		if name, value, _ := strings.Cut(part, "="); name == "model" || name == "deployment" {
			if model, err := url.QueryUnescape(value); err == nil && model != "" {
				return model
			}
		}
	}
	return ""
}

// RenameQuery puts a deployment in the place of the model that a query names,
// under a key. Everything else stays as it was.
func RenameQuery(raw string, key, deployment string) string {
	var query string
	for part := range strings.SplitSeq(raw, "&") {
		if name, _, _ := strings.Cut(part, "="); name == "model" || name == "deployment" {
			if key == "" {
				continue // named twice
			}
			part, key = key+"="+url.QueryEscape(deployment), ""
		}
		query = JoinQuery(query, part)
	}
	return query
}

// Spec is the row of the table for a request with this target.
func (t Target) Spec(method string) *Spec {
	if t.Operation == "" {
		return UnknownSpec
	}
	return t.node.Spec(method)
}
