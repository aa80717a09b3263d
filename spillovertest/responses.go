package spillovertest

import (
	"fmt"
	"time"
)

// response writes the Responses API.
type response struct {
	model   string // quoted
	prompt  int
	id      string
	created int64
	seq     int    // of the next event
	place   string // the position of the text, in the events about it
	buf     []byte
}

func newResponse(c *call, id string) *response {
	return &response{
		model: quote(c.deployment), prompt: c.prompt, id: id, created: time.Now().Unix(),
		place: `"item_id":"msg_` + id + `","output_index":0,"content_index":0`,
	}
}

// object returns the response object; extra is its output and the fields that depend on
// its status.
func (w *response) object(status, extra string) string {
	return fmt.Sprintf(`{"id":"resp_%s","object":"response","created_at":%d,"status":"%s","model":%s,"incomplete_details":null,"parallel_tool_calls":true,"metadata":{},%s}`,
		w.id, w.created, status, w.model, extra)
}

const noOutput = `"error":null,"output":[],"usage":null`

func (w *response) completed(n int) string {
	return w.object("completed", fmt.Sprintf(`"error":null,"output":[%s],"usage":{"input_tokens":%d,"input_tokens_details":{"cached_tokens":0},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":%d}`,
		w.message("completed", part(n)), w.prompt, n, w.prompt+n))
}

// message returns the only output item.
func (w *response) message(status, content string) string {
	return fmt.Sprintf(`{"id":"msg_%s","type":"message","status":"%s","role":"assistant","content":[%s]}`, w.id, status, content)
}

// part returns the only content part of the message, n tokens long.
func part(n int) string {
	return `{"type":"output_text","annotations":[],"text":"` + text(0, n) + `"}`
}

func (w *response) whole(n int) []byte { return []byte(w.completed(n)) }

// event appends an event of a type, with its fields after the sequence number.
func (w *response) event(kind, members string) {
	w.buf = fmt.Appendf(w.buf, "event: %s\ndata: {\"type\":\"%[1]s\",\"sequence_number\":%d,%s}\n\n", kind, w.seq, members)
	w.seq++
}

func (w *response) preamble() []byte {
	w.buf = w.buf[:0]
	w.event("response.created", `"response":`+w.object("in_progress", noOutput))
	w.event("response.in_progress", `"response":`+w.object("in_progress", noOutput))
	return w.buf
}

func (w *response) tokens(i, n int) []byte {
	w.buf = w.buf[:0]
	if i == 0 {
		w.event("response.output_item.added", `"output_index":0,"item":`+w.message("in_progress", ""))
		w.event("response.content_part.added", w.place+`,"part":`+part(0))
	}
	w.event("response.output_text.delta", w.place+`,"delta":"`+text(i, n)+`"`)
	return w.buf
}

func (w *response) closing(n int) []byte {
	w.buf = w.buf[:0]
	w.event("response.output_text.done", w.place+`,"text":"`+text(0, n)+`"`)
	w.event("response.content_part.done", w.place+`,"part":`+part(n))
	w.event("response.output_item.done", `"output_index":0,"item":`+w.message("completed", part(n)))
	w.event("response.completed", `"response":`+w.completed(n))
	return w.buf
}

// failure returns the error event and the failed response.
func (w *response) failure(object string) []byte {
	w.buf = w.buf[:0]
	w.event("error", `"error":`+object)
	w.event("response.failed", `"response":`+w.object("failed", `"error":`+object+`,"output":[],"usage":null`))
	return w.buf
}
