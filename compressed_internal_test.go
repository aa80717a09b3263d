package spillover

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wiretest"
)

// Errors and whole answers are read as well: times, quota, codes, usage, ids.
func TestCompressedAnswersAreRead(t *testing.T) {
	for header, encoding := range testnet.Encodings {
		synctest.Test(t, func(t *testing.T) {
			answer := func(code int, text string) roundTripFunc {
				return status(code, strings.Join(wiretest.Compress(t, encoding, text), ""), "Content-Encoding: "+header)
			}
			n := newNet()
			n.On(host("one"),
				answer(429, `{"error":{"code":"429","message":"Please retry after 6 seconds."}}`),
				answer(429, `{"error":{"code":"insufficient_quota"}}`),
			)
			second := answer(200, `{"id":"resp_zipped","usage":{"input_tokens":11,"output_tokens":7}}`)
			n.On(host("two"), second)
			tr := streamPair(t, n)
			req := func() *http.Request { return newChat(t, responsesPath) }
			_, body := send(t, tr, req())
			want, err := second(req())
			require.NoError(t, err)
			require.Equal(t, read(t, want), body, "as it came")
			require.Equal(t, 6*time.Second, out(streamState(t, tr, "one")))
			two := streamState(t, tr, "two")
			require.Equal(t, []int64{11, 7}, []int64{two.InputTokens, two.OutputTokens})
			require.NotNil(t, tr.stored.Find(time.Now(), "resp_zipped"))

			time.Sleep(6 * time.Second)
			send(t, tr, req())
			require.Equal(t, 5*time.Minute, out(streamState(t, tr, "one")))
		})
	}
}
