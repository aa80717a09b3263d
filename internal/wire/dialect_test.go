package wire

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A row of the table says everything, and paths that begin with its prefix are read
// as that dialect's.
func TestEveryDialectIsComplete(t *testing.T) {
	prefixes := map[string]bool{}
	for _, d := range Dialects {
		require.NotEmpty(t, d.Name)
		require.Same(t, SpecOf(d.Name), SpecOf(d.Name))
		require.Equal(t, d, *SpecOf(d.Name))
		require.True(t, strings.HasPrefix(d.Prefix, "/") && !strings.HasSuffix(d.Prefix, "/"), d.Prefix)
		require.False(t, prefixes[d.Prefix], "%s is not the only one with %s", d.Name, d.Prefix)
		prefixes[d.Prefix] = true
		require.Contains(t, []string{"Api-Key", "Authorization"}, d.KeyHeader)
		require.Contains(t, []string{AzureCredentials, OpenAICredentials}, d.Credentials)
		require.NotEmpty(t, d.Provider)
		require.Equal(t, d.APIVersion != NoAPIVersion, d.HasAPIVersion())

		path := d.Prefix + "/chat/completions"
		if d.DeploymentInPath {
			path = d.Prefix + "/deployments/m/chat/completions"
		}
		target := ParsePath("/base" + path)
		require.Equal(t, d.Name, target.Dialect, path)
		require.Equal(t, "chat/completions", target.Operation, path)
		require.Equal(t, d.DeploymentInPath, target.Model == "m", path)

		for _, base := range []string{"", "/base"} {
			found, bare := BasePath(d.Name, base+d.Prefix)
			require.Equal(t, base, found)
			require.False(t, bare)
			require.Equal(t, base, ShortPath(d.Name, base+d.Prefix+"/"))
		}
	}
	require.Empty(t, SpecOf("telepathy").Name)
	require.Empty(t, SpecOf("").Name)
}
