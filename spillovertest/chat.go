package spillovertest

import (
	"fmt"
	"time"
)

// chat writes chat completions, and the older completions, which differ in
// their names and in where the text is.
type chat struct {
	legacy  bool
	azure   bool
	usage   bool // a usage chunk was asked for
	prompt  int
	model   string // quoted
	id      string
	created int64

	before, after string // around the text in a chunk
	buf           []byte
}

func newChat(c *call, id string, d Dialect) *chat {
	w := &chat{
		legacy: c.op == opCompletions, azure: d != OpenAI, usage: c.StreamOptions.IncludeUsage,
		prompt: c.prompt, model: quote(c.deployment), id: id, created: time.Now().Unix(),
	}
	w.after = `"},"finish_reason":null}]` + w.noUsage() + "}\n\n"
	w.before = w.chunk() + `[{"index":0,"delta":{"content":"`
	if w.legacy {
		w.after = `","logprobs":null,"finish_reason":null}]` + w.noUsage() + "}\n\n"
		w.before = w.chunk() + `[{"index":0,"text":"`
	}
	return w
}

// chunk is the start of an event, up to its choices.
func (w *chat) chunk() string {
	return fmt.Sprintf(`data: {%s,"choices":`, w.head("chat.completion.chunk"))
}

// head is the members common to all; object is what chat calls it.
func (w *chat) head(object string) string {
	prefix := "chatcmpl-"
	if w.legacy {
		prefix, object = "cmpl-", "text_completion"
	}
	return fmt.Sprintf(`"id":"%s%s","object":"%s","created":%d,"model":%s`, prefix, w.id, object, w.created, w.model)
}

// noUsage is in every chunk but the last when usage was asked for.
func (w *chat) noUsage() string {
	if w.usage {
		return `,"usage":null`
	}
	return ""
}

func (w *chat) bill(n int) string {
	return fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":0}}`,
		w.prompt, n, w.prompt+n)
}

const filterResults = `[{"prompt_index":0,"content_filter_results":{}}]`

func (w *chat) whole(n int) []byte {
	choice := `"message":{"role":"assistant","content":"` + text(0, n) + `","refusal":null}`
	if w.legacy {
		choice = `"text":"` + text(0, n) + `"`
	}
	filter := ""
	if w.azure {
		filter = `,"prompt_filter_results":` + filterResults
	}
	return fmt.Appendf(nil, `{%s,"choices":[{"index":0,%s,"logprobs":null,"finish_reason":"stop"}],%s%s}`,
		w.head("chat.completion"), choice, w.bill(n), filter)
}

// preamble is Azure's first chunk, which has no choices.
func (w *chat) preamble() []byte {
	if !w.azure {
		return nil
	}
	return []byte(`data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":` + filterResults + "}\n\n")
}

func (w *chat) tokens(i, n int) []byte {
	w.buf = w.buf[:0]
	if i == 0 {
		w.buf = append(w.buf, w.role()...)
	}
	w.buf = append(w.buf, w.before...)
	w.buf = append(w.buf, text(i, n)...)
	w.buf = append(w.buf, w.after...)
	return w.buf
}

// role is the chunk that opens a chat's content.
func (w *chat) role() string {
	if w.legacy {
		return ""
	}
	return w.chunk() + `[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]` + w.noUsage() + "}\n\n"
}

func (w *chat) closing(n int) []byte {
	finish := `"delta":{}`
	if w.legacy {
		finish = `"text":""`
	}
	b := fmt.Appendf(w.buf[:0], `%s[{"index":0,%s,"finish_reason":"stop"}]%s}`+"\n\n", w.chunk(), finish, w.noUsage())
	if w.usage {
		b = fmt.Appendf(b, "%s[],%s}\n\n", w.chunk(), w.bill(n))
	}
	return append(b, "data: [DONE]\n\n"...)
}

func (w *chat) failure(object string) []byte {
	return []byte(`data: {"error":` + object + "}\n\n")
}
