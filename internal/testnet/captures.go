package testnet

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wire"
)

// A Capture is a recorded answer of a service, and what it means.
type Capture struct {
	ID      string
	Status  int
	Headers map[string]string
	Body    string
	Class   string
	// The cool-down in seconds; nil where the answer names no usable time.
	Expected   *float64   `json:"expected_cooldown_seconds"`
	AlsoAccept []*float64 `json:"also_accept"`
	AcceptMin  *float64   `json:"accept_min"`
}

// Captures returns the recorded answers in testdata/headers.json of the package under test.
func Captures(t testing.TB) (all []Capture) {
	text, err := os.ReadFile("testdata/headers.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &all))
	require.NotEmpty(t, all)
	return all
}

// Streamed returns the body as it was sent. The file has only the event of a stream
// that matters, in one line.
func (c Capture) Streamed() string {
	header := http.Header{}
	for name, value := range c.Headers {
		header.Set(name, value)
	}
	if wire.MediaType(header) != wire.EventStream {
		return c.Body
	}
	_, event, found := strings.Cut(c.Body, `{"type":`)
	if !found {
		return "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n"
	}
	var data json.RawMessage
	_ = json.NewDecoder(strings.NewReader(`{"type":` + event)).Decode(&data)
	return "event: response.created\ndata: {\"type\":\"response.created\"}\n\nevent: error\ndata: " + string(data) + "\n\n"
}

// Accepts reports whether a cool-down is right for the answer. unknown is the right one
// where the answer names no time, most the longest that is possible.
func (c Capture) Accepts(wait, unknown, most time.Duration) bool {
	if c.AcceptMin != nil && wait >= time.Duration(*c.AcceptMin*float64(time.Second)) {
		return true
	}
	for _, seconds := range append(c.AlsoAccept, c.Expected) {
		var right time.Duration
		switch {
		case seconds != nil && *seconds > 0:
			right = min(most, time.Duration(*seconds*float64(time.Second)))
		case c.Status == 429, c.Class == "throttled_200":
			right = unknown // neither "now" nor nothing is a time
		}
		if (wait - right).Abs() < time.Microsecond {
			return true
		}
	}
	return false
}
