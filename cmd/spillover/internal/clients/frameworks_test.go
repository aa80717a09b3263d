package clients_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/spillovertest"
)

var frameworkCalls = []string{
	"AI SDK", "AI SDK azure", "AI SDK responses", "AI SDK stream", "AI SDK azure stream", "AI SDK responses stream",
	"LangChain", "LangChain azure", "LangChain stream", "LangChain azure stream",
}

// complete is what a call sees of a complete response of a backend.
func complete(call, backend string) string {
	switch {
	case strings.Contains(call, "stream"):
		return fmt.Sprintf(`{"text":%q,"finish":"stop","tokens":7}`, answer)
	case strings.HasPrefix(call, "LangChain"):
		return fmt.Sprintf(`{"text":%q,"tokens":7}`, answer)
	default:
		return fmt.Sprintf(`{"text":%q,"by":%q,"tokens":7}`, answer, backend)
	}
}

func TestNodeFrameworksDoNotSeeFaultsOfThePTU(t *testing.T) {
	var tests []clientTest
	for name, fault := range ptuFaults {
		for _, call := range frameworkCalls {
			if onlyInStreams(fault) && !strings.Contains(call, "stream") {
				continue
			}
			test := clientTest{newPool(t, spillovertest.Latency{}), call, name, complete(call, "payg")}
			test.pool.ptu.Set(fault)
			tests = append(tests, test)
		}
	}
	requireNode(t, tests...)
	for _, test := range tests {
		require.Equal(t, 1, test.pool.payg.Stats().Served, "%s, %s", test.name, test.call)
	}
}

func TestNodeFrameworkOperations(t *testing.T) {
	p := newPool(t, spillovertest.Latency{})
	tests := []clientTest{
		{p, "AI SDK embeddings", "", `{"dimensions":8}`},
		{p, "LangChain embeddings", "", `{"dimensions":8}`},
	}
	for _, call := range frameworkCalls {
		tests = append(tests, clientTest{p, call, "", complete(call, "ptu")})
	}
	requireNode(t, tests...)
	require.NotContains(t, fmt.Sprint(p.ptu.Requests()), p.key)
}

// LangChain throws the errors of OpenAI's SDK, and the AI SDK its own with the same status and code.
// docs/clients.md says so.
func TestNodeFrameworkErrors(t *testing.T) {
	var tests []clientTest
	var wanted []func(text string)
	for _, s := range situations {
		if s.call != "chat" && s.call != "stream" {
			continue
		}
		for _, framework := range []string{"LangChain", "AI SDK"} {
			// The AI SDK drops text that it has not yet delivered when a stream breaks off.
			test := s.test(t, spillovertest.Latency{PerToken: 50 * time.Millisecond})
			test.call = framework
			if s.call == "stream" {
				test.call += " stream"
			}
			s := s
			if framework == "AI SDK" {
				s.node = "AI_APICallError"
				switch {
				case s.code == "": // a connection breaks
					s.status = http.StatusOK
				case s.call == "stream":
					s.node = "object" // it is no Error
				}
			}
			tests = append(tests, test)
			wanted = append(wanted, func(text string) { s.require(t, s.node, text) })
		}
	}
	for i, text := range runNode(t, tests...) {
		wanted[i](text)
	}
}
