package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/spillover-go/spillover/internal/replay"
)

// A bodyMemory bounds the bytes of request bodies that all exchanges hold together. A
// request that would exceed it is refused, and does not wait: others would wait behind it
// for callers that send slowly.
type bodyMemory struct {
	limit int64 // 0 means none

	mu    sync.Mutex // guards the following fields, and those of holdings
	held  int64
	byKey map[string]int64 // by the name of the key; without those that hold nothing
}

// A holding is what one exchange holds of a bodyMemory.
type holding struct {
	of    *bodyMemory
	key   string // its name; "" without keys
	bytes int64
	ended bool
}

// fits reports whether an exchange may hold n bytes more. A key may hold as much as is
// free: alone at most half, and two of them a third each. So something is left for a key
// that holds nothing yet.
func (h *holding) fits(n int64) bool {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	return h.of.fits(h.key, n)
}

func (m *bodyMemory) fits(key string, n int64) bool {
	free := m.limit - m.held - n
	return m.limit == 0 || free >= 0 && (key == "" || m.byKey[key]+n <= free)
}

// take holds n bytes more, if they fit.
func (h *holding) take(n int64) bool {
	m := h.of
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.ended {
		return true // net/http refuses reads of a body whose handler has returned
	}
	if !m.fits(h.key, n) {
		return false
	}
	h.add(n)
	return true
}

// add changes what is held. The caller holds mu.
func (h *holding) add(n int64) {
	h.bytes += n
	h.of.held += n
	if h.key == "" {
		return
	}
	if h.of.byKey[h.key] += n; h.of.byKey[h.key] == 0 {
		delete(h.of.byKey, h.key)
	}
}

// release gives back what is held.
func (h *holding) release() {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.add(-h.bytes)
}

// end gives back what is held, for good.
func (h *holding) end() {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.add(-h.bytes)
	h.ended = true
}

var errOverloaded = errors.New("the proxy holds as many bytes of request bodies as it may")

// A heldReader holds what is read of src, up to most bytes.
type heldReader struct {
	src  io.Reader
	held *holding
	most int64
}

// heldAtOnce is how many bytes are read at most until they are counted.
const heldAtOnce = 32 << 10

// Read implements [io.Reader].
func (r *heldReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p[:min(len(p), heldAtOnce)]) // that of a WebSocket fills p
	if more := min(int64(n), r.most); more > 0 {
		if !r.held.take(more) {
			return 0, errOverloaded
		}
		r.most -= more
	}
	return n, err
}

// hold makes a reader of a body of some length, -1 if that is unknown, which holds what is
// kept in memory. It is nil if there is no room.
//
// All of a body is kept to check its models. Otherwise the transport keeps what it can send
// again, and reads that before it sends anything. It may send a body that is declared longer
// while it arrives, so there must be room for that from the start.
func (e *exchange) hold(src io.Reader, length int64) io.Reader {
	most := int64(replay.MaxBuffered)
	if e.key != nil && e.key.Models != nil {
		most = e.proxy.options.MaxBody
	}
	switch {
	case length > most && e.held.take(most):
		return src
	case length <= most && e.held.fits(max(length, 0)):
		return &heldReader{src, &e.held, most}
	}
	return nil
}

// overloaded is the response to a request for whose body there is no room.
func overloaded() *problem {
	return &problem{status: http.StatusServiceUnavailable, kind: "server_error", code: "overloaded",
		message: "The proxy holds too many request bodies at the moment. Please retry after a second.",
		header:  map[string]string{"Retry-After": "1", "Connection": "close"}} // the rest of the body is not read
}
