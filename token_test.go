package spillover

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A token that is not to be had is no request's fault: it is held against a
// backend though no other one answers, as when all share one credential.
func TestNoTokenAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, failing := newNet(), true
		token := func(b *Backend) {
			b.APIKey, b.Token = "", func(context.Context) (string, error) {
				if failing {
					return "", errors.New("no network")
				}
				return "token", nil
			}
		}
		tr := balance(t, n, azure("a", token), azure("b", token))
		for range 2 {
			_, err := tr.RoundTrip(newChat(t, chatPath))
			require.Error(t, err)
			for _, b := range tr.Status().Tiers[0].Backends {
				require.Len(t, b.Deployments, 1)
				require.False(t, b.Deployments[0].Available, b.Name)
				require.Equal(t, "no token", b.Deployments[0].Reason)
			}
		}
		require.Zero(t, n.sends())
		failing = false
		ask(t, tr) // nothing but failures speaks against them: one is asked all the same
		time.Sleep(time.Minute)
		for range 10 {
			ask(t, tr)
		}
		for _, b := range tr.Status().Tiers[0].Backends {
			require.True(t, b.Deployments[0].Available, b.Name)
		}
	})
}
