package spillover_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

func tags(names ...string) func(*spillover.Backend) {
	return func(b *spillover.Backend) { b.Tags = names }
}

func tagged(t testing.TB, names ...string) *http.Request {
	req := newChat(t, chatPath)
	return req.WithContext(spillover.WithTags(req.Context(), names...))
}

func TestTaggedRequestStaysWithinItsBackends(t *testing.T) {
	n := newNet()
	n.On(host("eu-1"), status(500, "{}"))
	n.On(host("eu-2"), status(429, "{}", "Retry-After: 7"))
	tr := balance(t, n, azure("us", tags("region=us")), azure("eu-1", tags("region=eu"), priority(2)),
		azure("eu-2", tags("zone=2", "region=eu"), priority(3)), azure("untagged", priority(4)))
	for range 20 {
		resp, _ := send(t, tr, tagged(t, "region=eu"))
		require.GreaterOrEqual(t, resp.StatusCode, 400, "both backends of the region are down, and no other is asked")
	}
	require.Zero(t, n.Sends(host("us"), host("untagged")))
	require.NotZero(t, n.Sends(host("eu-1")))
	require.NotZero(t, n.Sends(host("eu-2")))

	resp, _ := send(t, tr, newChat(t, chatPath))
	require.Equal(t, "us", servedBy(resp), "a request without tags goes anywhere")
}

func TestEveryTagIsRequired(t *testing.T) {
	for name, test := range map[string]struct {
		inner, outer, rule []string
		want               string // "" for none
	}{
		"one":                       {inner: []string{"zone=2"}, want: "b"},
		"two":                       {inner: []string{"region=eu", "zone=2"}, want: "b"},
		"of two contexts":           {inner: []string{"zone=2"}, outer: []string{"region=eu"}, want: "b"},
		"of context and rule":       {inner: []string{"zone=2"}, rule: []string{"region=eu"}, want: "b"},
		"of the rule alone":         {rule: []string{"zone=2"}, want: "b"},
		"contradicting":             {inner: []string{"zone=2"}, outer: []string{"region=us"}},
		"contradicting the rule":    {inner: []string{"region=us"}, rule: []string{"zone=2"}},
		"unknown":                   {inner: []string{"region=moon"}},
		"in other case":             {inner: []string{"Zone=2"}},
		"empty":                     {inner: []string{""}},
		"part of a tag":             {inner: []string{"zone"}},
		"more than a backend has":   {inner: slices.Repeat([]string{"zone=2"}, 65)},
		"as many as are allowed":    {inner: slices.Repeat([]string{"zone=2"}, 64), want: "b"},
		"known and unknown at once": {inner: []string{"zone=2", "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			cfg := spillover.Config{Base: n, Backends: []spillover.Backend{
				azure("a", tags("region=us")), azure("b", tags("region=eu", "zone=2")), azure("c", tags("region=eu")),
			}}
			if test.rule != nil {
				cfg.Tags = func(*http.Request) []string { return test.rule }
			}
			tr := configured(t, cfg)
			req := newChat(t, chatPath)
			ctx := spillover.WithTags(spillover.WithTags(req.Context(), test.outer...), test.inner...)
			resp, body := send(t, tr, req.WithContext(ctx))
			require.Equal(t, test.want, servedBy(resp))
			if test.want != "" {
				return
			}
			require.Zero(t, n.Sends(), "it fails closed")
			require.Equal(t, 400, resp.StatusCode)
			e := testnet.APIError(t, body)
			require.Equal(t, "invalid_request_error", e.Type)
			require.Equal(t, "no_backend_with_tags", e.Code)
			require.Contains(t, e.Message, test.inner[0])
			require.Less(t, len(body), 4096)
		})
	}
}

// A redirect may not lead out of the backends that have the tags, neither to another
// backend nor to a host that is none.
func TestRedirectObeysTags(t *testing.T) {
	for name, test := range map[string]struct {
		location string
		status   int
		sends    int
	}{
		"to a backend with the tags":    {"https://" + host("other") + "/x", 200, 2},
		"to a backend without the tags": {"https://" + host("us") + "/x", 400, 1},
		"to a host that is no backend":  {"https://elsewhere.test/x", 400, 1},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			n.On(host("eu"), status(307, "", "Location: "+test.location))
			tr := balance(t, n, azure("eu", tags("eu")), azure("other", tags("eu"), priority(2)), azure("us", priority(3)))
			resp, err := (&http.Client{Transport: tr}).Do(tagged(t, "eu"))
			require.NoError(t, err)
			read(t, resp)
			require.Equal(t, test.status, resp.StatusCode)
			require.Equal(t, test.sends, n.Sends())
		})
	}
}

// A client drops headers such as Authorization on the way to another host: the rule
// still sees what the caller had sent.
func TestRedirectObeysTheRuleForTheFirstRequest(t *testing.T) {
	for _, to := range []string{host("us"), "elsewhere.test"} {
		n := newNet()
		n.On(host("eu"), status(307, "", "Location: https://"+to+"/x"))
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("eu", tags("eu")), azure("us", priority(2))},
			Tags: func(r *http.Request) []string {
				if r.Header.Get("Authorization") == "Bearer of a customer in Europe" {
					return []string{"eu"}
				}
				return nil
			}})
		req := newChat(t, chatPath)
		req.Header.Set("Authorization", "Bearer of a customer in Europe")
		resp, err := (&http.Client{Transport: tr}).Do(req)
		require.NoError(t, err)
		read(t, resp)
		require.Equal(t, 400, resp.StatusCode)
		require.Zero(t, n.Sends(to))
	}
}

// An object that is stored outside of the backends with the tags is not asked for.
func TestStoredObjectOutsideOfItsTagsIsNotFound(t *testing.T) {
	n := newNet()
	n.On(host("us"), status(200, `{"id":"resp_1234567890","object":"response"}`))
	n.On(host("eu"), status(404, `{"error":{"message":"Response with id 'resp_1234567890' not found.","code":"not_found"}}`))
	tr := balance(t, n, azure("us", tags("us")), azure("eu", tags("eu"), priority(2)))
	create, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://any.test/v1/responses", strings.NewReader(`{"model":"m","input":"hi"}`))
	require.NoError(t, err)
	resp, _ := send(t, tr, create)
	require.Equal(t, "us", servedBy(resp))

	get := func(ctx context.Context) *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://any.test/v1/responses/resp_1234567890", nil)
		require.NoError(t, err)
		resp, _ := send(t, tr, req)
		return resp
	}
	require.Equal(t, "us", servedBy(get(t.Context())))
	before := n.Sends(host("us"))
	resp = get(spillover.WithTags(t.Context(), "eu"))
	require.Equal(t, 404, resp.StatusCode)
	require.Equal(t, before, n.Sends(host("us")))
}

// Whatever a request is about, and although another resource is known to store that,
// it stays within the backends with its tags.
func TestTagsHoldForEveryKindOfRequest(t *testing.T) {
	for _, line := range []string{
		`POST /openai/deployments/m/chat/completions?api-version=x {"messages":[]}`,
		`POST /openai/v1/chat/completions {"model":"m"}`,
		`POST /openai/v1/chat/completions {}`,
		`POST /openai/v1/responses {"model":"m","input":"hi","previous_response_id":"resp_unknown12345"}`,
		`POST /openai/v1/responses {"model":"m","input":"hi","previous_response_id":"resp_1234567890"}`,
		`POST /openai/v1/responses {"model":"m","input":"hi","conversation":"conv_1234567890"}`,
		`GET /openai/v1/responses/resp_1234567890`,
		`GET /openai/v1/responses/resp_unknown12345`,
		`POST /openai/v1/responses/resp_1234567890/cancel`,
		`DELETE /openai/v1/responses/resp_1234567890`,
		`GET /openai/v1/files`,
		`GET /openai/v1/files/file-1234567890`,
		`POST /openai/v1/batches {"input_file_id":"file-1234567890","endpoint":"/chat/completions"}`,
		`GET /openai/v1/models`,
		`GET /openai/v1/models/m`,
		`GET /openai/../x`,
		`GET /openai/deployments/../chat/completions`,
		`POST /openai/deployments/m/../n/chat/completions {}`,
		`POST /openai/deployments/%2e%2e/chat/completions {}`,
		`POST /api/projects/p/agents {"model":"m"}`,
		`POST /models/chat/completions {"model":"m"}`,
		`GET /api/projects/p/assistants?api-version=v1`,
		`POST /agents/v2.0/subscriptions/x {}`,
		`GET /openai/v1/realtime?model=m`,
		`GET /openai/realtime?deployment=m&api-version=x`,
		`POST /openai/v1/fine_tuning/jobs {"model":"m","training_file":"file-1234567890"}`,
		`POST /openai/v1/something/unknown {"model":"zzz"}`,
		`GET /`,
		`POST /openai/v1/chat/completions {"model":".."}`,
		`POST /openai/v1/chat/completions {"model":"` + strings.Repeat("x", 5000) + `"}`,
	} {
		for _, upgrade := range []bool{false, true} {
			for _, answer := range []roundTripFunc{ok200, status(500, "{}"), status(404, `{"error":{"message":"not found","code":"not_found"}}`)} {
				for _, listed := range [][]string{nil, {"m", "second"}} {
					n := newNet()
					n.On(host("us"), status(200, `{"id":"resp_1234567890","object":"response","conversation":{"id":"conv_1234567890"},"data":[{"id":"file-1234567890","object":"file"}]}`))
					eu := azure("eu", tags("eu"), priority(2), serves(listed...))
					tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("us", tags("us")), eu, azure("us2", priority(3))}, MaxAttempts: 20,
						Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
					send(t, tr, with(t, `POST /openai/v1/responses {"model":"m","input":"hi"}`))
					send(t, tr, with(t, `GET /openai/v1/files`))
					before := n.Sends(host("us"), host("us2"))
					n.On(host("eu"), answer)
					req := with(t, line)
					if upgrade {
						req.Header.Set("Upgrade", "websocket")
						req.Header.Set("Connection", "Upgrade")
					}
					req = req.WithContext(spillover.WithTags(req.Context(), "eu"))
					_, err := tr.Explain(req)
					require.NoError(t, err)
					for range 3 {
						r := with(t, line)
						r.Header = req.Header
						resp, err := tr.RoundTrip(r.WithContext(req.Context()))
						if err == nil {
							resp.Body.Close()
						}
					}
					require.Equal(t, before, n.Sends(host("us"), host("us2")), line)
					require.NotZero(t, before)
				}
			}
		}
	}
}

// Whatever fails and however the pool is made, a request never reaches a backend
// without its tags, and where a backend with them is healthy it is served.
func TestTagProperties(t *testing.T) {
	names := []string{"region=eu", "region=us", "zone=1", "zone=2"}
	rapid.Check(t, func(rt *rapid.T) {
		n := newNet()
		some := rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID[string])
		var backends []spillover.Backend
		has, healthy := map[string][]string{}, map[string]bool{}
		for i := range rapid.IntRange(1, 6).Draw(rt, "backends") {
			name := fmt.Sprintf("b%d", i)
			has[host(name)] = some.Draw(rt, "tags of "+name)
			b := azure(name, tags(has[host(name)]...), priority(rapid.IntRange(1, 3).Draw(rt, "priority")))
			if rapid.Bool().Draw(rt, "lists its models") {
				b.Models = []spillover.Model{{Name: rapid.SampledFrom([]string{"m", "other"}).Draw(rt, "model")}}
			}
			backends = append(backends, b)
			answer := rapid.SampledFrom([]roundTripFunc{ok200, status(429, "{}"), status(500, "{}"), status(401, wrongKey), broken(errReset), broken(errRefused)}).Draw(rt, "answer")
			healthy[host(name)] = rapid.Bool().Draw(rt, "healthy")
			if healthy[host(name)] {
				answer = ok200
			}
			n.On(host(name), answer)
		}
		tr, err := spillover.New(spillover.Config{Base: n, Backends: backends, MaxAttempts: 10})
		require.NoError(rt, err)
		defer tr.Close()
		for range rapid.IntRange(1, 8).Draw(rt, "requests") {
			wanted := some.Draw(rt, "wanted")
			n.Seen = nil
			resp, err := tr.RoundTrip(tagged(t, wanted...))
			suits := func(b spillover.Backend) bool {
				return !slices.ContainsFunc(wanted, func(tag string) bool { return !slices.Contains(b.Tags, tag) }) &&
					(len(b.Models) == 0 || b.Models[0].Name == "m")
			}
			for _, h := range n.Order() {
				for _, tag := range wanted {
					require.Contains(rt, has[h], tag, "%s was sent a request that demands %v", h, wanted)
				}
			}
			if slices.ContainsFunc(backends, func(b spillover.Backend) bool { return suits(b) && healthy[host(b.Name)] }) {
				require.NoError(rt, err)
				require.Equal(rt, 200, resp.StatusCode)
			}
			if !slices.ContainsFunc(backends, suits) {
				require.NoError(rt, err)
				require.Empty(rt, n.Order())
				require.Contains(rt, []int{400, 404}, resp.StatusCode)
			}
			if err == nil {
				resp.Body.Close()
			}
		}
	})
}

func TestTagsOfABackendAreChecked(t *testing.T) {
	for name, test := range map[string]struct {
		tags []string
		want string
	}{
		"empty":     {[]string{"a", ""}, "Tags[1]: is empty"},
		"twice":     {[]string{"a", "a"}, `Tags[1]: "a" is listed twice`},
		"too long":  {[]string{strings.Repeat("a", 129)}, "must be at most 128 printable ASCII characters"},
		"not ASCII": {[]string{"région=eu"}, "must be at most 128 printable ASCII characters"},
		"space":     {[]string{" region=eu"}, "without a space at its ends"},
		"too many":  {strings.Split(strings.Repeat("a,", 65)+"b", ","), "at most 64 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{azure("a", tags(test.tags...))}})
			require.ErrorContains(t, err, test.want)
		})
	}
}
