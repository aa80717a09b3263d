package wire

import (
	"net/url"
	"strings"
)

// hasDotSegments reports whether a segment of an escaped path is "." or "..", or
// contains one after unescaping: servers and proxies resolve such segments. The name of
// a deployment may contain dots and slashes, so it is checked only as a whole.
func hasDotSegments(escaped string) bool {
	if !strings.Contains(escaped, ".") && !strings.Contains(escaped, "%2") {
		return false
	}
	name := false // the current segment is the name of a deployment
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

// CutSegment returns the first segment of an escaped path and the path after it.
// Repeated slashes count as one.
func CutSegment(path string) (segment, rest string) {
	path = strings.TrimLeft(path, "/")
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// CleanPath returns an escaped path without leading, trailing and repeated slashes.
func CleanPath(path string) string {
	path = strings.Trim(path, "/")
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// SplitEscapedPath returns an escaped path as the fields Path and RawPath of a URL.
func SplitEscapedPath(escaped string) (path, rawPath string) {
	path, _ = url.PathUnescape(escaped) // the escaping is valid: the path was parsed or built here
	return path, escaped                // RawPath is always set, because url.URL escapes Path differently
}
