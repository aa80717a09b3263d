// Package simulation starts simulated deployments on loopback, with a configuration for
// them, so that spillover can be tried without an account.
package simulation

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/spillover-go/spillover/spillovertest"
)

// The models that callers may ask for.
const (
	Model          = "gpt-4o"
	EmbeddingModel = "text-embedding-3-small" // only pay-as-you-go
)

// Limits that one person with a terminal reaches. A PTU takes 20 s of its capacity at
// once, so two responses of 64 tokens fill it.
const (
	ptuTPM  = 1_000  // input-equivalent tokens per minute; an output token counts as three
	paygTPM = 10_000 // tokens per minute, and 60 requests
)

// latency is that of all deployments: a response of 64 tokens takes half a second.
var latency = spillovertest.Latency{FirstToken: 200 * time.Millisecond, PerToken: 5 * time.Millisecond}

// mostDeployments limits each kind of deployments.
const mostDeployments = 100

// regions are tags of deployments, in turn.
var regions = []string{"swedencentral", "francecentral", "eastus2"}

// Options are what is simulated.
type Options struct {
	PTU  int // how many provisioned deployments
	PAYG int // how many pay-as-you-go deployments

	// Faults are failures of deployments, each as NAME=FAULT, such as ptu=429. A FAULT is
	// a status or one of [FaultNames].
	Faults []string
}

// A Simulation is a number of simulated deployments.
type Simulation struct {
	Deployments []*Deployment
}

// A Deployment is a simulated deployment. Each has a server of its own.
type Deployment struct {
	Name    string
	Dialect spillovertest.Dialect
	Limit   string // for people
	Fault   string // "" for none
	Server  *spillovertest.Server

	priority int
	tag      string
	models   []configuredModel
}

// header is the first line of configurations.
const header = "# Written by spillover simulate.\n"

// Start starts deployments. Its error is about the options.
func Start(o Options) (*Simulation, error) {
	for _, n := range []struct {
		name  string
		count int
	}{{"-ptu", o.PTU}, {"-payg", o.PAYG}} {
		if n.count < 0 || n.count > mostDeployments {
			return nil, fmt.Errorf("%s: %d is not between 0 and %d", n.name, n.count, mostDeployments)
		}
	}
	if o.PTU+o.PAYG == 0 {
		return nil, errors.New("-ptu, -payg: at least one deployment is required")
	}
	s := &Simulation{}
	for i := range o.PTU {
		s.add(i, o.PTU, "ptu", 1, spillovertest.PTU{TPM: ptuTPM}, fmt.Sprintf("provisioned, %d tokens/min", ptuTPM))
	}
	for i := range o.PAYG {
		s.add(i, o.PAYG+1, "payg", 2, spillovertest.PAYG{TPM: paygTPM}, fmt.Sprintf("pay-as-you-go, %d tokens/min", paygTPM))
	}
	faults := map[*Deployment][]spillovertest.Fault{}
	for _, text := range o.Faults {
		name, fault, _ := strings.Cut(text, "=")
		i := slices.IndexFunc(s.Deployments, func(d *Deployment) bool { return d.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("-fault %s: there is no deployment %q; there are %s", text, name, strings.Join(s.names(), ", "))
		}
		f, err := parseFault(fault)
		if err != nil {
			return nil, fmt.Errorf("-fault %s: %w", text, err)
		}
		d := s.Deployments[i]
		d.Fault = fault
		faults[d] = []spillovertest.Fault{f}
	}
	for i, d := range s.Deployments {
		d.start(i)
		d.Server.Set(faults[d]...)
	}
	return s, nil
}

// add adds the deployment with index i of a kind of which there are count.
func (s *Simulation) add(i, count int, kind string, priority int, limit spillovertest.Limit, text string) {
	name := kind
	if count > 1 {
		name = fmt.Sprintf("%s-%d", kind, i+1)
	}
	d := &Deployment{Name: name, Limit: text, priority: priority, tag: "region=" + regions[i%len(regions)], Dialect: spillovertest.Azure}
	model := configuredModel{Name: Model, limit: limit}
	if kind == "payg" {
		// They differ as real ones do. The transport makes up for it.
		if i%2 == 0 {
			d.Dialect = spillovertest.AzureV1
		} else {
			model.Deployment = Model + "-standard"
		}
		d.models = append(d.models, configuredModel{Name: EmbeddingModel, limit: limit})
	}
	d.models = append([]configuredModel{model}, d.models...)
	s.Deployments = append(s.Deployments, d)
}

func (s *Simulation) names() (all []string) {
	for _, d := range s.Deployments {
		all = append(all, d.Name)
	}
	return all
}

func (d *Deployment) key() string { return "key-of-" + d.Name }

func (d *Deployment) start(seed int) {
	cfg := spillovertest.Config{Name: d.Name, Dialect: d.Dialect, Keys: []string{d.key()}, Seed: uint64(seed)}
	for _, m := range d.models {
		name := m.Deployment
		if name == "" {
			name = m.Name
		}
		cfg.Deployments = append(cfg.Deployments, spillovertest.Deployment{Name: name, Limit: m.limit, Latency: latency, Output: 64})
	}
	d.Server = spillovertest.NewServer(cfg)
}

// Spills reports whether there is one PTU, which a few requests fill, and something
// below it, all without faults.
func (s *Simulation) Spills() bool {
	ptus := 0
	for _, d := range s.Deployments {
		if d.Fault != "" {
			return false
		}
		if d.priority == 1 {
			ptus++
		}
	}
	return ptus == 1 && len(s.Deployments) > 1
}

// Close stops all deployments.
func (s *Simulation) Close() {
	for _, d := range s.Deployments {
		d.Server.Close()
	}
}

// What a configuration has.
type configuration struct {
	Backends []configuredBackend `yaml:"backends"`
}

type configuredBackend struct {
	Name          string            `yaml:"name"`
	URL           string            `yaml:"url"`
	Dialect       string            `yaml:"dialect"`
	APIKey        string            `yaml:"api_key"`
	Priority      int               `yaml:"priority"`
	Tags          []string          `yaml:"tags,flow"`
	HeaderTimeout string            `yaml:"header_timeout"`
	IdleTimeout   string            `yaml:"idle_timeout"`
	Models        []configuredModel `yaml:"models"`
}

type configuredModel struct {
	Name       string `yaml:"name"`
	Deployment string `yaml:"deployment,omitempty"`

	limit spillovertest.Limit
}

// Config is a configuration for the deployments, in YAML.
func (s *Simulation) Config() ([]byte, error) {
	var cfg configuration
	for _, d := range s.Deployments {
		cfg.Backends = append(cfg.Backends, configuredBackend{
			Name: d.Name, URL: d.Server.URL, Dialect: string(d.Dialect), APIKey: d.key(), Priority: d.priority, Tags: []string{d.tag},
			HeaderTimeout: "5s", IdleTimeout: "5s", Models: d.models,
		})
	}
	var b bytes.Buffer
	b.WriteString(header)
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(cfg); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// IsConfig reports whether a file was written by this package, so that it can be
// replaced.
func IsConfig(text []byte) bool { return bytes.HasPrefix(text, []byte(header)) }

// kinds are faults with a name.
var kinds = []struct {
	name  string
	fault spillovertest.Fault
}{
	{"refuse", spillovertest.Fault{Kind: spillovertest.KindRefuse}},
	{"reset", spillovertest.Fault{Kind: spillovertest.KindReset}},
	{"silent", spillovertest.Fault{Kind: spillovertest.KindSilent}},
	{"slow", spillovertest.Fault{Kind: spillovertest.KindSlow, Slower: 10}},
	{"cut", spillovertest.Fault{Kind: spillovertest.KindCut, After: 5}},
	{"stall", spillovertest.Fault{Kind: spillovertest.KindStall, After: 5}},
	{"error", spillovertest.Fault{Kind: spillovertest.KindError, After: 5}},
}

// FaultNames are the names of faults that are not a status.
func FaultNames() (all []string) {
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return all
}

// parseFault reads a status or the name of a kind.
func parseFault(s string) (spillovertest.Fault, error) {
	for _, k := range kinds {
		if s == k.name {
			return k.fault, nil
		}
	}
	status, err := strconv.Atoi(s)
	if err != nil || status < 400 || status > 599 {
		return spillovertest.Fault{}, fmt.Errorf("%q is neither a status from 400 to 599 nor one of %s", s, strings.Join(FaultNames(), ", "))
	}
	f := spillovertest.Fault{
		Status: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: fmt.Sprintf(`{"error":{"code":"%[1]d","message":"This failure is simulated: status %[1]d."}}`, status),
	}
	if status == http.StatusTooManyRequests {
		f.Limits = true
		f.Header.Set("Retry-After", "5")
	}
	return f, nil
}
