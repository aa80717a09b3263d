package spillover_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/wire"
)

func defaults(fields map[string]any) func(*spillover.Backend) {
	return func(b *spillover.Backend) { b.Defaults = fields }
}

func TestBackendDefaults(t *testing.T) {
	const chat, classic, whole = "/v1/chat/completions", chatPath, "/v1/responses"
	all := map[string]any{
		"temperature": 0.5, "max_completion_tokens": 800, "max_output_tokens": 900, "stop": []string{"<end>", `"&`}, "reasoning": map[string]any{"effort": "low"}, "user": nil,
	}
	for name, test := range map[string]struct {
		path, body string
		fields     map[string]any
		want       string
	}{
		"left out":               {chat, `{"model":"m","messages":[]}`, map[string]any{"temperature": 1}, `{"temperature":1,"model":"east","messages":[]}`},
		"given":                  {chat, `{"model":"m","temperature":0}`, map[string]any{"temperature": 1}, `{"model":"east","temperature":0}`},
		"given as null":          {chat, `{"model":"m","temperature":null}`, map[string]any{"temperature": 1}, `{"model":"east","temperature":null}`},
		"given in other letters": {chat, `{"model":"m","t\u0065mperature":0}`, map[string]any{"temperature": 1}, `{"model":"east","t\u0065mperature":0}`},
		"given deep inside":      {chat, `{"model":"m","metadata":{"temperature":0}}`, map[string]any{"temperature": 1}, `{"temperature":1,"model":"east","metadata":{"temperature":0}}`},
		"by name":                {chat, `{"model":"m"}`, all, `{"max_completion_tokens":800,"reasoning":{"effort":"low"},"stop":["<end>","\"&"],"temperature":0.5,"user":null,"model":"east"}`},
		"responses":              {whole, `{"model":"m"}`, all, `{"max_output_tokens":900,"reasoning":{"effort":"low"},"stop":["<end>","\"&"],"temperature":0.5,"user":null,"model":"east"}`},
		"the other maximum":      {chat, `{"model":"m","max_tokens":5}`, map[string]any{"max_completion_tokens": 800}, `{"model":"east","max_tokens":5}`},
		"and the reverse":        {chat, `{"model":"m","max_completion_tokens":5}`, map[string]any{"max_tokens": 800}, `{"model":"east","max_completion_tokens":5}`},
		"completions":            {"/v1/completions", `{"model":"m"}`, map[string]any{"max_tokens": 8}, `{"max_tokens":8,"model":"east"}`},
		"completions, others":    {"/v1/completions", `{"model":"m"}`, map[string]any{"max_completion_tokens": 8, "max_output_tokens": 9}, `{"model":"east"}`},
		"model in the path":      {classic, `{"messages":[]}`, map[string]any{"temperature": 1}, `{"temperature":1,"model":"east","messages":[]}`},
		"an empty object":        {classic, ` { } `, map[string]any{"temperature": 1}, ` {"temperature":1,"model":"east" } `},
		"no model":               {chat, `{ }`, map[string]any{"a": 1, "b": 2}, `{"a":1,"b":2 }`},
		"no object":              {chat, `[1]`, map[string]any{"temperature": 1}, `[1]`},
		"embeddings":             {"/v1/embeddings", `{"model":"m"}`, map[string]any{"temperature": 1}, `{"model":"east"}`},
		"about a response":       {"/v1/responses/resp_1/cancel", `{}`, map[string]any{"temperature": 1}, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			tr := balance(t, n, spillover.Backend{URL: "https://api.example.com", APIKey: "k", Models: []spillover.Model{{Name: "m", Deployment: "east"}}, Dialect: spillover.OpenAI},
				spillover.Backend{URL: "https://b.example.com", APIKey: "k", Priority: 2, Dialect: spillover.OpenAI, Defaults: map[string]any{"unrelated": 1}})
			cfg := spillover.Config{Base: n, Backends: []spillover.Backend{{URL: "https://api.example.com", APIKey: "k", Models: []spillover.Model{{Name: "m", Deployment: "east"}}, Dialect: spillover.OpenAI, Defaults: test.fields}}}
			require.NoError(t, tr.Reconfigure(cfg))
			req := newChat(t, test.path)
			req.Body, req.ContentLength, req.GetBody = io.NopCloser(strings.NewReader(test.body)), int64(len(test.body)), nil
			_, err := tr.RoundTrip(req)
			require.NoError(t, err)
			require.Len(t, n.Seen, 1)
			require.Equal(t, test.want, n.Seen[0].Body)
			require.EqualValues(t, len(test.want), n.Seen[0].Length)
		})
	}
}

// Each backend has its own, and a request that moves on leaves them behind.
func TestDefaultsPerBackend(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(429, "{}", "retry-after: 1"))
	tr := balance(t, n, azure("a", defaults(map[string]any{"temperature": 0.1})), azure("b", priority(2), defaults(map[string]any{"top_p": 0.2})), azure("c", priority(3)))
	resp, _ := ask(t, tr)
	require.Equal(t, "b", servedBy(resp))
	require.Contains(t, n.Seen[0].Body, `{"temperature":0.1,`)
	require.NotContains(t, n.Seen[1].Body, "temperature")
	require.Contains(t, n.Seen[1].Body, `{"top_p":0.2,`)
}

func TestDefaultsMistakes(t *testing.T) {
	many := map[string]any{}
	for i := range spillover.MaxPresets + 1 {
		many[fmt.Sprint(i)] = i
	}
	for want, fields := range map[string]map[string]any{
		`backend "a": Defaults["model"]: cannot be a default, because it decides what the response is`:  {"model": "x"},
		`backend "a": Defaults["stream"]: cannot be a default, because it decides what the response is`: {"stream": true},
		`backend "a": Defaults[""]: a field has no name`:                                                {"": 1},
		`backend "a": Defaults["top_p"]: json: unsupported value: NaN`:                                  {"top_p": math.NaN()},
		`backend "a": Defaults["x"]: json: unsupported type: func()`:                                    {"x": func() {}},
		`backend "a": Defaults: "max_tokens" cannot be combined with "max_completion_tokens"`:           {"max_tokens": 1, "max_completion_tokens": 1},
		`Backends: their Defaults have 65 different fields; at most 64 are allowed`:                     many,
	} {
		_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{azure("a", defaults(fields))}})
		require.EqualError(t, err, "spillover: "+want)
	}
	delete(many, "0")
	n := newNet()
	tr := balance(t, n, azure("a", defaults(many)))
	ask(t, tr)
	require.Contains(t, n.Seen[0].Body, `"64":64,`, "the last bit")
}

// What is beyond reading is left as it is: a field that was given may be there.
func TestDefaultsOfLargeBodies(t *testing.T) {
	t.Parallel()
	var sent int64
	tr := balance(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sent = req.ContentLength
		return ok200(req)
	}), azure("a", defaults(map[string]any{"temperature": 1})))
	body := `{"messages":"` + strings.Repeat("x", replay.MaxBuffered) + `","temperature":0}`
	req := newChat(t, chatPath)
	req.Body, req.ContentLength, req.GetBody = io.NopCloser(strings.NewReader(body)), int64(len(body)), nil
	_, err := tr.RoundTrip(req)
	require.NoError(t, err)
	require.EqualValues(t, len(body), sent)
}

// Whatever the body, it is the caller's with what was left out.
func TestDefaultsProperties(t *testing.T) {
	names := []string{"model", "temperature", "max_tokens", "max_completion_tokens", "stop", "ü \"x\"", "messages"}
	rapid.Check(t, func(t *rapid.T) {
		fields, body := map[string]any{}, map[string]any{}
		for _, name := range names {
			if rapid.Bool().Draw(t, "default") && name != "model" {
				fields[name] = rapid.SampledFrom([]any{1.5, "a\"<", nil, []any{true}}).Draw(t, "value")
			}
			if rapid.Bool().Draw(t, "given") {
				body[name] = rapid.SampledFrom([]any{2.5, "b,\"\\", nil, map[string]any{"temperature": 1.0}}).Draw(t, "value")
			}
		}
		if _, both := fields[wire.MaxTokensField]; both {
			delete(fields, wire.MaxCompletionTokensField)
		}
		body["model"] = "m"
		text, _ := json.Marshal(body)
		n := newNet()
		tr, err := spillover.New(spillover.Config{Base: n, Backends: []spillover.Backend{azure("a", defaults(fields))}})
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest("POST", "https://x.openai.azure.com/openai/v1/chat/completions?api-version=1", strings.NewReader(string(text)))
		if _, err := tr.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(n.Seen[0].Body), &got), n.Seen[0].Body)
		_, one := body[wire.MaxTokensField]
		_, other := body[wire.MaxCompletionTokensField]
		for name, value := range fields {
			if _, given := body[name]; !given && !((name == wire.MaxTokensField || name == wire.MaxCompletionTokensField) && (one || other)) {
				body[name] = value
			}
		}
		require.Equal(t, body, got)
	})
}
