package wire

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQuery(t *testing.T) {
	require.True(t, HasAPIVersion("a=b&API-Version=1"))
	require.False(t, HasAPIVersion("api-version=&x=api-version"))

	require.Equal(t, "a=b&c=d", JoinQuery("a=b", "c=d"))
	require.Equal(t, "a=b", JoinQuery("a=b", ""))
	require.Equal(t, "c=d", JoinQuery("", "c=d"))

	for query, want := range map[string]string{"model=m": "m", "x=y&deployment=a%20b": "a b", "model=&deployment=n": "n", "model=%zz": "", "x=model": "", "": ""} {
		require.Equal(t, want, QueryModel(query), query)
	}
}

func TestModelInAQueryIsReplaced(t *testing.T) {
	for query, want := range map[string]string{
		"model=m":                "deployment=m%2Feast",
		"a=%20&deployment=m&b":   "a=%20&deployment=m%2Feast&b",
		"model=m&x&deployment=n": "deployment=m%2Feast&x",
		"x=model":                "x=model",
	} {
		require.Equal(t, want, ReplaceQueryModel(query, "deployment", "m/east"), query)
	}
}
