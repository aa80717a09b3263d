package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A trace that is read has chats at times that grow, with tokens that can be simulated.
func FuzzTrace(f *testing.F) {
	const header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
	f.Add(header + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n")
	f.Add(header + "2023-11-16 18:15:46,0,0\n2023-11-16 18:15:46,1,1\n2023-11-16 18:15:47,99999999,1\n")
	f.Add(header + "2023-11-16 18:15:46,-1,x\n")
	f.Add(header + "0001-01-01 00:00:00,1,1\n9999-12-31 23:59:59,1,9223372036854775807\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := readTrace(strings.NewReader(text))
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, len(l.chats), 2)
		for i, c := range l.chats {
			require.True(t, i == 0 || c.at > l.chats[i-1].at)
			require.True(t, c.prompt >= 1 && c.prompt <= maxPrompt && c.output >= 1)
		}
		require.Equal(t, l.chats[len(l.chats)-1].at, l.length)
	})
}
