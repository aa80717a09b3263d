package spillover_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
)

const (
	tooLong  = `{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`
	filtered = `{"error":{"message":"The response was filtered.","type":null,"param":"prompt","code":"content_filter","status":400}}`
)

// renamed is a model under another name at the backend.
func renamed(model, deployment string) func(*spillover.Backend) {
	return func(b *spillover.Backend) {
		b.Models = append(b.Models, spillover.Model{Name: model, Deployment: deployment})
	}
}

// modelsSent is the models that the hosts were asked for, in order, from path or body.
func modelsSent(n *fakeNet) (models []string) {
	for _, s := range n.Seen {
		if _, rest, ok := strings.Cut(s.Path, "/deployments/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			models = append(models, name)
			continue
		}
		var body struct{ Model string }
		_ = json.Unmarshal([]byte(s.Body), &body)
		models = append(models, body.Model)
	}
	return models
}

// byModel answers by the deployment in the path.
func byModel(answers map[string]roundTripFunc) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		_, rest, _ := strings.Cut(req.URL.Path, "/deployments/")
		name, _, _ := strings.Cut(rest, "/")
		if f := answers[name]; f != nil {
			return f(req)
		}
		return ok200(req)
	}
}

func TestRequestFallsBackToTheNextModel(t *testing.T) {
	throttled := status(429, "{}", "Retry-After: 7")
	for name, test := range map[string]struct {
		on      spillover.FallbackOn
		answers map[string]roundTripFunc
		want    []string // the models that are asked
		status  int
	}{
		"healthy":                       {0, nil, []string{"m"}, 200},
		"rate-limited":                  {0, map[string]roundTripFunc{"m": throttled}, []string{"m", "second"}, 200},
		"two rate-limited":              {0, map[string]roundTripFunc{"m": throttled, "second": throttled}, []string{"m", "second", "third"}, 200},
		"all rate-limited":              {0, map[string]roundTripFunc{"m": throttled, "second": throttled, "third": throttled}, []string{"m", "second", "third"}, 429},
		"failing":                       {0, map[string]roundTripFunc{"m": status(500, "{}")}, []string{"m", "second"}, 200},
		"wrong key":                     {0, map[string]roundTripFunc{"m": status(401, wrongKey)}, []string{"m", "second"}, 200},
		"no such deployment":            {0, map[string]roundTripFunc{"m": status(404, noDeployment)}, []string{"m", "second"}, 200},
		"out of quota":                  {0, map[string]roundTripFunc{"m": status(429, noQuota)}, []string{"m"}, 429}, // the same account
		"rate-limited, only length":     {spillover.OnContextLength, map[string]roundTripFunc{"m": throttled}, []string{"m"}, 429},
		"too long":                      {0, map[string]roundTripFunc{"m": status(400, tooLong)}, []string{"m", "second"}, 200},
		"too long for two":              {0, map[string]roundTripFunc{"m": status(400, tooLong), "second": status(400, tooLong)}, []string{"m", "second", "third"}, 200},
		"too long for all":              {0, map[string]roundTripFunc{"m": status(400, tooLong), "second": status(400, tooLong), "third": status(400, tooLong)}, []string{"m", "second", "third"}, 400},
		"too long, only length":         {spillover.OnContextLength, map[string]roundTripFunc{"m": status(400, tooLong)}, []string{"m", "second"}, 200},
		"too long, then rate-limited":   {0, map[string]roundTripFunc{"m": status(400, tooLong), "second": throttled}, []string{"m", "second", "third"}, 200},
		"too long, then all limited":    {0, map[string]roundTripFunc{"m": status(400, tooLong), "second": throttled, "third": throttled}, []string{"m", "second", "third"}, 429},
		"too long, only exhausted":      {spillover.OnExhausted, map[string]roundTripFunc{"m": status(400, tooLong)}, []string{"m"}, 400},
		"rate-limited, only exhausted":  {spillover.OnExhausted, map[string]roundTripFunc{"m": throttled}, []string{"m", "second"}, 200},
		"limited, all others too long":  {0, map[string]roundTripFunc{"m": throttled, "second": status(400, tooLong), "third": status(400, tooLong)}, []string{"m", "second", "third"}, 429},
		"failing, all others too long":  {0, map[string]roundTripFunc{"m": status(500, "{}"), "second": status(400, tooLong), "third": status(400, tooLong)}, []string{"m", "second", "third"}, 500},
		"exhausted only, next too long": {spillover.OnExhausted, map[string]roundTripFunc{"m": throttled, "second": status(400, tooLong)}, []string{"m", "second", "third"}, 200},
		"limited, the next is too long": {0, map[string]roundTripFunc{"m": throttled, "second": status(400, tooLong)}, []string{"m", "second", "third"}, 200},
		"content filter":                {0, map[string]roundTripFunc{"m": status(400, filtered)}, []string{"m"}, 400},
		"another mistake":               {0, map[string]roundTripFunc{"m": status(400, `{"error":{"code":"invalid_value","message":"temperature"}}`)}, []string{"m"}, 400},
		"filter of the next model":      {0, map[string]roundTripFunc{"m": throttled, "second": status(400, filtered)}, []string{"m", "second"}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNet()
				n.On(host("a"), byModel(test.answers))
				tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m", "second", "third", "fourth"))},
					Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second", "third"}, On: test.on}, {Model: "third", To: []string{"fourth"}}}})
				resp, body := ask(t, tr)
				require.Equal(t, test.want, modelsSent(n))
				require.Equal(t, test.status, resp.StatusCode, body)
				switch used := resp.Header.Get("X-Spillover-Model"); {
				case resp.StatusCode == 200:
					require.Equal(t, test.want[len(test.want)-1], used)
				case servedBy(resp) == "":
					require.Empty(t, used)
				default:
					require.Contains(t, test.want, used)
				}
			})
		})
	}
}

func TestTooLongForEveryModelIsTheServicesOwnAnswer(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(400, tooLong))
	tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a")}, Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
	resp, body := ask(t, tr)
	require.Equal(t, 400, resp.StatusCode)
	require.Equal(t, tooLong, body)
	require.Equal(t, "a", servedBy(resp))
	require.True(t, statusOf(t, tr, "a").Available, "a request that is too long is no failure of the deployment")
}

// The header is of the same attempt as the rest of the response.
func TestErrorOfTheLastModelNamesIt(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(500, "{}"))
	tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a")}, Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
	resp, _ := ask(t, tr)
	require.Equal(t, 500, resp.StatusCode)
	require.Equal(t, "a", servedBy(resp))
	require.Equal(t, "second", resp.Header.Get("X-Spillover-Model"))
}

// What is sent to a resource under the caller's own name for the model is that model.
func TestModelOfAStoredObjectIsTheCallers(t *testing.T) {
	n := newNet()
	n.On(host("b"), status(200, `{"id":"resp_1234567890","object":"response"}`))
	tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m", "second")), azure("b", serves("other"), priority(2))},
		Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
	send(t, tr, with(t, `POST /openai/v1/responses {"model":"other","input":"hi"}`))
	resp, _ := send(t, tr, with(t, `POST /openai/v1/responses {"model":"m","input":"hi","previous_response_id":"resp_1234567890"}`))
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, []string{"m"}, resp.Header.Values("X-Spillover-Model"))
}

// A fallback that cannot be reached says nothing about the request's own model.
func TestTooLongForTheFallbackWhileTheModelIsUnreachable(t *testing.T) {
	n := newNet()
	n.On(host("a"), broken(errRefused))
	n.On(host("b"), status(400, tooLong))
	tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m")), azure("b", serves("second"))},
		Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
	_, err := tr.RoundTrip(newChat(t, chatPath))
	require.ErrorIs(t, err, errRefused)
}

// Two names of one deployment are one deployment.
func TestFallbackToTheSameDeploymentIsNoFallback(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "{}", "Retry-After: 7"))
	tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{
		azure("a", renamed("m", "d"), renamed("alias", "d"), renamed("second", "e")), azure("b", renamed("alias", "d"), priority(2)),
	}, Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"alias", "second"}}}})
	resp, _ := ask(t, tr)
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, []string{host("a"), host("b")}, n.Order())
	resp, _ = ask(t, tr)
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, 1, n.Sends(host("a")), "it cools down under both names")
}

// A model is not silent because another one answers faster.
func TestSlowModelDoesNotFallBackToAFasterOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), slow(time.Minute, ok200))
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m")), azure("b", serves("second"))},
			Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
		var all []func() (*http.Response, string)
		for range 3 {
			all = append(all, background(t, tr, newChat(t, chatPath)))
		}
		for range 5 {
			time.Sleep(9 * time.Second)
			resp, _ := send(t, tr, newChat(t, strings.Replace(chatPath, "/m/", "/second/", 1)))
			require.Equal(t, "b", servedBy(resp))
			all = append(all, background(t, tr, newChat(t, chatPath)))
		}
		for _, answer := range all {
			resp, _ := answer()
			require.Equal(t, "a", servedBy(resp))
		}
	})
}

// A refusal whose reason does not arrive in time may be a content filter's.
func TestRefusalWithoutAReasonDoesNotChangeTheModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), func(req *http.Request) (*http.Response, error) {
			resp, err := status(400, "")(req)
			text := io.Reader(strings.NewReader(filtered))
			resp.Body = io.NopCloser(testnet.ReaderFunc(func(p []byte) (int, error) {
				time.Sleep(time.Second)
				return text.Read(p[:min(len(p), 10)])
			}))
			resp.ContentLength = -1
			return resp, err
		})
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m")), azure("a2", serves("second"))},
			Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
		resp, body := ask(t, tr)
		require.Equal(t, 400, resp.StatusCode)
		require.Equal(t, filtered, body)
		require.Equal(t, []string{"m"}, modelsSent(n))
	})
}

// The model is renamed for each backend wherever it is named, and nothing else of the
// request changes.
func TestFallbackNamesItsModelInEachDialect(t *testing.T) {
	for _, from := range []string{chatPath, "https://any.test/v1/chat/completions", "https://any.openai.azure.com/openai/v1/chat/completions"} {
		for _, dialect := range []spillover.Dialect{spillover.Azure, spillover.AzureV1, spillover.OpenAI} {
			t.Run(fmt.Sprint(from, " to ", dialect), func(t *testing.T) {
				n := newNet()
				n.On(host("a"), status(429, "{}"))
				b := azure("b", renamed("second", "second-at-b"), priority(2))
				b.Dialect = dialect
				tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m")), b}, Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
				resp, _ := send(t, tr, newChat(t, from))
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, "second", resp.Header.Get("X-Spillover-Model"), "the name that callers use")
				require.Equal(t, []string{"m", "second-at-b"}, modelsSent(n))
				var body map[string]any
				require.NoError(t, json.Unmarshal([]byte(n.Seen[1].Body), &body))
				require.Contains(t, body, "messages")
				if !strings.Contains(n.Seen[1].Path, "/deployments/") {
					require.Equal(t, "second-at-b", body["model"])
				}
			})
		}
	}
}

func TestWebSocketFallsBack(t *testing.T) {
	for _, path := range []string{"/openai/v1/realtime?model=m", "/openai/realtime?api-version=x&deployment=m"} {
		for _, dialect := range []spillover.Dialect{spillover.Azure, spillover.AzureV1, spillover.OpenAI} {
			n := newNet()
			n.On(host("a"), status(429, "{}"))
			n.On(host("b"), status(101, ""))
			b := azure("b", renamed("second", "second-at-b"), priority(2))
			b.Dialect = dialect
			tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m")), b}, Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
			resp, _ := send(t, tr, with(t, "GET "+path, "Upgrade: websocket", "Connection: Upgrade"))
			require.Equal(t, 101, resp.StatusCode)
			require.Equal(t, "second", resp.Header.Get("X-Spillover-Model"))
			require.Contains(t, n.Last().Query, "=second-at-b")
			require.NotContains(t, n.Last().Query, "=m")
		}
	}
}

// A stream falls back until its first content, and a service may send the error as
// the first event.
func TestStreamFallsBack(t *testing.T) {
	n := newNet()
	n.On(host("a"), byModel(map[string]roundTripFunc{
		"m":      status(200, "data: "+tooLong+"\n\n", "Content-Type: text/event-stream"),
		"second": status(200, "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n", "Content-Type: text/event-stream"),
	}))
	tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a")}, Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
	req := newChat(t, chatPath)
	text := `{"stream":true,"messages":[],"model":"m"}`
	req.Body, req.GetBody, req.ContentLength = io.NopCloser(strings.NewReader(text)), nil, int64(len(text))
	resp, body := send(t, tr, req)
	require.Equal(t, "second", resp.Header.Get("X-Spillover-Model"))
	require.Contains(t, body, "hi")
}

func TestFallbackIsLeftWhenTheModelRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("a"), status(429, "{}", "Retry-After: 3"), ok200)
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m")), azure("b", serves("second"))},
			Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
		resp, _ := ask(t, tr)
		require.Equal(t, "second", resp.Header.Get("X-Spillover-Model"))
		time.Sleep(2 * time.Second)
		resp, _ = ask(t, tr)
		require.Equal(t, "second", resp.Header.Get("X-Spillover-Model"), "during the cool-down")
		time.Sleep(2 * time.Second)
		resp, _ = ask(t, tr)
		require.Equal(t, "m", resp.Header.Get("X-Spillover-Model"))
	})
}

// A lack of headroom is no reason for another model: only refusals are.
func TestLackOfHeadroomDoesNotChangeTheModel(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(200, "{}", "X-Ratelimit-Limit-Tokens: 1000", "X-Ratelimit-Remaining-Tokens: 0"))
	tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", serves("m")), azure("b", serves("second"))},
		Fallbacks: []spillover.Fallback{{Model: "m", To: []string{"second"}}}})
	for range 5 {
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	}
}

func contextTokens(model string, tokens int) func(*spillover.Backend) {
	return func(b *spillover.Backend) {
		b.Models = append(b.Models, spillover.Model{Name: model, ContextTokens: tokens})
	}
}

func TestRequestThatCannotFitSkipsTheDeployment(t *testing.T) {
	long := func(t *testing.T) *http.Request {
		req := newChat(t, chatPath)
		text := `{"messages":[{"role":"user","content":"` + strings.Repeat("word ", 4000) + `"}],"model":"m"}`
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
		return req
	}
	both := []spillover.Fallback{{Model: "m", To: []string{"second"}}}
	for name, test := range map[string]struct {
		backends    []spillover.Backend
		fallbacks   []spillover.Fallback
		short, long string // who answers
	}{
		"another deployment fits": {[]spillover.Backend{azure("a", contextTokens("m", 2000)), azure("b", contextTokens("m", 20000), priority(2))}, nil, "a", "b"},
		"one of unknown size":     {[]spillover.Backend{azure("a", contextTokens("m", 2000)), azure("b", priority(2))}, nil, "a", "b"},
		"none fits":               {[]spillover.Backend{azure("a", contextTokens("m", 2000))}, nil, "a", "a"},
		"another model fits":      {[]spillover.Backend{azure("a", contextTokens("m", 2000)), azure("b", contextTokens("second", 20000))}, both, "a", "b"},
		"no model fits":           {[]spillover.Backend{azure("a", contextTokens("m", 2000)), azure("b", contextTokens("second", 3000))}, both, "a", "a"},
		"fallback when exhausted only": {[]spillover.Backend{azure("a", contextTokens("m", 2000)), azure("b", contextTokens("second", 20000))},
			[]spillover.Fallback{{Model: "m", To: []string{"second"}, On: spillover.OnExhausted}}, "a", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			tr := configured(t, spillover.Config{Base: n, Backends: test.backends, Fallbacks: test.fallbacks})
			resp, _ := ask(t, tr)
			require.Equal(t, test.short, servedBy(resp))
			resp, _ = send(t, tr, long(t))
			require.Equal(t, test.long, servedBy(resp))
			require.Equal(t, 2, n.Sends())
		})
	}
}

// A large body is read if its size decides, although the path names the model.
func TestContextTokensOfALargeBody(t *testing.T) {
	n := newNet()
	tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", contextTokens("m", 100_000)), azure("b", contextTokens("m", 1_000_000), priority(2))}})
	text := `{"messages":[{"role":"user","content":"` + strings.Repeat("word ", 400_000) + `"}],"model":"m"}`
	req := newChat(t, chatPath)
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
	resp, _ := send(t, tr, req)
	require.Equal(t, "b", servedBy(resp))
	require.Equal(t, text, n.Last().Body)
}

// Every mistake in Fallbacks is reported, with what to do.
func TestFallbacksAreChecked(t *testing.T) {
	fb := func(model string, to ...string) spillover.Fallback { return spillover.Fallback{Model: model, To: to} }
	for name, test := range map[string]struct {
		fallbacks []spillover.Fallback
		want      string // "" for none
	}{
		"good":                  {[]spillover.Fallback{fb("a", "b", "c"), fb("b", "c")}, ""},
		"one for each On":       {[]spillover.Fallback{{Model: "a", To: []string{"b"}, On: spillover.OnExhausted}, {Model: "a", To: []string{"c"}, On: spillover.OnContextLength}}, ""},
		"no model":              {[]spillover.Fallback{fb("", "b")}, "Fallbacks[0].Model: is missing"},
		"no To":                 {[]spillover.Fallback{fb("a")}, "Fallbacks[0].To: is missing: list at least one model"},
		"empty To":              {[]spillover.Fallback{fb("a", "")}, "Fallbacks[0].To[0]: is empty"},
		"unknown model":         {[]spillover.Fallback{fb("x", "b")}, `Fallbacks[0].Model: no backend serves "x"`},
		"unknown To":            {[]spillover.Fallback{fb("a", "x")}, `Fallbacks[0].To[0]: no backend serves "x"`},
		"itself":                {[]spillover.Fallback{fb("a", "a")}, "Fallbacks[0].To[0]: is the model itself"},
		"twice in To":           {[]spillover.Fallback{fb("a", "b", "b")}, `Fallbacks[0].To[1]: "b" is listed twice`},
		"twice":                 {[]spillover.Fallback{fb("a", "b"), fb("a", "c")}, `Fallbacks[1].Model: "a" is listed twice for the same On`},
		"twice for one On":      {[]spillover.Fallback{fb("a", "b"), {Model: "a", To: []string{"c"}, On: spillover.OnExhausted}}, `Fallbacks[1].Model: "a" is listed twice for the same On`},
		"unknown On":            {[]spillover.Fallback{{Model: "a", To: []string{"b"}, On: 8}}, "Fallbacks[0].On: 8 is unknown"},
		"cycle of two":          {[]spillover.Fallback{fb("a", "b"), fb("b", "a")}, "Fallbacks: they form a cycle: a → b → a"},
		"cycle of three":        {[]spillover.Fallback{fb("a", "b"), fb("b", "c"), fb("c", "a")}, "Fallbacks: they form a cycle: a → b → c → a"},
		"cycle behind a branch": {[]spillover.Fallback{fb("a", "c", "b"), fb("b", "a")}, "Fallbacks: they form a cycle: a → b → a"},
		"changes the path":      {[]spillover.Fallback{fb("a", "..")}, `Fallbacks[0].To[0]: ".." would change the path of a URL`},
		"no cycle, two ways":    {[]spillover.Fallback{fb("a", "b", "c"), fb("b", "c")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			backends := []spillover.Backend{azure("x1", serves("a", "b", "c"))}
			if name == "changes the path" {
				backends = append(backends, azure("x2")) // serves every model
			}
			tr, err := spillover.New(spillover.Config{Backends: backends, Fallbacks: test.fallbacks})
			if test.want == "" {
				require.NoError(t, err)
				require.NoError(t, tr.Close())
				return
			}
			require.EqualError(t, err, "spillover: "+test.want)
		})
	}
}

// Whatever fails, a request reaches only the models of its chain, in order, and one
// that can be served is served.
func TestFallbackProperties(t *testing.T) {
	all := []string{"m", "n", "o", "p"}
	rapid.Check(t, func(rt *rapid.T) {
		n := newNet()
		chain := rapid.SliceOfNDistinct(rapid.SampledFrom(all[1:]), 0, 3, rapid.ID[string]).Draw(rt, "to")
		healthy, unreachable := map[string]bool{}, false
		var backends []spillover.Backend
		serving := map[string]bool{}
		for i := range rapid.IntRange(1, 5).Draw(rt, "backends") {
			name := fmt.Sprintf("b%d", i)
			models := rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 4, rapid.ID[string]).Draw(rt, "models of "+name)
			answers := map[string]roundTripFunc{}
			for _, m := range models {
				serving[m] = true
				up := rapid.Bool().Draw(rt, "up")
				healthy[m] = healthy[m] || up
				if answers[m] = ok200; !up {
					kind := rapid.SampledFrom([]string{"429", "500", "too long", "reset", "refused"}).Draw(rt, "answer")
					unreachable = unreachable || kind == "refused"
					answers[m] = map[string]roundTripFunc{"429": status(429, "{}"), "500": status(500, "{}"), "too long": status(400, tooLong),
						"reset": broken(errReset), "refused": broken(errRefused)}[kind]
				}
			}
			n.On(host(name), byModel(answers))
			backends = append(backends, azure(name, serves(models...), priority(rapid.IntRange(1, 3).Draw(rt, "priority"))))
		}
		if !serving["m"] {
			backends = append(backends, azure("more", serves("m")))
			healthy["m"] = true
		}
		chain = slices.DeleteFunc(chain, func(m string) bool { return !serving[m] })
		cfg := spillover.Config{Base: n, Backends: backends, MaxAttempts: 50}
		if len(chain) > 0 {
			cfg.Fallbacks = []spillover.Fallback{{Model: "m", To: chain}}
		}
		tr, err := spillover.New(cfg)
		require.NoError(rt, err)
		defer tr.Close()
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		allowed := append([]string{"m"}, chain...)
		var asked []string // each once; a deployment may be asked again at the end, as a last resort
		for _, m := range modelsSent(n) {
			require.Contains(rt, allowed, m)
			if !slices.Contains(asked, m) {
				asked = append(asked, m)
			}
		}
		// A backend that cannot be reached is left out, and asked as a last resort.
		require.True(rt, unreachable || slices.IsSortedFunc(asked, func(a, b string) int { return slices.Index(allowed, a) - slices.Index(allowed, b) }), "%v: the chain is followed in order", asked)
		if err == nil {
			defer resp.Body.Close()
		}
		if healthy["m"] && len(modelsSent(n)) > 0 && !slices.Contains(modelsSent(n)[1:], "m") && modelsSent(n)[0] != "m" {
			rt.Fatal("the model that was asked for is tried first")
		}
	})
}

func TestFallbackOnIsReadAsItIsWritten(t *testing.T) {
	for _, on := range []spillover.FallbackOn{spillover.OnExhausted, spillover.OnContextLength, spillover.OnExhausted | spillover.OnContextLength} {
		var read spillover.FallbackOn
		require.NoError(t, read.UnmarshalText([]byte(on.String())))
		require.Equal(t, on, read)
	}
	require.Equal(t, "FallbackOn(8)", spillover.FallbackOn(8).String())
	on := spillover.OnExhausted
	require.ErrorContains(t, on.UnmarshalText([]byte("never")), `"context_length"`)
	require.Equal(t, spillover.OnExhausted, on)
}

func TestFallbackOfANameThatChangesThePathIsRefused(t *testing.T) {
	for _, name := range []string{".", ".."} {
		_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{azure("a")}, Fallbacks: []spillover.Fallback{{Model: name, To: []string{"m"}}}})
		require.ErrorContains(t, err, "would change the path")
	}
}

func TestNegativeLimitsOfAModelAreRefused(t *testing.T) {
	_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{azure("a", func(b *spillover.Backend) {
		b.Models = []spillover.Model{{Name: "m", TPM: -1, ContextTokens: -2}}
	})}})
	require.ErrorContains(t, err, "TPM: -1 is negative")
	require.ErrorContains(t, err, "ContextTokens: -2 is negative")
}
