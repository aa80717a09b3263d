package spillover

import (
	"net/http"
)

// canceled tells whether a request's Cancel is closed.
func canceled(req *http.Request) bool {
	select {
	case <-req.Cancel:
		return true
	default:
		return false
	}
}
