package spillovertest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spillover-go/spillover/spillovertest"
)

// ask sends a chat to a server and prints the answer's status.
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

// A deployment of 60 tokens per minute goes into debt with the first request
// and refuses the second.
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

// Several servers in memory, as a program's http.Client would find them.
func ExampleNetwork() {
	east := spillovertest.New(spillovertest.Config{Name: "east", Dialect: spillovertest.AzureV1})
	west := spillovertest.New(spillovertest.Config{Name: "west", Dialect: spillovertest.AzureV1})
	client := &http.Client{Transport: spillovertest.Network(east, west)}
	ask(client, "https://east.spillover.test")
	ask(client, "https://west.spillover.test")
	fmt.Println(east.Stats().Served, west.Stats().Served)
	// Output:
	// 200 OK
	// 200 OK
	// 1 1
}

// A script of faults: two requests get an error, one that says hello is slow,
// and all others are as usual.
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

// A provisioned deployment says exactly when there is room again.
func ExamplePTU() {
	server := spillovertest.New(spillovertest.Config{
		Dialect: spillovertest.AzureV1,
		Deployments: []spillovertest.Deployment{
			{Name: "gpt-4o", Limit: spillovertest.PTU{TPM: 300}}, // 100 input tokens are 100 %
		},
	})
	ask(server.Client(), server.URL) // 3 input tokens, and 60 of output that weigh 180
	fmt.Printf("%.0f%%\n", 100*server.Stats().Utilization)
	ask(server.Client(), server.URL)
	// Output:
	// 200 OK
	// 183%
	// 429 Too Many Requests
	// retry after 17 s
}
