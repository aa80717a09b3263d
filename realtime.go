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

// queryKey is what a backend calls the model in the query of a request.
func (r *request) queryKey(b *backend) string {
	if b.dialect == Azure && r.upgrades() {
		return "deployment"
	}
	return "model"
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
