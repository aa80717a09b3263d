package spillover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/testnet"
)

// withKeyFile gives a backend a file instead of its key.
func withKeyFile(path string) func(*Backend) {
	return func(b *Backend) { b.APIKey, b.APIKeyFile = "", path }
}

// While one request reads the file, which may take long, others go on.
func TestRequestsDoNotWaitForTheKeyFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := testnet.WriteFile(t, "key", "old-key")
		n := newNet()
		tr := configured(t, Config{Base: n, Backends: []Backend{azure("a", withKeyFile(path))}})
		testnet.ReplaceFile(t, path, "new-key")
		time.Sleep(keyFileInterval)
		reading := &tr.table().backends[0].keyFile.reading
		reading.Lock()
		ask(t, tr)
		require.Equal(t, "old-key", n.Last().Header.Get("Api-Key"))
		reading.Unlock()
		ask(t, tr)
		require.Equal(t, "new-key", n.Last().Header.Get("Api-Key"))
		require.NoError(t, tr.Close())
	})
}
