package redis

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Whatever is published, what is stored is that notice, under a key of this group, for
// no longer than it holds.
func FuzzStoredNotice(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"k":"ejected","p":"00112233aabbccdd","f":"0123abcd","l":30000,"s":2}`, `{"k":"throttled","p":"x","l":9223372036854775807}`,
		`{"k":"drained","p":"a\r\nb","l":-5}`, `{"k":"recovered","p":"x"}`, `{"k":"utilization","p":"x","l":60000}`, `{"k":"ejected","p":"","l":60000}`, `[]`, "",
	} {
		f.Add(s)
	}
	client := goredis.NewClient(&goredis.Options{Addr: "127.0.0.1:0"}) // a pipeline is not sent
	f.Cleanup(func() { client.Close() })
	f.Fuzz(func(t *testing.T, notice string) {
		e := &Engine{client: client, channel: "group"}
		cmd := e.store(context.Background(), client.Pipeline(), notice)
		var n struct {
			Kind  string `json:"k"`
			Place string `json:"p"`
			Left  int64  `json:"l"`
		}
		err := json.Unmarshal([]byte(notice), &n)
		if cmd == nil {
			closes := slices.Contains([]string{"throttled", "ejected", "drained"}, n.Kind) && n.Left >= minKept.Milliseconds()
			opens := slices.Contains([]string{"recovered", "resumed"}, n.Kind)
			require.False(t, err == nil && n.Place != "" && (closes || opens), "it is not stored")
			return
		}
		require.NoError(t, err)
		require.Equal(t, e.key(n.Place), cmd.Args()[1])
		if cmd.Name() == "del" {
			require.Contains(t, []string{"recovered", "resumed"}, n.Kind)
			return
		}
		require.Equal(t, "set", cmd.Name())
		require.Equal(t, notice, cmd.Args()[2])
		var left time.Duration
		switch unit := cmd.Args()[3]; unit {
		case "px":
			left = time.Duration(cmd.Args()[4].(int64)) * time.Millisecond
		case "ex":
			left = time.Duration(cmd.Args()[4].(int64)) * time.Second
		}
		require.Positive(t, left, "%v", cmd.Args())
		require.LessOrEqual(t, left.Milliseconds(), min(n.Left, maxKept.Milliseconds()))
	})
}
