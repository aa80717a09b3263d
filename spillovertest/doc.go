// Package spillovertest simulates Azure OpenAI and OpenAI, for tests of programs
// that call them. As net/http/httptest is for servers in general, spillovertest
// is for model deployments: with limits in tokens per minute (pay-as-you-go),
// provisioned throughput (PTU), streams, and the ways in which all of these fail.
//
// A [Server] is used in one of two ways. Both give the same responses at the same
// times:
//
//   - [New] makes a server in memory. The server is an [http.RoundTripper], works in the
//     virtual time of [testing/synctest] and uses no goroutine, so that minutes
//     of traffic to dozens of servers take a moment. [Network] combines several servers.
//   - [NewServer] and [NewTLSServer] listen on 127.0.0.1. Their connections are
//     real, so they can be refused, reset and cut.
//
// Every server is an [http.Handler], too. Any OpenAI client can call one:
//
//	server := spillovertest.NewServer(spillovertest.Config{
//		Dialect: spillovertest.OpenAI,
//		Deployments: []spillovertest.Deployment{
//			{Name: "gpt-4o", Limit: spillovertest.PAYG{TPM: 30_000}},
//		},
//	})
//	defer server.Close()
//	config := openai.DefaultConfig("any key")
//	config.BaseURL = server.URL + "/v1"
//	client := openai.NewClientWithConfig(config)
//
// A server answers POST chat/completions, completions, embeddings and responses,
// with a JSON body or a stream, and GET models, at the paths of its [Dialect]. In
// the dialect [Azure], the paths of responses and models name no deployment.
// Every other path gets the 404 of the service.
//
// # Testing with a load balancer
//
// A server in memory has a host name by which package spillover recognizes the
// dialect, so a backend needs no more than the server's URL:
//
//	synctest.Test(t, func(t *testing.T) {
//		ptu := spillovertest.New(spillovertest.Config{Name: "ptu"})
//		payg := spillovertest.New(spillovertest.Config{Name: "payg"})
//		lb, err := spillover.New(spillover.Config{
//			Base: spillovertest.Network(ptu, payg),
//			Backends: []spillover.Backend{
//				{URL: ptu.URL, Priority: 1},
//				{URL: payg.URL, Priority: 2},
//			},
//		})
//		…
//	})
//
// The example "Synctest" of package spillover is a complete test of this kind.
//
// The URL of a server that listens is an IP address. It does not show the
// dialect, so set Dialect in the backend as well. Without it the requests have
// the paths of [OpenAI], and a server with another dialect answers all of them
// with 404.
//
// # Limits
//
// The limit of a [Deployment] is a [PAYG] or a [PTU]. It refuses requests as the
// services do: with 429, Retry-After, "Please retry after" in the message, and
// the headers with the remaining quota. The tokens of a prompt are estimated at
// four characters per token. The text of a response has no meaning. It has as
// many tokens as the maximum of the request.
//
// A load test can override both numbers in each request. The header
// X-Spillovertest-Prompt is the number of tokens of the prompt, so that the
// prompt itself need not be sent. The header X-Spillovertest-Output is the number
// of tokens of the response, if that should end before the maximum.
//
// # Faults
//
// [Server.Set] sets a script of faults:
//
//	server.Set(
//		spillovertest.Fault{Status: 500, Times: 2},
//		spillovertest.Fault{Kind: spillovertest.KindCut, After: 3, Times: 1},
//	)
//
// With this script two requests fail, and a third is cut after three tokens. All
// later requests are served. [Server.Stats] and [Server.Requests] show what the
// server received.
//
// # Time
//
// Inside a [testing/synctest] bubble, use servers in memory that were made in
// that bubble. The body of a response waits in Read until its next piece is due,
// at most until the request's context ends. Nothing is sent while nothing is
// read: a response ends, and its request is no longer in flight, when the body
// has been read to its end or closed. If a request is still in flight after a
// test, a response body was not closed.
//
// With equal seeds and the same requests in the same order, responses are equal
// except for times in them.
package spillovertest
