package batch

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
)

// An answer is one line of the output: what is known about one line of the input, for
// good.
type answer struct {
	line    int64
	failed  bool
	text    []byte // with a newline
	tokens  tokens
	backend string // that answered; "" if none did
}

type tokens struct{ input, output int64 }

// idPrefix and the number of the line are the id of an answer. So an answer is found
// again although custom_id need not be unique.
const idPrefix = "batch_req_"

// A responseObject is the response member of an answer.
type responseObject struct {
	StatusCode int             `json:"status_code"`
	RequestID  string          `json:"request_id"`
	Body       json.RawMessage `json:"body"`
}

func newAnswer(r *request, resp *responseObject, e *lineError) answer {
	line := struct {
		ID       string          `json:"id"`
		CustomID json.RawMessage `json:"custom_id"`
		Response *responseObject `json:"response"`
		Error    *lineError      `json:"error"`
	}{idPrefix + strconv.FormatInt(r.line, 10), r.customID, resp, e}
	if resp != nil {
		resp.Body = bytes.ToValidUTF8(resp.Body, []byte("\ufffd"))
	}
	text, err := encodeLine(line)
	if err != nil && resp != nil {
		resp.Body, _ = json.Marshal(string(resp.Body)) // such as the page of a proxy
		text, err = encodeLine(line)
	}
	if err != nil {
		panic(err) // a RawMessage that is not valid
	}
	return answer{line: r.line, failed: e != nil || resp.StatusCode >= 300, text: text}
}

// encodeLine is a value as one line of JSON.
func encodeLine(v any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	if !json.Valid(text.Bytes()) {
		return nil, errTooDeep
	}
	return text.Bytes(), nil
}

// errTooDeep is an error about a RawMessage that could only be decoded alone.
var errTooDeep = errors.New("nested too deeply")

// lineOf is the number of the line that an answer is about.
func lineOf(text []byte) (line int64, ok bool) {
	var a struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(text, &a) != nil || len(a.ID) <= len(idPrefix) || a.ID[:len(idPrefix)] != idPrefix {
		return 0, false
	}
	line, err := strconv.ParseInt(a.ID[len(idPrefix):], 10, 64)
	return line, err == nil && line > 0
}

// usageOf are the tokens that the body of a response reports.
func usageOf(body []byte) tokens {
	var r struct {
		Usage struct {
			Prompt     int64 `json:"prompt_tokens"`
			Completion int64 `json:"completion_tokens"`
			Input      int64 `json:"input_tokens"`
			Output     int64 `json:"output_tokens"`
		} `json:"usage"`
	}
	if json.Unmarshal(body, &r) != nil {
		return tokens{}
	}
	u := r.Usage
	return tokens{max(u.Prompt+u.Input, 0), max(u.Completion+u.Output, 0)}
}
