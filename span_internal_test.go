package spillover

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wire"
)

func TestOperations(t *testing.T) {
	for line, want := range map[string]string{
		"POST chat/completions":                "chat",
		"GET chat/completions":                 "chat_completions",
		"GET chat/completions/chatcmpl-1":      "chat_completions",
		"POST responses":                       "chat",
		"GET responses/resp_1":                 "fetch_response",
		"GET responses/resp_1/input_items":     "responses",
		"DELETE responses/resp_1":              "responses",
		"POST completions":                     "text_completion",
		"POST embeddings":                      "embeddings",
		"POST vector_stores/vs_1/search":       "retrieval",
		"GET vector_stores/vs_1/search":        "vector_stores",
		"POST images/generations":              "images",
		"POST files":                           "files",
		"GET " + strings.Repeat("x", 100):      "other",
		"POST ":                                "other",
		"POST <script>/chat/completions%0a%00": "other",
	} {
		method, op, _ := strings.Cut(line, " ")
		require.Equal(t, want, spanOperation(method, op), line)
	}
}

// The dialect tells whose model it is.
func TestProviders(t *testing.T) {
	for d, want := range map[Dialect]string{Azure: "azure.ai.openai", AzureV1: "azure.ai.openai", OpenAI: "openai"} {
		require.Equal(t, want, (&backend{dialect: wire.SpecOf(d)}).provider())
	}
}
