package wire

import (
	"strings"
)

// A Target is what the path of a request asks for, independent of how the dialect
// spells it.
type Target struct {
	Dialect        Dialect   // of the caller's path; "" if the path is not recognised
	Operation      string    // escaped, without a leading slash: "chat/completions"
	node           *pathNode // of Operation in the table; nil if it is not there
	Model          string    // the deployment in a classic Azure path
	ModelSegment   string    // Model as it stands in the path, escaped
	RawPath        string    // the whole escaped path
	Foundry        bool      // an operation of Microsoft Foundry: it is sent unchanged, to backends of that kind
	HasDotSegments bool      // a segment is "." or "..", so a server may resolve the path to another one
}

// ParsePath parses an escaped URL path. Everything before the dialect's prefix is the
// caller's base path and is not sent to a backend. If there are several prefixes, the
// one that is followed by the most specific operation counts. Whole segments are
// compared, so that a deployment can be called "chat" or "v1".
func ParsePath(escaped string) Target {
	best := Target{RawPath: escaped}
	if best.HasDotSegments = hasDotSegments(escaped); best.HasDotSegments {
		return best
	}
	specificity := 0 // of best: 1 for a prefix alone, 2 if an operation follows, 3 if its collection is in the table, 4 if the operation is in the table
	for segment, rest := CutSegment(escaped); segment != ""; segment, rest = CutSegment(rest) {
		if specificity == 0 && (segment == "models" || segment == "anthropic") {
			if op := CleanPath(segment + rest); foundryTree.find(op).isOperation() {
				return Target{Operation: op, node: foundryTree.find(op), RawPath: escaped, Foundry: true}
			}
		}
		t, after, ok := prefixAt(segment, rest)
		if !ok {
			continue
		}
		rest, t.RawPath = after, escaped
		t.Operation = CleanPath(rest)
		root, _ := CutSegment(t.Operation)
		n := 1
		if t.Operation != "" {
			n = 2
		}
		if IsCollection(root) {
			n = 3
			if operationTree.find(t.Operation).isOperation() {
				n = 4
			}
		}
		// A prefix inside the path of a complete operation is an id.
		if n > specificity || n == specificity && n < 4 {
			specificity, best = n, t
		}
	}
	if specificity == 0 {
		// The caller's base URL has no /v1. Below models there is only a name:
		// /models/a/b belongs to another service.
		root, rest := CutSegment(escaped)
		if !IsCollection(root) || root == "models" && strings.Count(CleanPath(rest), "/") > 0 {
			return best
		}
		best.Dialect, best.Operation = OpenAI, CleanPath(escaped)
	}
	best.node = operationTree.find(best.Operation)
	return best
}

// NamesDeployment reports whether the classic Azure path for this target contains the
// deployment.
func (t Target) NamesDeployment(deployment string) bool {
	return deployment != "" && (t.Model != "" || DeploymentPaths[t.Operation])
}

// DefaultAPIVersion returns the api-version of a request to classic Azure that has
// none: the latest stable one if it has the operation, else the latest preview (Azure's
// data plane specifications). Of the image models, the stable version has only DALL-E.
func (t Target) DefaultAPIVersion() string {
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

// Spec returns the row of the table for a request with this target.
func (t Target) Spec(method string) *Spec {
	if t.Operation == "" {
		return UnknownSpec
	}
	return t.node.spec(method)
}
