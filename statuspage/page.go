package statuspage

import (
	"bytes"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spillover-go/spillover"
)

// A Source is what a [Page] shows. A [*spillover.Transport] is one.
type Source interface {
	// Status returns the present state. It is called by one goroutine at a time.
	Status() spillover.Status
}

// A Page is an [http.Handler] that shows the state of a Source. Requests for these
// paths, below any prefix, are answered:
//
//   - …/ is the page. A request for the prefix without the slash is redirected.
//   - …/status.json is the state for programs: the time, the [spillover.Status], and
//     the history.
//
// The page itself requests …/update.json and …/assets/…, whose formats may change. All
// other paths are answered 404, and methods other than GET and HEAD 405.
//
// A Page calls Status every 5 s, for the history of the last 15 minutes, and at most
// once more per second while somebody looks, however many do. The history has at most
// 500 deployments, which takes about 4 MB; the page lists at most 500 deployments, those
// that are not available first. It is safe for concurrent use.
type Page struct {
	source Source
	stop   func()
	done   chan struct{} // closed when the sampling has ended

	mu      sync.Mutex // guards the fields below, and is held while Status is called
	history history
	latest  *snapshot
}

const (
	sampleInterval = 5 * time.Second
	snapshotMaxAge = time.Second
)

// New makes a Page and begins to record its history, until Close.
func New(s Source) *Page {
	stop := make(chan struct{})
	p := &Page{source: s, stop: sync.OnceFunc(func() { close(stop) }), done: make(chan struct{})}
	p.sample(time.Now())
	go p.sampleUntil(stop)
	return p
}

// Close ends the recording of the history. The page goes on showing the present state.
// Close may be called more than once; its error is nil.
func (p *Page) Close() error {
	p.stop()
	<-p.done
	return nil
}

func (p *Page) sampleUntil(stop <-chan struct{}) {
	defer close(p.done)
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			p.sample(time.Now())
		}
	}
}

// sample adds the present state to the history.
func (p *Page) sample(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := p.source.Status()
	p.history.add(now, status)
	p.latest = &snapshot{at: now, status: status}
}

// A snapshot is the state at a time, and the responses that were made of it. Viewers
// share it.
type snapshot struct {
	at      time.Time
	status  spillover.Status
	html    []byte
	json    []byte
	updates map[int64][]byte // by the time of the last sample that the viewer has
}

// mostUpdates is how many different updates of a snapshot are kept.
const mostUpdates = 8

// respond returns a response that get makes of the present snapshot.
func (p *Page) respond(get func(*snapshot) ([]byte, error)) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.latest.at) >= snapshotMaxAge {
		p.latest = &snapshot{at: now, status: p.source.Status()}
	}
	return get(p.latest)
}

// ServeHTTP implements [http.Handler].
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setHeader(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	dir, file := path.Split(r.URL.Path)
	assetsDir := strings.HasSuffix(dir, "/assets/")
	switch {
	case r.URL.Path == "" || mountedAt(r, r.URL.Path):
		redirectToSlash(w, r)
	case assetsDir && assets[file].body != nil:
		serveAsset(w, r, assets[file])
	case assetsDir:
		http.NotFound(w, r)
	case file == "":
		p.serve(w, r, "text/html; charset=utf-8", p.html)
	case file == "status.json":
		p.serve(w, r, "application/json", p.json)
	case file == "update.json":
		after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64) // 0: everything
		p.serve(w, r, "application/json", func(s *snapshot) ([]byte, error) { return p.update(s, after) })
	default:
		http.NotFound(w, r)
	}
}

// setHeader sets what all responses have: a browser must neither run nor load anything
// but the assets, whatever text of a service a mistake should let into the page.
func setHeader(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
		"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// mountedAt reports whether a pattern of an [http.ServeMux] has exactly this path,
// which does not end in a slash. Links in the page would then miss their directory.
func mountedAt(r *http.Request, at string) bool {
	if strings.HasSuffix(at, "/") {
		return false
	}
	_, pattern, ok := strings.Cut(r.Pattern, "/") // after the method and the host
	return ok && "/"+pattern == at
}

// redirectToSlash redirects relative to the last segment of the path that the browser
// sees, since a prefix may have been removed here or in a proxy.
func redirectToSlash(w http.ResponseWriter, r *http.Request) {
	seen := r.URL
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
		seen = u
	}
	target := url.URL{Path: "./" + path.Base("/"+seen.Path) + "/"}
	w.Header().Set("Location", target.EscapedPath())
	w.WriteHeader(http.StatusTemporaryRedirect)
}

func (p *Page) serve(w http.ResponseWriter, r *http.Request, mediaType string, get func(*snapshot) ([]byte, error)) {
	body, err := p.respond(get)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // an error means that the viewer has left
	}
}

func serveAsset(w http.ResponseWriter, r *http.Request, a asset) {
	// The name changes with the content.
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("Content-Type", a.mediaType)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.body))
}
