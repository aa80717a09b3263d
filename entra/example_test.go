package entra_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/entra"
	"github.com/spillover-go/spillover/spillovertest"
)

// A fixed credential takes the place of azidentity.NewDefaultAzureCredential(nil).
type fixed struct{ token string }

func (c fixed) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	fmt.Println("asked for", o.Scopes[0])
	return azcore.AccessToken{Token: c.token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// Two regions share one token. The servers are simulated by package spillovertest.
func ExampleToken() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus", Keys: []string{"a token"}})
	westus := spillovertest.New(spillovertest.Config{Name: "westus", Keys: []string{"a token"}})
	eastus.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}}})

	token := entra.Token(fixed{"a token"})
	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(eastus, westus),
		Backends: []spillover.Backend{
			{Name: "eastus", URL: eastus.URL, Token: token},
			{Name: "westus", URL: westus.URL, Token: token, Priority: 2},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	client := &http.Client{Transport: lb}
	resp, err := client.Post("https://any.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
		"application/json", strings.NewReader(`{"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode, resp.Header.Get("X-Spillover-Backend"))
	// Output:
	// asked for https://cognitiveservices.azure.com/.default
	// 200 westus
}

// Azure Government has its own scope.
func ExampleToken_government() {
	token := entra.Token(fixed{"a token"}, "https://cognitiveservices.azure.us/.default")
	_, err := token(context.Background())
	fmt.Println(err)
	// Output:
	// asked for https://cognitiveservices.azure.us/.default
	// <nil>
}

// A file with "auth: entra" that is reloaded when it changes. Importing this package
// is all that the program has to do for Entra ID.
func Example_watchedFile() {
	// In a program the credential is azidentity's DefaultAzureCredential.
	defer entra.ReplaceCredentials(func(cloud.Configuration) (azcore.TokenCredential, error) { return fixed{"a token"}, nil })()
	server := spillovertest.New(spillovertest.Config{Name: "eastus", Keys: []string{"a token"}})
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "spillover.yaml")
	text := "backends:\n- {name: eastus, url: " + server.URL + ", dialect: azure, auth: entra}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		log.Fatal(err)
	}

	cfg, err := spillover.Load(path)
	if err != nil {
		log.Fatal(err)
	}
	cfg.Base = spillovertest.Network(server)
	lb, err := spillover.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go lb.Watch(ctx, path, nil) // until ctx ends; a new backend needs no code

	client := &http.Client{Transport: lb}
	resp, err := client.Post("https://any.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
		"application/json", strings.NewReader(`{"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode, resp.Header.Get("X-Spillover-Backend"))
	// Output:
	// asked for https://cognitiveservices.azure.com/.default
	// 200 eastus
}
