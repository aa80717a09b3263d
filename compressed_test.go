package spillover_test

import (
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
	"github.com/spillover-go/spillover/internal/testnet"
	"github.com/spillover-go/spillover/internal/wiretest"
)

// A compressed stream is judged as any other, and passed as it came.
func TestCompressedStreamsAreJudged(t *testing.T) {
	for header, encoding := range testnet.Encodings {
		t.Run(encoding, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				encoded := http.Header{"Content-Encoding": {header}}
				refusal := testnet.ChatError(`{"code":"429","message":"Please retry after 6 seconds."}`)

				// An error before content fails over.
				n := newNet()
				p := wiretest.Compress(t, encoding, testnet.AzureFirst, testnet.RoleChunk, refusal)
				n.On(host("one"), testnet.Plays(t, encoded, p[0], time.Second, p[1][:3], p[1][3:], p[2]))
				n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
				tr := streamPair(t, n)
				resp, _ := ask(t, tr)
				require.Equal(t, "two", servedBy(resp))
				require.Equal(t, 6*time.Second, out(streamState(t, tr, "one")))

				// Content is not held, and usage and an error behind it are read.
				for _, size := range []int{1, 7, 1 << 20} {
					n = newNet()
					p = wiretest.Compress(t, encoding, testnet.AzureFirst+testnet.RoleChunk, testnet.TokenChunk("hi"), testnet.UsageChunk+refusal)
					pieces := []any{encoded, p[0], time.Second}
					for _, text := range p[1:] {
						for piece := range slices.Chunk([]byte(text), size) {
							pieces = append(pieces, string(piece))
						}
						pieces = append(pieces, time.Second)
					}
					n.On(host("one"), testnet.Plays(t, pieces...))
					tr = streamPair(t, n)
					begun := time.Now()
					resp, err := tr.RoundTrip(newChat(t, chatPath))
					require.NoError(t, err)
					require.Equal(t, time.Second, time.Since(begun), "with its first content")
					require.Equal(t, header, resp.Header.Get("Content-Encoding"))
					body, err := testnet.ReadAll(t, resp)
					require.NoError(t, err)
					require.Equal(t, strings.Join(p, ""), body)
					one := streamState(t, tr, "one")
					require.Equal(t, []int64{11, 7}, []int64{one.InputTokens, one.OutputTokens})
					require.Equal(t, "429", one.Reason)
					require.Zero(t, one.InFlight)
				}
			})
		})
	}
}

// Of an error that was cut what is left of it is read; of one that is not
// compressed, whatever it says, all.
func TestCompressedErrorsThatAreCut(t *testing.T) {
	const refusal = `{"error":{"code":"429","message":"Please retry after 6 seconds."}}`
	for name, c := range map[string]struct {
		encoding, text string
		wait           time.Duration
	}{
		"gzip without its sum":      {"gzip", strings.Join(wiretest.Compress(t, "gzip", refusal), ""), 6 * time.Second},
		"deflate without its sum":   {"deflate", strings.Join(wiretest.Compress(t, "deflate", refusal), ""), 6 * time.Second},
		"identity":                  {"identity", refusal + "        ", 6 * time.Second},
		"Identity":                  {" Identity ", refusal + "        ", 6 * time.Second},
		"nothing":                   {"gzip", "", 10 * time.Second},
		"the first byte alone":      {"deflate", "x", 10 * time.Second},
		"the first of many bytes":   {"gzip", "\x1f", 10 * time.Second},
		"something else altogether": {"gzip", "<html>", 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			text := c.text
			if len(text) > 8 {
				text = text[:len(text)-3]
			}
			n := newNet()
			n.On(host("one"), status(429, text, "Content-Encoding: "+c.encoding))
			n.On(host("two"), status(429, text, "Content-Encoding: "+c.encoding, "Retry-After: 60"))
			tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("one"), azure("two", priority(2))}, DefaultCooldown: 10 * time.Second})
			resp, _ := ask(t, tr)
			require.Equal(t, 429, resp.StatusCode, name)
			require.Equal(t, c.wait, out(streamState(t, tr, "one")), name)
		})
	}
}

// What cannot be decoded is passed as it is, and judged by its status and header.
func TestUnknownEncodingsPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, encoding := range []string{"br", "zstd", "gzip, br"} {
			n := newNet()
			n.On(host("one"), testnet.Plays(t, http.Header{"Content-Encoding": {encoding}}, time.Minute, "\x1b\x03"))
			begun := time.Now()
			resp, err := streamPair(t, n, holdStreams).RoundTrip(newChat(t, chatPath))
			require.NoError(t, err)
			require.Zero(t, time.Since(begun))
			require.Equal(t, "\x1b\x03", read(t, resp))

			n = newNet()
			n.On(host("one"), status(429, "\x1b\x03", "Content-Encoding: "+encoding, "Retry-After: 7"))
			n.On(host("two"), ok200)
			tr := streamPair(t, n)
			ask(t, tr)
			require.Equal(t, 7*time.Second, out(streamState(t, tr, "one")))
		}
	})
}

// What is not what its header says is the caller's.
func TestBrokenCompressionPasses(t *testing.T) {
	for _, text := range []string{testnet.WholeChat, "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xffgarbage and more of it", "\x1f\x8b\x08\x1f"} {
		for _, code := range []int{200, 400} {
			n := newNet()
			n.On(host("one"), func(req *http.Request) (*http.Response, error) {
				resp, err := status(code, text, "Content-Encoding: gzip")(req)
				resp.Header.Set("Content-Type", "text/event-stream")
				return resp, err
			})
			n.On(host("two"), status(200, text))
			_, body := ask(t, streamPair(t, n))
			require.Equal(t, text, body)
		}
	}
}

func TestCompressedBombsAreNotInflated(t *testing.T) {
	for name, begins := range map[string]string{"a comment": ": ", "data": "data: ", "content": testnet.TokenChunk("a"), "JSON": `{"error":{"message":"`} {
		text := wiretest.Compress(t, "gzip", begins+strings.Repeat("\x00", 16<<20))[0]
		for _, code := range []int{200, 429, 500} {
			n := newNet()
			n.On(host("one"), func(req *http.Request) (*http.Response, error) {
				resp, err := status(code, text, "Content-Encoding: gzip")(req)
				resp.Header.Set("Content-Type", "text/event-stream")
				return resp, err
			})
			n.On(host("two"), status(200, text))
			tr := streamPair(t, n)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, body := ask(t, tr)
			runtime.ReadMemStats(&after)
			require.True(t, body == text, name)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20), "%s, %d", name, code)
		}
	}
}

// Whatever a compressed response contains, the caller receives it unchanged.
func FuzzCompressed(f *testing.F) {
	for _, encoding := range []string{"gzip", "deflate", ""} {
		f.Add([]byte(strings.Join(wiretest.Compress(f, encoding, testnet.AzureFirst, testnet.ChatError(serverError), testnet.WholeChat), "")), encoding == "gzip", 200)
		f.Add([]byte(strings.Join(wiretest.Compress(f, encoding, `{"error":{"code":"429"}}`), "")), encoding == "gzip", 429)
	}
	f.Add([]byte(strings.Join(wiretest.Compress(f, "gzip", testnet.AzureFirst, testnet.TokenChunk("a")), "")), true, 200) // truncated
	f.Add([]byte("\x1f\x8b"), true, 500)
	f.Fuzz(func(t *testing.T, text []byte, zipped bool, code int) {
		encoding := "deflate"
		if zipped {
			encoding = "gzip"
		}
		if code != 200 {
			code = 400 + int(uint(code)%200)
		}
		n := newNet()
		n.On(host("one"), func(req *http.Request) (*http.Response, error) {
			resp, err := status(code, string(text), "Content-Encoding: "+encoding)(req)
			resp.Header.Set("Content-Type", "text/event-stream")
			return resp, err
		})
		tr := configured(t, spillover.Config{Base: n, Backends: []spillover.Backend{azure("one")}})
		resp, err := tr.RoundTrip(newChat(t, chatPath))
		if err == nil {
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "a truncated stream")
			}
			require.NoError(t, resp.Body.Close())
			if resp.Header.Get("X-Spillover-Synthesized") == "" {
				require.Equal(t, string(text), string(body))
			}
		}
		require.Zero(t, streamsInFlight(tr))
	})
}

// HoldStreams knows the end of a compressed stream, and heartbeats in one are a silence.
func TestCompressedStreamsAreHeldAndTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		encoded := http.Header{"Content-Encoding": {"gzip"}}
		p := wiretest.Compress(t, "gzip", testnet.TokenChunk("a"), ": hi\n\n", ": hi\n\n", ": hi\n\n", ": hi\n\n")
		n := newNet()
		n.On(host("one"), testnet.Plays(t, encoded, p[0], 400*time.Millisecond, p[1], 400*time.Millisecond, p[2], 400*time.Millisecond, p[3], testnet.Forever{}))
		n.On(host("two"), testnet.Plays(t, testnet.WholeChat))
		for _, change := range []func(*spillover.Config){holdStreams, func(*spillover.Config) {}} {
			tr := streamPair(t, n, streamTimeouts(0, time.Second), change)
			begun := time.Now()
			resp, err := tr.RoundTrip(newChat(t, chatPath))
			require.NoError(t, err)
			body, err := testnet.ReadAll(t, resp)
			require.Equal(t, time.Second, time.Since(begun))
			if spillover.ConfigOf(tr).HoldStreams {
				require.NoError(t, err)
				require.Equal(t, testnet.WholeChat, body)
			} else {
				require.ErrorIs(t, err, spillover.ErrIdleTimeout)
			}
		}
	})
}
