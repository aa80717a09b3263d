package main

import (
	"net/http"

	"github.com/sashabaranov/go-openai"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// model is what callers ask for, whatever the deployments call it.
const model = "gpt-4o"

// deployments are the pool, best first. They differ in all that the transport
// evens out: tier, spelling of the URL, the model's name, the key.
var deployments = []struct {
	name     string
	priority int
	dialect  spillover.Dialect
	calls    string // what it calls the model
}{
	{"ptu-sweden", 1, spillover.Azure, model},
	{"payg-sweden", 2, spillover.AzureV1, model},
	{"payg-france", 2, spillover.Azure, "gpt-4o-standard"},
}

// A pool is go-openai over spillover over simulated deployments.
type pool struct {
	size     size
	servers  []*spillovertest.Server // in the order of deployments
	base     http.RoundTripper
	balancer *spillover.Transport
	client   *openai.Client
	tally    tally
}

// A world is how the deployments are made and how they are reached.
type world struct {
	serve func(spillovertest.Config) *spillovertest.Server
	reach func(...*spillovertest.Server) http.RoundTripper
}

var (
	// loopback has real connections. The base keeps more of them than
	// http.DefaultTransport's two for each host, as any busy program should.
	loopback = world{spillovertest.NewServer, func(...*spillovertest.Server) http.RoundTripper {
		return &http.Transport{MaxIdleConnsPerHost: 512}
	}}
	// memory works in the virtual time of testing/synctest.
	memory = world{spillovertest.New, spillovertest.Network}
)

func newPool(s size, seed uint64, w world) (*pool, error) {
	p := &pool{size: s}
	var backends []spillover.Backend
	for i, d := range deployments {
		key := "key-of-" + d.name
		server := w.serve(spillovertest.Config{
			Name: d.name, Dialect: spillovertest.Dialect(d.dialect), Keys: []string{key}, Seed: seed + uint64(i),
			Deployments: []spillovertest.Deployment{{Name: d.calls, Limit: s.limit(d.priority), Latency: s.latency}},
		})
		p.servers = append(p.servers, server)
		backends = append(backends, spillover.Backend{
			Name: d.name, URL: server.URL, Priority: d.priority, Dialect: d.dialect, APIKey: key,
			Models: []spillover.Model{{Name: model, Deployment: d.calls}},
		})
	}
	p.base = w.reach(p.servers...)
	var err error
	p.balancer, err = spillover.New(spillover.Config{Backends: backends, Base: exit{p.base}})
	if err != nil {
		p.close()
		return nil, err
	}
	// Neither key nor host matter: every attempt gets its deployment's own.
	config := openai.DefaultAzureConfig("unused", "https://any.openai.azure.com")
	// go-openai takes dots out of names; the pool knows the model as it is.
	config.AzureModelMapperFunc = func(name string) string { return name }
	config.HTTPClient = &http.Client{Transport: entrance{p.balancer}}
	p.client = openai.NewClientWithConfig(config)
	return p, nil
}

func (p *pool) close() {
	if p.balancer != nil {
		p.balancer.Close()
	}
	if c, ok := p.base.(*http.Transport); ok {
		c.CloseIdleConnections()
	}
	for _, s := range p.servers {
		s.Close()
	}
}
