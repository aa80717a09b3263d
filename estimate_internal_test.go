package spillover

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/wire"
)

// tokensOf is the estimate for a body.
func tokensOf(t testing.TB, target, body string, count func([]byte) int) int64 {
	req := newChat(t, target)
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	r := &request{Request: req, body: replay.New(req.Body), count: count}
	require.NoError(t, r.read())
	r.body.Close()
	return r.tokens
}

func TestEstimate(t *testing.T) {
	picture := `{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("iVBOR", 100_000) + `"}}`
	around := func(text, rest string) string { return `{"model":"m","messages":[` + text + `]` + rest + `}` }
	for name, c := range map[string]struct {
		body  string
		count func([]byte) int
		want  int64
	}{
		"text":                  {around(strings.Repeat(" ", 4000), ""), nil, 1006 + wire.DefaultOutputTokens},
		"max_tokens":            {around(strings.Repeat(" ", 4000), `,"max_tokens":100`), nil, 1010 + 100},
		"max_completion_tokens": {around(strings.Repeat(" ", 4000), `,"max_completion_tokens":100`), nil, 1013 + 100},
		"max_output_tokens":     {around(strings.Repeat(" ", 4000), `,"max_output_tokens":100`), nil, 1012 + 100},
		"nonsense for a limit":  {around("", `,"max_tokens":"many"`), nil, 12 + wire.DefaultOutputTokens},
		"a picture":             {around(picture, ""), nil, 18 + wire.ImageTokens + wire.DefaultOutputTokens},
		"two pictures":          {around(picture+","+picture, ""), nil, 31 + 2*wire.ImageTokens + wire.DefaultOutputTokens},
		"a picture cut off":     {`{"model":"m","a":"data:image/png;base64,AAAA`, nil, 4 + wire.ImageTokens + wire.DefaultOutputTokens},
		"a real tokenizer":      {around(picture, `,"max_tokens":5`), func([]byte) int { return 77 }, 77 + 5},
		"one that cannot tell":  {around(strings.Repeat(" ", 4000), ""), func([]byte) int { return -1 }, 1006 + wire.DefaultOutputTokens},
	} {
		t.Run(name, func(t *testing.T) {
			for _, target := range []string{chatPath, "/v1/chat/completions"} {
				require.InDelta(t, c.want, tokensOf(t, target, c.body, c.count), 6, target)
			}
		})
	}
}

// What is not read is not taken for text.
func TestEstimateOfTheUnread(t *testing.T) {
	sound := strings.Repeat("x", worthReadingLimit)
	require.EqualValues(t, wire.MaxUnreadBytes/4+wire.DefaultOutputTokens, tokensOf(t, chatPath, sound, nil))
	require.EqualValues(t, 25+wire.DefaultOutputTokens, tokensOf(t, "/unknown", sound[:100], nil))
}
