package interop

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/spillovertest"
)

// A stream that breaks off after content is the caller's to see, whatever its
// SDK makes of that: the text so far, once, and nobody else is asked.
func TestBrokenStreams(t *testing.T) {
	eachStream(t, everywhere, func(t *testing.T, a adapter, o operation, place place) {
		for _, kind := range []spillovertest.Kind{spillovertest.KindCut, spillovertest.KindError} {
			p := newPool(t, place, spillovertest.Latency{}, nil)
			p.set(0, spillovertest.Fault{Kind: kind, After: 3})
			pieces := 0
			_, err := o.call(t.Context(), setup{client: p.client, piece: func() { pieces++ }})
			require.Equal(t, 3, pieces)
			require.Equal(t, [3]int{1, 0, 0}, p.sends())
			if kind == spillovertest.KindError && a.deaf {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
			}
			p.requireQuiet(t)
		}
	})
}

// A stream that the service ends regularly in the middle is an error with every SDK: the
// text so far does not look complete.
func TestTruncatedStreams(t *testing.T) {
	header := http.Header{"Content-Type": {"text/event-stream"}}
	body := map[string]string{
		"stream": `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"a"},"finish_reason":null}]}` + "\n\n",
		"responses stream": `event: response.output_text.delta` + "\n" +
			`data: {"type":"response.output_text.delta","sequence_number":1,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"a"}` + "\n\n",
	}
	eachStream(t, everywhere, func(t *testing.T, a adapter, o operation, place place) {
		require.NotEmpty(t, body[o.name])
		p := newPool(t, place, spillovertest.Latency{}, nil)
		p.set(0, spillovertest.Fault{Status: 200, Header: header, Body: body[o.name]})
		_, err := o.call(t.Context(), setup{client: p.client})
		require.Error(t, err)
		require.Equal(t, [3]int{1, 0, 0}, p.sends())
		p.requireQuiet(t)
	})
}

// With HoldStreams it is begun anew elsewhere, and nobody sees anything of it.
func TestHeldStreams(t *testing.T) {
	eachStream(t, []place{inMemory}, func(t *testing.T, a adapter, o operation, place place) {
		for _, kind := range []spillovertest.Kind{spillovertest.KindCut, spillovertest.KindError} {
			p := newPool(t, place, spillovertest.Latency{}, func(cfg *spillover.Config) { cfg.HoldStreams = true })
			p.set(0, spillovertest.Fault{Kind: kind, After: 3})
			text, err := o.call(t.Context(), setup{client: p.client})
			require.NoError(t, err)
			require.Equal(t, o.text, text)
			require.Equal(t, [3]int{1, 1, 0}, p.sends())
			p.requireQuiet(t)
		}
	})
}

// Whoever leaves gets context.Canceled at once, the deployment is told, and
// nothing stays behind.
func TestCancellation(t *testing.T) {
	each(t, everywhere, func(t *testing.T, a adapter, o operation, place place) {
		p := newPool(t, place, spillovertest.Latency{}, nil)
		p.set(0, spillovertest.Fault{Kind: spillovertest.KindSilent})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		left := make(chan struct{})
		go func() {
			defer close(left)
			for p.servers[0].Stats().InFlight == 0 {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_, err := o.call(ctx, setup{client: p.client})
		<-left
		requireCanceled(t, a, err)
		require.Equal(t, [3]int{1, 0, 0}, p.sends(), "nobody else is asked")
		require.Len(t, p.asked.seen, 1)
		p.requireQuiet(t)
	})
}

func TestCancellationOfStreams(t *testing.T) {
	eachStream(t, everywhere, func(t *testing.T, a adapter, o operation, place place) {
		p := newPool(t, place, spillovertest.Latency{PerToken: time.Hour}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		text, err := o.call(ctx, setup{client: p.client, piece: cancel})
		if err == nil {
			require.True(t, a.cutsShort)
			require.Equal(t, "when", text)
		} else {
			requireCanceled(t, a, err)
		}
		require.Equal(t, [3]int{1, 0, 0}, p.sends())
		p.requireQuiet(t)
		require.Equal(t, 1, p.servers[0].Stats().Canceled)
	})
}

func requireCanceled(t *testing.T, a adapter, err error) {
	if a.hidesCause {
		require.Error(t, err)
		return
	}
	require.ErrorIs(t, err, context.Canceled)
}

// The waits of an SDK between its retries end with the context, too.
func TestCancellationOfRetries(t *testing.T) {
	for _, a := range adapters {
		if a.retries == 0 {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t, inMemory, spillovertest.Latency{}, nil)
				p.setAll(throttled("3", 0))
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				start := time.Now()
				_, err := a.chat(ctx, setup{client: p.client})
				require.ErrorIs(t, err, context.Canceled)
				want := time.Second
				if a.sleeps {
					want = 3 * time.Second
				}
				require.Equal(t, want, time.Since(start))
				require.Equal(t, [3]int{1, 1, 1}, p.sends())
				p.requireQuiet(t)
			})
		})
	}
}
