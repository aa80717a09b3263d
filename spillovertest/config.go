package spillovertest

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// A Dialect is the API flavour of a server: its paths, credentials, headers and
// errors.
type Dialect string

// The dialects. Their paths may follow any prefix, as they do behind a gateway.
const (
	// Azure has the paths /openai/deployments/{deployment}/{operation}?api-version=. A
	// request without an api-version gets a 404. Source:
	// https://learn.microsoft.com/azure/ai-services/openai/reference
	Azure Dialect = "azure"
	// AzureV1 has the paths /openai/v1/{operation}, with the deployment as the model of
	// the body. Source:
	// https://learn.microsoft.com/azure/ai-services/openai/api-version-lifecycle
	AzureV1 Dialect = "azure-v1"
	// OpenAI has the paths /v1/{operation}, with the model in the body. Source:
	// https://platform.openai.com/docs/api-reference
	OpenAI Dialect = "openai"
)

// domains are the domains of servers in memory. As those of the services do, they show
// the dialect. Names under test exist nowhere (RFC 6761).
var domains = map[Dialect]string{
	Azure:   ".openai.azure.test",
	AzureV1: ".services.ai.azure.test",
	OpenAI:  ".openai.test",
}

// Config describes a server. The zero value is an Azure resource named "test".
// It serves every deployment immediately, without limit, and accepts every credential.
// [New], [NewServer] and [NewTLSServer] panic if a field is invalid.
type Config struct {
	// Name is the first part of the host name in memory, and the region in Azure's
	// responses. It consists of lower-case letters, digits, dots and dashes. ""
	// means "test".
	Name string
	// Dialect is the API flavour. "" means Azure.
	Dialect Dialect
	// Keys are the accepted credentials: in Authorization: Bearer, and for
	// Azure and AzureV1 also in api-key. Requests with another credential get a 401.
	// Empty means that every request is accepted, also without a credential.
	Keys []string
	// Deployments are the deployments that exist. Requests for others get a 404.
	// Empty means that every deployment exists, without limit and latency.
	Deployments []Deployment
	// Seed is the seed of the jitter and the ids. 0 is a seed like any other.
	Seed uint64
}

// A Deployment is one model of one server, with its limit and its latency.
type Deployment struct {
	// Name is the deployment in the path or the model in the body of requests. It
	// is required.
	Name string
	// Limit is a [PAYG] or a [PTU], by value. nil means no limit.
	Limit Limit
	// Latency is how long responses take. The zero value means no time.
	Latency Latency
	// Output is the number of tokens of a response if the request has no maximum.
	// A response to a request with a maximum has exactly that many, unless
	// X-Spillovertest-Output is less. No response has more than 131,072. 0 means 16.
	Output int
	// Batch is the number of tokens that a stream sends together after the
	// first token, as Azure's content filter releases text in batches. 0 means 1.
	Batch int
}

// A Latency is the time that a response takes. A stream has its header after half
// of the time to the first token, then the first token, and one more token every
// PerToken. Any other successful response arrives as a whole after the time to the
// first token plus PerToken for each token. Errors arrive immediately. The zero
// value means no time.
type Latency struct {
	// FirstToken is the time to the first token (TTFT).
	FirstToken time.Duration
	// PerPromptToken is added to FirstToken for each token of the prompt.
	PerPromptToken time.Duration
	// PerToken is the time between two tokens.
	PerToken time.Duration
	// Refusal is the time of a 429 by the limit.
	Refusal time.Duration
	// Jitter multiplies all times of a response except Refusal by one factor, which is drawn
	// uniformly from [1-Jitter, 1+Jitter]. It is between 0 (none) and 1.
	Jitter float64
}

const defaultOutput = 16

// mostOutput is the maximum of tokens in a response, whatever the request asks
// for. It is more than any model writes at once.
const mostOutput = 1 << 17

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// withDefaults sets the defaults of the zero fields. It panics if a field is invalid.
func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "test"
	}
	if c.Dialect == "" {
		c.Dialect = Azure
	}
	if err := c.check(); err != nil {
		panic("spillovertest: " + err.Error())
	}
	return c
}

func (c Config) check() error {
	if !hostName.MatchString(c.Name) {
		return fmt.Errorf("Config.Name %q is not a host name of lower-case letters, digits, dots and dashes", c.Name)
	}
	switch c.Dialect {
	case Azure, AzureV1, OpenAI:
	default:
		return fmt.Errorf("Config.Dialect %q must be one of azure, azure-v1 and openai", c.Dialect)
	}
	if slices.Contains(c.Keys, "") {
		return fmt.Errorf("Config.Keys contains an empty key")
	}
	seen := make(map[string]bool)
	for _, d := range c.Deployments {
		if err := d.check(); err != nil {
			return fmt.Errorf("deployment %q: %w", d.Name, err)
		}
		if seen[d.Name] {
			return fmt.Errorf("deployment %q is listed twice", d.Name)
		}
		seen[d.Name] = true
	}
	return nil
}

func (d Deployment) check() error {
	switch l := d.Latency; {
	case d.Name == "":
		return fmt.Errorf("Name is missing")
	case d.Output < 0:
		return fmt.Errorf("Output %d is negative", d.Output)
	case d.Batch < 0:
		return fmt.Errorf("Batch %d is negative", d.Batch)
	case min(l.FirstToken, l.PerPromptToken, l.PerToken, l.Refusal) < 0:
		return fmt.Errorf("Latency has a negative field")
	case !(l.Jitter >= 0 && l.Jitter <= 1):
		return fmt.Errorf("Jitter %v is not between 0 and 1", l.Jitter)
	case d.Limit == nil:
		return nil
	}
	return d.Limit.check()
}
