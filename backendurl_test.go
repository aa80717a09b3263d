package spillover_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// The URL of one operation is refused, and the error says what to write.
func TestOperationURLIsRefused(t *testing.T) {
	for given, want := range map[string]string{
		"https://r.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21":            `"https://r.openai.azure.com" with dialect "azure", APIVersion "2024-10-21", and model "gpt-4o" if it should serve no other`,
		"https://r.cognitiveservices.azure.com/openai/deployments/my-emb/embeddings?api-version=2023-05-15":       `"https://r.cognitiveservices.azure.com" with dialect "azure", APIVersion "2023-05-15", and model "my-emb" if it should serve no other`,
		"r.openai.azure.us/openai/deployments/gpt%204/images/generations":                                         `"https://r.openai.azure.us" with dialect "azure", and model "gpt 4" if it should serve no other`,
		"https://r.openai.azure.com/openai/deployments/gpt-4o/":                                                   `"https://r.openai.azure.com" with dialect "azure", and model "gpt-4o" if it should serve no other`,
		"https://r.openai.azure.com//openai//deployments/chat/chat/completions/":                                  `"https://r.openai.azure.com" with dialect "azure", and model "chat" if it should serve no other`,
		"https://r.openai.azure.com/openai/responses?api-version=2025-04-01-preview":                              `"https://r.openai.azure.com" with dialect "azure", APIVersion "2025-04-01-preview"`,
		"https://r.openai.azure.com/openai/v1/responses":                                                          `"https://r.openai.azure.com" with dialect "azure-v1"`,
		"https://r.openai.azure.com/openai/v1/responses?api-version=preview":                                      `"https://r.openai.azure.com" with dialect "azure-v1", APIVersion "preview"`,
		"https://r.services.ai.azure.com/api/projects/p/openai/v1/responses":                                      `"https://r.services.ai.azure.com/api/projects/p" with dialect "azure-v1"`,
		"https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview":                  `"https://r.services.ai.azure.com" with dialect "azure-v1"`,
		"https://r.services.ai.azure.com/models":                                                                  `"https://r.services.ai.azure.com" with dialect "azure-v1"`,
		"https://r.services.ai.azure.com/anthropic/v1/messages":                                                   `"https://r.services.ai.azure.com" with dialect "azure-v1"`,
		"https://api.openai.com/v1/chat/completions":                                                              `"https://api.openai.com/v1" with dialect "openai"`,
		"https://api.openai.com/v1/responses/":                                                                    `"https://api.openai.com/v1" with dialect "openai"`,
		"https://gw.example/ai/v1/embeddings":                                                                     `"https://gw.example/ai/v1" with dialect "openai"`,
		"https://gw.example/tenant%2Fa/v1/embeddings":                                                             `"https://gw.example/tenant%2Fa/v1" with dialect "openai"`,
		"https://gw.example/openai/v1/chat/completions":                                                           `"https://gw.example/openai/v1" with dialect "azure-v1"`,
		"https://gw.example/chat/completions":                                                                     `"https://gw.example" with dialect "openai"`,
		"https://apim.azure-api.net/my-api/deployments/gpt-4o/chat/completions?api-version=2024-10-21":            `"https://apim.azure-api.net/my-api/deployments" with dialect "azure", APIVersion "2024-10-21", and model "gpt-4o" if it should serve no other`,
		"https://apim.azure-api.net/my-api/openai/deployments/gpt-4o/chat/completions":                            `"https://apim.azure-api.net/my-api" with dialect "azure", and model "gpt-4o" if it should serve no other`,
		"https://eastus.api.cognitive.microsoft.com/openai/deployments/gpt-4o/completions?API-Version=2024-10-21": `"https://eastus.api.cognitive.microsoft.com" with dialect "azure", APIVersion "2024-10-21", and model "gpt-4o" if it should serve no other`,
	} {
		require.Equal(t, []string{`backend "b": URL: is the URL of one operation or deployment; write ` + want},
			mistakes(spillover.Config{Backends: []spillover.Backend{{Name: "b", URL: given, APIKey: "k"}}}), given)
	}
}

// A dialect that is given is kept where it can be what was meant.
func TestOperationURLKeepsItsDialect(t *testing.T) {
	for _, c := range []struct {
		given   string
		dialect spillover.Dialect
		want    string
	}{
		{"https://gw.example/ai/v1/embeddings", spillover.AzureV1, `"https://gw.example/ai/v1" with dialect "azure-v1"`},
		{"https://gw.example/ai/v1/embeddings", spillover.OpenAI, `"https://gw.example/ai/v1" with dialect "openai"`},
		{"https://gw.example/ai/v1/embeddings", spillover.Azure, `"https://gw.example/ai/v1" with dialect "openai"`},
		{"https://gw.example/openai/v1/responses", spillover.OpenAI, `"https://gw.example/openai/v1" with dialect "openai"`},
		{"https://gw.example/chat/completions", spillover.AzureV1, `"https://gw.example" with dialect "azure-v1"`},
	} {
		require.Equal(t, []string{`backend "b": URL: is the URL of one operation or deployment; write ` + c.want},
			mistakes(spillover.Config{Backends: []spillover.Backend{{Name: "b", URL: c.given, Dialect: c.dialect, APIKey: "k"}}}), c.given)
	}
}

// What is written as the error says is accepted, and arrives where the URL said.
func TestCorrectedOperationURL(t *testing.T) {
	for given, c := range map[string]struct {
		backend spillover.Backend
		from    string
	}{
		"https://r.openai.azure.com/openai/deployments/m/chat/completions?api-version=2024-10-21": {spillover.Backend{URL: "https://r.openai.azure.com", Dialect: spillover.Azure, APIVersion: "2024-10-21"}, "/v1/chat/completions"},
		"https://r.openai.azure.com/openai/v1/responses?api-version=preview":                      {spillover.Backend{URL: "https://r.openai.azure.com", Dialect: spillover.AzureV1, APIVersion: "preview"}, "/v1/responses"},
		"https://api.openai.com/v1/chat/completions":                                              {spillover.Backend{URL: "https://api.openai.com/v1", Dialect: spillover.OpenAI}, chatPath},
		"https://apim.azure-api.net/my-api/deployments/m/chat/completions?api-version=2024-10-21": {spillover.Backend{URL: "https://apim.azure-api.net/my-api/deployments", Dialect: spillover.Azure, APIVersion: "2024-10-21"}, chatPath},
		"https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview":  {spillover.Backend{URL: "https://r.services.ai.azure.com", Dialect: spillover.AzureV1}, "/models/chat/completions?api-version=2024-05-01-preview"},
		"https://gw.example/openai/v1/chat/completions":                                           {spillover.Backend{URL: "https://gw.example/openai/v1", Dialect: spillover.AzureV1}, chatPath},
	} {
		c.backend.APIKey = "k"
		got := arrives(t, c.backend, http.MethodPost, "https://foo.example"+c.from, `{"model":"m"}`)
		require.Equal(t, given, strings.TrimSuffix("https://"+got.Host+got.Path+"?"+got.Query, "?"))
	}
}

// Base paths that only look like operations stay base paths.
func TestBasePathIsNoOperation(t *testing.T) {
	for _, given := range []string{
		"https://gw.example/chat", "https://gw.example/responses", "https://gw.example/v1/team", "https://gw.example/v1/account/gateway/openai", "https://gw.example/openai/team-a",
		"https://gw.example/models", "https://gw.example/ai/deployments-eu", "https://gw.example/deployments/blue", "https://gw.example/openai-chat",
		"https://apim.azure-api.net/models", "https://apim.azure-api.net/chat", "https://r.services.ai.azure.com/api/projects/responses",
	} {
		require.Empty(t, mistakes(spillover.Config{Backends: []spillover.Backend{{URL: given, APIKey: "k"}}}), given)
	}
}

// A query is not shown, as it may hold a key.
func TestOperationURLHidesItsQuery(t *testing.T) {
	require.Equal(t, []string{
		`backend "b": URL: has a query: an api-version belongs in APIVersion, a credential in APIKey`,
		`backend "b": URL: is the URL of one operation or deployment; write "https://r.openai.azure.com" with dialect "azure", and model "m" if it should serve no other`,
	}, mistakes(spillover.Config{Backends: []spillover.Backend{{Name: "b", URL: "https://me:secret@r.openai.azure.com/openai/deployments/m/embeddings?subscription-key=secret&api-version=a%20secret", APIKey: "k"}}})[1:])
}

// How a URL is written decides where the dialect's paths are.
func TestPrefixOfURL(t *testing.T) {
	for _, c := range []struct {
		url  string
		d    spillover.Dialect
		want string
	}{
		{"https://gw.example", spillover.Azure, "/openai/deployments/m/chat/completions"},
		{"https://gw.example/openai/", spillover.Azure, "/openai/deployments/m/chat/completions"},
		{"https://gw.example/openai/deployments", spillover.Azure, "/openai/deployments/m/chat/completions"},
		{"https://gw.example/my-api", spillover.Azure, "/my-api/openai/deployments/m/chat/completions"},
		{"https://gw.example/my-api/deployments", spillover.Azure, "/my-api/deployments/m/chat/completions"},
		{"https://gw.example/my-api/deployments", "", "/my-api/deployments/m/chat/completions"},
		{"https://gw.example/deployments", spillover.Azure, "/deployments/m/chat/completions"},
		{"https://r.openai.azure.com/v1", spillover.Azure, "/v1/openai/deployments/m/chat/completions"},
		{"https://gw.example", spillover.AzureV1, "/openai/v1/chat/completions"},
		{"https://gw.example/openai", spillover.AzureV1, "/openai/v1/chat/completions"},
		{"https://gw.example/openai/v1/", spillover.AzureV1, "/openai/v1/chat/completions"},
		{"https://gw.example/my-api", spillover.AzureV1, "/my-api/openai/v1/chat/completions"},
		{"https://gw.example/my-api/v1", spillover.AzureV1, "/my-api/v1/chat/completions"},
		{"https://gw.example/v1", spillover.AzureV1, "/v1/chat/completions"},
		{"https://gw.example", spillover.OpenAI, "/v1/chat/completions"},
		{"https://gw.example/my-api/v1", spillover.OpenAI, "/my-api/v1/chat/completions"},
		{"https://gw.example/openai", spillover.OpenAI, "/openai/v1/chat/completions"},
	} {
		require.Equal(t, c.want, arrives(t, to(c.url, c.d, ""), http.MethodPost, "https://foo.example/v1/chat/completions", `{"model":"m"}`).Path, "%s as %s", c.url, c.d)
	}
	require.Equal(t, "/my-api/files", arrives(t, to("https://gw.example/my-api/deployments", spillover.Azure, ""), http.MethodGet, "https://foo.example/v1/files", "").Path)
	require.Equal(t, []string{`backend "a": URL: ends in /openai/v1, the path of dialect "azure-v1", but the dialect is "azure"`},
		mistakes(spillover.Config{Backends: []spillover.Backend{azure("a", func(b *spillover.Backend) { b.URL += "/openai/v1"; b.Dialect = spillover.Azure })}}))
}

// Classic Azure answers 404 without an api-version, which other dialects lack.
func TestDefaultAPIVersion(t *testing.T) {
	for target, want := range map[string]string{
		"/v1/chat/completions":                            "api-version=2024-10-21",
		"/v1/files?limit=5":                               "limit=5&api-version=2024-10-21",
		"/v1/embeddings?api-version=2023-05-15":           "api-version=2023-05-15",
		"/v1/embeddings?api-version=":                     "api-version=2024-10-21",
		"/openai/v1/chat/completions?api-version=preview": "api-version=2024-10-21",
		"/v1/responses":                                   "api-version=2025-04-01-preview",
		"/openai/v1/responses/resp_1/input_items?x=1":     "x=1&api-version=2025-04-01-preview",
		"/v1/audio/speech":                                "api-version=2025-04-01-preview",
		"/v1/audio/transcriptions":                        "api-version=2024-10-21",
		"/v1/audio/translations":                          "api-version=2024-10-21",
		"/v1/images/generations":                          "api-version=2025-04-01-preview",
		"/v1/images/edits":                                "api-version=2025-04-01-preview",
		"/v1/realtime/sessions":                           "api-version=2025-04-01-preview",
		"/v1/assistants":                                  "api-version=2025-04-01-preview",
		"/v1/threads/thread_1/runs":                       "api-version=2025-04-01-preview",
		"/v1/vector_stores":                               "api-version=2025-04-01-preview",
		"/v1/completions":                                 "api-version=2024-10-21",
		"/v1/batches":                                     "api-version=2024-10-21",
		"/v1/uploads/upload_1/parts":                      "api-version=2024-10-21",
		"/v1/fine_tuning/jobs":                            "api-version=2024-10-21",
		"/v1/models":                                      "api-version=2024-10-21",
		"/v1/telepathy":                                   "api-version=2025-04-01-preview",
		"/openai/files":                                   "",
		"/openai/files?api-version=1":                     "api-version=1",
		"/status":                                         "",
	} {
		require.Equal(t, want, arrives(t, to("https://h", spillover.Azure, ""), http.MethodGet, "https://foo.example"+target, "").Query, target)
	}
}

// The v1 API takes an api-version where its previews are wanted.
func TestAPIVersionOfAzureV1(t *testing.T) {
	for target, want := range map[string]string{
		"/v1/responses":                                           "api-version=preview",
		"/openai/v1/responses?a=1":                                "a=1&api-version=preview",
		"/openai/v1/responses?api-version=v1":                     "api-version=preview",
		"/openai/responses?api-version=2025-04-01":                "api-version=preview",
		"/models/chat/completions?api-version=2024-05-01-preview": "api-version=2024-05-01-preview",
	} {
		require.Equal(t, want, arrives(t, to("https://h", spillover.AzureV1, "", apiVersion("preview")), http.MethodGet, "https://foo.example"+target, "").Query, target)
	}
}
