package spillover_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// testFailover is a test of a program's failover. It takes half a minute of virtual
// time and no real time. In your own package its name begins with Test, so that
// go test runs it.
func testFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Servers are made inside the bubble. Their URLs show the dialect.
		ptu := spillovertest.New(spillovertest.Config{Name: "ptu"})
		payg := spillovertest.New(spillovertest.Config{Name: "payg"})
		lb, err := spillover.New(spillover.Config{
			Base: spillovertest.Network(ptu, payg), // instead of a real network
			Backends: []spillover.Backend{
				{Name: "ptu", URL: ptu.URL, Priority: 1},
				{Name: "payg", URL: payg.URL, Priority: 2},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer lb.Close()
		client := &http.Client{Transport: lb} // for the code under test
		ask := func() string {
			resp, err := client.Post("https://any.example/openai/v1/chat/completions", "application/json",
				strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			return resp.Header.Get("X-Spillover-Backend")
		}

		// The PTU refuses one request and asks to wait 30 s.
		ptu.Set(spillovertest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"30"}}, Times: 1})
		if got := ask(); got != "payg" {
			t.Errorf("got a response of %s, want failover to payg", got)
		}
		time.Sleep(30 * time.Second) // returns immediately
		if got := ask(); got != "ptu" {
			t.Errorf("got a response of %s, want ptu after its cool-down", got)
		}
		if ptu.Stats().InFlight+payg.Stats().InFlight > 0 {
			t.Error("a response body was not closed")
		}
	})
}

// A test with simulated deployments in virtual time.
func Example_synctest() {
	_ = testFailover // run by go test
}
