package wire

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The maximum number of output tokens counts before the response is known.
func TestEstimateIncludesMaxTokens(t *testing.T) {
	for _, test := range []struct{ length, most, want int64 }{
		{4000, 500, 1500}, {4000, 0, 1000 + DefaultOutputTokens}, {0, 7, 7}, {-1, 100, 100}, {-1, 0, DefaultOutputTokens}, {3, -5, DefaultOutputTokens},
		{math.MaxInt64, math.MaxInt32, math.MaxInt64/4 + math.MaxInt32},
	} {
		require.Equal(t, test.want, EstimateTokens(test.length, test.most), test)
	}
}

// Images and audio count by their kind, and the caller's own counter replaces the estimate.
func TestEstimateOfABody(t *testing.T) {
	require.EqualValues(t, 1000/4+DefaultOutputTokens, (&BodyInfo{}).EstimateTokens(1000))
	require.EqualValues(t, 1000/4+765+5, (&BodyInfo{MediaBytes: 9000, MediaTokens: 765, MaxOutput: 5}).EstimateTokens(10_000))
	require.EqualValues(t, 77+5, (&BodyInfo{PromptTokens: 77, MaxOutput: 5, MediaTokens: 765}).EstimateTokens(10_000))
}

func TestIsForm(t *testing.T) {
	require.True(t, IsForm("Multipart/form-data; boundary=b"))
	require.False(t, IsForm("multipart"))
	require.False(t, IsForm("application/json"))
}

// A model is inserted as the body spells it.
func TestModelIsInsertedIntoABody(t *testing.T) {
	for _, c := range [][2]string{
		{`{}`, `{"model":"m\"x"}`},
		{` {"input":"x"}`, ` {"model":"m\"x","input":"x"}`},
	} {
		text, want := c[0], c[1]
		w := BodyScanner{Fields: UnknownSpec.Models}
		w.ReadJSON([]byte(text), "", nil)
		require.True(t, w.Info.CanInsert)
		require.False(t, w.Info.HasModel)
		require.Equal(t, want, text[:w.Info.InsertAt]+w.Info.ModelMember(`m"x`)+text[w.Info.InsertAt:])
	}
	require.Equal(t, `"m"`, (&BodyInfo{}).ModelText("m"))
	require.Equal(t, "m", (&BodyInfo{Boundary: "b"}).ModelText("m"))
	require.Equal(t, `"m"`, (&BodyInfo{Boundary: "b", ModelInJSON: true}).ModelText("m"))
}

func TestQuoteJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom([]rune("ab\"\\\n\x00\x1f\u2028é")))).Draw(t, "text")
		var got string
		require.NoError(t, json.Unmarshal([]byte(QuoteJSON(text)), &got))
		require.Equal(t, text, got)
	})
}
