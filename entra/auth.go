package entra

import (
	"net/url"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/spillover-go/spillover"
)

func init() { spillover.RegisterAuth("entra", tokenFor) } //nolint:gochecknoinits // importing the module is what registers it

// A sovereignCloud is a cloud with an authority and a scope of its own.
type sovereignCloud struct {
	domains []string // of its backends
	scope   string
	// cloud has the authority. In the public cloud it is zero: azidentity then uses
	// AZURE_AUTHORITY_HOST, if it is set.
	cloud cloud.Configuration
}

var (
	publicCloud = sovereignCloud{scope: defaultScope}

	sovereignClouds = []sovereignCloud{
		{[]string{".azure.us", ".azure-api.us", ".microsoft.us"}, "https://cognitiveservices.azure.us/.default", cloud.AzureGovernment},
		{[]string{".azure.cn", ".azure-api.cn"}, "https://cognitiveservices.azure.cn/.default", cloud.AzureChina},
	}
)

// cloudOf returns the cloud of a backend's host.
func cloudOf(host string) sovereignCloud {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, c := range sovereignClouds {
		for _, domain := range c.domains {
			if strings.HasSuffix(host, domain) {
				return c
			}
		}
	}
	return publicCloud
}

// newCredential creates the credential for a cloud. Tests replace it.
var newCredential = func(c cloud.Configuration) (azcore.TokenCredential, error) {
	return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: azcore.ClientOptions{Cloud: c}})
}

// shared are the TokenFuncs of Backend.Auth, by scope.
var shared struct {
	sync.Mutex
	tokens map[string]spillover.TokenFunc
}

// tokenFor returns the TokenFunc that all backends of a cloud share. A credential
// that could not be created is tried again by the next configuration.
func tokenFor(backend *url.URL) (spillover.TokenFunc, error) {
	c := cloudOf(backend.Hostname())
	shared.Lock()
	defer shared.Unlock()
	if token := shared.tokens[c.scope]; token != nil {
		return token, nil
	}
	cred, err := newCredential(c.cloud)
	if err != nil {
		return nil, err
	}
	if shared.tokens == nil {
		shared.tokens = map[string]spillover.TokenFunc{}
	}
	shared.tokens[c.scope] = Token(cred, c.scope)
	return shared.tokens[c.scope], nil
}
