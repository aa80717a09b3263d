package configfile_test

import (
	"reflect"
	"testing"

	"github.com/spillover-go/spillover/internal/configfile"
	"github.com/stretchr/testify/require"
)

func TestKeyIsSnakeCase(t *testing.T) {
	for name, want := range map[string]string{
		"Name": "name", "URL": "url", "APIKey": "api_key", "APIVersion": "api_version", "RPM": "rpm", "MaxAttempts": "max_attempts",
		"HoldStreams": "hold_streams", "UserID": "user_id", "HTTPProxyURL": "http_proxy_url", "": "",
	} {
		require.Equal(t, want, configfile.Key(name))
	}
}

// Names that may be words, and those that are not in files, are not replaced.
func TestKeyReplacer(t *testing.T) {
	require.Equal(t, "Title, max_retries, dry_run, max_open, api_key, Weight and NewToken",
		configfile.KeyReplacer(reflect.TypeFor[config]()).Replace("Title, MaxRetries, DryRun, MaxOpen, APIKey, Weight and NewToken"))
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"priorty", "priority", 1}, {"url", "lru", 2}, {"same", "same", 0}} {
		require.Equal(t, c.want, configfile.Distance(c.a, c.b), c)
		require.Equal(t, c.want, configfile.Distance(c.b, c.a), c)
	}
}
