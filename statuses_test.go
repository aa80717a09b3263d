package spillover_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

func failsOverOn(statuses ...int) func(*spillover.Backend) {
	return func(b *spillover.Backend) { b.FailoverStatuses = statuses }
}

func TestRequestFailsOverOnFailoverStatuses(t *testing.T) {
	const azureFiltered = `{"error":{"message":"m","code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}`
	create := "POST /openai/files?api-version=2024-10-21 {}"
	for name, test := range map[string]struct {
		on     []int
		status int
		body   string
		line   string // another request than a chat
		to     string // who answers
	}{
		"not listed":                 {nil, 451, "{}", "", "a"},
		"listed":                     {[]int{451}, 451, "{}", "", "b"},
		"another is listed":          {[]int{400}, 451, "{}", "", "a"},
		"one of two":                 {[]int{400, 451}, 400, "{}", "", "b"},
		"fails over already":         {[]int{500, 429, 401}, 500, "{}", "", "b"},
		"a stream's first event":     {[]int{400}, 200, "data: {\"error\":{\"message\":\"no\",\"code\":\"invalid_prompt\"}}\n\n", "", "a"},
		"content filter":             {[]int{400}, 400, filtered, "", "a"},
		"Azure's content filter":     {[]int{400}, 400, azureFiltered, "", "a"},
		"creates something":          {[]int{451}, 451, "{}", create, "a"},
		"creates something, no list": {nil, 451, "{}", create, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNet()
			header := "Content-Type: application/json"
			if test.status == 200 {
				header = "Content-Type: text/event-stream"
			}
			n.On(host("a"), status(test.status, test.body, header))
			tr := balance(t, n, azure("a", failsOverOn(test.on...)), azure("b", priority(2)))
			req := newChat(t, chatPath)
			if test.line != "" {
				req = with(t, test.line)
			}
			resp, body := send(t, tr, req)
			require.Equal(t, test.to, servedBy(resp))
			if test.to == "a" {
				require.Equal(t, test.body, body)
			}
		})
	}
}

// Nothing is held against a deployment, and the status is that of its backend only. If
// every backend refuses, the caller gets the last response.
func TestFailoverStatusesAreNotCounted(t *testing.T) {
	n := newNet()
	n.On(host("a"), status(451, `{"error":{"message":"a"}}`))
	tr := balance(t, n, azure("a", failsOverOn(451)), azure("b", priority(2)))
	for range 10 {
		resp, _ := ask(t, tr)
		require.Equal(t, "b", servedBy(resp))
	}
	unharmed(t, tr, "a")
	require.Equal(t, 10, n.Sends(host("a")))
	failure := statusOf(t, tr, "a").LastFailure
	failure.Time = time.Time{}
	require.Equal(t, spillover.Failure{Status: 451, Reason: "451", Cause: "a"}, failure)

	n.On(host("b"), status(451, `{"error":{"message":"b"}}`))
	resp, body := ask(t, tr)
	require.Equal(t, 451, resp.StatusCode)
	require.Equal(t, "b", servedBy(resp))
	require.Contains(t, body, `"b"`)

	// Waiting for another deployment is of use: the request is not the cause.
	n.On(host("b"), status(429, "{}", "Retry-After: 7"))
	resp, _ = ask(t, tr)
	require.Equal(t, 429, resp.StatusCode)
	require.Equal(t, "7", resp.Header.Get("Retry-After"))
}
