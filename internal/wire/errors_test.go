package wire

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseError(t *testing.T) {
	for body, want := range map[string]ServiceError{
		`{"error":{"code":"a","type":"b","message":"c"}}`: {Code: "a", Type: "b", Message: "c", wrapped: true},
		`{"error":{"code":429.5e3,"type":null}}`:          {Code: "429.5e3", wrapped: true},
		`{"error":{"code":429}}`:                          {Code: "429", wrapped: true},
		`{"error":{"code":{"a":1}}}`:                      {wrapped: true},
		`{"code":"a","message":"c"}`:                      {Code: "a", Message: "c"},
		`{"error":"text","message":"c"}`:                  {Message: "c"},
		`{"code":"a b"}`:                                  {},
		`{"code":"` + strings.Repeat("a", 65) + `"}`:      {},
		`[]`:     {},
		`<html>`: {},
		``:       {},
	} {
		require.Equal(t, want, ParseError([]byte(body)), body)
	}
}

func TestErrorMeaning(t *testing.T) {
	is := func(method func(ServiceError) bool, bodies ...string) {
		t.Helper()
		for _, body := range bodies {
			require.True(t, method(ParseError([]byte(body))), body)
		}
		for _, body := range []string{`{"error":{"code":"x","message":"y"}}`, `{"error":{"type":"invalid_request_error"}}`} {
			require.False(t, method(ParseError([]byte(body))), body)
		}
	}
	is(ServiceError.OutOfQuota, `{"error":{"code":"insufficient_quota"}}`, `{"error":{"type":"billing_not_active"}}`)
	is(ServiceError.RequestTooLarge, `{"error":{"message":"Request too large for gpt-4o"}}`)
	is(ServiceError.NoCapacity, `{"error":{"code":"no_capacity"}}`, `{"error":{"type":"Overloaded"}}`, `{"error":{"message":"We experience high demand."}}`)
	is(ServiceError.DeploymentMissing, `{"error":{"code":"DeploymentNotFound"}}`, `{"error":{"code":"model_not_found"}}`, `{"code":"unknown_model"}`)
	is(ServiceError.OperationUnsupported, `{"error":{"code":"OperationNotSupported"}}`)
	is(ServiceError.IsOfOtherResource, `{"error":{"code":"invalid_encrypted_content"}}`, `{"error":{"code":"previous_response_not_found"}}`)
	is(ServiceError.NotFound, `{"error":{"code":"NotFound"}}`, `{"error":{"type":"not_found_error"}}`, `{"error":{"message":"No such file"}}`, `{"error":{"message":"File doesn't exist"}}`)
	is(ServiceError.NotFromService, `{"message":"blocked"}`, `<html>`, ``)
}
