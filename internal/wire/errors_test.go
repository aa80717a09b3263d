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

// The spellings of a request that is too long for the model, and errors that only look
// like it.
func TestContextTooLong(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   bool
	}{
		"OpenAI, chat":         {400, `{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, true},
		"OpenAI, responses":    {400, `{"error":{"message":"Your input exceeds the context window of this model. Please adjust your input and try again.","type":"invalid_request_error","param":"input","code":"context_length_exceeded"}}`, true},
		"Azure, without type":  {400, `{"error":{"code":"context_length_exceeded","message":"This model's maximum context length is 16385 tokens."}}`, true},
		"Azure, older":         {400, `{"error":{"message":"This model's maximum context length is 4097 tokens, however you requested 5000 tokens","type":"invalid_request_error","param":null,"code":null}}`, true},
		"GitHub Models":        {413, `{"error":{"code":"tokens_limit_reached","message":"Request body too large for gpt-4o model. Max size: 8000 tokens. It exceeds the model's maximum context length."}}`, true},
		"Copilot":              {400, `{"error":{"message":"prompt token count of 140000 exceeds the limit of 128000","code":"model_max_prompt_tokens_exceeded"}}`, true},
		"vLLM":                 {400, `{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.","type":"BadRequestError","param":null,"code":400}`, true},
		"llama.cpp":            {400, `{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}`, true},
		"xAI":                  {400, `{"code":"Client specified an invalid argument","error":"This model's maximum prompt length is 131072 but the request contains 537812 tokens."}`, true},
		"Anthropic's":          {400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}`, true},
		"LiteLLM":              {400, `{"error":{"message":"litellm.ContextWindowExceededError: too long","type":"context_window_exceeded","code":"400"}}`, true},
		"as 422":               {422, `{"error":{"message":"Input is too long for requested model.","type":"invalid_request_error"}}`, true},
		"content filter":       {400, `{"error":{"message":"The prompt's context window was filtered.","code":"content_filter"}}`, false},
		"a string too long":    {400, `{"error":{"message":"Invalid 'user': string too long.","type":"invalid_request_error","code":"string_above_max_length"}}`, false},
		"another value":        {400, `{"error":{"message":"max_tokens is too large: 99999. This model supports at most 16384 completion tokens","type":"invalid_request_error","param":"max_tokens","code":"invalid_value"}}`, false},
		"a server error":       {500, `{"error":{"message":"maximum context length","code":"context_length_exceeded"}}`, false},
		"a rate limit":         {429, `{"error":{"message":"Request too large for gpt-4o: maximum context length","code":"rate_limit_exceeded"}}`, false},
		"not JSON":             {400, `maximum context length`, false},
		"empty":                {400, ``, false},
		"an unrelated mistake": {400, `{"error":{"message":"Unrecognized request argument supplied: foo","type":"invalid_request_error"}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, ParseError([]byte(test.body)).ContextTooLong(test.status))
		})
	}
}
