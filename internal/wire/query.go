package wire

import (
	"net/url"
	"strings"
)

// HasAPIVersion reports whether a query has an api-version that is not empty.
func HasAPIVersion(raw string) bool {
	for part := range strings.SplitSeq(raw, "&") {
		if name, value, _ := strings.Cut(part, "="); value != "" && strings.EqualFold(name, "api-version") {
			return true
		}
	}
	return false
}

// JoinQuery appends a part to a query. Either may be empty.
func JoinQuery(query, part string) string {
	if query == "" || part == "" {
		return query + part
	}
	return query + "&" + part
}

// QueryModel returns the model or deployment that a query names, or "".
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

// ReplaceQueryModel replaces the model in a query by a deployment, and its key by key.
// The other parameters are unchanged.
func ReplaceQueryModel(raw string, key, deployment string) string {
	return EditQuery(raw, func(name, parameter string) string {
		if name != "model" && name != "deployment" {
			return parameter
		}
		if key == "" {
			return "" // the model is there twice
		}
		parameter, key = key+"="+url.QueryEscape(deployment), ""
		return parameter
	})
}

// EditQuery replaces the parameters of a raw query. It calls edit for each parameter,
// with its name as written. If edit returns "" the parameter is removed.
func EditQuery(raw string, edit func(name, parameter string) string) string {
	var query string
	for parameter := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		query = JoinQuery(query, edit(name, parameter))
	}
	return query
}
