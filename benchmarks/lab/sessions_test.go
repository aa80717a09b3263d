package lab

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

var updateSessions = flag.Bool("update-sessions", false, "TestSessions: write SESSIONS.md")

// TestSessions measures what sessions do for prompt caches, and to the balance.
func TestSessions(t *testing.T) {
	var table strings.Builder
	table.WriteString("| backends | processes | sessions | hit rate | max/mean in flight, p99 |\n|--:|--:|---|--:|--:|\n")
	measure := func(c Chatting, about string) Warmth {
		w := chatting(t, c)
		fmt.Fprintf(&table, "| %d | %d | %s | %.3f | %.2f |\n", c.Backends, c.Replicas, about, w.Hits, w.Uneven)
		return w
	}
	for _, backends := range []int{4, 10} {
		without := measure(Chatting{Backends: backends, Replicas: 4}, "not told")
		with := measure(Chatting{Backends: backends, Replicas: 4, Told: true}, "told")
		measure(Chatting{Backends: backends, Replicas: 1, Told: true}, "told")

		require.GreaterOrEqual(t, with.Hits, 0.9)
		require.GreaterOrEqual(t, with.Hits, without.Hits+0.1)
		require.LessOrEqual(t, with.Uneven, 1.6)
		require.LessOrEqual(t, without.Uneven, 1.3)
	}
	t.Log("\n" + table.String())
	if *updateSessions {
		text := strings.Replace(sessionsText, "TABLE\n", table.String(), 1)
		require.NoError(t, os.WriteFile("SESSIONS.md", []byte(text), 0o644))
	}
}

func chatting(t *testing.T, c Chatting) (w Warmth) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { w = c.Run() })
	return w
}

const sessionsText = `# Sessions and prompt caches

What ` + "`spillover.WithSession`" + ` does for prompt caches, and to the balance: 2000 sessions, asked for by Zipf's law with exponent 0.9; equal deployments that remember a session for five minutes after its last request, with 48 requests in flight at each on average; each process a Transport of its own, which shares nothing with the others.

TABLE

Told the sessions, the processes agree on where each belongs without a word to each other, and most of the requests that would miss find their cache; what still misses is a session's first request in five minutes, and those that went elsewhere since their deployment was busier than the others by a quarter. That bound is each process's own, for the few requests it knows of: several processes bind it a little more often than one does, which costs a hit or two in a hundred, and at worst the busiest deployment has a quarter to a third more than the mean. Without sessions the balance is as good as two choices make it, and a request in five begins with a cold cache.

` + "`go test -run TestSessions -update-sessions`" + ` writes this.
`
