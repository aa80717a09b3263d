package simulation

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A fault that can be asked for is one of the names, or the status of an error.
func FuzzFault(f *testing.F) {
	for _, s := range append(FaultNames(), "429", "+500", "0503", "600", "399", "-1", "", " 500", "5e2") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fault, err := parseFault(s)
		switch {
		case slices.Contains(FaultNames(), s):
			require.NoError(t, err)
		case len(s) == 3 && (s[0] == '4' || s[0] == '5') && strings.Trim(s, "0123456789") == "":
			require.NoError(t, err)
			require.Equal(t, s, strconv.Itoa(fault.Status))
		case err == nil:
			status, err := strconv.Atoi(s)
			require.NoError(t, err)
			require.Equal(t, status, fault.Status)
			require.True(t, status >= 400 && status < 600)
			require.True(t, json.Valid([]byte(fault.Body)))
		}
	})
}
