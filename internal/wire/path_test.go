package wire

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestModelIsReadFromTheCallersPath(t *testing.T) {
	for path, model := range map[string]string{
		"/openai/deployments/chat/chat/completions":          "chat",
		"/openai/deployments/v1/chat/completions":            "v1",
		"/openai/deployments/openai/chat/completions":        "openai",
		"/openai/deployments/deployments/embeddings":         "deployments",
		"/openai/deployments/my%20dep%2Fft:1/embeddings":     "my dep/ft:1",
		"/v1/deployments/openai/deployments/x":               "",
		"//openai//deployments//gpt//chat//completions":      "gpt",
		"/openai/v1/deployments/x":                           "",
		"/api/projects/p/openai/deployments/gpt/embeddings/": "gpt",
	} {
		require.Equal(t, model, ParsePath(path).Model, path)
	}
}

func TestParsePath(t *testing.T) {
	for path, want := range map[string]Target{
		"/v1/chat/completions":  {Dialect: OpenAI, Operation: "chat/completions"},
		"/chat/completions":     {Dialect: OpenAI, Operation: "chat/completions"},
		"/models/gpt":           {Dialect: OpenAI, Operation: "models/gpt"},
		"/models/a/b":           {},
		"/healthz":              {},
		"":                      {},
		"/openai/v1/responses/": {Dialect: AzureV1, Operation: "responses"},
		"/base/openai/files":    {Dialect: Azure, Operation: "files"},
		"/openai/deployments/my%20dep/embeddings":               {Dialect: Azure, Operation: "embeddings", Model: "my dep", ModelSegment: "my%20dep"},
		"/openai/deployments/%zz/embeddings":                    {},
		"/v1/openai/v1/files":                                   {Dialect: AzureV1, Operation: "files"},
		"/v1/files/v1":                                          {Dialect: OpenAI, Operation: "files/v1"},
		"/x//v1//chat//completions":                             {Dialect: OpenAI, Operation: "chat/completions"},
		"/models/chat/completions":                              {Operation: "models/chat/completions", Foundry: true},
		"/anthropic/v1/messages":                                {Operation: "anthropic/v1/messages", Foundry: true},
		"/v1/files/../models":                                   {HasDotSegments: true},
		"/v1/files/%2e%2e%2fmodels":                             {HasDotSegments: true},
		`/v1/files/a%5c..`:                                      {HasDotSegments: true},
		"/v1/files/%2zz":                                        {Dialect: OpenAI, Operation: "files/%2zz"},
		"/openai/deployments/../chat/completions":               {HasDotSegments: true},
		"/openai/deployments/a%2F..%2Fb/chat/completions":       {Dialect: Azure, Operation: "chat/completions", Model: "a/../b", ModelSegment: "a%2F..%2Fb"},
		"/v1/deployments/openai/deployments/m/chat/completions": {Dialect: Azure, Operation: "chat/completions", Model: "m", ModelSegment: "m"},
	} {
		want.RawPath = path
		got := ParsePath(path)
		got.node = nil
		require.Equal(t, want, got, path)
	}
}

func TestClassicAzurePathNamesTheDeployment(t *testing.T) {
	require.True(t, ParsePath("/v1/chat/completions").NamesDeployment("m"))
	require.False(t, ParsePath("/v1/chat/completions").NamesDeployment(""))
	require.False(t, ParsePath("/v1/responses").NamesDeployment("m"))
	require.True(t, ParsePath("/openai/deployments/m/unknown").NamesDeployment("m"))
}

func TestDefaultAPIVersion(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/chat/completions": stableVersion, "/v1/audio/transcriptions": stableVersion, "/v1/batches/x": stableVersion,
		"/v1/audio/speech": previewVersion, "/v1/responses": previewVersion, "/v1/images/generations": previewVersion,
	} {
		require.Equal(t, want, ParsePath(path).DefaultAPIVersion(), path)
	}
}

func TestSpecOfAPrefixAloneIsUnknown(t *testing.T) {
	require.Same(t, UnknownSpec, ParsePath("/v1").Spec("GET"))
	require.NotSame(t, UnknownSpec, ParsePath("/v1/files").Spec("HEAD"))
}

func TestEscapedPathIsSentAsItWas(t *testing.T) {
	path, raw := SplitEscapedPath("/a%2Fb/c%20d")
	require.Equal(t, "/a/b/c d", path)
	require.Equal(t, "/a%2Fb/c%20d", raw)
}
