package wire

import (
	"encoding/json"
	"slices"
	"strings"
)

// A ServiceError is the error object of Azure and OpenAI. Gateways leave out
// the object around it; other bodies make an empty one.
type ServiceError struct {
	Code    looseString `json:"code"`
	Type    looseString `json:"type"`
	Message looseString `json:"message"`
	wrapped bool        // it is within an object of that name
}

// A looseString is a string, or a number as one; anything else is "".
type looseString string

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
	}
	// A code is told to people: one made of anything but a word is none.
	if len(e.Code) > 64 || strings.ContainsFunc(string(e.Code), func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		e.Code = ""
	}
	return e
}

// QuotaCodes mean that the account has nothing left to spend (OpenAI's help
// pages on billing errors): no wait mends that.
var QuotaCodes = []string{
	"insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded", "project_spend_limit_exceeded",
	"organization_usage_limit_exceeded", "billing_hard_limit_reached", "billing_not_active",
}

func (e ServiceError) OutOfQuota() bool {
	return slices.Contains(QuotaCodes, string(e.Code)) || slices.Contains(QuotaCodes, string(e.Type))
}

// RequestTooLarge tells that the request alone is more than the whole limit.
func (e ServiceError) RequestTooLarge() bool {
	return strings.HasPrefix(strings.ToLower(string(e.Message)), "request too large")
}

// NoCapacity reports whether a refusal is about what the service as a whole has left,
// not about the deployment's own limit.
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

// DeploymentMissing reports whether an error is about the deployment, not about a
// stored object or a path.
func (e ServiceError) DeploymentMissing() bool {
	switch e.Code {
	case "DeploymentNotFound", "model_not_found", "unknown_model":
		return true
	}
	return false
}

// OperationUnsupported reports whether the deployment does not have the operation, which
// others of the same name may have.
func (e ServiceError) OperationUnsupported() bool { return e.Code == "OperationNotSupported" }

// NotFromService reports whether an error has not the form of the service's own, an
// object of that name or at least a code: then a firewall or gateway in front of
// it has answered.
func (e ServiceError) NotFromService() bool { return !e.wrapped && e.Code == "" && e.Type == "" }

const PreviousNotFound = "previous_response_not_found"

// OtherResource tells of a request about something that another backend made.
func (e ServiceError) OtherResource() bool {
	return e.Code == "invalid_encrypted_content" || e.Code == PreviousNotFound
}

// sayings are how messages say that something is not there.
var notFoundPhrases = []string{"not found", "no such", "not exist", "n't exist", "not find", "n't find", "not be found", "n't be found", " found with id"}

// SaysNotFound tells of an error that something does not exist.
func (e ServiceError) SaysNotFound() bool {
	for _, code := range []looseString{e.Code, e.Type} {
		if c := strings.ToLower(strings.ReplaceAll(string(code), "_", "")); strings.Contains(c, "notfound") {
			return true
		}
	}
	m := strings.ToLower(string(e.Message))
	return slices.ContainsFunc(notFoundPhrases, func(s string) bool { return strings.Contains(m, s) })
}
