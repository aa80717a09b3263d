package statuspage_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/statuspage"
)

// The page beside the other handlers of a program. A server that only operators reach
// is the right place for it.
func Example() {
	lb, err := spillover.New(spillover.Config{Backends: []spillover.Backend{
		{Name: "ptu", URL: "https://ptu.openai.azure.com", APIKey: "key", Models: []spillover.Model{{Name: "gpt-4o"}}},
		{Name: "payg", URL: "https://payg.openai.azure.com", APIKey: "key", Priority: 2, Models: []spillover.Model{{Name: "gpt-4o"}}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer lb.Close()
	page := statuspage.New(lb)
	defer page.Close()

	mux := http.NewServeMux()
	mux.Handle("/status/", page)
	server := httptest.NewServer(mux) // a real program: http.ListenAndServe("127.0.0.1:8081", mux)
	defer server.Close()

	resp, err := http.Get(server.URL + "/status/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status, resp.Header.Get("Content-Type"))
	// Output: 200 OK text/html; charset=utf-8
}
