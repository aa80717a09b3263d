package main

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestStreamFailsOverAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(&out))
		require.Regexp(t, `^payg, attempt 2:\n  when one .*\nptu, attempt 1:\n  when one .*\n$`, out.String())
	})
}
