package interop

import (
	"cmp"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A trouble is what the deployments have that do not answer.
type trouble struct {
	name    string
	streams bool // only a stream can have it
	fault   spillovertest.Fault
}

var troubles = []trouble{
	{"throttled", false, throttled("30", 1)},
	{"error event before content", true, spillovertest.Fault{Kind: spillovertest.KindError, Times: 1}},
	{"broken before content", true, spillovertest.Fault{Kind: spillovertest.KindCut, Times: 1}},
}

// No SDK sees anything of a deployment's trouble while another one answers: the
// whole text, once, at once, from a request that is entirely the other's.
func TestAnswers(t *testing.T) {
	each(t, everywhere, func(t *testing.T, _ adapter, o operation, place place) {
		for _, tr := range troubles {
			if tr.streams && !o.streams {
				continue
			}
			for answers := range regions {
				if place.name != inMemory.name && answers < len(regions)-1 {
					continue // the longest way will do
				}
				p := newPool(t, place, spillovertest.Latency{}, nil)
				for i := range answers {
					p.set(i, tr.fault)
				}
				start := time.Now()
				text, err := o.call(t.Context(), setup{client: p.client})
				require.NoError(t, err, "%s, %s answers", tr.name, regions[answers])
				require.Equal(t, o.text, text)
				if place.name == inMemory.name {
					require.Zero(t, time.Since(start), "the SDK did not wait")
				}
				require.Len(t, p.asked.seen, 1, "the SDK asked once")
				var want [3]int
				for i := range answers + 1 {
					want[i] = 1
					p.requireOwn(t, i, o)
				}
				require.Equal(t, want, p.sends())
				p.requireQuiet(t)
			}
		}
	})
}

// A stream arrives as it is written, whatever is between.
func TestStreamsFlow(t *testing.T) {
	eachStream(t, []place{inMemory}, func(t *testing.T, _ adapter, o operation, place place) {
		p := newPool(t, place, spillovertest.Latency{FirstToken: 10 * time.Second, PerToken: time.Second}, nil)
		p.set(0, throttled("30", 1))
		start, at := time.Now(), []time.Duration{}
		_, err := o.call(t.Context(), setup{client: p.client, piece: func() { at = append(at, time.Since(start)) }})
		require.NoError(t, err)
		require.Equal(t, []time.Duration{10 * time.Second, 11 * time.Second, 12 * time.Second, 13 * time.Second, 14 * time.Second}, at)
		p.requireQuiet(t)
	})
}

// Some SDKs alter the name of a model in their Azure modes; the backends must
// then know it by that.
func TestModelNames(t *testing.T) {
	for _, a := range adapters {
		for _, model := range []string{"gpt-4.1", "gpt-3.5-turbo"} {
			t.Run(a.name+"/"+model, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := spillovertest.New(spillovertest.Config{})
					lb, err := spillover.New(spillover.Config{Base: server, Backends: []spillover.Backend{
						{URL: server.URL, Dialect: spillover.Azure, APIVersion: apiVersion, APIKey: "k"},
					}})
					require.NoError(t, err)
					_, err = a.chat(t.Context(), setup{client: &http.Client{Transport: lb}, model: model})
					require.NoError(t, err)
					require.Equal(t, cmp.Or(a.renames[model], model), server.Requests()[0].Deployment)
				})
			})
		}
	}
}
