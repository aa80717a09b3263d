package interop

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/entra"
	"github.com/spillover-go/spillover/spillovertest"
)

// A place is where deployments are: in memory and virtual time, or behind TLS.
type place struct {
	name     string
	protocol string // of the requests that arrive
	run      func(t *testing.T, test func(t *testing.T))
	serve    func(t *testing.T, configs []spillovertest.Config) ([]*spillovertest.Server, http.RoundTripper)
}

var (
	inMemory = place{"in memory", "HTTP/1.1", synctest.Test, func(_ *testing.T, configs []spillovertest.Config) (servers []*spillovertest.Server, base http.RoundTripper) {
		for _, c := range configs {
			servers = append(servers, spillovertest.New(c))
		}
		return servers, spillovertest.Network(servers...)
	}}
	overHTTP1 = overTLS("HTTP/1.1", func(p *http.Protocols) { p.SetHTTP1(true) })
	overHTTP2 = overTLS("HTTP/2.0", func(p *http.Protocols) { p.SetHTTP2(true) })

	everywhere = []place{inMemory, overHTTP1, overHTTP2}
)

func overTLS(protocol string, set func(*http.Protocols)) place {
	run := func(t *testing.T, test func(t *testing.T)) { test(t) }
	return place{"TLS, " + protocol, protocol, run, func(t *testing.T, configs []spillovertest.Config) (servers []*spillovertest.Server, _ http.RoundTripper) {
		base := &http.Transport{TLSClientConfig: &tls.Config{}, Protocols: new(http.Protocols)}
		set(base.Protocols)
		for _, c := range configs {
			s := spillovertest.NewTLSServer(c)
			t.Cleanup(s.Close)
			servers = append(servers, s)
			base.TLSClientConfig.RootCAs = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs // the same for all
		}
		t.Cleanup(base.CloseIdleConnections)
		return servers, base
	}}
}

// A pool is a deployment of each dialect, one tier below the other, with
// credentials and names of their own, and a Transport over them.
type pool struct {
	place
	servers []*spillovertest.Server // best first
	lb      *spillover.Transport
	asked   *tap
	client  *http.Client // over lb, through asked
}

const apiVersion = "2024-10-21"

var (
	regions  = []string{"ptu", "payg", "openai"}
	dialects = []spillovertest.Dialect{spillovertest.Azure, spillovertest.AzureV1, spillovertest.OpenAI}
	secrets  = []string{"key-ptu", "token-payg", "key-openai"}
)

// newPool makes one; change, if not nil, alters its configuration.
func newPool(t *testing.T, p place, latency spillovertest.Latency, change func(*spillover.Config)) *pool {
	var configs []spillovertest.Config
	for i, name := range regions {
		c := spillovertest.Config{Name: name, Dialect: dialects[i], Keys: []string{secrets[i]}}
		for _, model := range []string{chatModel, embeddingModel} {
			c.Deployments = append(c.Deployments, spillovertest.Deployment{Name: model + "-" + name, Output: 5, Latency: latency})
		}
		configs = append(configs, c)
	}
	servers, base := p.serve(t, configs)
	cfg := spillover.Config{Base: base}
	for i, s := range servers {
		b := spillover.Backend{Name: s.Name, URL: s.URL, Dialect: spillover.Dialect(dialects[i]), Priority: i + 1}
		switch b.Name {
		case "ptu":
			b.APIVersion, b.APIKey = apiVersion, secrets[i]
		case "payg":
			b.Token = entra.Token(credential{secrets[i]})
		case "openai":
			b.APIKey = secrets[i]
		}
		for _, model := range []string{chatModel, embeddingModel, imageModel, transcriber} {
			b.Models = append(b.Models, spillover.Model{Name: model, Deployment: model + "-" + s.Name})
		}
		cfg.Backends = append(cfg.Backends, b)
	}
	if change != nil {
		change(&cfg)
	}
	lb, err := spillover.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lb.Close()) })
	asked := &tap{next: lb}
	made := &pool{place: p, servers: servers, lb: lb, asked: asked, client: &http.Client{Transport: asked}}
	for i := range servers {
		made.set(i)
	}
	return made
}

// set gives a deployment faults. What the simulator does not serve comes after
// them: pictures and transcriptions.
func (p *pool) set(i int, faults ...spillovertest.Fault) {
	scripted := func(path, body string) spillovertest.Fault {
		return spillovertest.Fault{Status: 200, Body: body, Match: func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, path) }}
	}
	p.servers[i].Set(append(faults,
		scripted("/images/generations", `{"created":1,"data":[{"b64_json":"`+imageText+`"}]}`),
		scripted("/audio/transcriptions", `{"text":"`+transcribedText+`"}`))...)
}

// setAll gives all deployments the same fault.
func (p *pool) setAll(f spillovertest.Fault) {
	for i := range p.servers {
		p.set(i, f)
	}
}

// throttled is a refusal for a time, which is what a full PTU says.
func throttled(wait string, times int) spillovertest.Fault {
	h := http.Header{"Retry-After": {wait}}
	return spillovertest.Fault{Status: http.StatusTooManyRequests, Times: times, Header: h,
		Body: `{"error":{"code":"rate_limit_reached","type":"too_many_requests","message":"Requests have exceeded the throughput limit on your Provisioned-Managed deployment."}}`}
}

// sends is how many requests each deployment has received.
func (p *pool) sends() (each [3]int) {
	for i, s := range p.servers {
		each[i] = s.Stats().Requests
	}
	return each
}

// requireQuiet checks that nothing is in flight: no request, no open body.
func (p *pool) requireQuiet(t *testing.T) {
	inFlight := func() (n int) {
		for _, s := range p.servers {
			n += s.Stats().InFlight
		}
		for _, tier := range p.lb.Status().Tiers {
			for _, b := range tier.Backends {
				for _, d := range b.Deployments {
					n += d.InFlight
				}
			}
		}
		return n
	}
	if p.name == inMemory.name {
		synctest.Wait()
		require.Zero(t, inFlight())
		return
	}
	// The other side sees the end of a request a little later.
	require.Eventually(t, func() bool { return inFlight() == 0 }, 20*time.Second, time.Millisecond)
}

// requireOwn checks that what a deployment received last was spelt in its own
// way: its path, its name of the model and its credential, and no other.
func (p *pool) requireOwn(t *testing.T, i int, o operation) {
	all := p.servers[i].Requests()
	r, name := all[len(all)-1], o.model+"-"+regions[i]
	require.Equal(t, p.protocol, r.Proto)
	u, err := url.Parse(p.servers[i].URL)
	require.NoError(t, err)
	require.Equal(t, u.Host, r.Host)
	inBody := true
	switch dialects[i] {
	case spillovertest.Azure:
		path := "/openai/deployments/" + name + "/" + o.path
		if inBody = o.path == "responses"; inBody {
			path = "/openai/responses"
		}
		require.Equal(t, path+"?api-version="+apiVersion, r.URL)
	case spillovertest.AzureV1:
		require.Equal(t, "/openai/v1/"+o.path, r.URL)
	case spillovertest.OpenAI:
		require.Equal(t, "/v1/"+o.path, r.URL)
	}
	if inBody {
		require.Equal(t, name, modelOf(t, r))
	}
	key, authorization := "", "Bearer "+secrets[i]
	if regions[i] == "ptu" {
		key, authorization = secrets[i], ""
	}
	require.Equal(t, key, r.Header.Get("Api-Key"))
	require.Equal(t, authorization, r.Header.Get("Authorization"))
	for name, values := range r.Header {
		require.NotContains(t, strings.Join(values, " "), sdkKey, name)
	}
}

// modelOf is the model that a body names, of JSON or of a form whose recording
// is whole.
func modelOf(t *testing.T, r spillovertest.Request) string {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	require.NoError(t, err)
	if kind != "multipart/form-data" {
		var body struct{ Model string }
		require.NoError(t, json.Unmarshal(r.Body, &body))
		return body.Model
	}
	form, err := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"]).ReadForm(1 << 20)
	require.NoError(t, err)
	require.Len(t, form.File["file"], 1)
	require.EqualValues(t, len(recording), form.File["file"][0].Size)
	require.Len(t, form.Value["model"], 1)
	return form.Value["model"][0]
}

// A tap sees what an SDK asks for.
type tap struct {
	next http.RoundTripper

	mu   sync.Mutex
	seen []asked
}

type asked struct {
	path   string
	length int64 // of the body
}

func (t *tap) RoundTrip(req *http.Request) (*http.Response, error) {
	t.mu.Lock()
	t.seen = append(t.seen, asked{req.URL.Path, req.ContentLength})
	t.mu.Unlock()
	return t.next.RoundTrip(req)
}
