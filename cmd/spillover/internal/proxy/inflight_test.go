package proxy_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/keys"
	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
)

// A key has as many requests in flight as its entry allows, also after a reload. Those of other
// keys do not count, and neither do requests for administration.
func TestRequestsInFlightOfAKeyAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		lb, err := spillover.New(spillover.Config{Backends: pool, Base: roundTrip(func(r *http.Request) (*http.Response, error) {
			<-release
			return response(200, "{}"), nil
		})})
		require.NoError(t, err)
		defer lb.Close()
		counted := map[string]int{}
		p := proxy.New(proxy.Options{Transport: lb, StatusPage: http.NotFoundHandler(), CountError: func(code string) { counted[code]++ }})
		set := func(limit string) {
			t.Helper()
			set, err := keys.Parse([]byte("keys:\n" + entry(secret, ", admin: true, max_in_flight: "+limit) +
				strings.Replace(entry(adminKey, ""), "name: test", "name: other", 1)))
			require.NoError(t, err)
			p.SetKeys(set)
		}
		begin := func(key string) { upload(p, key, strings.NewReader(chat), int64(len(chat))); synctest.Wait() }
		refused := func(key string) {
			t.Helper()
			w := ask(p, "POST", "/v1/chat/completions", chat, "Api-Key", key)
			require.Equal(t, http.StatusTooManyRequests, w.Code)
			require.Equal(t, "max_in_flight", code(t, w))
			require.Equal(t, "1", w.Header().Get("Retry-After"))
		}
		set("2")
		begin(secret)
		begin(secret)
		refused(secret)
		refused(secret)
		begin(adminKey)
		require.Equal(t, http.StatusNotFound, ask(p, "GET", "/status", "", "Api-Key", secret).Code)
		set("3")
		begin(secret)
		refused(secret)
		set("1")
		refused(secret)
		close(release)
		synctest.Wait()
		require.Equal(t, http.StatusOK, ask(p, "POST", "/v1/chat/completions", chat, "Api-Key", secret).Code)
		require.Equal(t, http.StatusOK, ask(p, "POST", "/v1/chat/completions", chat, "Api-Key", secret).Code, "its place is free again")
		require.Equal(t, map[string]int{"max_in_flight": 4}, counted)
	})
}

// Errors of the proxy are counted and recorded by their code. The record has the address of a
// caller only if nothing else says who it is.
func TestErrorsAreCountedByCode(t *testing.T) {
	for _, test := range []struct {
		path, body, key, code, remote string
	}{
		{"/v1/chat/completions", chat, "", "invalid_api_key", "192.0.2.1"},
		{"/v1/chat/completions", chat, "wrong", "invalid_api_key", "192.0.2.1"},
		{"/nothing", "", "", "unknown_url", "192.0.2.1"},
		{"/status", "", secret, "admin_required", ""},
		{"/v1/chat/completions", `{"model":"o3"}`, secret, "model_not_allowed", ""},
		{"/v1/chat/completions", chat, secret, "", ""},
		{"/healthz", "", "", "", ""},
	} {
		var records bytes.Buffer
		var codes []string
		p := newProxy(t, &network{}, proxy.Options{Logger: slog.New(slog.NewTextHandler(&records, nil)), CountError: func(code string) { codes = append(codes, code) }},
			entry(secret, ", models: [gpt-4o]"))
		ask(p, "POST", test.path, test.body, "Api-Key", test.key)
		if test.code == "" {
			require.Empty(t, codes, test.path)
			require.NotContains(t, records.String(), "code=")
		} else {
			require.Equal(t, []string{test.code}, codes, test.path)
			require.Contains(t, records.String(), "code="+test.code)
		}
		require.Equal(t, test.remote != "", strings.Contains(records.String(), "remote="+test.remote), records.String())
	}
}
