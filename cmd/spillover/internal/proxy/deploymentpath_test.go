package proxy_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/proxy"
	"github.com/spillover-go/spillover/internal/wire"
)

// LangChain names gpt-3.5-turbo beside every deployment. Whatever a body names beside it,
// and however it is written: each backend gets the deployment of the path, and no other.
func TestModelBesideADeploymentIsReplaced(t *testing.T) {
	bodies := []string{
		`{"model":"gpt-3.5-turbo","messages":[]}`,
		`{"messages":[] , "model" :  "gpt-3.5-turbo" }`,
		`{"model":"gpt-4o","model":"gpt-3.5-turbo"}`,
		`{"model":"gpt-3.5-turbo","model":"gpt-4o"}`,
		`{"Model":"gpt-3.5-turbo"}`,
		`{"MODEL":"gpt-3.5-turbo","model":"gpt-3.5-turbo","mod\u0065l":"gpt-3.5-turbo"}`,
		`{} {"model":"gpt-3.5-turbo"}`,
		`{"x":"` + strings.Repeat("x", 100<<10) + `","model":"gpt-3.5-turbo"}`,
		`{}`,
	}
	backends := map[spillover.Dialect]string{
		spillover.Azure: "https://a.openai.azure.com", spillover.AzureV1: "https://a.openai.azure.com", spillover.OpenAI: "https://api.openai.com",
	}
	require.NotEmpty(t, wire.DeploymentPaths)
	for op := range wire.DeploymentPaths {
		for dialect, address := range backends {
			for _, body := range bodies {
				name := string(dialect) + " " + op + " " + body[:min(len(body), 80)]
				n := &network{}
				p := newProxy(t, n, proxy.Options{}, entry(secret, ", models: [gpt-4o]"), spillover.Backend{Name: "b", URL: address, Dialect: dialect, APIKey: "k",
					Models: []spillover.Model{{Name: "gpt-4o", Deployment: "gpt-4o-east"}, {Name: "gpt-3.5-turbo"}}})
				w := ask(p, "POST", "/openai/deployments/gpt-4o/"+op+"?api-version=2024-10-21", body, "Api-Key", secret, "Content-Type", "application/json")
				require.Equal(t, http.StatusOK, w.Code, "%s: %s", name, w.Body)
				require.Len(t, n.got, 1)
				require.NotContains(t, n.got[0], "gpt-3.5-turbo", name)
				require.Contains(t, n.got[0], "gpt-4o-east", name)
				_, dump, _ := strings.Cut(n.got[0], "\n")
				_, sent, _ := strings.Cut(dump, "\r\n\r\n")
				var first map[string]any
				require.NoError(t, json.NewDecoder(strings.NewReader(sent)).Decode(&first), name)
			}
		}
	}
}
