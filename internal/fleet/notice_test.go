package fleet

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestNoticeIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`[0-9a-f]{8}`)
		n := Notice{
			Version: 1, Kind: rapid.SampledFrom([]Kind{Throttled, Ejected, Recovered, Utilization, Drained, Resumed}).Draw(t, "kind"),
			Place: PlaceOf(rapid.String().Draw(t, "namespace"), rapid.SliceOf(rapid.String()).Draw(t, "parts")...), From: digits.Draw(t, "from"),
			LeftMS: rapid.Int64Range(0, maxDuration.Milliseconds()).Draw(t, "left"), AgeMS: rapid.Int64Range(0, maxDuration.Milliseconds()).Draw(t, "age"),
			Cause: rapid.SampledFrom([]string{"", "no connection", "credential"}).Draw(t, "cause"), Streak: rapid.IntRange(0, 1000).Draw(t, "streak"),
			Utilization: rapid.Int64Range(0, 10_000).Draw(t, "utilization"),
		}
		if rapid.Bool().Draw(t, "contradicts") {
			n.Contradicts = digits.Draw(t, "contradicted")
		}
		text := n.Append(nil)
		require.LessOrEqual(t, len(text), MaxNotice)
		read, err := Parse(text)
		require.NoError(t, err)
		require.Equal(t, n, read)
	})
}

func TestWhatIsNoNoticeIsNotRead(t *testing.T) {
	const good = `{"v":1,"k":"throttled","p":"0123456789abcdef","f":"01234567","l":1000}`
	_, err := Parse([]byte(good))
	require.NoError(t, err)
	for name, text := range map[string]string{
		"empty":               "",
		"not JSON":            "spillover",
		"another version":     strings.Replace(good, `"v":1`, `"v":2`, 1),
		"no version":          strings.Replace(good, `"v":1,`, "", 1),
		"an unknown kind":     strings.Replace(good, "throttled", "deleted", 1),
		"a short place":       strings.Replace(good, "0123456789abcdef", "0123", 1),
		"a place with a name": strings.Replace(good, "0123456789abcdef", "ptu.openai.azure", 1),
		"upper case":          strings.Replace(good, "abcdef", "ABCDEF", 1),
		"no sender":           strings.Replace(good, "01234567\"", "\"", 1),
		"a contradicted name": strings.Replace(good, `"l":1000`, `"o":"x"`, 1),
		"a fraction":          strings.Replace(good, "1000", "1.5", 1),
		"too large":           strings.Replace(good, "}", strings.Repeat(" ", 256)+"}", 1),
	} {
		_, err := Parse([]byte(text))
		require.Error(t, err, name)
	}
}

func TestDurationsAreBounded(t *testing.T) {
	for text, want := range map[string]time.Duration{"-5": 0, "0": 0, "9223372036854775807": maxDuration, "5": 5 * time.Millisecond} {
		n, err := Parse([]byte(`{"v":1,"k":"ejected","p":"0123456789abcdef","f":"01234567","l":` + text + `,"a":` + text + `}`))
		require.NoError(t, err)
		require.Equal(t, want, n.Left())
		require.Equal(t, want, n.Age())
	}
}

// Places differ if any part or the namespace does, also where the parts could be cut in
// another way.
func TestPlacesDiffer(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range []string{
		PlaceOf(""), PlaceOf("a"), PlaceOf("", "a"), PlaceOf("", "a", "b"), PlaceOf("", "ab"), PlaceOf("", "b", "a"), PlaceOf("a", "b"), PlaceOf("", "a", ""),
	} {
		require.Len(t, p, placeLength)
		require.False(t, seen[p])
		seen[p] = true
	}
	require.Equal(t, PlaceOf("n", "a", "b"), PlaceOf("n", "a", "b"))
}

func TestSenderHasEightDigits(t *testing.T) {
	require.Equal(t, "00000000", SenderOf(0))
	require.Equal(t, "ffffffff", SenderOf(math.MaxUint64))
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"v":1,"k":"throttled","p":"0123456789abcdef","f":"01234567","l":1000}`))
	f.Add([]byte(`{"v":1,"k":"utilization","p":"0123456789abcdef","f":"01234567","u":990,"a":-1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := Parse(text)
		if err != nil {
			require.Zero(t, n)
			return
		}
		require.LessOrEqual(t, n.Left(), maxDuration)
		require.GreaterOrEqual(t, n.Age(), time.Duration(0))
		require.Len(t, n.Place, placeLength)
	})
}
