package redis

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whatever is stored, what is recalled is a short JSON object with the time left, and
// otherwise unchanged.
func FuzzRecalledNotice(f *testing.F) {
	f.Add(`{"v":1,"k":"ejected","p":"00112233aabbccdd","f":"0123abcd","l":30000,"s":2}`, int64(12345))
	f.Add(`{"l":1,"l":"x","n":1e400,"<":null}`, int64(1))
	f.Add(`[]`, int64(-1))
	f.Fuzz(func(t *testing.T, stored string, left int64) {
		recalled := withLeft(stored, time.Duration(left)*time.Millisecond)
		if recalled == nil {
			return
		}
		require.LessOrEqual(t, len(recalled), maxNotice)
		var before, after map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(stored), &before))
		require.NoError(t, json.Unmarshal(recalled, &after))
		var l int64
		require.NoError(t, json.Unmarshal(after["l"], &l))
		require.Equal(t, (time.Duration(left) * time.Millisecond).Milliseconds(), l)
		require.Positive(t, l)
		before["l"] = after["l"]
		require.Len(t, after, len(before))
		for name, value := range before {
			require.Equal(t, decode(t, value), decode(t, after[name]), name)
		}
	})
}

func decode(t *testing.T, text []byte) (value any) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	require.NoError(t, d.Decode(&value))
	return value
}
