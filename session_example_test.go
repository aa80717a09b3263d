package spillover_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"slices"
	"strings"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// All requests of a conversation go to one deployment (session affinity), so that
// its prompt cache is used.
func ExampleWithSession() {
	var servers []*spillovertest.Server
	var backends []spillover.Backend
	for _, region := range []string{"eastus", "westus", "sweden"} {
		server := spillovertest.New(spillovertest.Config{Name: region})
		servers = append(servers, server)
		backends = append(backends, spillover.Backend{Name: region, URL: server.URL})
	}
	lb, err := spillover.New(spillover.Config{Base: spillovertest.Network(servers...), Backends: backends})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	client := &http.Client{Transport: lb}

	var used []string
	for _, prompt := range []string{"Hello!", "Tell me more.", "Thank you."} {
		ctx := spillover.WithSession(context.Background(), "conversation-42")
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://any.example/openai/v1/chat/completions",
			strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"`+prompt+`"}]}`))
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		used = append(used, resp.Header.Get("X-Spillover-Backend"))
	}
	fmt.Println(len(used), "requests,", len(slices.Compact(used)), "backend")
	// Output: 3 requests, 1 backend
}
