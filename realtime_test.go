package spillover_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// newEcho is a server that takes WebSockets, as far as the transport can tell:
// it says where it was asked, and then whatever it is told, until that is bye.
func newEcho(t testing.TB, refuse int) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse != 0 {
			w.Header().Set("Retry-After-Ms", "1500")
			w.WriteHeader(refuse)
			return
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nKey: %s\r\n\r\n%s\n",
			r.Header.Get("Upgrade"), r.Header.Get("Api-Key")+r.Header.Get("Authorization"), r.URL.RequestURI())
		rw.Flush()
		for line := ""; err == nil && line != "bye\n"; line, err = rw.ReadString('\n') {
			_, _ = io.WriteString(conn, line)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func upgrade(t testing.TB, target string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://foo.openai.azure.com"+target, nil)
	require.NoError(t, err)
	req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"WebSocket"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Api-Key": {"the caller's"}}
	return req
}

// realtime is a Transport over real connections.
func realtime(t testing.TB, backends ...spillover.Backend) *spillover.Transport {
	tr := steady(configured(t, spillover.Config{Backends: backends}))
	t.Cleanup(func() { require.NoError(t, tr.Close()) })
	return tr
}

// The query names the model, each dialect in its own way.
func TestRealtimeDialects(t *testing.T) {
	server := newEcho(t, 0)
	for from, to := range map[string]map[spillover.Dialect]string{
		"/openai/realtime?api-version=2024-10-01-preview&deployment=m": {
			spillover.Azure: "/openai/realtime?api-version=2024-10-01-preview&deployment=n%26o", spillover.AzureV1: "/openai/v1/realtime?model=n%26o", spillover.OpenAI: "/v1/realtime?model=n%26o",
		},
		"/openai/v1/realtime?x=%20a+b&model=m&&y": {
			spillover.Azure: "/openai/realtime?x=%20a+b&deployment=n%26o&y&api-version=2025-04-01-preview", spillover.AzureV1: "/openai/v1/realtime?x=%20a+b&model=n%26o&y", spillover.OpenAI: "/v1/realtime?x=%20a+b&model=n%26o&y",
		},
		"/v1/realtime?model=%6d&intent=transcription": {
			spillover.Azure: "/openai/realtime?deployment=n%26o&intent=transcription&api-version=2025-04-01-preview", spillover.AzureV1: "/openai/v1/realtime?model=n%26o&intent=transcription", spillover.OpenAI: "/v1/realtime?model=n%26o&intent=transcription",
		},
		"/v1/realtime?model=m&deployment=m": {
			spillover.Azure: "/openai/realtime?deployment=n%26o&api-version=2025-04-01-preview", spillover.AzureV1: "/openai/v1/realtime?model=n%26o", spillover.OpenAI: "/v1/realtime?model=n%26o",
		},
		"/v1/realtime?intent=transcription": {
			spillover.Azure: "/openai/realtime?intent=transcription&api-version=2025-04-01-preview", spillover.AzureV1: "/openai/v1/realtime?intent=transcription", spillover.OpenAI: "/v1/realtime?intent=transcription",
		},
	} {
		for d, want := range to {
			tr := realtime(t, spillover.Backend{Name: "b", URL: server.URL, Dialect: d, APIKey: "k", Models: []spillover.Model{{Name: "m", Deployment: "n&o"}}})
			resp, err := tr.RoundTrip(upgrade(t, from))
			require.NoError(t, err)
			line, err := bufio.NewReader(resp.Body).ReadString('\n')
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			got, err := url.Parse(line[:len(line)-1])
			require.NoError(t, err)
			wanted, err := url.Parse(want)
			require.NoError(t, err)
			require.Equal(t, wanted.Path, got.Path, "%s to %s", from, d)
			require.Equal(t, wanted.Query(), got.Query(), "%s to %s", from, d)
		}
	}
}

func TestRealtimeServedByOne(t *testing.T) {
	a, b := newEcho(t, 0), newEcho(t, 0)
	tr := realtime(t,
		spillover.Backend{Name: "a", URL: a.URL, Dialect: spillover.AzureV1, APIKey: "k", Models: []spillover.Model{{Name: "gpt-4o"}}},
		spillover.Backend{Name: "b", URL: b.URL, Dialect: spillover.AzureV1, APIKey: "k", Models: []spillover.Model{{Name: "m"}}})
	for range 3 {
		resp, err := tr.RoundTrip(upgrade(t, "/openai/realtime?api-version=1&deployment=m"))
		require.NoError(t, err)
		require.Equal(t, "b", servedBy(resp))
		require.NoError(t, resp.Body.Close())
	}
	resp, err := tr.RoundTrip(upgrade(t, "/v1/realtime?model=unknown"))
	require.NoError(t, err)
	require.Equal(t, 404, resp.StatusCode)
}

// backendFailures is how many attempts have failed.
func backendFailures(tr *spillover.Transport) (failed uint64) {
	for _, tier := range tr.Status().Tiers {
		for _, b := range tier.Backends {
			for _, d := range b.Deployments {
				failed += d.Failed
			}
		}
	}
	return failed
}

func TestRealtime(t *testing.T) {
	server := newEcho(t, 0)
	tr := realtime(t, spillover.Backend{Name: "b", URL: server.URL, Dialect: spillover.OpenAI, APIKey: "k"})
	d := slices.Collect(spillover.DeploymentsOf(tr, "gpt-realtime"))[0]
	resp, err := tr.RoundTrip(upgrade(t, "/v1/realtime?model=gpt-realtime"))
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	require.Equal(t, "WebSocket", resp.Header.Get("Upgrade"))
	require.Equal(t, "Bearer k", resp.Header.Get("Key"))
	require.Equal(t, "b", servedBy(resp))
	conn, ok := resp.Body.(io.ReadWriteCloser)
	require.True(t, ok)
	lines := bufio.NewReader(conn)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "/v1/realtime?model=gpt-realtime\n", line)
	for i := range 3 {
		_, err := fmt.Fprintf(conn, "event %d \x00\xff\n", i)
		require.NoError(t, err)
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("event %d \x00\xff\n", i), line)
		require.EqualValues(t, 1, d.InFlight.Load())
	}
	require.NoError(t, conn.Close())
	require.Zero(t, d.InFlight.Load())
	require.Zero(t, backendFailures(tr), "how it ends is nobody's fault")

	// It ends with its server, too.
	resp, err = tr.RoundTrip(upgrade(t, "/v1/realtime?model=gpt-realtime"))
	require.NoError(t, err)
	_, err = bufio.NewReader(resp.Body).ReadString('\n')
	require.NoError(t, err)
	require.EqualValues(t, 1, d.InFlight.Load())
	_, err = io.WriteString(resp.Body.(io.Writer), "bye\n")
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Zero(t, d.InFlight.Load())
	require.Zero(t, backendFailures(tr))
	require.False(t, d.Troubled() || d.BackendState().Troubled())
}

func TestRealtimeHandshakeRefused(t *testing.T) {
	for _, refusal := range []int{429, 500, 503, 401} {
		a, b := newEcho(t, refusal), newEcho(t, 0)
		tr := realtime(t, spillover.Backend{Name: "a", URL: a.URL, Dialect: spillover.AzureV1, APIKey: "k"}, spillover.Backend{Name: "b", URL: b.URL, Dialect: spillover.OpenAI, APIKey: "l", Priority: 2})
		resp, err := tr.RoundTrip(upgrade(t, "/openai/v1/realtime?model=m"))
		require.NoError(t, err)
		require.Equal(t, 101, resp.StatusCode)
		require.Equal(t, "b", servedBy(resp))
		require.Equal(t, "Bearer l", resp.Header.Get("Key"))
		require.NoError(t, resp.Body.Close())
		for d := range spillover.DeploymentsOf(tr, "m") {
			require.Zero(t, d.InFlight.Load())
		}
	}
	only := newEcho(t, 429)
	resp, err := realtime(t, spillover.Backend{URL: only.URL, APIKey: "k"}).RoundTrip(upgrade(t, "/v1/realtime?model=m"))
	require.NoError(t, err)
	require.Equal(t, 429, resp.StatusCode)
	require.Equal(t, "2", resp.Header.Get("Retry-After"))
}
