package batch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/cmd/spillover/internal/batch"
)

// JSON is UTF-8. An output that is not could not be read as a whole.
func TestTheOutputIsUTF8(t *testing.T) {
	in, out := writeLines(t, line("a", `{"model":"m"}`), strings.Replace(line("é", `{"model":"m"}`), "é", "\xe9", 1),
		line("c", "{\"model\":\"m\",\"user\":\"\xe9\"}")), filepath.Join(t.TempDir(), "out")
	var sent atomic.Int32
	c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, service(func(*http.Request, []byte) (int, string) {
		sent.Add(1)
		return 200, "{\"id\":\"\xe9\"}"
	}))})
	require.NoError(t, err)
	require.EqualValues(t, 2, c.Failed)
	require.EqualValues(t, 1, sent.Load())
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, utf8.Valid(text))
	all := outputs(t, out)
	require.Equal(t, `{"id":"�"}`, string(all["batch_req_1"].Response.Body))
	for _, id := range []string{"batch_req_2", "batch_req_3"} {
		require.Equal(t, "invalid_json_line", all[id].Error.Code)
		require.Contains(t, all[id].Error.Message, "UTF-8")
	}
}

// Each line of such a file would be invalid.
func TestAnInputOfAnotherFormatIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"\x1f\x8b\x08\x00": "gzip", "\x28\xb5\x2f\xfd\x04": "zstd", "PK\x03\x04": "ZIP", "\xff\xfe{\x00": "UTF-16", "\xfe\xff\x00{": "UTF-16",
		"[": "array", "\xef\xbb\xbf[\n{}\n]": "array",
	} {
		in, out := writeLines(t, text), filepath.Join(t.TempDir(), "out")
		_, err := batch.Open(t.Context(), batch.Options{Input: in, Output: out, Transport: transport(t, answering(200, fine))})
		require.ErrorContains(t, err, want)
		require.NoFileExists(t, out)
	}
}

func TestALineOf10MiBIsSentWhole(t *testing.T) {
	prompt := strings.Repeat("é ", 10<<20/3)
	in, out := writeLines(t, line("small", `{"model":"m"}`), line("large", `{"model":"m","user":"`+prompt+`"}`), line("small", `{"model":"m"}`)), filepath.Join(t.TempDir(), "out")
	c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, service(func(_ *http.Request, body []byte) (int, string) {
		return 200, fmt.Sprintf(`{"size":%d}`, len(body))
	}))})
	require.NoError(t, err)
	require.EqualValues(t, 3, c.Answered)
	require.JSONEq(t, fmt.Sprintf(`{"size":%d}`, len(prompt)+len(`{"model":"m","user":""}`)), string(outputs(t, out)["batch_req_2"].Response.Body))
}

// denying denies requests whose body has a text, from a number of requests on.
func denying(status int, text string, from int32) service {
	var requests atomic.Int32
	return func(_ *http.Request, body []byte) (int, string) {
		time.Sleep(time.Second)
		if n := requests.Add(1); n > from && bytes.Contains(body, []byte(text)) {
			return status, `{"error":{"message":"access denied"}}`
		}
		return 200, fine
	}
}

// A deployment that was removed, or a firewall, denies every request: all of them are left
// for the time when it is repaired, and those that were answered are not asked again.
func TestABatchEndsIfEveryRequestIsDenied(t *testing.T) {
	for _, status := range []int{403, 404} {
		for _, from := range []int32{0, 100} {
			for _, most := range []int{1, 50} {
				in, out := writeInput(t, 500, hello), filepath.Join(t.TempDir(), "out")
				var failed int64
				synctest.Test(t, func(t *testing.T) {
					lb := transport(t, denying(status, "gpt-4o", from))
					defer lb.Close()
					c, err := run(t, batch.Options{Input: in, Output: out, Transport: lb, MaxInFlight: most})
					require.ErrorContains(t, err, fmt.Sprintf("the last 20 requests for gpt-4o were answered %d", status))
					require.ErrorContains(t, err, "access denied")
					require.EqualValues(t, from, c.Answered-c.Failed)
					if failed = c.Failed; from == 0 || most == 1 {
						require.Zero(t, failed)
					} else { // a request that was allowed may be answered after others were denied
						require.Less(t, failed, int64(most))
					}
				})
				var asked atomic.Int32
				c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, service(func(*http.Request, []byte) (int, string) {
					asked.Add(1)
					return 200, fine
				}))})
				require.NoError(t, err)
				require.EqualValues(t, 500, c.Answered)
				require.Equal(t, failed, c.Failed)
				require.EqualValues(t, 500-int64(from)-failed, asked.Load())
			}
		}
	}
}

// A few denials in a row do not show that every request is denied. They are answers if all
// requests have been asked, and are asked again if the batch was interrupted.
func TestAFewDenialsAtTheEndAreAnswers(t *testing.T) {
	for _, interrupted := range []bool{false, true} {
		in, out := writeInput(t, 19, hello), filepath.Join(t.TempDir(), "out")
		synctest.Test(t, func(t *testing.T) {
			lb := transport(t, denying(403, "gpt-4o", 0))
			defer lb.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b, err := batch.Open(ctx, batch.Options{Input: in, Output: out, Transport: lb, MaxInFlight: 1, Grace: time.Minute}.WithoutSync())
			require.NoError(t, err)
			defer b.Close()
			if interrupted {
				time.AfterFunc(18500*time.Millisecond, cancel)
				require.ErrorIs(t, b.Run(ctx), context.Canceled)
				require.Zero(t, b.Counts().Answered)
				return
			}
			require.NoError(t, b.Run(ctx))
			require.EqualValues(t, 19, b.Counts().Failed)
			require.Len(t, outputs(t, out), 19)
		})
	}
}

// A denial before another answer of the model is an answer, also in a batch that ends early.
func TestADenialIsRecordedWithTheNextAnswer(t *testing.T) {
	var lines []string
	for _, after := range []string{"1s denied", "2s answered", "3s denied", "9s answered"} {
		lines = append(lines, line("x", fmt.Sprintf(`{"model":"m","user":%q}`, after)))
	}
	in, out := writeLines(t, lines...), filepath.Join(t.TempDir(), "out")
	synctest.Test(t, func(t *testing.T) {
		lb := transport(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			var body struct{ User string }
			require.NoError(t, json.NewDecoder(r.Body).Decode(&body))
			after, is, _ := strings.Cut(body.User, " ")
			d, err := time.ParseDuration(after)
			require.NoError(t, err)
			select {
			case <-time.After(d):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			if is == "denied" {
				return answering(404, `{}`).RoundTrip(r)
			}
			return answering(200, fine).RoundTrip(r)
		}))
		defer lb.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		b, err := batch.Open(ctx, batch.Options{Input: in, Output: out, Transport: lb}.WithoutSync())
		require.NoError(t, err)
		defer b.Close()
		require.ErrorIs(t, b.Run(ctx), context.DeadlineExceeded)
	})
	all := outputs(t, out)
	require.Len(t, all, 2)
	require.Equal(t, 404, all["batch_req_1"].Response.StatusCode)
	require.Equal(t, 200, all["batch_req_2"].Response.StatusCode)
}

// Requests that are denied for a reason of their own do not end a batch.
func TestDenialsOfSomeRequestsDoNotEndABatch(t *testing.T) {
	model := func(name string) string { return fmt.Sprintf(`{"model":%q}`, name) }
	var mixed, sorted []string
	for i := range 300 {
		mixed = append(mixed, line("x", model([]string{"good", "bad", "bad"}[i%3])))
		sorted = append(sorted, line("x", model([]string{"good", "bad", "good"}[i/100])))
	}
	var some []string // of one model
	for i := range 300 {
		some = append(some, line("x", fmt.Sprintf(`{"model":"m","user":%q}`, []string{"good", "bad", "bad"}[i%3])))
	}
	for name, lines := range map[string][]string{"an unknown model among others": mixed, "an unknown model between others": sorted, "some of a model": some} {
		in, out := writeLines(t, lines...), filepath.Join(t.TempDir(), "out")
		synctest.Test(t, func(t *testing.T) {
			cfg := spillover.Config{Base: denying(404, "bad", 0), Backends: []spillover.Backend{{Name: "openai", URL: "https://api.openai.com", APIKey: "sk-test"}}}
			batch.Configure(&cfg)
			lb, err := spillover.New(cfg)
			require.NoError(t, err)
			defer lb.Close()
			c, err := run(t, batch.Options{Input: in, Output: out, Transport: lb, MaxInFlight: 10})
			require.NoError(t, err, name)
			require.EqualValues(t, 300, c.Answered, name)
			require.Positive(t, c.Failed, name)
		})
	}
}

// What is in flight was sent to a deployment. A request that waits in the transport is not.
func TestRequestsThatWaitAreNotInFlight(t *testing.T) {
	in, out := writeInput(t, 4, hello), filepath.Join(t.TempDir(), "out")
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		lb := transport(t, roundTripper(func(r *http.Request) (*http.Response, error) {
			if time.Sleep(10 * time.Second); tries.Add(1) <= 4 {
				return refusal(r, "60"), nil
			}
			return answering(200, fine).RoundTrip(r)
		}))
		defer lb.Close()
		b, err := batch.Open(t.Context(), batch.Options{Input: in, Output: out, Transport: lb}.WithoutSync())
		require.NoError(t, err)
		defer b.Close()
		ended := make(chan error, 1)
		go func() { ended <- b.Run(t.Context()) }()
		time.Sleep(5 * time.Second)
		require.Equal(t, 4, b.Counts().InFlight)
		time.Sleep(10 * time.Second)
		require.Zero(t, b.Counts().InFlight)
		require.NoError(t, <-ended)
		require.Zero(t, b.Counts().InFlight)
	})
}

// An answer of one's own form of JSON stays one line.
func TestAnAnswerIsOneLine(t *testing.T) {
	in, out := writeInput(t, 1, hello), filepath.Join(t.TempDir(), "out")
	_, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, answering(200, "{\r\n\"a\": \"b\\nc\u2028d\u0085e\"\r\n}\r\n"))})
	require.NoError(t, err)
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, 1, bytes.Count(text, []byte("\n")))
	var body struct{ A string }
	require.NoError(t, json.Unmarshal(outputs(t, out)["batch_req_1"].Response.Body, &body))
	require.Equal(t, "b\nc\u2028d\u0085e", body.A)
}

// A body that is too deep for a line of the output becomes a text: each line can be decoded.
func TestADeepResponseIsAText(t *testing.T) {
	deep := strings.Repeat("[", 9999) + strings.Repeat("]", 9999)
	in, out := writeInput(t, 1, hello), filepath.Join(t.TempDir(), "out")
	c, err := run(t, batch.Options{Input: in, Output: out, Transport: transport(t, answering(200, deep))})
	require.NoError(t, err)
	require.Zero(t, c.Failed)
	require.Equal(t, `"`+deep+`"`, string(outputs(t, out)["batch_req_1"].Response.Body))
}
