package spillovertest

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Dialect is how a server spells its paths, credentials, headers and errors.
type Dialect string

// The dialects. The paths may follow any prefix, as behind a gateway.
const (
	Azure   Dialect = "azure"    // /openai/deployments/{deployment}/{operation}?api-version=
	AzureV1 Dialect = "azure-v1" // /openai/v1/{operation}, the deployment in the body's model
	OpenAI  Dialect = "openai"   // /v1/{operation}, the model in the body
)

// Config describes a server. The zero value is an Azure resource named "test"
// that serves every deployment, without limit, at once, to anyone.
type Config struct {
	// Name is the host name in memory, and the region in Azure's answers:
	// lower-case letters, digits, dots and dashes. Default "test".
	Name string
	// Dialect defaults to Azure.
	Dialect Dialect
	// Keys are the credentials accepted: in Authorization: Bearer, and on
	// Azure also in api-key. Empty: anything is accepted, even none.
	Keys []string
	// Deployments are what is served; other names answer 404. Empty: every
	// name is served without limit and at once.
	Deployments []Deployment
	// Seed drives the jitter and the ids. 0 is a seed like any other.
	Seed uint64
}

// Deployment is one model of one server, with limits and a speed of its own.
type Deployment struct {
	// Name is what requests ask for: the path's deployment or the body's model.
	Name string
	// Limit is a PAYG or a PTU, by value. nil: no limit.
	Limit Limit
	// Latency is how fast it writes. The zero value answers at once.
	Latency Latency
	// Output is the number of tokens written when a request names no maximum;
	// one that does gets exactly its maximum, unless its X-Spillovertest-Output
	// says less. An answer has at most 131,072. 0 means 16.
	Output int
	// Batch is how many tokens a stream sends together after its first, as
	// Azure's content filter lets text through in batches. 0 means 1.
	Batch int
}

// Latency is the time an answer takes. A stream has its header after half of
// the time to the first token, then that token, and one more every PerToken; any
// other answer comes whole after the first token and PerToken for each token.
// Errors come at once.
type Latency struct {
	FirstToken     time.Duration // 0: at once
	PerPromptToken time.Duration // adds to FirstToken
	PerToken       time.Duration // 0: all together
	Refusal        time.Duration // of a refusal by the limit. 0: at once
	// Jitter scales all of an answer's times by one factor, uniform in
	// [1-Jitter, 1+Jitter]. From 0 (none) to 1.
	Jitter float64
}

const defaultOutput = 16

// mostOutput is how many tokens an answer has at most, whatever a request asks
// for: more than any model writes at once.
const mostOutput = 1 << 17

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// withDefaults fills in what was left out, and panics on what cannot be:
// a test with a bad server has nothing better to do.
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
		return fmt.Errorf("Config.Name %q is no host name", c.Name)
	}
	switch c.Dialect {
	case Azure, AzureV1, OpenAI:
	default:
		return fmt.Errorf("unknown Config.Dialect %q", c.Dialect)
	}
	if slices.Contains(c.Keys, "") {
		return fmt.Errorf("Config.Keys has an empty key")
	}
	seen := make(map[string]bool)
	for _, d := range c.Deployments {
		if err := d.check(); err != nil {
			return fmt.Errorf("deployment %q: %w", d.Name, err)
		}
		if seen[d.Name] {
			return fmt.Errorf("deployment %q is there twice", d.Name)
		}
		seen[d.Name] = true
	}
	return nil
}

func (d Deployment) check() error {
	switch l := d.Latency; {
	case d.Name == "":
		return fmt.Errorf("it has no name")
	case d.Output < 0:
		return fmt.Errorf("Output %d is negative", d.Output)
	case d.Batch < 0:
		return fmt.Errorf("Batch %d is negative", d.Batch)
	case min(l.FirstToken, l.PerPromptToken, l.PerToken, l.Refusal) < 0:
		return fmt.Errorf("a Latency is negative")
	case !(l.Jitter >= 0 && l.Jitter <= 1):
		return fmt.Errorf("Jitter %v is not within 0 and 1", l.Jitter)
	case d.Limit == nil:
		return nil
	}
	return d.Limit.check()
}
