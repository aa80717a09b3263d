package spillovertest_test

import (
	"io"
	"math"
	"strings"
	"testing"

	"github.com/spillover-go/spillover/spillovertest"
)

// The cost of an answer of 16 tokens by a server in memory.
func BenchmarkRoundTrip(b *testing.B) {
	prompt := strings.Repeat("word ", 600)
	for name, stream := range map[string]string{"whole": "false", "stream": "true"} {
		body := `{"messages":[{"role":"user","content":"` + prompt + `"}],"stream":` + stream + `}`
		b.Run(name, func(b *testing.B) {
			s := spillovertest.New(spillovertest.Config{
				Deployments: deployment(spillovertest.PAYG{TPM: math.MaxInt / 6}, spillovertest.Latency{}),
			})
			b.ReportAllocs()
			for b.Loop() {
				res, err := s.Client().Post(s.URL+azurePath, "application/json", strings.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
}
