package wire

import (
	"strconv"
	"strings"
)

// A BodyInfo is where a request body names its model, and what else the balancer needs
// to know of it.
type BodyInfo struct {
	Model     string // "" if the value is not a string
	ModelSpan Span   // of the value, in JSON including its quotes
	// InsertAt is where a model can be inserted if there is none: after the opening
	// brace of an object, or before the first part of a form.
	InsertAt        int
	Boundary        string     // of a multipart form
	ModelPrecedence int        // place of the model in the operation's list, from 1; the lowest decides
	MemberSpan      Span       // the whole member of an object or part of a form, with its separator
	SecondModel     NamedModel // a further model in the request
	MaxOutput       int64      // maximum number of output tokens; 0 if the body sets none
	PromptTokens    int64      // of the caller's own token counter; 0 if there is none
	MediaTokens     int64      // estimate for images, audio and files
	MediaBytes      int64      // length of images, audio and files in the body
	PromptCacheKey  string
	PresentFields   uint64 // bit i is set if the body has field i of those passed to ReadJSON

	HasModel       bool // the body names a model, whatever its value
	ModelInJSON    bool // the model is a JSON string inside a form
	CanInsert      bool // a model can be inserted
	HasMembers     bool // the object has members already
	Background     bool // the response is created later and stored, so the request is sent only once
	Stream         bool // the response is to be a stream of events
	StoresResponse bool // chat completions: the response is stored, or has audio with an id
	HasMaxTokens   bool // the body sets a maximum number of output tokens, under any name
	Complete       bool // the whole body was read

	PromptHash uint32 // of the beginning of the prompt, see HashPrompt; 0 for none
}

// A NamedModel is a model at a place in a body.
type NamedModel struct {
	Model      string
	Span       Span
	Precedence int
}

// IsForm reports whether a content type is that of a multipart form.
func IsForm(contentType string) bool {
	return len(contentType) >= 10 && strings.EqualFold(contentType[:10], "multipart/")
}

// EstimateTokens estimates the tokens of a request with a body of length bytes, as
// Azure does: a quarter of the length, and the maximum number of output tokens (Azure's
// quota page).
func EstimateTokens(length, maxOutput int64) int64 {
	if maxOutput <= 0 {
		maxOutput = DefaultOutputTokens
	}
	return max(length, 0)/4 + maxOutput
}

// EstimateTokens estimates the tokens of a request whose body of length bytes was read.
// Images, audio and files count by their kind. The caller's own token counter, if there
// is one, replaces the estimate of the prompt.
func (n *BodyInfo) EstimateTokens(length int64) int64 {
	if n.PromptTokens > 0 {
		return EstimateTokens(4*n.PromptTokens, n.MaxOutput)
	}
	return EstimateTokens(length-n.MediaBytes, n.MaxOutput) + n.MediaTokens
}

// MaxUnreadBytes is how many bytes of a body that is not read count for its estimate.
// Most of a large body is audio or images.
const MaxUnreadBytes = 16 << 10

// DefaultOutputTokens is the number of output tokens that is assumed for a request that
// sets no maximum, or whose body is not read.
const DefaultOutputTokens = 250

// MaxIDs is the maximum number of ids that are read from one request.
const MaxIDs = 64

// ModelIsQuoted reports whether the model is a JSON string. In a part of a form it is
// plain text.
func (n *BodyInfo) ModelIsQuoted() bool { return n.Boundary == "" || n.ModelInJSON }

// ModelText returns a model as it is written into the body.
func (n *BodyInfo) ModelText(name string) string {
	if !n.ModelIsQuoted() {
		return name
	}
	return QuoteJSON(name)
}

// ModelMember returns the text that adds a model to a body without one.
func (n *BodyInfo) ModelMember(name string) string {
	switch {
	case n.Boundary != "":
		return "--" + n.Boundary + "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n" + name + "\r\n"
	case n.HasMembers:
		return `"model":` + QuoteJSON(name) + ","
	}
	return `"model":` + QuoteJSON(name)
}

// QuoteJSON returns s as a JSON string. strconv.Quote uses escapes that JSON does not
// have.
func QuoteJSON(s string) string {
	if isPlain([]byte(s)) && !strings.ContainsRune(s, '"') {
		return `"` + s + `"`
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ':
			b.WriteString(`\u00`)
			b.WriteString(strconv.FormatInt(int64(r)>>4, 16) + strconv.FormatInt(int64(r)&15, 16))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// The names of the maximum number of output tokens in a request body. For chat
// completions a service accepts either the first or the second, not both.
const (
	MaxTokensField           = "max_tokens"
	MaxCompletionTokensField = "max_completion_tokens"
	MaxOutputTokensField     = "max_output_tokens"
)

// MaxModelName is the maximum length, in bytes, of the name of a model that has its own
// state.
const MaxModelName = 256
