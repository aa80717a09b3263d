package wire

// A Dialect is how a backend spells URLs, model names and credentials. The root
// package documents the values.
type Dialect string

const (
	Azure   Dialect = "azure"
	AzureV1 Dialect = "azure-v1"
	OpenAI  Dialect = "openai"
)

// Prefix is what the paths of a dialect begin with, as path segments.
func Prefix(d Dialect) string {
	switch d {
	case Azure:
		return "/openai"
	case AzureV1:
		return "/openai/v1"
	}
	return "/v1"
}
