package spillover_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sashabaranov/go-openai"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A provisioned deployment first, two regions when it is full.
func Example() {
	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{URL: "https://ptu.openai.azure.com", APIKey: "key", Priority: 1},
		{URL: "https://eastus.openai.azure.com", APIKey: "key", Priority: 2},
		{URL: "https://westus.openai.azure.com", APIKey: "key", Priority: 2, Models: []spillover.Model{
			{Name: "gpt-4o", Deployment: "gpt-4o-west"},
		}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	config := openai.DefaultAzureConfig("unused", "https://any.openai.azure.com")
	config.HTTPClient = &http.Client{Transport: lb}
	client := openai.NewClientWithConfig(config)
	_ = client // use it as ever
}

// The same with servers of this test, so that it can be run here.
func Example_spillOver() {
	ptu := spillovertest.New(spillovertest.Config{Name: "ptu"})
	westus := spillovertest.New(spillovertest.Config{Name: "westus"})
	ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After-Ms": {"250"}}})

	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(ptu, westus),
		Backends: []spillover.Backend{
			{Name: "ptu", URL: ptu.URL, Dialect: spillover.Azure},
			{Name: "westus", URL: westus.URL, Dialect: spillover.Azure, Priority: 2},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: lb}
	resp, err := client.Post("https://any.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
		"application/json", strings.NewReader(`{"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode, resp.Header.Get("X-Spillover-Backend"), resp.Header.Get("X-Spillover-Attempts"))
	// Output: 200 westus 2
}

// New tells all mistakes at once.
func ExampleNew_mistakes() {
	_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{Name: "eastus", URL: "ftp://eastus.openai.azure.com"},
		{Name: "eastus", URL: "https://eastus.openai.azure.com?key=secret", APIVersion: "latest stable"},
	}})
	fmt.Println(err)
	// Output:
	// spillover: backend "eastus": URL: scheme "ftp" is neither https nor http
	// spillover: backend "eastus": URL: has a query: an api-version belongs in APIVersion, a credential in APIKey
	// spillover: backend "eastus": APIVersion: "latest stable" is not a valid api-version
	// spillover: backend "eastus": Name: backends 0 and 1 both have this name
}

// The mistake people make: the Timeout of an http.Client covers the reading of
// the body, so it cuts a stream that is doing well. Limit the time until the
// header instead, for each attempt, and the whole by the request's context.
func ExampleBackend_timeout() {
	wrong := &http.Client{Timeout: 30 * time.Second} // a stream of 31 s breaks off
	_ = wrong

	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{URL: "https://eastus.openai.azure.com", APIKey: "key", HeaderTimeout: 30 * time.Second},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	right := &http.Client{Transport: lb}
	_ = right
}

// A go-openai client never retries. This one waits as long as the 429 says
// that is the answer when all deployments are throttled.
func ExampleRetryClient() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	eastus.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After-Ms": {"20"}}, Times: 1})
	lb, err := spillover.New(spillover.Config{
		Base:     eastus,
		Backends: []spillover.Backend{{Name: "eastus", URL: eastus.URL, Dialect: spillover.Azure}},
	})
	if err != nil {
		log.Fatal(err)
	}
	config := openai.DefaultAzureConfig("unused", "https://any.openai.azure.com")
	config.HTTPClient = spillover.RetryClient(lb, 2)
	_, err = openai.NewClientWithConfig(config).CreateChatCompletion(context.Background(), openai.ChatCompletionRequest{
		Model: "gpt-4o", Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "hi"}},
	})
	fmt.Println(err, eastus.Stats().Requests)
	// Output: <nil> 2
}

// A record for each change of a deployment's state, and none for a request that
// all is well with.
func ExampleConfig_logger() {
	ptu := spillovertest.New(spillovertest.Config{Name: "ptu"})
	westus := spillovertest.New(spillovertest.Config{Name: "westus"})
	ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}, "X-Request-Id": {"5f1b"}}})

	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(ptu, westus),
		Backends: []spillover.Backend{
			{Name: "ptu", URL: ptu.URL, Dialect: spillover.Azure},
			{Name: "westus", URL: westus.URL, Dialect: spillover.Azure, Priority: 2},
		},
		Logger: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindTime {
				return slog.Attr{} // for this example to be the same each time
			}
			return a
		}})),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	for range 3 {
		resp, err := lb.RoundTrip(mustRequest("https://any.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"))
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
	}
	// Output:
	// level=INFO msg="deployment cooling" backend=ptu tier=1 model=gpt-4o deployment=gpt-4o wait=30s reason=429 status=429 request_id=5f1b
}

// Status is for a page or a log: what is available, and if not until when and why.
func ExampleTransport_Status() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	eastus.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}},
		Body: `{"error":{"code":"429","message":"Please retry after 30 seconds."}}`})
	lb, err := spillover.New(spillover.Config{
		Base: eastus,
		Backends: []spillover.Backend{{
			Name: "eastus", URL: eastus.URL, Dialect: spillover.Azure, Models: []spillover.Model{{Name: "gpt-4o"}},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	resp, err := lb.RoundTrip(mustRequest("https://any/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"))
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	for _, tier := range lb.Status().Tiers {
		for _, backend := range tier.Backends {
			for _, d := range backend.Deployments {
				fmt.Println(tier.Priority, backend.Name, d.Model, d.Available, d.Reason, time.Until(d.Until).Round(time.Second))
			}
		}
	}
	// Output: 1 eastus gpt-4o false 429 30s
}

// A new key for one region and another region beside it, without a pause: what
// is known of the deployments that stay is kept.
func ExampleTransport_Reconfigure() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	westus := spillovertest.New(spillovertest.Config{Name: "westus"})
	eastus.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}}})
	cfg := spillover.Config{
		Base:     spillovertest.Network(eastus, westus),
		Backends: []spillover.Backend{{Name: "eastus", URL: eastus.URL, Dialect: spillover.Azure, APIKey: "old-key"}},
	}
	lb, err := spillover.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	ask := func() {
		resp, err := lb.RoundTrip(mustRequest("https://any/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"))
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		fmt.Printf("%d %q\n", resp.StatusCode, resp.Header.Get("X-Spillover-Backend"))
	}
	ask()

	cfg.Backends = []spillover.Backend{
		{Name: "eastus", URL: eastus.URL, Dialect: spillover.Azure, APIKey: "new-key"},
		{Name: "westus", URL: westus.URL, Dialect: spillover.Azure, APIKey: "key", Priority: 2},
	}
	if err := lb.Reconfigure(cfg); err != nil {
		log.Print(err) // and all is as it was
	}
	ask()
	fmt.Println(eastus.Stats().Requests, "request to eastus, which is left alone")
	// Output:
	// 429 ""
	// 200 "westus"
	// 1 request to eastus, which is left alone
}

// A region is taken out for maintenance and put back.
func ExampleTransport_Drain() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	westus := spillovertest.New(spillovertest.Config{Name: "westus"})
	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(eastus, westus),
		Backends: []spillover.Backend{
			{Name: "eastus", URL: eastus.URL, Dialect: spillover.Azure},
			{Name: "westus", URL: westus.URL, Dialect: spillover.Azure, Priority: 2},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ask := func() {
		resp, err := lb.RoundTrip(mustRequest("https://any/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"))
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		fmt.Println(resp.Header.Get("X-Spillover-Backend"))
	}
	if err := lb.Drain("eastus"); err != nil {
		log.Fatal(err)
	}
	ask()
	for _, d := range lb.Status().Tiers[0].Backends[0].Deployments {
		fmt.Println(d.Model, d.Reason, d.InFlight) // 0 in flight: it has drained
	}
	if err := lb.Resume("eastus"); err != nil {
		log.Fatal(err)
	}
	ask()
	// Output:
	// westus
	// gpt-4o drained 0
	// eastus
}

// leastInFlight is a Selector that looks at every candidate.
type leastInFlight struct{}

func (leastInFlight) Select(candidates []spillover.Candidate) int {
	best := 0
	for i, c := range candidates {
		if c.InFlight < candidates[best].InFlight {
			best = i
		}
	}
	return best
}

func ExampleSelector() {
	lb, err := spillover.New(spillover.Config{
		Selector: leastInFlight{},
		Backends: []spillover.Backend{
			{URL: "https://eastus.openai.azure.com", APIKey: "key"},
			{URL: "https://westus.openai.azure.com", APIKey: "key"},
		},
	})
	fmt.Println(lb != nil, err)
	// Output: true <nil>
}

func mustRequest(url string) *http.Request {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(`{"messages":[]}`))
	if err != nil {
		log.Fatal(err)
	}
	return req
}
