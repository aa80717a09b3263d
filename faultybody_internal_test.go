package spillover

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/replay"
	"github.com/spillover-go/spillover/internal/wire"
	"github.com/spillover-go/spillover/internal/wiretest"
)

// A body is read up to where it breaks off: what was found is the beginning of
// what is in the whole, and all else is for the service to say.
func TestBodyThatBreaksOff(t *testing.T) {
	read := func(text string) (string, []wire.ObjectID) {
		r := &request{Request: posts(t, http.MethodPost, "https://foo.example/v1/responses", text)}
		r.body = replay.New(r.Body)
		require.NoError(t, r.read())
		return r.model, r.ids
	}
	model, ids := read(wiretest.ResponsesBody)
	require.Equal(t, "m", model)
	var all []string
	for _, id := range ids {
		all = append(all, id.ID)
	}
	require.Equal(t, []string{"file-1", "item-1", "item-2", "file-2", "item-3", "vs-1", "vs-2", "file-3", "file-4", "cntr-1", "conv-1", "pmpt-1", "resp-1"}, all)

	n := newNet()
	tr := balance(t, n, to("https://b", OpenAI, ""))
	for i := 1; i <= len(wiretest.ResponsesBody); i++ {
		for _, text := range []string{wiretest.ResponsesBody[:i], wiretest.ResponsesBody[:i] + "}", wiretest.ResponsesBody[:i] + `"`} {
			found, some := read(text)
			require.Equal(t, i >= len(`{"model":"m"`) || found != "", found == "m", text)
			require.LessOrEqual(t, len(some), len(ids)+1, text)
			for j, id := range some[:min(len(some), max(0, len(ids)-1))] {
				if text == wiretest.ResponsesBody[:i] {
					require.Equal(t, ids[j], id, text)
				}
			}
			send(t, tr, posts(t, http.MethodPost, "https://foo.example/v1/responses", text))
			require.Equal(t, text, n.Last().Body)
		}
	}
}

// Of very many ids some are looked at.
func TestIDsOfARequestAreBounded(t *testing.T) {
	for _, text := range []string{
		`{"model":"m","tools":[{"vector_store_ids":[` + strings.Repeat(`"vs",`, 10_000) + `"last"]}]}`,
		`{"model":"m","input":[` + strings.Repeat(`{"id":"x"},`, 10_000) + `{}]}`,
	} {
		r := &request{Request: posts(t, http.MethodPost, "https://foo.example/v1/responses", text)}
		r.body = replay.New(r.Body)
		require.NoError(t, r.read())
		require.Len(t, r.ids, wire.MaxIDs)
		require.Equal(t, "m", r.model)
	}
}
