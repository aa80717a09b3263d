package spillover

import (
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// A lapse is a failure of a request's attempt.
type failedAttempt struct {
	d *deployment
	*Failure
}

// note keeps why an attempt failed, and makes its cause fit to be shown.
// secrets are what must not be in it, beside the credentials that are known here.
func (c *call) recordFailure(d *deployment, o outcome, secrets ...string) outcome {
	misspelt := o.verdict == rejected && strings.Contains(strings.ToLower(o.reason), "apiversion")
	if o.verdict == served || o.verdict == rejected && !misspelt {
		return o
	}
	if o.detail != "" {
		_, caller, _ := strings.Cut(wire.Header(c.Header, authHeader), " ")
		o.detail = presentable(o.detail, append(secrets, d.backend.key, caller, wire.Header(c.Header, keyHeader))...)
	}
	f := &Failure{Time: time.Now(), Status: o.status, Reason: o.reason, Cause: o.detail}
	d.failure.Store(f)
	d.backend.sharedState.failure.Store(f)
	// Looking for a stored object is no failure, nor is a request that is too large.
	missing := o.status == http.StatusNotFound && !c.seeking
	if misspelt || o.verdict == failed || o.verdict == declined && (!o.deploymentOnly || missing) {
		c.failedAttempts = append(c.failedAttempts, failedAttempt{d, f})
	}
	return o
}

// lastFailure is what Status has of a failure, if there was one.
func lastFailure(f *Failure) Failure {
	if f == nil {
		return Failure{}
	}
	return *f
}

// warn tells why a request had no success: for each cause once a minute.
func (c *call) warn(resp *http.Response) {
	log := c.telemetry.log
	if c.outcome == served.String() || c.outcome == outcomeCanceled || !log.Enabled(c.ctx, slog.LevelWarn) {
		return
	}
	now := time.Now()
	lapses := c.failedAttempts
	switch answeredBy := c.answeredBy; {
	case c.outcome == outcomeSynthesized && wire.Header(resp.Header, headerShouldRetry) == "":
		return // all are throttled: more of them is the remedy, and nothing is wrong
	case c.outcome == outcomeSynthesized:
		lapses = c.permanentFailures(now)
	case answeredBy != nil && !slices.ContainsFunc(lapses, func(l failedAttempt) bool { return l.d == answeredBy.deployment }):
		return // the caller's own mistake
	}
	for i, l := range lapses {
		same := func(other failedAttempt) bool { return other.Reason == l.Reason }
		if slices.IndexFunc(lapses, same) < i {
			continue
		}
		requests, due := c.pool.warnings.take(now, l.Reason)
		if !due {
			continue
		}
		var backends []string
		for _, other := range lapses {
			if same(other) && !slices.Contains(backends, other.d.backend.name) {
				backends = append(backends, other.d.backend.name)
			}
		}
		log.LogAttrs(c.ctx, slog.LevelWarn, "requests fail", l.attrs(c.pool.models.label(c.table, c.model), backends, requests)...)
	}
}

// known is why the deployments of the request are out, of those that waiting
// does not bring back.
func (c *call) permanentFailures(now time.Time) (lapses []failedAttempt) {
	for d := range c.route.all {
		if f := d.failure.Load(); f != nil && c.scope.hopeless(d, now) {
			lapses = append(lapses, failedAttempt{d, f})
		}
	}
	return lapses
}

// mostNames is how many backends a record names.
const mostNames = 16

func (l failedAttempt) attrs(model string, backends []string, requests int) []slog.Attr {
	attributes := []slog.Attr{slog.Any("backends", backends[:min(len(backends), mostNames)])}
	if len(backends) > mostNames {
		attributes = append(attributes, slog.Int("more_backends", len(backends)-mostNames))
	}
	if model != "" {
		attributes = append(attributes, slog.String("model", model))
	}
	attributes = append(attributes, slog.String("reason", l.Reason))
	if l.Status != 0 {
		attributes = append(attributes, slog.Int("status", l.Status))
		if _, code, ok := strings.Cut(l.Reason, " "); ok {
			attributes = append(attributes, slog.String("code", code))
		}
	}
	if l.Cause != "" {
		attributes = append(attributes, slog.String("error", l.Cause))
	}
	return append(attributes, slog.Int("requests", requests))
}

// Warnings are what was told of requests that fail, so that each cause is told
// once a minute.
type warnings struct {
	mu     sync.Mutex
	causes map[string]*warning
}

type warning struct {
	at   time.Time
	more int // requests that failed since and were not told of
}

const (
	warningPeriod = time.Minute
	// A code is the service's to choose: beyond so many causes there is one more.
	maxCauses  = 32
	otherCause = ""
)

// take counts a request that fails of a cause, and tells whether that is due to
// be told, and of how many requests.
func (w *warnings) take(now time.Time, cause string) (requests int, due bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.causes == nil {
		w.causes = map[string]*warning{}
	}
	if w.causes[cause] == nil && len(w.causes) >= maxCauses {
		for name, c := range w.causes {
			if now.Sub(c.at) >= warningPeriod {
				delete(w.causes, name)
			}
		}
		if len(w.causes) >= maxCauses {
			cause = otherCause
		}
	}
	c := w.causes[cause]
	switch {
	case c == nil:
		w.causes[strings.Clone(cause)] = &warning{at: now}
		return 1, true
	case now.Sub(c.at) < warningPeriod:
		c.more++
		return 0, false
	}
	requests, c.at, c.more = c.more+1, now, 0
	return requests, true
}

const (
	maxDetail = 256
	// What is read of a text: enough for what is shown, whatever is masked.
	maxRaw = 4096
	masked = "***"
)

// presentable is a text of a service, a credential or a connection as it may be
// shown: printable, short, and without what looks like a credential.
func presentable(text string, secrets ...string) string {
	if len(text) > maxRaw {
		// Not in the middle of a secret.
		text = text[:maxRaw]
		text = text[:max(0, strings.LastIndexByte(text, ' '))]
	}
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, text)
	for _, s := range secrets {
		// A shorter one is no key, and to take it out would spoil every word.
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, masked)
		}
	}
	text = userInfo.ReplaceAllString(text, "//"+masked+"@")
	text = bearers.ReplaceAllString(text, "$1 "+masked)
	text = namedValue.ReplaceAllString(text, "$1$2"+masked)
	text = words.ReplaceAllStringFunc(text, func(word string) string {
		if looksSecret(word) {
			return masked
		}
		return word
	})
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxDetail {
		text = text[:maxDetail-3] + "..."
	}
	return text
}

var (
	userInfo = regexp.MustCompile(`//[^/\s@]+@`)
	bearers  = regexp.MustCompile(`(?i)\b(bearer|basic|sharedkey)\s+[^\s,;"']+`)
	// A value with a name that says what it is, as in a query, JSON or a header.
	namedValue = regexp.MustCompile(`(?i)\b((?:[a-z_-]*(?:secret|password|passwd|pwd|assertion|signature|credential)|[a-z_-]*token|(?:[a-z]+[-_])*key|sig|authorization)["']?)(\s*=\s*["']?|\s*:\s*["']|:)[^\s,;&"']+`)
	words      = regexp.MustCompile(`[A-Za-z0-9~._+/=*%-]+`)

	keyPrefix = regexp.MustCompile(`(?i)^(sk|pk|rk|sess|ek|gh[pousr]|eyj)[-_a-z0-9]`)
	selfNamed = regexp.MustCompile(`(?i)^(secret|password)[-_].`)
	longRun   = regexp.MustCompile(`[A-Za-z0-9+=]{20,}`)
	hostName  = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+\.?$`)
)

// looksSecret tells whether a word may be a key or a token, or part of one.
func looksSecret(word string) bool {
	if name, ok := strings.CutSuffix(word, "="+masked); ok {
		word = name
	}
	path := strings.HasPrefix(word, "/")
	word = strings.Trim(word, "./=")
	digits, upper, lower := strings.ContainsAny(word, "0123456789"), strings.ToLower(word) != word, strings.ToUpper(word) != word
	switch {
	case word == masked:
		return false
	case strings.Contains(word, "**"): // a service masks, too, but not all of it
		return true
	case len(word) < 8 || hostName.MatchString(word):
		return false
	case keyPrefix.MatchString(word) && (digits || strings.HasPrefix(word, "sk-")), selfNamed.MatchString(word):
		return true
	case path:
		// A path, of which each part is a word.
		return slices.ContainsFunc(strings.Split(word, "/"), looksSecret)
	case longRun.MatchString(word) && (digits || len(word) >= 40):
		return true
	}
	return len(word) >= 24 && digits && upper && lower
}
