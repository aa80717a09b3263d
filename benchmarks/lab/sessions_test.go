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

// TestSessions measures the effect of sessions on prompt caches and on the balance.
func TestSessions(t *testing.T) {
	var table strings.Builder
	table.WriteString("| backends | processes | sessions | hit rate | max/mean in flight, p99 |\n|--:|--:|---|--:|--:|\n")
	r := &Results{Chats: map[Chatting]Warmth{}}
	measure := func(c Chatting, about string) {
		w := chatting(t, c)
		r.Chats[c] = w
		fmt.Fprintf(&table, "| %d | %d | %s | %.3f | %.2f |\n", c.Backends, c.Replicas, about, w.Hits, w.Uneven)
	}
	for _, backends := range []int{4, 10} {
		measure(Chatting{Backends: backends, Replicas: 4}, "no")
		measure(Chatting{Backends: backends, Replicas: 4, Told: true}, "yes")
		measure(Chatting{Backends: backends, Replicas: 1, Told: true}, "yes")
	}
	t.Log("\n" + table.String())
	if *updateSessions {
		w := &writer{}
		r.goalTable(w, SessionGoals(), []string{"measured"}, Ours())
		text := strings.NewReplacer("GOALS\n", w.String(), "TABLE\n", table.String()).Replace(sessionsText)
		require.NoError(t, os.WriteFile("SESSIONS.md", []byte(text), 0o644))
	}
	requireMet(t, sessionGuards(t), Ours(), r)
}

func chatting(t *testing.T, c Chatting) (w Warmth) {
	t.Helper()
	synctest.Test(t, func(*testing.T) { w = c.Run() })
	return w
}

const sessionsText = `# Sessions and prompt caches

What ` + "`spillover.WithSession`" + ` (session affinity) does for prompt caches, and what it costs in balance. There are 2000 sessions, requested by Zipf's law with exponent 0.9. The deployments are equal. Each has 48 requests in flight on average, and caches a session for five minutes after its last request. Each process has its own Transport and shares nothing with the others.

TABLE

With sessions, all processes choose the same deployment for a session without communicating, and most of the requests that would miss the cache hit it. Two kinds of requests still miss: the first request of a session in five minutes, and requests that were sent to another deployment because their own had a quarter more in flight than its share. Each process applies that bound to the requests that it knows of. So several processes exceed it a little more often than one, which costs one or two hits in a hundred. In the 99th percentile the busiest deployment has a quarter to a third more requests in flight than the mean. Without sessions the balance is that of the power of two choices, and one request in five has a cold cache.

## Goals

GOALS
` + "`go test -run TestSessions -update-sessions`" + ` writes this.
`
