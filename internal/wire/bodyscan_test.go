package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wiretest"
)

func findModel(text []byte) (model string, at Span, found bool) {
	w := BodyScanner{Fields: UnknownSpec.Models}
	w.ReadJSON(text, "", nil)
	return w.Info.Model, w.Info.ModelSpan, w.Info.HasModel
}

func FuzzFindModel(f *testing.F) {
	for _, s := range wiretest.JSONTexts() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		model, at, found := findModel(text)
		if found {
			require.True(t, 0 < at.From && at.From < at.To && at.To <= len(text))
			var there string
			if json.Unmarshal(text[at.From:at.To], &there) == nil {
				require.Equal(t, there, model)
			}
		}
		var members map[string]json.RawMessage
		if json.Unmarshal(text, &members) != nil || members == nil {
			return
		}
		var want any
		_ = json.Unmarshal(members["model"], &want)
		name, _ := want.(string)
		require.Equal(t, members["model"] != nil, found)
		require.Equal(t, name, model)
	})
}

func FuzzRequestPositions(f *testing.F) {
	for i, s := range append(wiretest.JSONTexts(), wiretest.ResponsesBody, `{"model":"m","input":[{"type":"item_reference","id":"msg_1"}]}`, `{"input":[{"id":"a"},{"id":"b","role":"user"},[{"id":"c"}]],"tools":[{"container":"x","vector_store_ids":["y",["z"]]}],"conversation":{"id":"w"}}`) {
		f.Add([]byte(s), i)
	}
	specs := append([]*Spec{UnknownSpec}, operationTree.find("responses").specs[0], operationTree.find("realtime/client_secrets").specs[0], operationTree.find("threads/runs").specs[0])
	f.Fuzz(func(t *testing.T, text []byte, which int) {
		spec := specs[uint(which)%uint(len(specs))]
		w := BodyScanner{Fields: spec.Body, MaxIDs: MaxIDs}
		w.ReadJSON(text, "m", nil)
		require.LessOrEqual(t, len(w.IDs), MaxIDs)
		for _, s := range []Span{w.Info.ModelSpan, w.Info.SecondModel.Span, w.Info.MemberSpan} {
			require.True(t, 0 <= s.From && s.From <= s.To && s.To <= len(text))
		}
		if !json.Valid(text) || !w.Info.HasModel {
			return
		}
		after := string(text[:w.Info.ModelSpan.From]) + `"x"` + string(text[w.Info.ModelSpan.To:])
		require.True(t, json.Valid([]byte(after)), after)
		if w.Info.MemberSpan.To > 0 {
			after = string(text[:w.Info.MemberSpan.From]) + string(text[w.Info.MemberSpan.To:])
			require.True(t, json.Valid([]byte(after)) || strings.Count(string(text), "odel") > 1 || bytes.Contains(text, []byte(`\`)), after)
		}
		// ReadStream finds it at the same place.
		var s BodyScanner
		s.Fields, s.MaxIDs = spec.Body, MaxIDs
		require.NoError(t, s.ReadStream(bytes.NewReader(text)))
		if len(w.Info.Model) > 0 && len(w.Info.Model) < MaxModelName && !bytes.Contains(text, []byte(`\`)) {
			require.Equal(t, w.Info.Model, s.Info.Model, "%s", text)
			require.Equal(t, w.Info.ModelSpan, s.Info.ModelSpan)
		}
	})
}

// ReadStream finds the same as ReadJSON, whatever the size of the pieces, except for
// items: whether an item is a reference depends on the whole element.
func TestReadStreamFindsTheSameAsReadJSON(t *testing.T) {
	for path, text := range map[string]string{
		"responses":                    wiretest.ResponsesBody,
		"realtime/client_secrets":      `{"session":{"audio":{"input":{"transcription":{"model":"n"}},"output":{"voice":{"id":"voice-1"}}},"model":"m","prompt":{"id":"p"}}}`,
		"threads/runs":                 `{"assistant_id":"asst-1","thread":{"messages":[{"attachments":[{"file_id":"file-1"},{"file_id":"file-2"}]}]},"model":"m"}`,
		"vector_stores/{vs}/files":     `{"file_id":"file-1"}`,
		"uploads/{upload_id}/complete": `{"part_ids":["a","b",["c"],"d"],"background":"true"}`,
	} {
		spec := operationTree.find(path).specs[0]
		whole := BodyScanner{Fields: spec.Body, MaxIDs: MaxIDs}
		whole.ReadJSON([]byte(text), "", nil)
		var ids []ObjectID
		for _, id := range whole.IDs {
			if !id.Item {
				ids = append(ids, id)
			}
		}
		for _, src := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)), iotest.HalfReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
			w := BodyScanner{Fields: spec.Body, MaxIDs: MaxIDs}
			require.NoError(t, w.ReadStream(src))
			require.Equal(t, ids, w.IDs, path)
			require.Equal(t, []any{whole.Info.Model, whole.Info.ModelSpan, whole.Info.SecondModel, whole.Info.Background},
				[]any{w.Info.Model, w.Info.ModelSpan, w.Info.SecondModel, w.Info.Background}, path)
		}
	}
}

func BenchmarkFindModel(b *testing.B) {
	for _, size := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("%dKiB", size), func(b *testing.B) {
			// The model is last, as openai-go writes it.
			body := []byte(`{"messages":[{"role":"user","content":"` + strings.Repeat("all work and no play ", size<<10/21) + `"}],"model":"gpt-4o"}`)
			b.ReportAllocs()
			for b.Loop() {
				findModel(body)
			}
		})
	}
}

func TestReadJSON(t *testing.T) {
	for text, want := range map[string]BodyInfo{
		`{"max_tokens":5,"max_output_tokens":9}`:    {HasMaxTokens: true, MaxOutput: 9},
		`{"max_completion_tokens":"many"}`:          {HasMaxTokens: true},
		`{"prompt_cache_key":"a\u0062"}`:            {PromptCacheKey: "ab"},
		`{"background":true,"stream":true}`:         {Background: true, Stream: true},
		`{"background":"true","stream":false}`:      {},
		`{"store":true}`:                            {StoresResponse: true},
		`{"audio":{"voice":"alloy"},"store":false}`: {StoresResponse: true},
		`{"temperature":1,"user":"x"}`:              {PresentFields: 1<<0 | 1<<2},
		`{"stor\u0065":true}`:                       {StoresResponse: true},
	} {
		w := BodyScanner{Fields: UnknownSpec.Models}
		w.ReadJSON([]byte(text), "", []string{"temperature", "top_p", "user"})
		want.CanInsert, want.HasMembers, want.InsertAt = true, true, 1
		require.Equal(t, want, w.Info, text)
	}
	for _, text := range []string{"", " ", "[]", "null", `"model"`} {
		w := BodyScanner{Fields: UnknownSpec.Models}
		w.ReadJSON([]byte(text), "", nil)
		require.Zero(t, w.Info, text)
	}
}

// A model with its separator can be removed, wherever it is in the object.
func TestMemberSpanIncludesTheSeparator(t *testing.T) {
	for text, want := range map[string]string{`{"model":"m","a":1}`: `{"a":1}`, `{"a":1, "model":"m"}`: `{"a":1}`, `{"model":"m"}`: `{}`} {
		w := BodyScanner{Fields: UnknownSpec.Models}
		w.ReadJSON([]byte(text), "", nil)
		require.Equal(t, want, text[:w.Info.MemberSpan.From]+text[w.Info.MemberSpan.To:])
	}
}

// Of several models the first in the table decides, in whatever order the body has them.
func TestModelPrecedence(t *testing.T) {
	models := newFieldTree("a.model b.model", "")
	for _, text := range []string{`{"a":{"model":"first"},"b":{"model":"second"}}`, `{"b":{"model":"second"},"a":{"model":"first"}}`} {
		w := BodyScanner{Fields: models}
		w.ReadJSON([]byte(text), "first", nil)
		require.Equal(t, []string{"first", "second"}, []string{w.Info.Model, w.Info.SecondModel.Model})
		require.Equal(t, []int{1, 2}, []int{w.Info.ModelPrecedence, w.Info.SecondModel.Precedence})
		require.Equal(t, `"second"`, string(w.Info.SecondModel.Span.in([]byte(text))))
	}
}

// A model that is known already is not allocated again.
func TestKnownModelIsNotAllocated(t *testing.T) {
	known := func(name []byte) string {
		if string(name) == "gpt-4o" || string(name) == `a\u0041` {
			return "known"
		}
		return ""
	}
	for value, want := range map[string]string{`"gpt-4o"`: "known", `"other"`: "other", `"a\u0041"`: "aA", `7`: "", `"`: ""} {
		w := BodyScanner{Fields: UnknownSpec.Models, KnownModel: known}
		w.ReadJSON([]byte(`{"model":`+value+`}`), "", nil)
		require.Equal(t, want, w.Info.Model, value)
	}
	w := BodyScanner{Fields: UnknownSpec.Models, KnownModel: known}
	text := []byte(`{"model":"gpt-4o"}`)
	require.Zero(t, testing.AllocsPerRun(100, func() { w.ReadJSON(text, "", nil) }))
}

// A body that is cut off has the ids that come before the cut.
func TestBodyIsReadUpToTheCut(t *testing.T) {
	read := func(text string) BodyScanner {
		w := BodyScanner{Fields: operationTree.find("responses").specs[0].Body, MaxIDs: MaxIDs}
		w.ReadJSON([]byte(text), "", nil)
		return w
	}
	whole := read(wiretest.ResponsesBody)
	require.Equal(t, "m", whole.Info.Model)
	require.Len(t, whole.IDs, 13)
	for i := range len(wiretest.ResponsesBody) {
		w := read(wiretest.ResponsesBody[:i])
		require.Equal(t, i > len(`{"model":"m"`)-1, w.Info.HasModel, i)
		require.LessOrEqual(t, len(w.IDs), len(whole.IDs))
		require.Equal(t, whole.IDs[:len(w.IDs)], append([]ObjectID{}, w.IDs...), i)
	}
}

func TestIDsAreBounded(t *testing.T) {
	w := BodyScanner{Fields: operationTree.find("responses").specs[0].Body, MaxIDs: 3}
	w.ReadJSON([]byte(`{"tools":[{"vector_store_ids":["a","b","c","d"]}]}`), "", nil)
	require.Len(t, w.IDs, 3)
}

func TestReadStreamReturnsTheErrorOfTheBody(t *testing.T) {
	w := BodyScanner{Fields: UnknownSpec.Body}
	require.ErrorIs(t, w.ReadStream(iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF)
}

func TestUploadHasNoFieldsToSearch(t *testing.T) {
	require.True(t, ParsePath("/v1/files").Spec("POST").Form.IsEmpty())
	require.False(t, ParsePath("/v1/audio/transcriptions").Spec("POST").Form.IsEmpty())
}

// The hash is fixed, as processes of different versions must agree.
func TestHashPrompt(t *testing.T) {
	for name, test := range map[string]struct {
		body  string
		bytes int
		want  uint32 // FNV-1a of the bytes
	}{
		"messages":          {`{"model":"m","messages":"foobar"}`, 4, fnvOf(`"foo`)},
		"whole":             {`{"prompt":"foobar"}`, 8, fnvOf(`"foobar"`)},
		"shorter":           {`{"prompt":"foobar"}`, 9, 0},
		"instructions":      {`{"input":"bar","instructions":"foo"}`, 7, fnvOf(`"foo""b`)},
		"only instructions": {`{"input":"bar","instructions":"foo"}`, 2, fnvOf(`"f`)},
		"none":              {`{"model":"m"}`, 1, 0},
		"not JSON":          {`messages`, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := BodyScanner{Fields: &fieldNode{}}
			w.ReadJSON([]byte(test.body), "", nil)
			w.HashPrompt(test.bytes)
			require.Equal(t, test.want, w.Info.PromptHash)
		})
	}
}

func fnvOf(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s))
	return h.Sum32()
}
