package entra_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/entra"
)

// A cloudCredential returns tokens that name their authority and scope.
type cloudCredential struct {
	authority string
	calls     *[]string
}

func (c cloudCredential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	*c.calls = append(*c.calls, c.authority+" "+strings.Join(o.Scopes, ","))
	return azcore.AccessToken{Token: "token-of-" + o.Scopes[0], ExpiresOn: time.Now().Add(time.Hour)}, nil
}

type baseFunc func(*http.Request) (*http.Response, error)

func (f baseFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestAuthEntraFromAFile(t *testing.T) {
	var created, calls []string
	t.Cleanup(entra.ReplaceCredentials(func(c cloud.Configuration) (azcore.TokenCredential, error) {
		created = append(created, c.ActiveDirectoryAuthorityHost)
		return cloudCredential{c.ActiveDirectoryAuthorityHost, &calls}, nil
	}))
	hosts := map[string]string{ // → scope
		"ptu.openai.azure.com": "com", "eastus.cognitiveservices.azure.com": "com", "gateway.example": "com", "apim.azure-api.net": "com",
		"gov.openai.azure.us": "us", "apim.azure-api.us": "us", "GOV2.OpenAI.Azure.US.": "us", "cn.openai.azure.cn": "cn", "apim.azure-api.cn": "cn", "azure.us.example": "com",
	}
	text := "backends:\n"
	for host := range hosts {
		text += fmt.Sprintf("- {url: %q, auth: entra, dialect: azure}\n", host)
	}
	path := filepath.Join(t.TempDir(), "spillover.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	cfg, err := spillover.Load(path)
	require.NoError(t, err)
	sent := map[string]string{}
	cfg.Base = baseFunc(func(req *http.Request) (*http.Response, error) {
		require.Empty(t, req.Header.Get("Api-Key"))
		sent[req.URL.Host] = req.Header.Get("Authorization")
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
	})
	lb, err := spillover.New(cfg)
	require.NoError(t, err)
	defer lb.Close()
	require.NoError(t, lb.Reconfigure(cfg))
	for host := range hosts {
		for other := range hosts {
			if other != host {
				require.NoError(t, lb.Drain(other))
			}
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://any.example/openai/deployments/m/chat/completions?api-version=1", strings.NewReader("{}"))
		require.NoError(t, err)
		req.Header.Set("Api-Key", "the caller's")
		resp, err := lb.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		for other := range hosts {
			if other != host {
				require.NoError(t, lb.Resume(other))
			}
		}
	}
	for host, tld := range hosts {
		require.Equal(t, "Bearer token-of-https://cognitiveservices.azure."+tld+"/.default", sent[host], host)
	}
	require.ElementsMatch(t, []string{"", "https://login.microsoftonline.us/", "https://login.chinacloudapi.cn/"}, created, "one credential for each cloud, and AZURE_AUTHORITY_HOST counts in the public one")
	require.ElementsMatch(t, []string{
		" https://cognitiveservices.azure.com/.default",
		"https://login.microsoftonline.us/ https://cognitiveservices.azure.us/.default",
		"https://login.chinacloudapi.cn/ https://cognitiveservices.azure.cn/.default",
	}, calls, "one token for all backends of a cloud")
}

// A credential that cannot be created is an error of the configuration.
func TestAuthEntraWithoutCredential(t *testing.T) {
	var calls []string
	fails := true
	t.Cleanup(entra.ReplaceCredentials(func(cloud.Configuration) (azcore.TokenCredential, error) {
		if fails {
			return nil, errors.New("no identity is configured")
		}
		return cloudCredential{"", &calls}, nil
	}))
	cfg := spillover.Config{Backends: []spillover.Backend{{URL: "https://ptu.openai.azure.com", Auth: "entra"}}}
	_, err := spillover.New(cfg)
	require.EqualError(t, err, `spillover: backend 0 (ptu.openai.azure.com): Auth: "entra": no identity is configured`)
	fails = false
	lb, err := spillover.New(cfg)
	require.NoError(t, err, "it is tried again")
	require.NoError(t, lb.Close())
	require.Empty(t, calls, "a token is requested when a request needs it")
}

// azidentity's own credential is used otherwise, and its errors are passed on.
func TestAuthEntraUsesTheDefaultCredential(t *testing.T) {
	t.Cleanup(entra.ReplaceCredentials(entra.NewCredential))
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "nonsense")
	cfg := spillover.Config{Backends: []spillover.Backend{{URL: "https://ptu.openai.azure.com", Auth: "entra"}}}
	_, err := spillover.New(cfg)
	require.ErrorContains(t, err, `Auth: "entra": invalid AZURE_TOKEN_CREDENTIALS value "nonsense"`)
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "prod")
	lb, err := spillover.New(cfg)
	require.NoError(t, err)
	require.NoError(t, lb.Close())
}
