package main

import (
	"net/http"

	"github.com/sashabaranov/go-openai"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// model is the name that callers use, whatever the deployments are called.
const model = "gpt-4o"

// deployments are the pool, in order of priority. The transport makes up for
// their differences: the format of the URL, the deployment's name, the key.
var deployments = []struct {
	name       string
	priority   int
	dialect    spillover.Dialect
	deployment string // the name of the model there
}{
	{"ptu-sweden", 1, spillover.Azure, model},
	{"payg-sweden", 2, spillover.AzureV1, model},
	{"payg-france", 2, spillover.Azure, "gpt-4o-standard"},
}

// key is the API key of a deployment.
func key(name string) string { return "key-of-" + name }

// A pool is go-openai over spillover over simulated deployments.
type pool struct {
	servers  []*spillovertest.Server // in the order of deployments
	balancer *spillover.Transport
	client   *openai.Client
}

func newPool(s size, seed uint64) (*pool, error) {
	p := &pool{}
	var backends []spillover.Backend
	for i, d := range deployments {
		server := simulate(i, s, seed)
		p.servers = append(p.servers, server)
		backends = append(backends, spillover.Backend{
			Name: d.name, URL: server.URL, Priority: d.priority, Dialect: d.dialect, APIKey: key(d.name),
			Models: []spillover.Model{{Name: model, Deployment: d.deployment}},
		})
	}
	seedRandom(seed)
	var err error
	p.balancer, err = spillover.New(spillover.Config{
		Backends: backends,
		Base:     spillovertest.Network(p.servers...), // leave it out for real deployments
	})
	if err != nil {
		return nil, err
	}
	// The key and the host are placeholders: each attempt gets those of its deployment.
	p.client = newClient("unused", "https://any.openai.azure.com", p.balancer)
	return p, nil
}

// ptuAlone is the same PTU without spillover: go-openai calls it directly.
func ptuAlone(s size, seed uint64) (*openai.Client, *spillovertest.Server) {
	server := simulate(0, s, seed)
	return newClient(key(deployments[0].name), server.URL, server), server
}

func newClient(key, url string, transport http.RoundTripper) *openai.Client {
	config := openai.DefaultAzureConfig(key, url)
	// By default go-openai changes the names of some models, such as gpt-3.5-turbo.
	config.AzureModelMapperFunc = func(name string) string { return name }
	config.HTTPClient = &http.Client{Transport: transport}
	return openai.NewClientWithConfig(config)
}

// simulate makes the server of deployments[i].
func simulate(i int, s size, seed uint64) *spillovertest.Server {
	d := deployments[i]
	return spillovertest.New(spillovertest.Config{
		Name: d.name, Dialect: spillovertest.Dialect(d.dialect), Keys: []string{key(d.name)}, Seed: seed + uint64(i),
		Deployments: []spillovertest.Deployment{{
			Name: d.deployment, Limit: s.limit(d.priority), Latency: s.latency, Batch: 20,
		}},
	})
}
