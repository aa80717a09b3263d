package spillover_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A request that finds every deployment rate-limited waits up to MaxWait for the
// first one, instead of being answered 429.
func ExampleConfig_maxWait() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	eastus.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After-Ms": {"20"}}, Times: 1})
	lb, err := spillover.New(spillover.Config{
		Base:     eastus,
		Backends: []spillover.Backend{{Name: "eastus", URL: eastus.URL}},
		MaxWait:  time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	resp, err := lb.RoundTrip(mustRequest("https://any.example/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	// X-Spillover-Waited-Ms says how long it has waited.
	fmt.Println(resp.StatusCode, "after", resp.Header.Get("X-Spillover-Attempts"), "attempts")
	// Output: 200 after 2 attempts
}

// Check asks each backend when a program starts. A wrong key is found before the first
// user has to wait for a failover.
func ExampleTransport_Check() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus", Keys: []string{"key"}})
	westus := spillovertest.New(spillovertest.Config{Name: "westus", Keys: []string{"new-key"}})
	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(eastus, westus),
		Backends: []spillover.Backend{
			{Name: "eastus", URL: eastus.URL, APIKey: "key"},
			{Name: "westus", URL: westus.URL, APIKey: "old-key"},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	for _, result := range lb.Check(context.Background()) {
		fmt.Println(result.Backend, result.OK, result.Status)
	}
	// Output:
	// eastus true 200
	// westus false 401
}

// One replica of a program takes a backend out of use in all of them. A LocalFleet
// connects replicas in one process; package fleet/redis connects processes.
func ExampleTransport_DrainFleet() {
	eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
	westus := spillovertest.New(spillovertest.Config{Name: "westus"})
	cfg := spillover.Config{
		Base: spillovertest.Network(eastus, westus),
		Backends: []spillover.Backend{
			{Name: "eastus", URL: eastus.URL, Priority: 1},
			{Name: "westus", URL: westus.URL, Priority: 2},
		},
		Fleet: new(spillover.LocalFleet),
	}
	var replicas []*spillover.Transport
	for range 2 {
		lb, err := spillover.New(cfg)
		if err != nil {
			log.Fatal(err)
		}
		defer lb.Close()
		replicas = append(replicas, lb)
	}
	if err := replicas[0].DrainFleet("eastus", 10*time.Minute); err != nil {
		log.Fatal(err)
	}
	for _, lb := range replicas {
		fmt.Println(chat(context.Background(), lb).Header.Get("X-Spillover-Backend"))
	}
	// Output:
	// westus
	// westus
}

// A package that gets tokens from a secret store registers itself in its init function.
// Programs import it, and write auth: vault in their configuration file.
func ExampleRegisterAuth() {
	spillover.RegisterAuth("vault", func(backend *url.URL) (spillover.TokenFunc, error) {
		path := "/var/run/tokens/" + backend.Hostname()
		return func(context.Context) (string, error) {
			token, err := os.ReadFile(path)
			return strings.TrimSpace(string(token)), err
		}, nil
	})
}

// A stream that is cut after its first content cannot fail over, since the caller
// has part of it. With HoldStreams it is buffered until it is complete, so another
// deployment can start it again. The caller then gets its first byte when the
// stream is complete.
func ExampleConfig_holdStreams() {
	for _, hold := range []bool{false, true} {
		eastus := spillovertest.New(spillovertest.Config{Name: "eastus"})
		westus := spillovertest.New(spillovertest.Config{Name: "westus"})
		eastus.Set(spillovertest.Fault{Kind: spillovertest.KindCut, After: 3}) // after three tokens
		lb, err := spillover.New(spillover.Config{
			Base: spillovertest.Network(eastus, westus),
			Backends: []spillover.Backend{
				{Name: "eastus", URL: eastus.URL, Priority: 1},
				{Name: "westus", URL: westus.URL, Priority: 2},
			},
			HoldStreams: hold,
		})
		if err != nil {
			log.Fatal(err)
		}
		client := &http.Client{Transport: lb}
		resp, err := client.Post("https://any.example/openai/v1/chat/completions", "application/json",
			strings.NewReader(`{"model":"gpt-4o","messages":[],"stream":true}`))
		if err != nil {
			log.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		fmt.Println(resp.Header.Get("X-Spillover-Backend"), err)
		lb.Close()
	}
	// Output:
	// eastus unexpected EOF
	// westus <nil>
}

// A backend limits the output of requests that set no maximum, so that a single
// request cannot use up a small quota.
func ExampleBackend_defaults() {
	small := spillovertest.New(spillovertest.Config{Name: "small"})
	lb, err := spillover.New(spillover.Config{
		Base: small,
		Backends: []spillover.Backend{{
			URL:      small.URL,
			Defaults: map[string]any{"max_completion_tokens": 500},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	client := &http.Client{Transport: lb}
	for _, body := range []string{
		`{"model":"gpt-4o","messages":[]}`,
		`{"model":"gpt-4o","messages":[],"max_completion_tokens":20}`, // the caller's own maximum is kept
	} {
		resp, err := client.Post("https://any.example/openai/v1/chat/completions", "application/json", strings.NewReader(body))
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
	}
	for _, request := range small.Requests() {
		fmt.Printf("%s\n", request.Body)
	}
	// Output:
	// {"max_completion_tokens":500,"model":"gpt-4o","messages":[]}
	// {"model":"gpt-4o","messages":[],"max_completion_tokens":20}
}
