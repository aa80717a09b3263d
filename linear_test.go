package spillover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A form of many small parts is read in a time that grows with its length, not
// with its square.
func TestFormsOfSmallPartsAreReadInLinearTime(t *testing.T) {
	form := func(size int) string {
		part := "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n"
		return strings.Repeat(part, size/len(part)) + "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n"
	}
	took := func(size int) time.Duration {
		text := form(size)
		var times []time.Duration
		for range 5 {
			begun := time.Now()
			sent := formTo(t, Azure, "/openai/v1/images/edits", "multipart/form-data; boundary=b", text)
			times = append(times, time.Since(begun))
			require.Contains(t, sent.path, "/n/", "the model was found")
		}
		return slices.Min(times) // other programs only make it longer
	}
	small, large := took(256<<10), took(1<<20)
	require.Less(t, large, 3*4*small, "a quadratic time would be 16 times as long")
}
