// Package spillovertest simulates Azure OpenAI and OpenAI, for tests of
// programs that use them: what net/http/httptest is to servers in general,
// this is to deployments with tokens-per-minute limits, provisioned
// throughput, streams, and the ways in which all of these fail.
//
// A [Server] is reached in one of two ways, and gives the same answers at the
// same times in both:
//
//   - [New] makes one in memory. It is an [http.RoundTripper], works in the
//     virtual time of testing/synctest and uses no goroutine, so that minutes
//     of traffic to dozens of servers take a moment. [Network] joins several.
//   - [NewServer] and [NewTLSServer] listen on 127.0.0.1, with real
//     connections to refuse, reset and break off.
//
// Either is an [http.Handler] too. Any OpenAI client can talk to one:
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
// Served are POST chat/completions, completions, embeddings and responses,
// whole or as a stream, and GET models, in the three [Dialect] spellings; on
// [Azure] itself, responses and models are outside the deployments, as there.
// Everything else is the service's 404.
//
// # Limits
//
// A [Deployment] is limited by [PAYG] or [PTU] and refuses like the real ones:
// 429, with Retry-After, the message's "Please retry after", and the headers
// that show how much is left. A prompt's tokens are estimated at four
// characters each. The text written has no meaning, and as many tokens as the
// request's maximum.
//
// A load test may say otherwise, request by request: the headers
// X-Spillovertest-Prompt and X-Spillovertest-Output are the tokens of a prompt
// that is not sent, and of an answer that ends before the maximum.
//
// # Faults
//
// [Server.Set] makes things go wrong, a script at a time:
//
//	server.Set(
//		spillovertest.Fault{Status: 500, Times: 2},
//		spillovertest.Fault{Kind: spillovertest.KindCut, After: 3, Times: 1},
//	)
//
// fails two requests and breaks off a third after three tokens; the rest are
// served. [Server.Stats] and [Server.Requests] show what arrived.
//
// # Time
//
// Inside a testing/synctest bubble, use servers made in that bubble, in memory.
// Their response bodies wait in Read, for as long as the request's context
// allows. Nobody writes while nobody reads: an answer ends, and a request stops
// being in flight, when its body has been read to its end or closed. A
// request still in flight after a test is therefore a body left open.
//
// Given equal seeds and requests in equal order, answers are equal, but for
// the time in them.
package spillovertest
