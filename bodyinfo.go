package spillover

import (
	"strconv"
	"strings"
)

// naming is where a body names its model, and what else it says of itself.
type naming struct {
	model string // "" when it is no string
	at    span   // of the value, quotes included
	named bool   // there is a value
	// Where a name can be put if there is none: behind the opening brace of an
	// object, or before the first part of a form.
	gap        int
	open, more bool       // whether there is a gap, and anything behind it
	boundary   string     // of a form
	place      int        // which of the operation's places of a model that is; the first decides
	inJSON     bool       // it is a JSON string, though in a form
	entire     span       // the whole member of an object, or part of a form, with what separates it
	second     namedModel // another model that the request names
	most       int64      // tokens of output; 0 when it does not say
	prompt     int64      // tokens of the prompt, as the caller's counter says; 0 when there is none
	media      int64      // tokens of what is no text
	mediaBytes int64      // of that
	cacheKey   string     // prompt_cache_key
	background bool       // the answer is stored and made later: it is begun once
	streams    bool       // the answer is to be a stream of events
	keeps      bool       // chat: the answer is stored, or has sound that can be referred to
	given      uint64     // which of the fields are there that backends set
	capped     bool       // a maximum of output tokens is, under either name
	whole      bool       // all of the body was read
}

// A namedModel is a model at its place in a body.
type namedModel struct {
	model string
	at    span
	place int
}

func isForm(contentType string) bool {
	return len(contentType) >= 10 && strings.EqualFold(contentType[:10], "multipart/")
}

// estimate is what a request costs, in tokens, as Azure reckons it: a quarter
// of the text, and the output it may have (Azure's quota page).
func estimate(length, most int64) int64 {
	if most <= 0 {
		most = usualOutput
	}
	return max(length, 0)/4 + most
}

// cost is the estimate for a body that was read: what is no text in it counts
// by its kind, and the prompt is what the caller's own counter says if there is
// one.
func (n naming) cost(length int64) int64 {
	if n.prompt > 0 {
		return estimate(4*n.prompt, n.most)
	}
	return estimate(length-n.mediaBytes, n.most) + n.media
}

// mostUnread is how many bytes of a body that is not read count: a large one is
// mostly sound or pictures.
const mostUnread = 16 << 10

// usualOutput is the output of a request that names no maximum, or whose body
// is not read, in tokens.
const usualOutput = 250

// maxIDs bounds the ids that one request is searched for.
const maxIDs = 64

// text is a name as the body spells it.
func (n naming) text(name string) string {
	if n.boundary != "" && !n.inJSON {
		return name
	}
	return quote(name)
}

// member is a name with all that a body without one needs.
func (n naming) member(name string) string {
	switch {
	case n.boundary != "":
		return "--" + n.boundary + "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n" + name + "\r\n"
	case n.more:
		return `"model":` + quote(name) + ","
	}
	return `"model":` + quote(name)
}

// quote is a JSON string. strconv.Quote is not: it escapes what JSON cannot.
func quote(s string) string {
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
	maxTokens           = "max_tokens"
	maxCompletionTokens = "max_completion_tokens"
	maxOutputTokens     = "max_output_tokens"
)

// maxModelName is the longest name of a model, in bytes, that is handled on its own.
const maxModelName = 256
