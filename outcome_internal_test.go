package spillover

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/health"
	"github.com/spillover-go/spillover/internal/testnet"
)

// Error bodies of real services.
const (
	azureTokens   = `{"error":{"code":"429","message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 6 seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."}}`
	azureNewer    = `{"error":{"code":"429","message":"Your requests to gpt-4.1-nano for gpt-4.1-nano in Sweden Central have exceeded the token rate limit for your current AIServices S0 pricing tier. Please retry after 45 seconds."}}`
	azureFoundry  = `{"error":{"code":"RateLimitReached","message":"Your requests to X for X in westeurope have exceeded rate limit."}}`
	azureCapacity = `{"error":{"message":"The system is currently experiencing high demand and cannot process your request. Your request exceeds the maximum usage size allowed during peak load. Please retry after 20 seconds.","type":"too_many_requests","param":null,"code":"no_capacity"}}`
	azurePTU      = `{"error":{"message":"Requests have exceeded the throughput limit on your Provisioned-Managed deployment.","type":"too_many_requests","param":null,"code":"rate_limit_reached"}}`
	azureKey      = `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key"}}`
	azureRBAC     = `{"error":{"code":"PermissionDenied","message":"The principal lacks the required data action Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action to perform POST"}}`
	azureFirewall = `{"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}`
	azureNoDeploy = `{"error":{"code":"DeploymentNotFound","type":"invalid_request_error","param":null,"message":"The API deployment for this resource does not exist."}}`
	azureNoPath   = `{"error":{"code":"404","message":"Resource not found"}}`
	azureFilter   = `{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{"hate":{"filtered":true,"severity":"high"}}}}}`
	azureNoOp     = `{"error":{"code":"OperationNotSupported","message":"The chatCompletion operation does not work with the specified model, X. Please choose different model"}}`
	azureTimeout  = `{"error":{"code":"Timeout","message":"The operation was timeout."}}`
	azureServer   = `{"error":{"message":"The server had an error while processing your request. Sorry about that!","type":"server_error","param":null,"code":null}}`
	openAITokens  = `{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. Please try again in 18.642s. Visit https://platform.openai.com","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`
	openAILarge   = `{"error":{"message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 30601. The input or output tokens must be reduced","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`
	openAISlow    = `{"error":{"message":"Slow down","type":"rate_limit_error","param":null,"code":"slow_down"}}`
	openAIBusy    = `{"error":{"message":"The server is overloaded","type":"service_unavailable_error","param":null,"code":"server_is_overloaded"}}`
	openAIKey     = `{"error":{"message":"Incorrect API key provided: sk-x.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`
	openAILength  = `{"error":{"message":"Your input exceeds the context window of this model.","type":"invalid_request_error","param":"input","code":"context_length_exceeded"}}`
)

func TestOutcomes(t *testing.T) {
	const s = time.Second
	for name, test := range map[string]struct {
		status int
		body   string
		header string // "Name: value"
		op     string // default: chat/completions
		want   outcome
	}{
		"200":           {status: 200, want: outcome{verdict: served}},
		"206":           {status: 206, body: azureServer, want: outcome{verdict: served}},
		"307":           {status: 307, want: outcome{verdict: served}},
		"101":           {status: 101, want: outcome{verdict: served}},
		"a limited 200": {status: 200, header: "Retry-After: 4", want: outcome{verdict: served}},

		"429 Azure, tokens":    {status: 429, body: azureTokens, want: outcome{verdict: throttled, wait: 6 * s, uncounted: true, reason: "429"}},
		"429 Azure, header":    {status: 429, body: azureTokens, header: "Retry-After: 7", want: outcome{verdict: throttled, wait: 7 * s, uncounted: true, reason: "429"}},
		"429 Azure, newer":     {status: 429, body: azureNewer, want: outcome{verdict: throttled, wait: 45 * s, uncounted: true, reason: "429"}},
		"429 Foundry":          {status: 429, body: azureFoundry, want: outcome{verdict: throttled, uncounted: true, reason: "429 RateLimitReached"}},
		"429 PTU":              {status: 429, body: azurePTU, header: "Retry-After-Ms: 20", want: outcome{verdict: throttled, wait: s / 50, uncounted: true, reason: "429 rate_limit_reached"}},
		"429 no_capacity":      {status: 429, body: azureCapacity, want: outcome{verdict: throttled, wait: 20 * s, uncounted: true, reason: "429 no_capacity"}},
		"429 OpenAI":           {status: 429, body: openAITokens, want: outcome{verdict: throttled, wait: 18642 * time.Millisecond, uncounted: true, reason: "429 rate_limit_exceeded"}},
		"429 slow_down":        {status: 429, body: openAISlow, want: outcome{verdict: throttled, uncounted: true, reason: "429 slow_down"}},
		"429 of nothing":       {status: 429, want: outcome{verdict: throttled, uncounted: true, reason: "429"}},
		"429 of a gateway":     {status: 429, body: `{"statusCode": 429, "message": "Rate limit is exceeded. Try again in 30 seconds."}`, want: outcome{verdict: throttled, wait: 30 * s, uncounted: true, reason: "429"}},
		"429 of HTML":          {status: 429, body: "<html>", want: outcome{verdict: throttled, uncounted: true, reason: "429"}},
		"429 of text":          {status: 429, body: `{"error":"slow down"}`, want: outcome{verdict: throttled, uncounted: true, reason: "429"}},
		"429 code unprintable": {status: 429, body: `{"error":{"code":"a\u001b[31mb"}}`, want: outcome{verdict: throttled, uncounted: true, reason: "429"}},
		"429 code too long":    {status: 429, body: `{"error":{"code":"` + strings.Repeat("x", 100) + `"}}`, want: outcome{verdict: throttled, uncounted: true, reason: "429"}},
		"429 code a number":    {status: 429, body: `{"error":{"code":1302}}`, want: outcome{verdict: throttled, uncounted: true, reason: "429 1302"}},

		"429 too large": {status: 429, body: openAILarge, header: "Retry-After: 3", want: outcome{verdict: declined, deploymentOnly: true, tooLarge: true, reason: "429 rate_limit_exceeded"}},
		"413 too large": {status: 413, body: openAILarge, want: outcome{verdict: declined, deploymentOnly: true, tooLarge: true, reason: "413 rate_limit_exceeded"}},
		"413 of bytes":  {status: 413, body: `{"error":{"message":"Maximum content size limit (26214400) exceeded"}}`, want: outcome{verdict: rejected, reason: "413"}},
		"413 of HTML":   {status: 413, body: "<html>", want: outcome{verdict: rejected, reason: "413"}},

		"503 with a time":    {status: 503, body: openAIBusy, header: "Retry-After: 2", want: outcome{verdict: failed, cause: health.ServerFailure, wait: 2 * s, reason: "503 server_is_overloaded"}},
		"529 with a time":    {status: 529, header: "Retry-After-Ms: 1500", want: outcome{verdict: failed, cause: health.ServerFailure, wait: 3 * s / 2, reason: "529"}},
		"503 that tells one": {status: 503, body: azureTokens, want: outcome{verdict: failed, cause: health.ServerFailure, reason: "503 429"}},
		"500":                {status: 500, body: azureServer, want: outcome{verdict: failed, cause: health.ServerFailure, reason: "500"}},
		"502":                {status: 502, body: "<html>", want: outcome{verdict: failed, cause: health.ServerFailure, reason: "502"}},
		"503":                {status: 503, want: outcome{verdict: failed, cause: health.ServerFailure, reason: "503"}},
		"504":                {status: 504, want: outcome{verdict: failed, cause: health.ServerFailure, reason: "504"}},
		"529":                {status: 529, want: outcome{verdict: failed, cause: health.ServerFailure, reason: "529"}},

		"408":             {status: 408, body: azureTimeout, want: outcome{verdict: declined, reason: "408 Timeout"}},
		"408 with a time": {status: 408, header: "Retry-After: 9", want: outcome{verdict: declined, reason: "408"}},
		"409":             {status: 409, want: outcome{verdict: rejected, reason: "409"}},
		"409 with a time": {status: 409, header: "Retry-After: 1", want: outcome{verdict: declined, reason: "409"}},
		"409 with zero":   {status: 409, header: "Retry-After: 0", want: outcome{verdict: rejected, reason: "409"}},

		"401 Azure":               {status: 401, body: azureKey, want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "401"}},
		"401 RBAC":                {status: 401, body: azureRBAC, want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "401 PermissionDenied"}},
		"401 OpenAI":              {status: 401, body: openAIKey, want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "401 invalid_api_key"}},
		"403":                     {status: 403, body: azureFirewall, header: "Retry-After: 3", want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "403"}},
		"404 DeploymentNotFound":  {status: 404, body: azureNoDeploy, want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "404 DeploymentNotFound"}},
		"404 of a thread run":     {status: 404, body: azureNoDeploy, op: "threads/t/runs", want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "404 DeploymentNotFound"}},
		"404 model_not_found":     {status: 404, body: testnet.ErrorBody("model_not_found", ""), op: "batches", want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "404 model_not_found"}},
		"404 of a wrong path":     {status: 404, body: azureNoPath, want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "404"}},
		"404 of a stored object":  {status: 404, body: azureNoPath, op: "files/file-1", want: outcome{verdict: rejected, reason: "404"}},
		"404 of a stored message": {status: 404, op: "chat/completions/chatcmpl-1", want: outcome{verdict: rejected, reason: "404"}},

		"400 content filter":        {status: 400, body: azureFilter, want: outcome{verdict: rejected, reason: "400 content_filter"}},
		"400 context length":        {status: 400, body: openAILength, want: outcome{verdict: rejected, reason: "400 context_length_exceeded"}},
		"400 OperationNotSupported": {status: 400, body: azureNoOp, want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "400 OperationNotSupported"}},
		"400 model_not_found":       {status: 400, body: testnet.ErrorBody("model_not_found", ""), want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "400 model_not_found"}},
		"400 unknown_model":         {status: 400, body: testnet.ErrorBody("unknown_model", ""), want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "400 unknown_model"}},
		"400 DeploymentNotFound":    {status: 400, body: azureNoDeploy, want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "400 DeploymentNotFound"}},
		"400 billing":               {status: 400, body: testnet.ErrorBody("billing_hard_limit_reached", ""), want: outcome{verdict: failed, cause: health.OutOfQuota, deploymentOnly: true, uncounted: true, reason: "400 billing_hard_limit_reached"}},
		"402":                       {status: 402, want: outcome{verdict: failed, cause: health.OutOfQuota, deploymentOnly: true, uncounted: true, reason: "402"}},
		"403 out of quota":          {status: 403, body: testnet.ErrorBody("insufficient_quota", ""), want: outcome{verdict: failed, cause: health.OutOfQuota, deploymentOnly: true, uncounted: true, reason: "403 insufficient_quota"}},
		"403 of a firewall":         {status: 403, body: "<html>blocked</html>", want: outcome{verdict: failed, cause: health.Blocked, reason: "403"}},
		"403 of API Management":     {status: 403, body: `{"statusCode":403,"message":"Request failed content safety check."}`, want: outcome{verdict: failed, cause: health.Blocked, reason: "403"}},
		"403, flat":                 {status: 403, body: `{"code":"PermissionDenied","message":"no"}`, want: outcome{verdict: failed, cause: health.Misconfigured, deploymentOnly: true, reason: "403 PermissionDenied"}},
		"404 of a gateway":          {status: 404, body: "<html>no such page</html>", want: outcome{verdict: failed, cause: health.Blocked, reason: "404"}},
		"400 of a gateway":          {status: 400, body: "<html>bad request</html>", want: outcome{verdict: rejected, reason: "400"}},
		"400 with a time":           {status: 400, header: "Retry-After: 3", want: outcome{verdict: rejected, wait: 3 * s, reason: "400"}},
		"400 encrypted":             {status: 400, body: testnet.ErrorBody("invalid_encrypted_content", ""), want: outcome{verdict: declined, deploymentOnly: true, uncounted: true, reason: "400 invalid_encrypted_content"}},
		"400 previous":              {status: 400, body: testnet.ErrorBody("previous_response_not_found", ""), want: outcome{verdict: declined, deploymentOnly: true, uncounted: true, reason: "400 previous_response_not_found"}},
		"405":                       {status: 405, want: outcome{verdict: rejected, reason: "405"}},
		"415":                       {status: 415, want: outcome{verdict: rejected, reason: "415"}},
		"422":                       {status: 422, want: outcome{verdict: rejected, reason: "422"}},
		"424":                       {status: 424, want: outcome{verdict: rejected, reason: "424"}},
		"431":                       {status: 431, want: outcome{verdict: rejected, reason: "431"}},
		"499":                       {status: 499, want: outcome{verdict: rejected, reason: "499"}},
	} {
		h := http.Header{}
		if key, value, ok := strings.Cut(test.header, ": "); ok {
			h.Set(key, value)
		}
		op := "chat/completions"
		if test.op != "" {
			op = test.op
		}
		got := judge(test.status, h, []byte(test.body), op, time.Now())
		if test.want.verdict == rejected {
			got.wait, test.want.wait = 0, 0 // of no account
		}
		if test.status >= 400 {
			test.want.status = test.status
		}
		require.Equal(t, test.want, essence(got), name)
	}
}

// essence is what an outcome says apart from what it notes for particular requests.
func essence(o outcome) outcome {
	return outcome{verdict: o.verdict, wait: o.wait, cause: o.cause, connect: o.connect, status: o.status, uncounted: o.uncounted, tooLarge: o.tooLarge, deploymentOnly: o.deploymentOnly, reason: o.reason}
}

func TestOutcomesOfQuota(t *testing.T) {
	for _, code := range []string{"insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded", "project_spend_limit_exceeded",
		"organization_usage_limit_exceeded", "billing_hard_limit_reached", "billing_not_active"} {
		for _, body := range []string{testnet.ErrorBody(code, "insufficient_quota"), testnet.ErrorBody(code, code), testnet.ErrorBody(code, "")} {
			o := judge(429, http.Header{"Retry-After": {"1"}}, []byte(body), "responses", time.Now())
			require.Equal(t, outcome{verdict: failed, cause: health.OutOfQuota, deploymentOnly: true, uncounted: true, status: 429, reason: "429 " + code}, essence(o))
		}
	}
	o := judge(429, nil, []byte(`{"error":{"type":"insufficient_quota","code":null}}`), "responses", time.Now())
	require.Equal(t, health.OutOfQuota, o.cause)
	// Only some statuses can mean that.
	for status, want := range map[int]health.Cause{400: health.OutOfQuota, 402: health.OutOfQuota, 403: health.OutOfQuota, 429: health.OutOfQuota, 401: health.Misconfigured, 404: health.Misconfigured, 500: health.ServerFailure} {
		o := judge(status, nil, []byte(testnet.ErrorBody("insufficient_quota", "")), "responses", time.Now())
		require.Equal(t, want, o.cause, status)
	}
}

// A reason is told to people and printed.
func TestOutcomeReasons(t *testing.T) {
	for _, code := range []string{`"x y"`, `"x\ny"`, `"x\u0000"`, `"<script>"`, `"é"`, `{}`, `[1]`, `true`, `null`, `""`, `1e400`, `"sk-secret=1"`, `-7`} {
		o := judge(500, nil, []byte(`{"error":{"code":`+code+`}}`), "", time.Now())
		require.Regexp(t, `^500( [-+_.0-9A-Za-z]{1,64})?$`, o.reason, code)
	}
}

func TestOutcomesOfErrors(t *testing.T) {
	// What net/http really says.
	get := func(target string, client *http.Client) error {
		_, err := client.Get(target)
		require.Error(t, err)
		return err
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
	}))
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	closed := httptest.NewServer(nil)
	closed.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()

	for name, test := range map[string]struct {
		err    error
		reason string // "no connection" says that nothing was received
	}{
		"refused":           {get(closed.URL, client), "no connection"},
		"no TLS there":      {get(strings.Replace(plain.URL, "http:", "https:", 1), client), "no answer"},
		"unknown authority": {get(secure.URL, client), "no connection"},
		"closed":            {get(plain.URL, client), "no answer"},
		"DNS":               {&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "x"}}, "no connection"},
		"DNS alone":         {&net.DNSError{Err: "no such host", Name: "x"}, "no connection"},
		"dial timeout":      {&url.Error{Op: "Post", URL: "x", Err: &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}}, "no connection"},
		"record":            {tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "no connection"},
		"alert":             {&net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")}, "no connection"},
		"alert of our own":  {&net.OpError{Op: "local error", Err: errors.New("tls: no application protocol")}, "no connection"},
		"proxy":             {&net.OpError{Op: "proxyconnect", Net: "tcp", Err: &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}}, "no connection"},
		"certificate":       {&tls.CertificateVerificationError{Err: errors.New("expired")}, "no connection"},
		"host name":         {x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}, "no connection"},
		"TLS timeout":       {errors.New("net/http: TLS handshake timeout"), "no connection"},
		"reset":             {&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}, "no answer"},
		"broken pipe":       {&net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}, "no answer"},
		"EOF":               {io.EOF, "no answer"},
		"in the middle":     {fmt.Errorf("body: %w", io.ErrUnexpectedEOF), "answer broke off"},
		"unfinished":        {errUnfinished, "answer broke off"},
		"HeaderTimeout":     {errHeaderTimeout, "no answer in time"},
		"IdleTimeout":       {errIdleTimeout, "no answer in time"},
		"net/http's own":    {errors.New("net/http: timeout awaiting response headers"), "no answer"},
		"of a stranger":     {errors.New("boom"), "no answer"},
	} {
		o := judgeError(test.err)
		cause := health.NoAnswer
		if test.reason == "no connection" {
			cause = health.Unreachable
		}
		require.Equal(t, outcome{verdict: failed, cause: cause, reason: test.reason, connect: test.reason == "no connection"}, essence(o), "%s: %v", name, test.err)
	}
}

// The rows once more through a Transport: does it move on, and is the
// deployment harmed?
func TestOutcomesMove(t *testing.T) {
	for name, test := range map[string]struct {
		answer   roundTripFunc
		moves    bool
		closed   time.Duration // how long the deployment is out, about; a failure is forgiven once
		throttle bool
	}{
		"200":             {status(200, "{}"), false, 0, false},
		"429":             {status(429, azureTokens), true, 6 * time.Second, true},
		"429 PTU":         {status(429, azurePTU, "Retry-After-Ms: 20"), true, 20 * time.Millisecond, true},
		"429 no_capacity": {status(429, azureCapacity), true, 20 * time.Second, true},
		"429 slow_down":   {status(429, openAISlow), true, 10 * time.Second, true},
		"429 no quota":    {status(429, testnet.ErrorBody("insufficient_quota", "")), true, 5 * time.Minute, false},
		"429 too large":   {status(429, openAILarge), true, 0, false},
		"413 too large":   {status(413, openAILarge), true, 0, false},
		"413":             {status(413, "{}"), false, 0, false},
		"503 with a time": {status(503, openAIBusy, "Retry-After: 2"), true, 2 * time.Second, true},
		"529 with a time": {status(529, "", "Retry-After: 2"), true, 2 * time.Second, true},
		"500":             {status(500, azureServer), true, 0, false},
		"529":             {status(529, ""), true, 0, false},
		"408":             {status(408, azureTimeout), true, 0, false},
		"409":             {status(409, ""), false, 0, false},
		"409 with a time": {status(409, "", "Retry-After: 1"), true, 0, false},
		"401":             {status(401, azureKey), true, 5 * time.Second, false},
		"403":             {status(403, azureFirewall), true, 5 * time.Second, false},
		"404":             {status(404, azureNoDeploy), true, 5 * time.Second, false},
		"400":             {status(400, azureFilter), false, 0, false},
		"400 no such op":  {status(400, azureNoOp), true, 5 * time.Second, false},
		"403 HTML":        {status(403, "<html>"), true, 0, false},
		"402":             {status(402, "{}"), true, 5 * time.Minute, false},
		"431":             {status(431, ""), false, 0, false},
		"499":             {status(499, ""), false, 0, false},
		"cut off":         {broken(cutOff), true, 0, false},
		"no connection":   {broken(noConnection), true, 2 * time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), test.answer)
			tr := balance(t, n, azure("a"), azure("b", priority(2)))
			resp, text := ask(t, tr)
			require.Equal(t, map[bool]string{true: "b", false: "a"}[test.moves], servedBy(resp), name)
			if !test.moves {
				want, _ := test.answer(nil)
				require.Equal(t, read(t, want), text, name)
				require.Equal(t, want.StatusCode, resp.StatusCode, name)
			}
			d := tr.table().find("m").tiers[0].members[0]
			until, reason, throttled := d.unavailable(time.Now())
			if test.closed == 0 {
				require.True(t, until.IsZero(), "%s: %s", name, reason)
				return
			}
			require.InEpsilon(t, test.closed.Seconds(), time.Until(until).Seconds(), 0.2, name)
			require.Equal(t, test.throttle || test.closed > time.Minute, throttled, name)
			require.NotEmpty(t, reason)
		})
	}
}

// Azure itself has taken a request from a full PTU: the other one is preferred
// for a while.
func TestOutcomeSpilled(t *testing.T) {
	for _, header := range []string{"x-ms-spillover-from-deployment: ptu", "x-ms-is-spilled-over: True"} {
		synctest.Test(t, func(t *testing.T) {
			n := newNet()
			n.On(host("a"), status(200, "{}", header), status(200, "{}"))
			tr := steady(balance(t, n, azure("a"), azure("b"), azure("c", priority(2))))
			resp, _ := ask(t, tr)
			require.Equal(t, "a", servedBy(resp), "it is an answer all the same")
			require.Equal(t, 1, n.Sends())
			d := tr.table().find("m").tiers[0].members[0]
			require.True(t, d.accepts(time.Now()))
			time.Sleep(10*time.Second - time.Millisecond)
			resp, _ = ask(t, tr)
			require.Equal(t, "b", servedBy(resp))
			n.On(host("b"), status(429, "{}", "retry-after-ms: 1"))
			resp, _ = ask(t, tr)
			require.Equal(t, "a", servedBy(resp), "before the next tier")
			time.Sleep(time.Second)
			resp, _ = ask(t, tr)
			require.Equal(t, "a", servedBy(resp), "it is over")
		})
	}
	for _, header := range []string{"x-ms-is-spilled-over: false", "x-ms-spillover-from-deployment: "} {
		n := newNet()
		n.On(host("a"), status(200, "{}", header))
		tr := steady(balance(t, n, azure("a"), azure("b")))
		ask(t, tr)
		resp, _ := ask(t, tr)
		require.Equal(t, "a", servedBy(resp))
	}
}

// What a good answer says costs no memory.
func TestGoodOutcomeAllocatesNothing(t *testing.T) {
	h, now := http.Header{"X-Ratelimit-Limit-Tokens": {"1000"}, "X-Ratelimit-Remaining-Tokens": {"900"}}, time.Now()
	d := newTable([]*backend{{sharedState: new(sharedState), name: "a", weight: 1}}, nil, new(table)).nameless.tiers[0].members[0]
	c := &call{pool: &pool{random: func() uint64 { return 0 }}, activeConfig: new(activeConfig)}
	a := &attempt{deployment: d, sentAt: now}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		d.measure(now, now, 1, h)
		require.Equal(t, served, judge(200, h, nil, "chat/completions", now).verdict)
		require.NoError(t, c.applyOutcome(a, time.Now(), nil, nil, outcome{verdict: served}))
	}))
}
