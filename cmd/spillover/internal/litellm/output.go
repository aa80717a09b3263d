package litellm

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spillover-go/spillover"
)

// The result. A field of type any is a number, or the reference to a variable.

type file struct {
	MaxAttempts     any         `yaml:"max_attempts,omitempty"`
	DefaultCooldown string      `yaml:"default_cooldown,omitempty"`
	MaxCooldown     string      `yaml:"max_cooldown,omitempty"`
	Backends        []*backend  `yaml:"backends"`
	Fallbacks       []*fallback `yaml:"fallbacks,omitempty"`
}

type backend struct {
	Name          string            `yaml:"name"`
	URL           string            `yaml:"url"`
	Dialect       string            `yaml:"dialect,omitempty"`
	APIVersion    string            `yaml:"api_version,omitempty"`
	APIKey        string            `yaml:"api_key,omitempty"`
	Auth          string            `yaml:"auth,omitempty"`
	Priority      any               `yaml:"priority,omitempty"`
	Weight        any               `yaml:"weight,omitempty"`
	Drained       bool              `yaml:"drained,omitempty"`
	Headers       map[string]string `yaml:"headers,omitempty"`
	Tags          []string          `yaml:"tags,omitempty,flow"`
	HeaderTimeout string            `yaml:"header_timeout,omitempty"`
	IdleTimeout   string            `yaml:"idle_timeout,omitempty"`
	Defaults      map[string]any    `yaml:"defaults,omitempty"`
	Models        []*model          `yaml:"models,omitempty"`
}

type model struct {
	Name          string `yaml:"name"`
	Deployment    string `yaml:"deployment,omitempty"`
	ContextTokens any    `yaml:"context_tokens,omitempty"`
	MaxInFlight   any    `yaml:"max_in_flight,omitempty"`
	RPM           any    `yaml:"rpm,omitempty"`
	TPM           any    `yaml:"tpm,omitempty"`
}

type fallback struct {
	Model string   `yaml:"model"`
	To    []string `yaml:"to,flow"`
	On    string   `yaml:"on,omitempty"`
}

// settingsKey is equal for backends with the same settings.
func (b *backend) settingsKey() string {
	settings := *b
	settings.Name, settings.Models = "", nil
	text, err := json.Marshal(settings) //nolint:gosec,musttag // it is compared, and not written anywhere
	if err != nil {
		panic(err) // its values come from JSON types
	}
	return string(text)
}

// differences are the names of the settings in which two backends differ, other than names, models and credentials.
func (b *backend) differences(other *backend) (names []string) {
	for _, setting := range []struct {
		name   string
		differ bool
	}{
		{"dialect", b.Dialect != other.Dialect},
		{"api_version", b.APIVersion != other.APIVersion},
		{"priority", b.Priority != other.Priority},
		{"weight", b.Weight != other.Weight},
		{"drained", b.Drained != other.Drained},
		{"header_timeout", b.HeaderTimeout != other.HeaderTimeout},
		{"idle_timeout", b.IdleTimeout != other.IdleTimeout},
	} {
		if setting.differ {
			names = append(names, setting.name)
		}
	}
	unknown := false
	for _, field := range slices.Sorted(maps.Keys(merge(b.Defaults, other.Defaults))) {
		mine, inMine := b.Defaults[field]
		theirs, inTheirs := other.Defaults[field]
		switch {
		case inMine == inTheirs && reflect.DeepEqual(mine, theirs):
		case slices.Contains(bodyFields, field):
			names = append(names, "defaults."+field)
		default:
			unknown = true
		}
	}
	if unknown {
		names = append(names, "defaults."+unknownName) // its name may be a secret
	}
	return names
}

// merge is a map with the keys of both.
func merge(a, b map[string]any) map[string]any {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, b)
	return all
}

// account identifies a deployment of the backend as spillover does.
func (b *backend) account(deployment string) account {
	url := strings.ToLower(strings.TrimRight(b.URL, "/"))
	for _, ending := range []string{"/v1", "/openai"} { // spillover adds what is missing
		url = strings.TrimSuffix(url, ending)
	}
	return account{url, b.APIKey + b.Auth, fmt.Sprintf("%q", b.Headers), deployment}
}

// find returns the model that callers call by a name, or nil.
func (b *backend) find(name string) *model {
	for _, m := range b.Models {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// The same configuration for spillover.New, with a value for each variable.

func (f *file) config() spillover.Config {
	cfg := spillover.Config{MaxAttempts: number(f.MaxAttempts), DefaultCooldown: duration(f.DefaultCooldown), MaxCooldown: duration(f.MaxCooldown)}
	for _, b := range f.Backends {
		cfg.Backends = append(cfg.Backends, b.config())
	}
	for _, fb := range f.Fallbacks {
		cfg.Fallbacks = append(cfg.Fallbacks, fb.config())
	}
	return cfg
}

func (fb *fallback) config() spillover.Fallback {
	out := spillover.Fallback{Model: plain(fb.Model)}
	for _, to := range fb.To {
		out.To = append(out.To, plain(to))
	}
	if fb.On != "" {
		_ = out.On.UnmarshalText([]byte(fb.On)) // one of its own names
	}
	return out
}

func (b *backend) config() spillover.Backend {
	out := spillover.Backend{
		Name: b.Name, URL: b.URL, Dialect: spillover.Dialect(b.Dialect), APIVersion: plain(b.APIVersion), APIKey: plain(b.APIKey),
		Priority: number(b.Priority), Weight: number(b.Weight), Drained: b.Drained,
		HeaderTimeout: duration(b.HeaderTimeout), IdleTimeout: duration(b.IdleTimeout),
		Headers: map[string]string{}, Defaults: b.Defaults,
	}
	if hasReference(b.URL) {
		out.URL = "https://" + url.PathEscape(strings.ToLower(strings.ReplaceAll(plain(b.URL), "_", "-"))) + ".example"
	} else {
		out.URL = plain(b.URL)
	}
	if b.Auth != "" {
		out.Token = func(context.Context) (string, error) { return "", nil } // asks for no identity
	}
	for name, v := range b.Headers {
		out.Headers[name] = plain(v)
	}
	for _, tag := range b.Tags {
		out.Tags = append(out.Tags, plain(tag))
	}
	for _, m := range b.Models {
		out.Models = append(out.Models, spillover.Model{
			Name: plain(m.Name), Deployment: plain(m.Deployment), ContextTokens: number(m.ContextTokens),
			MaxInFlight: number(m.MaxInFlight), RPM: number(m.RPM), TPM: number(m.TPM),
		})
	}
	return out
}

// reference is a variable, with or without a default.
var reference = regexp.MustCompile(`(\$)?\$\{([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}`)

func hasReference(s string) bool {
	for _, m := range reference.FindAllStringSubmatch(s, -1) {
		if m[1] == "" {
			return true
		}
	}
	return false
}

// plain is a text with the names of variables in place of their values.
func plain(s string) string {
	s = reference.ReplaceAllStringFunc(s, func(r string) string {
		if m := reference.FindStringSubmatch(r); m[1] == "" {
			return m[2]
		}
		return r
	})
	return strings.ReplaceAll(s, "$${", "${")
}

func number(v any) int {
	switch v := v.(type) {
	case int:
		return v
	case string:
		return 1
	default:
		return 0
	}
}

func duration(s string) time.Duration {
	if hasReference(s) {
		return time.Second
	}
	d, _ := time.ParseDuration(cmp.Or(s, "0"))
	return d
}
