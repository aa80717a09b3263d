package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCallersForgetTheLeastRecentlyUsedState(t *testing.T) {
	var c Callers
	d := new(Deployment)
	key := func(i int) CallerKey { return CallerKey{Deployment: d, Caller: uint64(i)} }
	require.Nil(t, c.Find(key(0)))
	require.False(t, c.Any.Load())

	first := c.Change(key(0))
	require.True(t, c.Any.Load())
	require.True(t, first.Private, "transitions of a caller's state are not reported")
	require.Same(t, first, c.Change(key(0)))
	require.NotSame(t, first, c.Change(CallerKey{Deployment: d, Part: 1}), "one operation of the same caller")
	require.NotSame(t, first, c.Change(CallerKey{Deployment: new(Deployment)}), "the same caller elsewhere")
	first.Refuse(noon, Refusal{Wait: time.Minute, Reason: "429"}, 0)

	for i := range 3 * maxCallers {
		c.Change(key(1 + i))
		if i%(maxCallers/2) == 0 {
			require.Same(t, first, c.Find(key(0)), "it is in use")
		}
		require.LessOrEqual(t, len(c.byKey), maxCallers)
		require.Equal(t, len(c.byKey), c.recent.Len())
	}
	require.Nil(t, c.Find(key(1)))
	require.NotNil(t, c.Find(key(3*maxCallers)))
	require.False(t, c.Find(key(0)).Open(noon))
}
