package spillovertest_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// ask sends a chat to a server and prints the status of the response.
func ask(client *http.Client, url string) {
	body := `{"model":"gpt-4o","messages":[{"role":"user","content":"Hello there!"}],"max_tokens":60}`
	res, err := client.Post(url+"/openai/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	fmt.Println(res.Status)
	if wait := res.Header.Get("Retry-After"); wait != "" {
		fmt.Println("retry after", wait, "s")
	}
}

// The first request takes a deployment of 60 tokens per minute below zero, so
// the second request is refused.
func Example() {
	server := spillovertest.NewServer(spillovertest.Config{
		Dialect: spillovertest.AzureV1,
		Deployments: []spillovertest.Deployment{
			{Name: "gpt-4o", Limit: spillovertest.PAYG{TPM: 60, RPM: 600}},
		},
	})
	defer server.Close()
	ask(server.Client(), server.URL)
	ask(server.Client(), server.URL)
	fmt.Println(server.Stats().Served, "served,", server.Stats().Throttled, "throttled")
	// Output:
	// 200 OK
	// 429 Too Many Requests
	// retry after 3 s
	// 1 served, 1 throttled
}

// A load balancer between two servers in memory. Their URLs show the dialect,
// and Network connects them. To run such a test in virtual time, put it into
// [testing/synctest.Test].
func ExampleNew() {
	ptu := spillovertest.New(spillovertest.Config{Name: "ptu"})
	payg := spillovertest.New(spillovertest.Config{Name: "payg"})
	ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests})

	lb, err := spillover.New(spillover.Config{
		Base: spillovertest.Network(ptu, payg),
		Backends: []spillover.Backend{
			{URL: ptu.URL, Priority: 1},
			{URL: payg.URL, Priority: 2},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	ask(&http.Client{Transport: lb}, "https://any.example")
	fmt.Println(ptu.Stats().Failed, payg.Stats().Served)
	// Output:
	// 200 OK
	// 1 1
}

// A common mistake: the URL of a server that listens is an IP address, which
// does not show the dialect. A backend without Dialect then gets the paths of
// OpenAI, and a server that simulates Azure answers every request with 404.
func ExampleNewServer() {
	server := spillovertest.NewServer(spillovertest.Config{Dialect: spillovertest.Azure})
	defer server.Close()
	for _, backend := range []spillover.Backend{
		{URL: server.URL}, // wrong
		{URL: server.URL, Dialect: spillover.Azure}, // right
	} {
		lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{backend}})
		if err != nil {
			log.Fatal(err)
		}
		ask(&http.Client{Transport: lb}, "https://any.example")
		lb.CloseIdleConnections()
		lb.Close()
	}
	// Output:
	// 404 Not Found
	// 200 OK
}

// Several servers in memory with one http.Client.
func ExampleNetwork() {
	east := spillovertest.New(spillovertest.Config{Name: "east", Dialect: spillovertest.AzureV1})
	west := spillovertest.New(spillovertest.Config{Name: "west", Dialect: spillovertest.AzureV1})
	client := &http.Client{Transport: spillovertest.Network(east, west)}
	ask(client, east.URL)
	ask(client, "https://west.services.ai.azure.test")
	fmt.Println(east.Stats().Served, west.Stats().Served)
	// Output:
	// 200 OK
	// 200 OK
	// 1 1
}

// A script of faults: two requests get an error, one request that contains
// "Hello" is slow, and all others are served as usual.
func ExampleServer_Set() {
	server := spillovertest.New(spillovertest.Config{Dialect: spillovertest.AzureV1})
	server.Set(
		spillovertest.Fault{Status: 503, Header: http.Header{"Retry-After": {"30"}}, Times: 2},
		spillovertest.Fault{Delay: time.Millisecond, Times: 1, Match: func(r *http.Request) bool {
			body, _ := io.ReadAll(r.Body)
			return bytes.Contains(body, []byte("Hello"))
		}},
	)
	for range 4 {
		ask(server.Client(), server.URL)
	}
	// Output:
	// 503 Service Unavailable
	// retry after 30 s
	// 503 Service Unavailable
	// retry after 30 s
	// 200 OK
	// 200 OK
}

// The 429 of a provisioned deployment says when it has capacity again.
func ExamplePTU() {
	server := spillovertest.New(spillovertest.Config{
		Dialect: spillovertest.AzureV1,
		Deployments: []spillovertest.Deployment{
			{Name: "gpt-4o", Limit: spillovertest.PTU{TPM: 300}}, // 100 input tokens are 100 %
		},
	})
	ask(server.Client(), server.URL) // 3 input tokens, and 60 output tokens that weigh 180
	fmt.Printf("%.0f%%\n", 100*server.Stats().Utilization)
	ask(server.Client(), server.URL)
	// Output:
	// 200 OK
	// 183%
	// 429 Too Many Requests
	// retry after 17 s
}
