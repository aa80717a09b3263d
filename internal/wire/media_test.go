package wire

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The estimate takes linear time, however audio and files are nested in a body.
func TestEstimateTakesLinearTime(t *testing.T) {
	for _, piece := range []string{`"input_audio":{"x":`, `"input_audio":{"x":[`, `"input_audio":{"data":{"input_audio":`, `"input_audio":{"x":"y","x":"y",`, `"file_data":"`, `;base64,data:`} {
		text := []byte(strings.Repeat(piece, 512<<10/len(piece)))
		began := time.Now()
		MediaTokens(text, RareKeys{Media: true})
		require.Less(t, time.Since(began), 2*time.Second, piece)
	}
}

// The tokens of data URLs and of base64 fields depend on their kind.
func TestMediaTokens(t *testing.T) {
	base64 := strings.Repeat("AAAA", 40_000) // 120 000 bytes
	for name, c := range map[string]struct {
		text string
		want int64
	}{
		"an image":            {`{"url":"data:image/png;base64,` + base64 + `"}`, ImageTokens},
		"a truncated image":   {`{"url":"data:image/png;base64,AAAA`, ImageTokens},
		"audio":               {`{"input_audio": {"format":"wav", "data":"` + base64 + `"}}`, 1 + 120_000/bytesPerAudioToken},
		"audio as a data URL": {`{"input_audio":{"data":"data:audio/mp3;base64,` + base64 + `"}}`, 1 + 120_000/bytesPerAudioToken},
		"text":                {`{"file_data":"data:text/plain;base64,` + base64 + `"}`, 120_000 / 4},
		"a document":          {`{"file_data":"` + base64 + `"}`, 2 * pageTokens},
		"no media":            {`{"input":"` + base64 + `;base64,"}`, 0},
		"a string":            {`{"input":"file_data","x":"input_audio"}`, 0},
		"audio without data":  {`{"input_audio":{"format":"wav"},"input_audio":[],"input_audio":{"a":1,"data":"AAAA"}}`, 0},
		"a key without colon": {`{"input_audio" x`, 0},
	} {
		tokens, length := MediaTokens([]byte(c.text), RareKeys{Media: true})
		require.InDelta(t, c.want, tokens, 2, name)
		require.Equal(t, tokens > 0, length > 0, name)
	}
}
