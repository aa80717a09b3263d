package wire

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wiretest"
)

// oracleStrings finds the ids at the places of a tree with encoding/json.
func oracleStrings(n *fieldNode, v any, id *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range n.children {
			if value, ok := v[key]; ok {
				oracleStrings(child, value, id)
			}
		}
	case []any:
		for _, e := range v {
			if _, nested := e.([]any); !nested {
				oracleStrings(n, e, id)
			}
		}
	case string:
		if n.isID && IsID(v) {
			*id = append(*id, v)
		}
	}
}

func FuzzAnswerIDs(f *testing.F) {
	for i, s := range append(wiretest.JSONTexts(), wiretest.ResponsesBody, "data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\"}}\n\n", `{"data":[{"id":"a"},[{"id":"b"}],"c"],"conversation":"x","id":"\\\"","session":{"id":"\u0061"}}`,
		"data: {\"id\":\"cut\n\ndata: {\"response\":{\"id\":\"r\"}}\n\n", `{"result_files":["f",["g"],{"id":"h"}]}`) {
		f.Add([]byte(s), i, i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, text []byte, size int, stream bool) {
		find := func(piece int) (ids []string) {
			r := &IDScanner{scanner: jsonScanner{root: responseTree, limit: MaxIDLength + 2, eventStream: stream}}
			for rest := text; len(rest) > 0; {
				n := min(piece, len(rest))
				r.Scan(rest[:n], func(id ObjectID) {
					require.True(t, IsID(id.ID))
					ids = append(ids, id.ID)
				})
				rest = rest[n:]
				require.LessOrEqual(t, cap(r.scanner.buf), 4*MaxIDLength+64)
			}
			return ids
		}
		whole := find(max(1, len(text)))
		require.Equal(t, whole, find(1+int(uint(size)%9)), "in pieces")
		var v any
		if stream || json.Unmarshal(text, &v) != nil || bytes.Contains(text, []byte(`\`)) {
			return
		}
		var want []string
		oracleStrings(responseTree, v, &want)
		for _, id := range want {
			require.Contains(t, whole, id)
		}
	})
}

func TestPathIDs(t *testing.T) {
	for path, want := range map[string][]ObjectID{
		"/v1/files/file-1/content":               {{ID: "file-1"}},
		"/v1/responses/input_tokens":             nil,
		"/v1/threads/t_1/runs/r_1":               {{ID: "t_1"}, {ID: "r_1"}},
		"/v1/conversations/c_1/items/i_1":        {{ID: "c_1"}, {ID: "i_1", Item: true}},
		"/v1/skills/s_1/versions/2":              {{ID: "s_1"}},
		"/v1/models/gpt":                         {{ID: "gpt", Uncertain: true}},
		"/v1/unknown/words/x_1":                  {{ID: "words", Uncertain: true}, {ID: "x_1"}},
		"/v1/files/" + strings.Repeat("x", 1000): nil,
		"/v1/files/%zz":                          nil,
		"/not/openai":                            nil,
	} {
		require.Equal(t, want, ParsePath(path).PathIDs("GET"), path)
	}
}

func TestQueryIDs(t *testing.T) {
	target := ParsePath("/v1/files")
	require.Equal(t, []ObjectID{{ID: "file-1"}, {ID: "run-1"}}, target.QueryIDs("GET", "after=file-1&limit=5&run_id=run-1&before=%zz"))
	require.Equal(t, []ObjectID{{ID: "file-1"}}, target.QueryIDs("", "after=file-1"))
	require.Empty(t, target.QueryIDs("POST", "after=file-1"))
	require.Empty(t, target.QueryIDs("GET", ""))
	require.Empty(t, ParsePath("/v1/nothing/known").QueryIDs("GET", "after=file-1"))
}

func TestHeaderIDs(t *testing.T) {
	var ids []string
	HeaderIDs(http.Header{
		"Location":           {"https://b.openai.azure.com/openai/v1/realtime/calls/rtc_1?x=y"},
		"Operation-Location": {"%zz://\x7f"},
		"Openai-Call-Id":     {"rtc_2"},
		"X-Openai-Call-Id":   {"no id"},
	}, func(id string) { ids = append(ids, id) })
	require.Equal(t, []string{"rtc_1", "rtc_2"}, ids)
}

func TestIDScanner(t *testing.T) {
	scan := func(items, stream bool, text string) (ids []ObjectID) {
		NewIDScanner(items, stream).Scan([]byte(text), func(id ObjectID) { ids = append(ids, id) })
		return ids
	}
	require.Equal(t, []ObjectID{{ID: "resp_1"}, {ID: "msg_1", Item: true}}, scan(false, false, `{"id":"resp_1","output":[{"id":"msg_1"}],"conversation":7}`))
	require.Equal(t, []ObjectID{{ID: "msg_1", Item: true}}, scan(true, false, `{"data":[{"id":"msg_1"}]}`))
	require.Equal(t, []ObjectID{{ID: "resp_1"}}, scan(false, true, "data: {\"response\":{\"id\":\"resp_1\"}}\n\ndata: {\"response\":{\"id\":\"resp_1\"}}\n\n"), "once, although it is repeated")
	require.Empty(t, scan(false, false, `{"id":"auto","data":[{"id":"none"},{"id":""}]}`))
}
