package spillover

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spillover-go/spillover/internal/wire"
)

// A CheckResult is what one backend has answered to [Transport.Check].
type CheckResult struct {
	Backend string `json:"backend"` // its name
	URL     string `json:"url"`     // that was asked, without its query

	// OK is whether the backend has answered with a list of models. A backend without a
	// credential of its own is also OK if it asks for one.
	OK     bool  `json:"ok"`
	Status int   `json:"status,omitempty"` // of the response; 0 without one
	TookMS int64 `json:"took_ms"`          // until the list was read, in milliseconds

	// Anonymous is whether it was asked without a credential, because it gets that of
	// callers.
	Anonymous bool `json:"anonymous,omitempty"`

	Models int `json:"models,omitempty"` // how many are in the list

	// NotListed are the deployments in [Backend.Models] that the list lacks. Not every
	// service lists all that it serves, so they may work. It is always empty for Azure,
	// whose list has base models and fine-tuned models, but no deployments
	// (https://learn.microsoft.com/rest/api/azureopenai/models/list).
	NotListed []string `json:"not_listed,omitempty"`

	Reason string `json:"reason,omitempty"` // why it is not OK, as in [Failure]
	Cause  string `json:"cause,omitempty"`  // the service's own message or the error, as in [Failure]
}

const (
	checkTimeout  = 10 * time.Second // for a backend without HeaderTimeout
	checksAtOnce  = 8                // backends that are asked at the same time
	maxModelsList = 4 << 20          // bytes that are read of a list of models
)

// Check asks each backend for its list of models and reports who answers, for example
// when a program starts. It shows whether names resolve, connections and TLS work, and
// keys and tokens are accepted. That is not billed.
//
// The order is that of the configuration. Backends are asked once each, eight at a
// time, also those that are drained or ejected. Each has its HeaderTimeout, else 10 s.
// Base and Token are called as for any request. Nothing changes because of the results:
// no cool-down, no ejection, no counter. They are not recorded as requests either.
//
// A gateway that does not have the operation answers 404. It may serve all others.
func (t *Transport) Check(ctx context.Context) []CheckResult {
	s := t.setup.Load()
	results := make([]CheckResult, len(s.table.backends))
	panics := make([]any, len(results))
	free := make(chan struct{}, checksAtOnce)
	var all sync.WaitGroup
	for i, b := range s.table.backends {
		all.Go(func() {
			defer func() { panics[i] = recover() }()
			select {
			case free <- struct{}{}:
				defer func() { <-free }()
			case <-ctx.Done(): // reported as such
			}
			results[i] = t.check(ctx, b)
		})
	}
	all.Wait()
	for _, p := range panics {
		if p != nil {
			panic(p) // of Base or Token: where the caller can recover from it
		}
	}
	return results
}

// check asks one backend.
func (t *Transport) check(ctx context.Context, b *backend) CheckResult {
	r := CheckResult{Backend: b.name, URL: b.scheme + "://" + b.host + b.prefix() + "/models", Anonymous: b.usesCallerCredential()}
	if t.pool.closed.Load() {
		r.Reason, r.Cause = "closed", "the transport is closed"
		return r
	}
	began := time.Now()
	limit := cmp.Or(b.headerTimeout, checkTimeout)
	late := timeoutError("no list of models within " + limit.String())
	within, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	o, secret, err := t.askForModels(within, b, &r)
	r.TookMS = time.Since(began).Milliseconds()
	switch {
	case err == nil:
	case ctx.Err() != nil:
		o = outcome{reason: "canceled", detail: context.Cause(ctx).Error()}
	case errors.Is(context.Cause(within), late):
		o = outcome{reason: "no answer in time", detail: late.Error()}
	case o.reason == "":
		o = judgeError(err)
	}
	if r.OK = o.reason == ""; !r.OK && r.Anonymous && (r.Status == http.StatusUnauthorized || r.Status == http.StatusForbidden) {
		r.OK, o = true, outcome{}
	}
	r.Reason, r.Cause = t.redactFor(b, o.reason, secret), t.redactFor(b, o.detail, secret)
	return r
}

// redactFor is a text as it may be shown, without the credentials of a backend.
func (t *Transport) redactFor(b *backend, text, secret string) string {
	c := t.newCall(&http.Request{})
	return c.redact(text, b, secret)
}

// askForModels asks a backend for its models. The outcome has a reason unless there is
// a list. The secret is that of its credential.
func (t *Transport) askForModels(ctx context.Context, b *backend, r *CheckResult) (o outcome, secret string, err error) {
	if err := ctx.Err(); err != nil {
		return o, "", err
	}
	own, err := b.credential(ctx)
	if err != nil {
		return outcome{reason: "no token", detail: err.Error()}, "", err
	}
	in, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://spillover.invalid/v1/models", nil)
	if err != nil {
		return o, own.secret, err
	}
	c := t.newCall(in)
	c.request.paths = nil // it is no request of the program
	if err := c.read(); err != nil {
		return o, own.secret, err
	}
	out, err := c.attemptRequest(ctx, &deployment{backend: b}, own, new(attempt))
	if err != nil {
		return o, own.secret, err
	}
	resp, err := checked(c.base, out)
	if err != nil {
		return o, own.secret, err
	}
	defer resp.Body.Close()
	r.Status = resp.StatusCode
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxModelsList+1))
	switch {
	case resp.StatusCode >= 400:
		o = judge(resp.StatusCode, resp.Header, wire.Decompress(resp.Header, text, errorBodyLimit), c.Operation, time.Now())
	case resp.StatusCode/100 != 2:
		o.reason = strconv.Itoa(resp.StatusCode)
	case err != nil:
		return o, own.secret, err
	case len(text) > maxModelsList:
		o.reason, o.detail = "too long", fmt.Sprintf("the list of models is longer than %d MiB", maxModelsList>>20)
	default:
		var found bool
		if r.Models, r.NotListed, found = b.readModels(wire.Decompress(resp.Header, text, maxModelsList)); !found {
			o.reason, o.detail = "not a list of models", "the body of the response is not an object with the member data"
		}
	}
	return o, own.secret, nil
}

// readModels reads a list of models: how many there are, and which of the backend's
// deployments it certainly lacks.
func (b *backend) readModels(text []byte) (models int, missing []string, ok bool) {
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
		HasMore bool `json:"has_more"`
	}
	if json.Unmarshal(text, &list) != nil || list.Data == nil {
		return 0, nil, false
	}
	if b.dialect.Name != OpenAI || ofAzure(b.host) || list.HasMore {
		return len(list.Data), nil, true
	}
	listed := map[string]bool{}
	for _, m := range list.Data {
		listed[m.ID] = true
	}
	lists := func(name string) bool {
		base, _, _ := strings.Cut(name, ":")
		// Gemini's API adds models/, Ollama's :latest. OpenRouter takes name:variant.
		return listed[name] || listed["models/"+name] || listed[name+":latest"] || listed[base]
	}
	for _, name := range slices.Sorted(maps.Keys(b.models)) {
		if deployment := b.models[name].Deployment; !lists(deployment) && !slices.Contains(missing, deployment) {
			missing = append(missing, deployment)
		}
	}
	return len(list.Data), missing, true
}
