package spillover

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Transport that nobody has closed is collected although its fleet knows it; notices are
// not heard any more then.
func TestFleetDoesNotKeepATransport(t *testing.T) {
	f := new(LocalFleet)
	inForce := func() func() *table {
		tr, err := New(Config{Base: newNet(), Backends: []Backend{azure("a")}, Fleet: f})
		require.NoError(t, err)
		inForce := tr.tableInForce()
		require.Same(t, tr.table(), inForce())
		runtime.KeepAlive(tr)
		return inForce
	}()
	for i := 0; i < 100 && inForce() != nil; i++ {
		runtime.GC()
		runtime.Gosched()
	}
	require.Nil(t, inForce())
	require.NotPanics(t, func() { f.Publish([]byte(`{}`)) })
}
