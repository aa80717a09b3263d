package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

func TestFallbackAnswersIfTheFirstKeyIsWrong(t *testing.T) {
	server := spillovertest.New(spillovertest.Config{
		Keys: []string{"second"}, Deployments: []spillovertest.Deployment{{Name: "gpt-4.1"}},
	})
	env := map[string]string{
		"AZURE_OPENAI_ENDPOINTS":   "https://one.openai.azure.com, https://two.openai.azure.com",
		"AZURE_OPENAI_KEYS":        "first,second",
		"AZURE_OPENAI_DEPLOYMENT":  "gpt-4.1",
		"AZURE_OPENAI_API_VERSION": "2025-01-01-preview",
	}
	var out, errs bytes.Buffer
	status := run(func(name string) string { return env[name] }, server, &out, &errs)
	require.Zero(t, status, errs.String())
	require.Contains(t, out.String(), "X-Spillover-Backend: two.openai.azure.com\n")
	require.Contains(t, errs.String(), "backend=one.openai.azure.com", "the wrong key is logged")
	requests := server.Requests()
	require.Len(t, requests, 2)
	require.Equal(t, "one.openai.azure.com", requests[0].Host)
	require.Equal(t, "/openai/deployments/gpt-4.1/chat/completions?api-version=2025-01-01-preview", requests[1].URL)

	env["AZURE_OPENAI_DEPLOYMENT"] = "gone"
	require.Equal(t, 1, run(func(name string) string { return env[name] }, server, &out, &errs))
	require.Contains(t, errs.String(), "404")
}

func TestWrongVariablesAreExplained(t *testing.T) {
	for _, c := range []struct{ endpoints, keys, deployment, says string }{
		{"", "", "", "set AZURE_OPENAI_ENDPOINTS, AZURE_OPENAI_KEYS, AZURE_OPENAI_DEPLOYMENT in the environment"},
		{"https://a", "", "d", "set AZURE_OPENAI_KEYS in"},
		{"https://a,https://b,https://c", "1,2", "d", "has 2 keys for 3 endpoints"},
		{"https://a,https://b", "1,", "d", "AZURE_OPENAI_KEYS: key 2 is empty"},
		{"https://a,", "1", "d", "URL: is missing"},
		{"ftp://a", "1", "d", "URL"},
	} {
		env := map[string]string{
			"AZURE_OPENAI_ENDPOINTS": c.endpoints, "AZURE_OPENAI_KEYS": c.keys, "AZURE_OPENAI_DEPLOYMENT": c.deployment,
		}
		var out, errs bytes.Buffer
		require.Equal(t, 2, run(func(name string) string { return env[name] }, nil, &out, &errs))
		require.Contains(t, errs.String(), c.says)
		require.Empty(t, out.String())
	}
}
