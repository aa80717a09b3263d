// Package redact makes text from services, callers and credentials safe to show
// in logs, errors and status.
package redact

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

const (
	// Mask replaces what looks like a credential.
	Mask = "***"
	// MaxText is the length limit of [Text], in bytes.
	MaxText = 256
	// MaxValue is the length limit of [Sanitize], in bytes.
	MaxValue = 128

	maxBrief = 100
	// maxInput limits how much of a text is processed. It is larger than MaxText
	// because masks are often shorter than what they replace.
	maxInput = 4096
)

// Text is a message as it may be shown: printable ASCII in one line, at most
// MaxText bytes long, with Mask for each of the secrets and for whatever looks
// like a credential: the user info and the query of a URL too.
func Text(message string, secrets ...string) string {
	if len(message) > maxInput {
		// Cut at a space: half a secret is not recognised.
		message = message[:maxInput]
		message = message[:max(0, strings.LastIndexByte(message, ' '))]
	}
	message = mask(message, secrets)
	message = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, message)
	message = mask(strings.Join(strings.Fields(message), " "), secrets) // now there may be others
	message = userInfo.ReplaceAllString(message, "//"+Mask+"@")
	message = query.ReplaceAllString(message, "$1?"+Mask)
	message = authorization.ReplaceAllString(message, "$1 "+Mask)
	message = namedValue.ReplaceAllString(message, "$1$2"+Mask)
	message = words.ReplaceAllStringFunc(message, func(word string) string {
		if looksSecret(word) {
			return Mask
		}
		return word
	})
	if len(message) > MaxText {
		message = message[:MaxText-3] + "..."
	}
	return message
}

// isSecret reports whether a value can be a secret: shorter ones are not keys, and masking
// them would spoil ordinary words.
func isSecret(s string) bool { return len(s) >= 4 }

// mask replaces the secrets in a text. One that contains another one is replaced as a
// whole.
func mask(text string, secrets []string) string {
	secrets = slices.Clone(secrets)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, s := range secrets {
		if isSecret(s) {
			text = strings.ReplaceAll(text, s, Mask)
		}
	}
	return text
}

// Contains reports whether a text contains one of the secrets.
func Contains(text string, secrets ...string) bool {
	return slices.ContainsFunc(secrets, func(s string) bool { return isSecret(s) && strings.Contains(text, s) })
}

// Sanitize is a value, such as a model name, with "?" for whatever is not
// printable, cut to MaxValue bytes.
func Sanitize(value string) string {
	if len(value) <= MaxValue && isPrintableASCII(value) {
		return value // almost always
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(value[:min(len(value), MaxValue)], ""))
}

// Brief is Sanitize for a value within a sentence: a longer one is cut and
// ends in an ellipsis.
func Brief(value string) string {
	if len(value) > maxBrief {
		return Sanitize(value[:maxBrief]) + "…"
	}
	return Sanitize(value)
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

var (
	userInfo      = regexp.MustCompile(`//[^\s"'<>]+@`) // a password may contain / and @
	query         = regexp.MustCompile(`(://[^\s"'<>?]+)\?[^\s"'<>]+`)
	authorization = regexp.MustCompile(`(?i)\b(bearer|basic|sharedkey)\s+[^\s,;"']+`)
	// namedValue is a value whose name marks it as a secret, as in a query, in JSON
	// or in a header.
	namedValue = regexp.MustCompile(`(?i)\b((?:[a-z_-]*(?:secret|password|passwd|pwd|assertion|signature|credential)|[a-z_-]*token|(?:[a-z]+[-_])*key|sig|authorization)["']?)(\s*=\s*["']?|\s*:\s*["']|:)[^\s,;&"']+`)
	words      = regexp.MustCompile(`[A-Za-z0-9~._+/=*%-]+`)

	keyPrefix = regexp.MustCompile(`(?i)^(sk|pk|rk|sess|ek|gh[pousr]|eyj)[-_a-z0-9]`)
	selfNamed = regexp.MustCompile(`(?i)^(secret|password)[-_].`)
	longRun   = regexp.MustCompile(`[A-Za-z0-9+=]{20,}`)
	hostName  = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+\.?$`)
)

// looksSecret reports whether a word may be a key or a token, or part of one.
func looksSecret(word string) bool {
	if name, ok := strings.CutSuffix(word, "="+Mask); ok {
		word = name
	}
	isPath := strings.HasPrefix(word, "/")
	word = strings.Trim(word, "./=")
	digits, upper, lower := strings.ContainsAny(word, "0123456789"), strings.ToLower(word) != word, strings.ToUpper(word) != word
	switch {
	case word == Mask:
		return false
	case strings.Contains(word, "**"): // a service masks keys too, but leaves a part
		return true
	case len(word) < 8 || hostName.MatchString(word):
		return false
	case keyPrefix.MatchString(word) && (digits || strings.HasPrefix(word, "sk-")), selfNamed.MatchString(word):
		return true
	case isPath:
		return slices.ContainsFunc(strings.Split(word, "/"), looksSecret)
	case longRun.MatchString(word) && (digits || len(word) >= 40):
		return true
	}
	return len(word) >= 24 && digits && upper && lower
}
