package wire

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStreamErrorStatus(t *testing.T) {
	for problem, want := range map[string]int{
		// Errors inside streams, as the services send them.
		`{"type":"too_many_requests","code":"rate_limit_exceeded","headers":{"x-ms-fe-error":"true"},"message":"…","param":null}`:          429,
		`{"type":"too_many_requests","code":"no_capacity"}`:                                                                                429,
		`{"type":"too_many_requests","code":"rate_limit_reached"}`:                                                                         429,
		`{"type":"tokens","code":"rate_limit_exceeded","message":"Please try again in 44ms."}`:                                             429,
		`{"type":"requests","code":"rate_limit_exceeded"}`:                                                                                 429,
		`{"type":"rate_limit_error","code":"slow_down"}`:                                                                                   429,
		`{"type":"rate_limit_error","code":null}`:                                                                                          429,
		`{"code":"RateLimitReached","message":"…"}`:                                                                                        429,
		`{"type":"insufficient_quota","code":"insufficient_quota"}`:                                                                        429,
		`{"code":"credit_balance_exhausted"}`:                                                                                              429,
		`{"code":"organization_spend_limit_exceeded"}`:                                                                                     429,
		`{"code":"billing_hard_limit_reached"}`:                                                                                            429,
		`{"type":"invalid_request_error","code":null,"message":"Could not find an existing deployment to match the model in the request"}`: 404,
		`{"code":"DeploymentNotFound"}`:                                                                                                    404,
		`{"type":"invalid_request_error","code":"model_not_found"}`:                                                                        404,
		`{"type":"server_error","code":null}`:                                                                                              500,
		`{"code":"server_error","message":"…"}`:                                                                                            500,
		`{"type":"service_unavailable_error","code":"server_is_overloaded"}`:                                                               503,
		`{"code":"Timeout","message":"The operation was timeout."}`:                                                                        408,
		`{"type":"invalid_request_error","code":"invalid_api_key"}`:                                                                        401,
		`{"code":"PermissionDenied"}`:                                                                                                      403,
		`{"code":"content_filter","param":"prompt","type":null,"status":400}`:                                                              400,
		`{"code":"context_length_exceeded","type":"invalid_request_error"}`:                                                                400,
		`{"code":"invalid_prompt"}`:                                                                                                        400,
		`{"type":"invalid_request_error","code":"unsupported_value"}`:                                                                      400,
		`{"type":"invalid_request_error","code":"previous_response_not_found"}`:                                                            400,
		`{"code":"invalid_encrypted_content"}`:                                                                                             400,
		// The other codes of response.failed (ResponseErrorCode of OpenAI's
		// specification) are all of what the caller sent.
		`{"code":"invalid_image_url"}`:              400,
		`{"code":"image_too_large"}`:                400,
		`{"code":"image_content_policy_violation"}`: 400,
		`{"code":"unsupported_image_media_type"}`:   400,
		`{"code":"vector_store_timeout"}`:           408,
		// A status is plain, wherever it stands.
		`{"code":"429"}`:                       429,
		`{"code":503}`:                         503,
		`{"status":502,"code":"429"}`:          502,
		`{"status":"529"}`:                     529,
		`{"status_code":504}`:                  504,
		`{"status":200,"code":"401"}`:          401,
		`{"status":"failed","code":"no_such"}`: 400,
		// What says nothing is the service's own trouble.
		`{}`: 500, `null`: 500, `"text"`: 500, `text`: 500, ``: 500, `{"code":{}}`: 500,
	} {
		got, _ := StreamErrorStatus(http.Header{}, []byte(problem))
		require.Equal(t, want, got, problem)
	}
}

// The headers inside an error replace those of the response.
func TestHeadersOfAStreamError(t *testing.T) {
	answer := http.Header{"Retry-After": {"9"}, "X-Other": {"kept"}}
	_, h := StreamErrorStatus(answer, []byte(`{"code":"429","headers":{"retry-after":"1","retry-after-ms":15}}`))
	require.Equal(t, http.Header{"Retry-After": {"1"}, "Retry-After-Ms": {"15"}, "X-Other": {"kept"}}, h)
	require.Equal(t, http.Header{"Retry-After": {"9"}, "X-Other": {"kept"}}, answer, "the answer's own stays as it is")

	// One that says nothing takes nothing away.
	for _, headers := range []string{`null`, `{}`, `[]`, `{"retry-after":null}`, `{"retry-after":["1"]}`} {
		_, h = StreamErrorStatus(answer, []byte(`{"code":"429","headers":`+headers+`}`))
		require.Equal(t, "9", h.Get("Retry-After"), headers)
	}
}

// Codes that name the service, its load, a rate or a quota are failures of the service.
func TestStreamErrorsOfTheService(t *testing.T) {
	for code, want := range map[string]int{
		"InternalServerError": 500, "server_error": 500, "upstream_error": 500, "model_overloaded": 503, "ServiceUnavailable": 503, "GatewayTimeout": 408,
		"rate_exceeded": 429, "TooManyRequests": 429, "RateLimitReached": 429, "insufficient_capacity": 429, "quota_exceeded": 429, "unauthorized": 401,
		"organization_spend_limit_exceeded": 429, "project_spend_limit_exceeded": 429, "organization_usage_limit_exceeded": 429, "concurrency_limit_exceeded": 429,
		"13": 500, "error": 500, "BackendError": 500, "RateExceeded": 429, "notTheServer": 500, "Observers": 400,
	} {
		got, _ := StreamErrorStatus(http.Header{}, []byte(`{"type":"error","code":"`+code+`","message":"m"}`))
		require.Equal(t, want, got, code)
	}
	// Without a code the type says what has run out.
	for problem, want := range map[string]int{`{"type":"tokens"}`: 429, `{"type":"requests","code":null}`: 429, `{"type":"tokens","code":"string_above_max_length"}`: 400, `{"type":"requested"}`: 400} {
		got, _ := StreamErrorStatus(http.Header{}, []byte(problem))
		require.Equal(t, want, got, problem)
	}
}
