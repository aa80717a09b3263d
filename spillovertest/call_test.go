package spillovertest

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRoute(t *testing.T) {
	tests := []struct {
		dialect        Dialect
		path           string
		op, deployment string // op "": no route
	}{
		{Azure, "/openai/deployments/gpt-4o/chat/completions", opChat, "gpt-4o"},
		{Azure, "//openai/deployments/gpt-4o/completions/", opCompletions, "gpt-4o"},
		{Azure, "/a/gateway/openai/deployments/e/embeddings", opEmbeddings, "e"},
		{Azure, "/openai/openai/deployments/e/embeddings", opEmbeddings, "e"},
		{Azure, "/openai/deployments/my%20gpt%2F4o/chat/completions", opChat, "my gpt/4o"},
		{Azure, "/openai/responses", opResponses, ""},
		{Azure, "/openai/models", opModels, ""},
		{Azure, "/openai/chat/completions", "", ""},
		{Azure, "/openai/deployments/gpt-4o/responses", "", ""},
		{Azure, "/openai/deployments/gpt-4o", "", ""},
		{Azure, "/openai/deployments/gpt%zz/chat/completions", "", ""},
		{Azure, "/openai", "", ""},
		{Azure, "/openai/v1/chat/completions", "", ""},
		{AzureV1, "/openai/v1/chat/completions", opChat, ""},
		{AzureV1, "/api/projects/p/openai/v1/responses", opResponses, ""},
		{AzureV1, "/v1/chat/completions", "", ""},
		{OpenAI, "/v1/models", opModels, ""},
		{OpenAI, "/v1/v1/embeddings", opEmbeddings, ""},
		{OpenAI, "/v1/files", "", ""},
		{OpenAI, "/v1/chat/completions/x", "", ""},
		{OpenAI, "", "", ""},
	}
	for _, tt := range tests {
		op, deployment, ok := tt.dialect.route(tt.path)
		require.Equal(t, tt.op != "", ok, tt.path)
		if ok {
			require.Equal(t, [2]string{tt.op, tt.deployment}, [2]string{op, deployment}, tt.path)
		}
	}
}

func TestDemand(t *testing.T) {
	tests := []struct {
		body string
		want demand
	}{
		{`{}`, demand{}},
		{`{"prompt":"12345","max_tokens":7}`, demand{2, 7}},
		{`{"messages":[{"content":"1234"},{"content":"5"}],"max_completion_tokens":9,"max_tokens":7}`, demand{2, 9}},
		{`{"messages":[{"content":[{"type":"text","text":"12345678"},{"type":"image_url"}]},{"content":null}]}`, demand{2, 0}},
		{`{"instructions":"éèêë","input":[{"role":"user","content":[{"type":"input_text","text":"1234"}]}],"max_output_tokens":3}`, demand{2, 3}},
		{`{"input":["1234","5678"],"max_tokens":-4}`, demand{2, 0}},
		{`{"input":[11,12,13]}`, demand{3, 0}},
	}
	for _, tt := range tests {
		var p payload
		require.NoError(t, json.Unmarshal([]byte(tt.body), &p))
		require.Equal(t, tt.want, p.demand(), tt.body)
	}
}

func TestAuthorized(t *testing.T) {
	key, token := http.Header{"Api-Key": {"k"}}, http.Header{"Authorization": {"bearer k"}}
	basic := http.Header{"Authorization": {"Basic k"}}
	for _, d := range []Dialect{Azure, AzureV1, OpenAI} {
		s := New(Config{Dialect: d, Keys: []string{"j", "k"}})
		require.Equal(t, d != OpenAI, s.authorized(key))
		require.True(t, s.authorized(token))
		require.False(t, s.authorized(basic))
		require.False(t, s.authorized(nil))
		require.True(t, New(Config{Dialect: d}).authorized(nil))
	}
}

func TestMask(t *testing.T) {
	require.Equal(t, "********", mask("12345678"))
	require.Equal(t, "sk-1**cdef", mask("sk-1abcdef"))
	require.NotContains(t, New(Config{Dialect: OpenAI}).dialect.unauthorized(
		http.Header{"Authorization": {"Bearer sk-secret-secret"}}).message, "secret-s")
}

func TestQuote(t *testing.T) {
	require.Equal(t, `"a \"<b>\" \\"`, quote(`a "<b>" \`))
}

func TestBadConfigPanics(t *testing.T) {
	for _, tt := range []struct {
		want string
		cfg  Config
	}{
		{`Config.Name "East US" is not a host name of lower-case letters, digits, dots and dashes`, Config{Name: "East US"}},
		{`Config.Dialect "aws" must be one of azure, azure-v1 and openai`, Config{Dialect: "aws"}},
		{`Config.Keys contains an empty key`, Config{Keys: []string{""}}},
		{`deployment "": Name is missing`, Config{Deployments: []Deployment{{}}}},
		{`deployment "a" is listed twice`, Config{Deployments: []Deployment{{Name: "a"}, {Name: "a"}}}},
		{`deployment "a": Output -1 is negative`, Config{Deployments: []Deployment{{Name: "a", Output: -1}}}},
		{`deployment "a": Batch -1 is negative`, Config{Deployments: []Deployment{{Name: "a", Batch: -1}}}},
		{`deployment "a": Latency has a negative field`, Config{Deployments: []Deployment{{Name: "a", Latency: Latency{PerToken: -1}}}}},
		{`deployment "a": Latency has a negative field`, Config{Deployments: []Deployment{{Name: "a", Latency: Latency{Refusal: -1}}}}},
		{`deployment "a": Jitter 2 is not between 0 and 1`, Config{Deployments: []Deployment{{Name: "a", Latency: Latency{Jitter: 2}}}}},
		{`deployment "a": PAYG has a negative limit`, Config{Deployments: []Deployment{{Name: "a", Limit: PAYG{TPM: -1}}}}},
		{`deployment "a": PAYG has a negative limit`, Config{Deployments: []Deployment{{Name: "a", Limit: PAYG{StaleLimits: -1}}}}},
		{`deployment "a": PAYG.Window 3 is unknown`, Config{Deployments: []Deployment{{Name: "a", Limit: PAYG{Window: 3}}}}},
		{`deployment "a": PTU has a negative field`, Config{Deployments: []Deployment{{Name: "a", Limit: PTU{Guess: -1}}}}},
	} {
		require.PanicsWithValue(t, "spillovertest: "+tt.want, func() { New(tt.cfg) })
	}
}
