package wire

import (
	"strconv"
	"strings"
)

// BodyInfo is where a body names its model, and what else it says of itself.
type BodyInfo struct {
	Model     string // "" when it is no string
	ModelSpan Span   // of the value, quotes included
	// Where a name can be put if there is none: behind the opening brace of an
	// object, or before the first part of a form.
	InsertAt       int
	Boundary       string   // of a form
	Rank           int      // which of the operation's places of a model that is; the first decides
	MemberSpan     Span     // the whole member of an object, or part of a form, with what separates it
	Second         ModelRef // another model that the request names
	MaxOutput      int64    // tokens of output; 0 when it does not say
	PromptTokens   int64    // tokens of the prompt, as the caller's counter says; 0 when there is none
	MediaTokens    int64    // tokens of what is no text
	MediaBytes     int64    // of that
	PromptCacheKey string   // prompt_cache_key
	Present        uint64   // which of the fields are there that backends set

	HasModel     bool // there is a value for the model
	InJSON       bool // and it is a JSON string, though in a form
	Insertable   bool // there is a gap,
	HasMembers   bool // and something behind it
	Background   bool // the answer is stored and made later: it is begun once
	Stream       bool // the answer is to be a stream of events
	Stored       bool // chat: the answer is stored, or has sound that can be referred to
	HasMaxTokens bool // there is a maximum of output tokens, under any name
	Complete     bool // all of the body was read
}

// A ModelRef is a model at its place in a body.
type ModelRef struct {
	Model string
	At    Span
	Rank  int
}

func IsForm(contentType string) bool {
	return len(contentType) >= 10 && strings.EqualFold(contentType[:10], "multipart/")
}

// EstimateTokens is what a request costs, in tokens, as Azure reckons it: a quarter
// of the text, and the output it may have (Azure's quota page).
func EstimateTokens(length, most int64) int64 {
	if most <= 0 {
		most = DefaultOutputTokens
	}
	return max(length, 0)/4 + most
}

// Cost is the estimate for a body that was read: what is no text in it counts
// by its kind, and the prompt is what the caller's own counter says if there is
// one.
func (n BodyInfo) Cost(length int64) int64 {
	if n.PromptTokens > 0 {
		return EstimateTokens(4*n.PromptTokens, n.MaxOutput)
	}
	return EstimateTokens(length-n.MediaBytes, n.MaxOutput) + n.MediaTokens
}

// MaxUnreadBytes is how many bytes of a body that is not read count: a large one is
// mostly sound or pictures.
const MaxUnreadBytes = 16 << 10

// DefaultOutputTokens is the output of a request that names no maximum, or whose body
// is not read, in tokens.
const DefaultOutputTokens = 250

// MaxIDs bounds the ids that one request is searched for.
const MaxIDs = 64

// ModelText is a name as the body spells it.
func (n BodyInfo) ModelText(name string) string {
	if n.Boundary != "" && !n.InJSON {
		return name
	}
	return QuoteJSON(name)
}

// ModelMember is a name with all that a body without one needs.
func (n BodyInfo) ModelMember(name string) string {
	switch {
	case n.Boundary != "":
		return "--" + n.Boundary + "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n" + name + "\r\n"
	case n.HasMembers:
		return `"model":` + QuoteJSON(name) + ","
	}
	return `"model":` + QuoteJSON(name)
}

// QuoteJSON is a JSON string. strconv.Quote is not: it escapes what JSON cannot.
func QuoteJSON(s string) string {
	if plain([]byte(s)) && !strings.ContainsRune(s, '"') {
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

// The names that a maximum of output tokens has. A service takes the first or
// the second, not both.
const (
	MaxTokens           = "max_tokens"
	MaxCompletionTokens = "max_completion_tokens"
	MaxOutputTokens     = "max_output_tokens"
)

// MaxModelName is the longest name of a model, in bytes, that is handled on its own.
const MaxModelName = 256
