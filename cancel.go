package spillover

import (
	"net/http"
)

// canceled reports whether a request's Cancel channel is closed.
func canceled(req *http.Request) bool {
	select {
	case <-req.Cancel:
		return true
	default:
		return false
	}
}
