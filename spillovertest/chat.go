package spillovertest

import (
	"fmt"
	"time"
)

// chat writes chat completions, and the older completions, which have other names
// and another place for the text.
type chat struct {
	legacy  bool
	azure   bool
	usage   bool // a usage chunk was requested
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

// chunk returns the start of an event, up to its choices.
func (w *chat) chunk() string {
	return fmt.Sprintf(`data: {%s,"choices":`, w.head("chat.completion.chunk"))
}

// head returns the fields that all bodies have; object is their type in chat.
func (w *chat) head(object string) string {
	prefix := "chatcmpl-"
	if w.legacy {
		prefix, object = "cmpl-", "text_completion"
	}
	return fmt.Sprintf(`"id":"%s%s","object":"%s","created":%d,"model":%s`, prefix, w.id, object, w.created, w.model)
}

// noUsage is in every chunk except the last if usage was requested.
func (w *chat) noUsage() string {
	if w.usage {
		return `,"usage":null`
	}
	return ""
}

func (w *chat) usageOf(n int) string {
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
		w.head("chat.completion"), choice, w.usageOf(n), filter)
}

// preamble returns the first chunk of Azure, which has no choices.
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

// role returns the first chunk of a chat, with the role.
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
		b = fmt.Appendf(b, "%s[],%s}\n\n", w.chunk(), w.usageOf(n))
	}
	return append(b, "data: [DONE]\n\n"...)
}

func (w *chat) failure(object string) []byte {
	return []byte(`data: {"error":` + object + "}\n\n")
}
