//go:build walljump

package entra_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/entra"
)

// This test is built with another time.Now (../internal/walljump).

// Most credentials read when a token expires from a number of seconds since 1970, which
// has no monotonic reading.
func TestWallClockJumpsDoNotExtendAToken(t *testing.T) {
	expires := func(_ context.Context, t azcore.AccessToken) (azcore.AccessToken, error) {
		t.ExpiresOn = time.Unix(time.Now().Add(time.Hour).Unix(), 0)
		return t, nil
	}
	inTime(t, "back", func(t *testing.T) {
		c := &credential{answer: expires}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		time.JumpWallClock(-3 * time.Hour)
		defer time.JumpWallClock(3 * time.Hour)
		time.Sleep(time.Hour - 5*time.Minute - time.Second)
		instant(t, "token-1", call(t.Context(), token))
		synctest.Wait()
		require.Equal(t, 1, c.calls())
		time.Sleep(2 * time.Second)
		instant(t, "token-1", call(t.Context(), token))
		synctest.Wait()
		instant(t, "token-2", call(t.Context(), token))
	})
	inTime(t, "forward", func(t *testing.T) {
		c := &credential{answer: expires}
		token := entra.Token(c)
		instant(t, "token-1", call(t.Context(), token))
		time.JumpWallClock(3 * time.Hour)
		defer time.JumpWallClock(-3 * time.Hour)
		require.Equal(t, "token-2", call(t.Context(), token).token)
		for range 100 {
			instant(t, "token-2", call(t.Context(), token))
			time.Sleep(time.Second)
		}
		require.Equal(t, 2, c.calls())
	})
}
