package lab

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A trace that is read has a job for each of its lines but the header.
func FuzzTrace(f *testing.F) {
	const header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
	f.Add(header + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n")
	f.Add(header + "2023-11-16 18:15:46,-1,99999999999999999999\n")
	f.Add(header + "2023-11-16 18:15:46,1,9223372036854775807\n")
	f.Add(header + "0001-01-01 00:00:00,1,1\n\n9999-12-31 23:59:59,1,1\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		jobs, err := parseTrace(strings.NewReader(text))
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(jobs), strings.Count(text, "\n"))
		for i, j := range jobs {
			require.GreaterOrEqual(t, j.most, j.output)
			require.GreaterOrEqual(t, j.prompt, 0)
			require.GreaterOrEqual(t, j.output, 0)
			require.GreaterOrEqual(t, j.at, jobs[max(i-1, 0)].at)
		}
	})
}
