package spillovertest

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// A problem is an error of the service.
type problem struct {
	status  int
	header  http.Header // in addition to the usual ones; may be nil
	code    string      // "" for null
	kind    string      // the type of the error; "" for Azure's short form, code and message only
	message string
	edge    bool // from Azure's front door, which names no region
}

// body returns the body of the error response.
func (p *problem) body() string {
	code := "null"
	if p.code != "" {
		code = quote(p.code)
	}
	if p.kind == "" {
		return fmt.Sprintf(`{"error":{"code":%s,"message":%s}}`, code, quote(p.message))
	}
	return fmt.Sprintf(`{"error":{"message":%s,"type":%s,"param":null,"code":%s}}`, quote(p.message), quote(p.kind), code)
}

const invalidRequest = "invalid_request_error"

func (d Dialect) unauthorized(h http.Header) *problem {
	if d != OpenAI {
		return &problem{
			status: http.StatusUnauthorized, code: "401", edge: true,
			message: "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource.",
		}
	}
	p := &problem{
		status: http.StatusUnauthorized, kind: invalidRequest,
		header:  http.Header{"Www-Authenticate": {`Bearer realm="OpenAI API"`}},
		message: "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
	}
	if key := bearer(h); key != "" {
		p.code = "invalid_api_key"
		p.message = fmt.Sprintf("Incorrect API key provided: %s. You can find your API key at https://platform.openai.com/account/api-keys.", mask(key))
	}
	return p
}

// mask hides a key except its ends.
func mask(key string) string {
	if len(key) <= 8 {
		return strings.Repeat("*", len(key))
	}
	return key[:4] + strings.Repeat("*", len(key)-8) + key[len(key)-4:]
}

func (d Dialect) notFound(r *http.Request) *problem {
	if d != OpenAI {
		return &problem{status: http.StatusNotFound, code: "404", message: "Resource not found"}
	}
	return &problem{
		status: http.StatusNotFound, kind: invalidRequest,
		message: fmt.Sprintf("Invalid URL (%s %s)", r.Method, r.URL.Path),
	}
}

func badRequest(err error) *problem {
	return &problem{
		status: http.StatusBadRequest, kind: invalidRequest,
		message: "We could not parse the JSON body of your request: " + err.Error(),
	}
}

func (d Dialect) unknownDeployment(name string) *problem {
	if d == OpenAI {
		return &problem{
			status: http.StatusNotFound, kind: invalidRequest, code: "model_not_found",
			message: fmt.Sprintf("The model `%s` does not exist or you do not have access to it.", name),
		}
	}
	p := &problem{
		status: http.StatusNotFound, code: "DeploymentNotFound",
		message: "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again.",
	}
	if d == AzureV1 {
		p.kind = invalidRequest // as in 2026
	}
	return p
}

// throttled returns the 429 for a refusal.
func (s *Server) throttled(c *call, no refusal) *problem {
	p := &problem{status: http.StatusTooManyRequests, header: http.Header{}}
	wait := ceil(no.wait, time.Second)
	p.header.Set("Retry-After", fmt.Sprint(wait))
	switch {
	case no.by == byThroughput:
		p.header.Set("Retry-After-Ms", fmt.Sprint(ceil(no.wait, time.Millisecond)))
		p.kind, p.code = "too_many_requests", "rate_limit_reached"
		p.message = "Requests have exceeded the throughput limit on your Provisioned-Managed deployment. If you continue to exceed your limit, consider increasing the number of provisioned throughput units deployed."
	case s.dialect == OpenAI:
		unit := "requests per min (RPM)"
		p.kind, p.code = "requests", "rate_limit_exceeded"
		if no.by == byTokens {
			unit, p.kind = "tokens per min (TPM)", "tokens"
		}
		again := time.Duration(ceil(no.wait, time.Millisecond)) * time.Millisecond
		p.message = fmt.Sprintf("Rate limit reached for %s in organization org-%s on %s: Limit %d, Used %d, Requested %d. Please try again in %s. Visit https://platform.openai.com/account/rate-limits to learn more.",
			c.deployment, s.Name, unit, no.limit, no.used, no.requested, again)
	default:
		which := "call"
		if no.by == byTokens {
			which = "token"
		}
		p.code = "429"
		p.message = s.azureThrottled(c, which, wait)
	}
	return p
}

// azureThrottled returns the message of the classic paths, or the newer one of v1.
func (s *Server) azureThrottled(c *call, which string, wait int64) string {
	const more = "To increase your default rate limit, visit: https://aka.ms/oai/quotaincrease."
	if s.dialect == AzureV1 {
		return fmt.Sprintf("Your requests to %s for %[1]s in %s have exceeded the %s rate limit for your current AIServices S0 pricing tier. Please retry after %d seconds. %s",
			c.deployment, s.Name, which, wait, more)
	}
	operation := map[string]string{
		opChat: "ChatCompletions_Create", opCompletions: "Completions_Create",
		opEmbeddings: "Embeddings_Create", opResponses: "Responses_Create",
	}[c.op]
	return fmt.Sprintf("Requests to the %s Operation under Azure OpenAI API version %s have exceeded %s rate limit of your current OpenAI S0 pricing tier. Please retry after %d seconds. %s",
		operation, c.version, which, wait, more)
}
