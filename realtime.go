package spillover

import (
	"net/url"
	"strings"
)

// upgrades tells of a WebSocket, as the realtime API has it. It names its model
// in the query: deployment on classic Azure, model elsewhere.
func (r *request) upgrades() bool {
	return strings.EqualFold(field(r.Header, "Upgrade"), "websocket")
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
// as the dialect spells it. Everything else stays as it was.
func renameQuery(raw string, d Dialect, deployment string) string {
	right := "model="
	if d == Azure {
		right = "deployment="
	}
	var query string
	for part := range strings.SplitSeq(raw, "&") {
		if name, _, _ := strings.Cut(part, "="); name == "model" || name == "deployment" {
			part, right = right+url.QueryEscape(deployment), ""
			if part == url.QueryEscape(deployment) {
				continue // named twice
			}
		}
		query = joinQuery(query, part)
	}
	return query
}
