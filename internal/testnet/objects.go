package testnet

// ResponseText is an object of the Responses API.
const ResponseText = `{
  "id": "resp_68a1f00d",
  "object": "response",
  "conversation": {"id": "conv_68c0"},
  "output": [
    {"id": "rs_68b2", "type": "reasoning", "summary": [], "encrypted_content": "gAAAAA"},
    {"id": "msg_68d3", "type": "message", "content": [{"type": "output_text", "text": "say \"id\": \"resp_said\" twice"}]}
  ],
  "usage": {"input_tokens": 3, "output_tokens": 4}
}`

// UsesOfResponse are requests, for Request, that only the backend with ResponseText can answer.
var UsesOfResponse = []string{
	"GET /openai/responses/resp_68a1f00d?api-version=2025-04-01-preview",
	"GET /openai/v1/responses/resp_68a1f00d",
	"GET /v1/responses/resp_68a1f00d/input_items?limit=5",
	"GET /responses/resp_68a1f00d",
	"DELETE /v1/responses/resp_68a1f00d",
	"POST /v1/responses/resp_68a1f00d/cancel",
	`POST /v1/responses {"model":"m","previous_response_id":"resp_68a1f00d"}`,
	`POST /openai/responses?api-version=1 {"model":"m","input":"hi","previous_response_id": "resp_68a1f00d"}`,
	`POST /v1/responses {"model":"m","conversation":"conv_68c0"}`,
	`POST /v1/responses {"model":"m","conversation":{"id":"conv_68c0"}}`,
	"GET /v1/conversations/conv_68c0/items",
	`POST /v1/responses {"model":"m","input":[{"id":"rs_68b2","type":"reasoning","encrypted_content":"gAAAAA"}]}`,
	`POST /v1/responses {"model":"m","input":[{"type":"item_reference","id":"msg_68d3"}]}`,
	`POST /v1/responses/input_tokens {"model":"m","previous_response_id":"resp_68a1f00d"}`,
}

// NotFound is the error of an object that does not exist.
const NotFound = `{"error":{"message":"No such object","type":"invalid_request_error","param":null,"code":null}}`
