package proxy

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
)

// An inFlight counts the requests in progress of each key. It counts by name, so that a
// reload of the keys does not forget requests.
type inFlight struct {
	mu    sync.Mutex
	byKey map[string]int // without keys that have none
}

// begin counts a request, unless its key has as many as it may. k is nil without keys.
func (f *inFlight) begin(k *keys.Key) bool {
	if k == nil {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if k.MaxInFlight > 0 && f.byKey[k.Name] >= k.MaxInFlight {
		return false
	}
	f.byKey[k.Name]++
	return true
}

// end takes back what begin has counted.
func (f *inFlight) end(k *keys.Key) {
	if k == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byKey[k.Name]--; f.byKey[k.Name] == 0 {
		delete(f.byKey, k.Name)
	}
}

// tooMany is the response to a request of a key that has as many in flight as it may.
func tooMany(k *keys.Key) *problem {
	return &problem{status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "max_in_flight",
		message: fmt.Sprintf("The key has %d requests in flight, as many as it may have. Please retry after a second.", k.MaxInFlight),
		header:  map[string]string{"Retry-After": "1"}}
}
