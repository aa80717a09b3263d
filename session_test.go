package spillover_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
)

// sessionOf is a request of a session to the model m.
func sessionOf(t testing.TB, id string) *http.Request {
	return newChat(t, chatPath).WithContext(spillover.WithSession(t.Context(), id))
}

// A session goes to a lower tier while the first is closed, and back.
func TestSessionFollowsTheTiers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		n.On(host("first"), status(429, "{}", "Retry-After: 5"), status(200, "{}"))
		tr := balance(t, n, azure("first"), azure("a", priority(2)), azure("b", priority(2)))
		by := func() string { resp, _ := send(t, tr, sessionOf(t, "x")); return servedBy(resp) }
		lower := by()
		require.NotEqual(t, "first", lower)
		for range 10 {
			require.Equal(t, lower, by())
		}
		time.Sleep(5 * time.Second)
		require.Equal(t, "first", by(), "a tier is a promise")
	})
}

// Replicas that are configured alike agree without knowing of each other, in
// whatever order they list the backends, and whatever else they do.
func TestReplicasAgree(t *testing.T) {
	one := balance(t, newNet(), azure("a"), azure("b", weight(3)), azure("c"), azure("last", priority(2)))
	other := balance(t, newNet(), azure("last", priority(2)), azure("c"), azure("b", weight(3)), azure("a"))
	for i := range 200 {
		ask(t, other)
		resp, _ := send(t, one, sessionOf(t, fmt.Sprint(i)))
		again, _ := send(t, other, sessionOf(t, fmt.Sprint(i)))
		require.Equal(t, servedBy(resp), servedBy(again))
	}
}

// Without a session each request is on its own.
func TestNoSession(t *testing.T) {
	n := newNet()
	tr := seeded(three(t, n))
	for range 300 {
		send(t, tr, newChat(t, chatPath).WithContext(spillover.WithSession(context.WithoutCancel(t.Context()), "")))
	}
	for _, name := range []string{"a", "b", "c"} {
		require.InDelta(t, 100, n.Sends(host(name)), 40)
	}
}
