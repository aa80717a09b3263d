package spillover_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// chat sends a chat completion and returns the response, whose body has been read.
func chat(ctx context.Context, lb http.RoundTripper) *http.Response {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://any.test/v1/chat/completions",
		strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: lb}).Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		log.Fatal(err)
	}
	return resp
}

// When every deployment of a model is rate-limited, another model answers.
func ExampleFallback() {
	ptu := spillovertest.New(spillovertest.Config{Name: "ptu"})
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests})

	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(ptu, eastus),
		Backends: []spillover.Backend{
			{Name: "ptu", URL: ptu.URL, Models: []spillover.Model{{Name: "gpt-4o"}}},
			{Name: "eastus", URL: eastus.URL, Models: []spillover.Model{{Name: "gpt-4.1"}}},
		},
		Fallbacks: []spillover.Fallback{{Model: "gpt-4o", To: []string{"gpt-4.1"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()

	resp := chat(context.Background(), lb)
	fmt.Println(resp.StatusCode, resp.Header.Get("X-Spillover-Backend"), resp.Header.Get("X-Spillover-Model"))
	// Output: 200 eastus gpt-4.1
}

// A request that must stay in a region is not sent elsewhere, whatever happens.
func ExampleWithTags() {
	sweden := spillovertest.New(spillovertest.Config{Name: "sweden"})
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(sweden, eastus),
		Backends: []spillover.Backend{
			{Name: "eastus", URL: eastus.URL, Tags: []string{"region=us"}},
			{Name: "sweden", URL: sweden.URL, Tags: []string{"region=eu"}, Priority: 2},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()

	resp := chat(spillover.WithTags(context.Background(), "region=eu"), lb)
	fmt.Println(resp.StatusCode, resp.Header.Get("X-Spillover-Backend"))

	// No backend has this tag, so nothing is sent.
	resp = chat(spillover.WithTags(context.Background(), "region=moon"), lb)
	fmt.Println(resp.StatusCode, resp.Header.Get("X-Spillover-Attempts"), "attempts")
	// Output:
	// 200 sweden
	// 400 0 attempts
}

// A Trail says why a request went where it did.
func ExampleWithTrail() {
	ptu := spillovertest.New(spillovertest.Config{Name: "ptu"})
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7"}}})
	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(ptu, eastus),
		Backends: []spillover.Backend{
			{Name: "ptu", URL: ptu.URL},
			{Name: "eastus", URL: eastus.URL, Priority: 2},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()

	var trail spillover.Trail
	chat(spillover.WithTrail(context.Background(), &trail), lb)
	for _, step := range trail.Steps {
		fmt.Println(step.Action, step.Attempt.Backend, step.Attempt.Status)
		for _, candidate := range step.Candidates {
			fmt.Printf("  %s: %q\n", candidate.Backend, candidate.Skipped)
		}
	}
	// Output:
	// send ptu 429
	//   ptu: ""
	//   eastus: ""
	// send eastus 200
	//   ptu: "cooling: 429"
	//   eastus: ""
}

// Explain says where a request would go, and does not send it.
func ExampleTransport_Explain() {
	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{Name: "ptu", URL: "https://ptu.openai.azure.com", APIKey: "key"},
		{Name: "eastus", URL: "https://eastus.openai.azure.com", APIKey: "key", Priority: 2},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	if err := lb.Drain("ptu"); err != nil {
		log.Fatal(err)
	}

	req, err := http.NewRequest(http.MethodPost, "https://any.test/v1/chat/completions", strings.NewReader(`{"model":"gpt-4o"}`))
	if err != nil {
		log.Fatal(err)
	}
	trail, err := lb.Explain(req)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(trail.Backend)
	fmt.Println(trail.Steps[0].Candidates[0].Backend, "is", trail.Steps[0].Candidates[0].Skipped)
	// Output:
	// eastus
	// ptu is drained
}
