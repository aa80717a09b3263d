// Package interop holds tests of the OpenAI SDKs over a spillover.Transport:
// every scenario with every SDK, each operation it has, in memory and over TLS.
//
// An SDK is an adapter, in a file of its own. What the tests measure of them is
// told in docs/sdks.md, which they write and check.
package interop

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// genkit listens for signals; what the runtime needs for that must not be
	// made inside a bubble of testing/synctest.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	signal.Stop(signals)
	goleak.VerifyTestMain(m)
}

// An adapter is one SDK in one of its modes.
type adapter struct {
	name   string
	module string // whose version go.mod has
	inject string // how it takes the client
	off    string // what turns its retries off

	// What it can do; nil is nothing of the kind.
	chat, stream, embed, respond, respondStream, image, transcribe call

	facts
	renames map[string]string // what it makes of the names of models
}

// The facts of an adapter are what the tests expect of it.
type facts struct {
	retries    int    // of its own
	fails      string // the kind of its errors, see failure
	hidesCause bool   // what an error came of cannot be found in it
	cutsShort  bool   // a stream that was cancelled may look complete
	deaf       bool   // a stream that ends with an error event looks complete
	sleeps     bool   // its wait for a retry does not end with the context
}

// renaming is the adapter with a name that it alters.
func (a adapter) renaming(model, to string) adapter {
	a.renames = maps.Clone(a.renames)
	if a.renames == nil {
		a.renames = map[string]string{}
	}
	a.renames[model] = to
	return a
}

// A call makes an SDK do one thing, and returns the text that came of it.
type call func(ctx context.Context, s setup) (string, error)

// A setup is what an SDK is given.
type setup struct {
	client *http.Client
	model  string // for chat; "" means chatModel
	once   bool   // its own retries are turned off
	piece  func() // is called for each piece of a stream; may be nil
}

func (s setup) chatModel() string { return cmp.Or(s.model, chatModel) }

// got is called for a piece of a stream.
func (s setup) got(piece string) {
	if s.piece != nil && piece != "" {
		s.piece()
	}
}

// adapters are all SDKs. The name of what each connects to is nobody's: only
// the balancer's backends are ever asked.
var adapters = []adapter{
	goOpenAI, goOpenAIAzure,
	openaiGo, openaiGoAzure, openaiGoAzureV1, openaiGoEntra,
	azOpenAI, langchain, langchainAzure, eino, einoAzure, genkitOpenAI,
}

// What callers ask of whom, and what comes of it.
const (
	chatModel       = "gpt-4o"
	embeddingModel  = "text-embedding-3-small"
	imageModel      = "gpt-image-1"
	transcriber     = "whisper-1"
	prompt          = "hi"
	recording       = "RIFF of a voice"
	anyAzure        = "https://any.openai.azure.com"
	sdkKey          = "the SDK's own key"
	chatText        = "when one region is full"
	embeddingText   = "8 numbers from 0.1686"
	imageText       = "cGljdHVyZQ=="
	transcribedText = "one two three"
)

// An operation is a call of an adapter, and what the deployments see of it.
type operation struct {
	name    string
	call    call
	path    string // below the dialect's prefix
	model   string
	text    string // what is to come of it
	streams bool
}

func (a adapter) operations() (all []operation) {
	for _, o := range []operation{
		{"chat", a.chat, "chat/completions", chatModel, chatText, false},
		{"stream", a.stream, "chat/completions", chatModel, chatText, true},
		{"embeddings", a.embed, "embeddings", embeddingModel, embeddingText, false},
		{"responses", a.respond, "responses", chatModel, chatText, false},
		{"responses stream", a.respondStream, "responses", chatModel, chatText, true},
		{"images", a.image, "images/generations", imageModel, imageText, false},
		{"transcription", a.transcribe, "audio/transcriptions", transcriber, transcribedText, false},
	} {
		if o.call != nil {
			all = append(all, o)
		}
	}
	return all
}

// vectorText is an embedding in short.
func vectorText[F float32 | float64](v []F) string {
	return fmt.Sprintf("%d numbers from %.4f", len(v), v[0])
}

// each runs a test for every adapter, operation and place, side by side.
func each(t *testing.T, places []place, test func(t *testing.T, a adapter, o operation, p place)) {
	for _, a := range adapters {
		for _, o := range a.operations() {
			for _, p := range places {
				t.Run(a.name+"/"+o.name+"/"+p.name, func(t *testing.T) {
					t.Parallel()
					p.run(t, func(t *testing.T) { test(t, a, o, p) })
				})
			}
		}
	}
}

// eachStream is each for the operations that stream.
func eachStream(t *testing.T, places []place, test func(t *testing.T, a adapter, o operation, p place)) {
	each(t, places, func(t *testing.T, a adapter, o operation, p place) {
		if o.streams {
			test(t, a, o, p)
		}
	})
}

// Every operation is tested with some SDK.
func TestOperations(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range adapters {
		for _, o := range a.operations() {
			seen[o.name] = true
		}
	}
	require.Len(t, seen, 7)
}
