package wire

import (
	"encoding/json"
	"slices"
	"strings"
)

// A ServiceError is the error object of Azure and OpenAI. Gateways may send it without
// the object around it. Any other body is parsed to the zero value.
type ServiceError struct {
	Code    looseString `json:"code"`
	Type    looseString `json:"type"`
	Message looseString `json:"message"`
	wrapped bool        // it was the member "error" of an object
}

// A looseString is a JSON string, or a JSON number as text. Any other value is "".
type looseString string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (s *looseString) UnmarshalJSON(b []byte) error {
	var text string
	switch {
	case json.Unmarshal(b, &text) == nil:
	case len(b) > 0 && (b[0] == '-' || b[0] >= '0' && b[0] <= '9'):
		text = string(b)
	}
	*s = looseString(text)
	return nil
}

// ParseError parses the body of an error response.
func ParseError(body []byte) ServiceError {
	var wrapped struct {
		Error json.RawMessage `json:"error"`
	}
	var e ServiceError
	if json.Unmarshal(body, &wrapped) != nil {
		return e
	}
	if e.wrapped = len(wrapped.Error) > 0 && json.Unmarshal(wrapped.Error, &e) == nil; !e.wrapped {
		_ = json.Unmarshal(body, &e)
		if e.Message == "" {
			_ = json.Unmarshal(wrapped.Error, &e.Message) // some servers have the message alone there
		}
	}
	// The code appears in logs and in Status, so it must be a single short word.
	if len(e.Code) > 64 || strings.ContainsFunc(string(e.Code), func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		e.Code = ""
	}
	return e
}

// QuotaCodes mean that the account's quota or credit is used up (OpenAI's help pages on
// billing errors). Waiting does not help.
var QuotaCodes = []string{
	"insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded", "project_spend_limit_exceeded",
	"organization_usage_limit_exceeded", "billing_hard_limit_reached", "billing_not_active",
}

// OutOfQuota reports whether the account's quota or credit is used up.
func (e ServiceError) OutOfQuota() bool {
	return slices.Contains(QuotaCodes, string(e.Code)) || slices.Contains(QuotaCodes, string(e.Type))
}

// RequestTooLarge reports whether the request alone exceeds the whole rate limit.
func (e ServiceError) RequestTooLarge() bool {
	return strings.HasPrefix(strings.ToLower(string(e.Message)), "request too large")
}

// contextPhrases are how services say that a request is too long for the model: OpenAI
// and Azure, and self-hosted servers and other providers with OpenAI's API.
var contextPhrases = []string{
	"maximum context length", "context window", "context length", "context size", "maximum prompt length", "prompt is too long",
	"input is too long", "input tokens exceed", "max_model_len", "maximum input length", "exceeds the model's context",
}

// ContextTooLong reports whether an error with a status says that the request is too
// long for the model. A code that says something else has precedence over the message.
func (e ServiceError) ContextTooLong(status int) bool {
	if status != 400 && status != 413 && status != 422 {
		return false
	}
	code := strings.ToLower(string(e.Code) + " " + string(e.Type))
	for _, word := range [...]string{"context_length", "context_window", "context_size", "model_max_prompt_tokens"} {
		if strings.Contains(code, word) {
			return true
		}
	}
	switch strings.ToLower(string(e.Code)) {
	case "", "null", "400", "413", "422", "invalid_request_error", "bad_request", "badrequest", "tokens_limit_reached":
		m := strings.ToLower(string(e.Message))
		return slices.ContainsFunc(contextPhrases, func(s string) bool { return strings.Contains(m, s) })
	}
	return false
}

// FilteredByAzure is the code of Azure's content filter, which is in an inner error.
const FilteredByAzure = "ResponsibleAIPolicyViolation"

// ContentFiltered reports whether a content filter has refused the request.
func (e ServiceError) ContentFiltered() bool {
	switch e.Code {
	case "content_filter", "content_policy_violation", "image_content_policy_violation", "moderation_blocked", "cyber_policy", FilteredByAzure:
		return true
	}
	return false
}

// NoCapacity reports whether the service as a whole lacks capacity, as opposed to the
// deployment's own rate limit.
func (e ServiceError) NoCapacity() bool {
	for _, text := range [...]looseString{e.Code, e.Type, e.Message} {
		text := strings.ToLower(string(text))
		for _, word := range [...]string{"no_capacity", "overloaded", "high demand", "engine"} {
			if strings.Contains(text, word) {
				return true
			}
		}
	}
	return false
}

// DeploymentMissing reports whether the deployment does not exist, as opposed to a
// stored object or a path.
func (e ServiceError) DeploymentMissing() bool {
	switch e.Code {
	case "DeploymentNotFound", "model_not_found", "unknown_model":
		return true
	}
	return false
}

// OperationUnsupported reports whether the deployment does not support the operation.
// Other deployments with the same name may support it.
func (e ServiceError) OperationUnsupported() bool { return e.Code == "OperationNotSupported" }

// NotFromService reports whether the error does not have the service's form, which is a
// member "error" or at least a code or type. Then it comes from a firewall or gateway
// in front of the service.
func (e ServiceError) NotFromService() bool { return !e.wrapped && e.Code == "" && e.Type == "" }

// PreviousResponseNotFound is the code of an error about a previous_response_id that
// the resource does not have.
const PreviousResponseNotFound = "previous_response_not_found"

// IsOfOtherResource reports whether the request refers to something that another
// resource created.
func (e ServiceError) IsOfOtherResource() bool {
	return e.Code == "invalid_encrypted_content" || e.Code == PreviousResponseNotFound
}

// notFoundPhrases are how messages say that something does not exist.
var notFoundPhrases = []string{"not found", "no such", "not exist", "n't exist", "not find", "n't find", "not be found", "n't be found", " found with id"}

// NotFound reports whether the error says that something does not exist.
func (e ServiceError) NotFound() bool {
	for _, code := range []looseString{e.Code, e.Type} {
		if c := strings.ToLower(strings.ReplaceAll(string(code), "_", "")); strings.Contains(c, "notfound") {
			return true
		}
	}
	m := strings.ToLower(string(e.Message))
	return slices.ContainsFunc(notFoundPhrases, func(s string) bool { return strings.Contains(m, s) })
}
