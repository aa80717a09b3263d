package main

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestRetryClientWaitsUntilADeploymentIsAvailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(&out))
		require.Regexp(t, `after 0\.0 s: 429 Too Many Requests\n +Both deployments of gpt-4o are unavailable; the soonest is east in 1\.50s\.\n`, out.String())
		require.Regexp(t, `after (1\.[5-9]|2\.[0-4]) s: east answered\n +when one region is full`, out.String())
	})
}
