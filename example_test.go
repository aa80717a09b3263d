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

// A provisioned deployment first, and two regions as fallback.
func Example() {
	lb, err := spillover.New(spillover.Config{
		Backends: []spillover.Backend{
			{URL: "https://ptu.openai.azure.com", APIKey: os.Getenv("PTU_KEY"), Priority: 1},
			{URL: "https://eastus.openai.azure.com", APIKey: os.Getenv("EASTUS_KEY"), Priority: 2},
			{URL: "https://westus.openai.azure.com", APIKey: os.Getenv("WESTUS_KEY"), Priority: 2},
		},
		Logger: slog.Default(),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	client := &http.Client{Transport: lb}

	config := openai.DefaultAzureConfig("unused", "https://any.openai.azure.com") // its host and key are replaced
	config.HTTPClient = client
	chats := openai.NewClientWithConfig(config)
	_ = chats // call it as before
}

// A request fails over from a provisioned deployment that is rate-limited. The
// servers are simulated by package spillovertest.
func Example_failover() {
	ptu := spillovertest.New(spillovertest.Config{Name: "ptu"})
	westus := spillovertest.New(spillovertest.Config{Name: "westus"})
	ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After-Ms": {"250"}}})

	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(ptu, westus),
		Backends: []spillover.Backend{
			{Name: "ptu", URL: ptu.URL, Priority: 1},
			{Name: "westus", URL: westus.URL, Priority: 2},
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
	fmt.Println(resp.StatusCode, resp.Header.Get("X-Spillover-Backend"), resp.Header.Get("X-Spillover-Attempts"))
	// Output: 200 westus 2
}

// New reports all errors of a configuration together.
func ExampleNew_errors() {
	_, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{Name: "eastus", URL: "ftp://eastus.openai.azure.com"},
		{Name: "eastus", URL: "https://eastus.openai.azure.com?key=secret", APIVersion: "latest stable"},
	}})
	fmt.Println(err)
	// Output:
	// spillover: backend "eastus": URL: scheme "ftp" is neither https nor http
	// spillover: backend "eastus": URL: has a query: an api-version belongs in APIVersion, a credential in APIKey
	// spillover: backend "eastus": APIVersion: "latest stable" is not a valid api-version
	// spillover: backend "eastus": Name: backends 0 and 1 are both called "eastus"; give each its own name
}

// A common mistake: the Timeout of an http.Client includes reading the body, so it
// cuts a stream that takes longer, and nothing fails over. Limit the time to the first token
// of each attempt instead, and the pauses after it. The request's context limits
// the total time.
func ExampleBackend_timeouts() {
	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{{
		URL: "https://eastus.openai.azure.com", APIKey: "key",
		HeaderTimeout: 30 * time.Second, // to the first token
		IdleTimeout:   10 * time.Second, // between two tokens
	}}})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()

	wrong := &http.Client{Transport: lb, Timeout: 30 * time.Second} // cuts every stream after 30 s
	right := &http.Client{Transport: lb}
	fmt.Println(wrong.Timeout, right.Timeout)
	// Output: 30s 0s
}

// A common mistake: a response whose body is not closed stays in flight, although
// the caller has read all that it needs. It counts as load of its deployment and
// keeps a connection open. InFlight in Status shows it.
func ExampleTransport_RoundTrip() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	lb, err := spillover.New(spillover.Config{Base: eastus, Backends: []spillover.Backend{{URL: eastus.URL}}})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	inFlight := func() int { return lb.Status().Tiers[0].Backends[0].Deployments[0].InFlight }

	resp, err := lb.RoundTrip(mustRequest("https://any/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.StatusCode, inFlight())
	resp.Body.Close() // usually: defer resp.Body.Close()
	fmt.Println(inFlight())
	// Output:
	// 200 1
	// 0
}

// A go-openai client does not retry. With RetryClient it waits for as long as the
// 429 says with which the transport answers when all deployments are rate-limited.
func ExampleRetryClient() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	eastus.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After-Ms": {"20"}}, Times: 1})
	lb, err := spillover.New(spillover.Config{
		Base:     eastus,
		Backends: []spillover.Backend{{Name: "eastus", URL: eastus.URL}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	config := openai.DefaultAzureConfig("unused", "https://any.openai.azure.com")
	config.HTTPClient = spillover.RetryClient(lb, 2)
	_, err = openai.NewClientWithConfig(config).CreateChatCompletion(context.Background(), openai.ChatCompletionRequest{
		Model: "gpt-4o", Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "hi"}},
	})
	fmt.Println(err, eastus.Stats().Requests)
	// Output: <nil> 2
}

// The log has a record for each state change of a deployment, and none for successful
// requests.
func ExampleConfig_logger() {
	ptu := spillovertest.New(spillovertest.Config{Name: "ptu"})
	westus := spillovertest.New(spillovertest.Config{Name: "westus"})
	ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}, "X-Request-Id": {"5f1b"}}})

	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(ptu, westus),
		Backends: []spillover.Backend{
			{Name: "ptu", URL: ptu.URL, Priority: 1},
			{Name: "westus", URL: westus.URL, Priority: 2},
		},
		Logger: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindTime {
				return slog.Attr{} // so that the output of this example is always the same
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
	// level=INFO msg="deployment cooling" backend=ptu tier=1 model=gpt-4o deployment=gpt-4o wait_ms=30000 reason=429 status=429 request_id=5f1b
}

// Status says which deployments are available, and if not, until when and why.
func ExampleTransport_Status() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	eastus.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}},
		Body: `{"error":{"code":"429","message":"Please retry after 30 seconds."}}`})
	lb, err := spillover.New(spillover.Config{
		Base: eastus,
		Backends: []spillover.Backend{{
			Name: "eastus", URL: eastus.URL, Models: []spillover.Model{{Name: "gpt-4o"}},
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

// One backend gets a new key, and another backend is added, while requests are
// served. What is known of the remaining deployments is kept: eastus is still cooling
// down.
func ExampleTransport_Reconfigure() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	westus := spillovertest.New(spillovertest.Config{Name: "westus"})
	eastus.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}}})
	cfg := spillover.Config{
		Base:     spillovertest.Network(eastus, westus),
		Backends: []spillover.Backend{{Name: "eastus", URL: eastus.URL, APIKey: "old-key"}},
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
		{Name: "eastus", URL: eastus.URL, APIKey: "new-key"},
		{Name: "westus", URL: westus.URL, APIKey: "key", Priority: 2},
	}
	if err := lb.Reconfigure(cfg); err != nil {
		log.Print(err) // the previous configuration stays in force
	}
	ask()
	fmt.Println(eastus.Stats().Requests, "request to eastus")
	// Output:
	// 429 ""
	// 200 "westus"
	// 1 request to eastus
}

// A backend gets no requests during maintenance.
func ExampleTransport_Drain() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	westus := spillovertest.New(spillovertest.Config{Name: "westus"})
	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(eastus, westus),
		Backends: []spillover.Backend{
			{Name: "eastus", URL: eastus.URL, Priority: 1},
			{Name: "westus", URL: westus.URL, Priority: 2},
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
		fmt.Println(d.Model, d.Reason, d.InFlight) // with 0 in flight no request can reach it any more
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

// leastInFlight is a Selector that chooses the deployment with the fewest requests in
// flight.
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

// A batch job uses the capacity of the PTU that users leave. When users need it, the
// job waits for up to ten minutes, and then spills to the next tier.
func ExampleWithClass() {
	transport, err := spillover.New(spillover.Config{
		Backends: []spillover.Backend{
			{Name: "ptu", URL: "https://ptu.openai.azure.com", APIKey: "key"},
			{Name: "payg", URL: "https://eastus.openai.azure.com", APIKey: "key", Priority: 2},
		},
		BackgroundWait: 10 * time.Minute,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer transport.Close()

	ctx := spillover.WithClass(context.Background(), spillover.Background)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://ptu.openai.azure.com/openai/v1/chat/completions",
		strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"Summarize this."}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	trail, err := transport.Explain(req)
	fmt.Println(trail.Class, trail.Backend, err)
	// Output: background ptu <nil>
}
