package spillover_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover"
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
		begun := time.Now()
		sent := formTo(t, spillover.Azure, "/openai/v1/images/edits", "multipart/form-data; boundary=b", text)
		require.Contains(t, sent.Path, "/n/", "the model was found")
		return time.Since(begun)
	}
	const quadratic, linear = 16, 4
	small, large := took(256<<10), took(1<<20)
	for i := 0; i < 50 && large >= 3*linear*small; i++ {
		small, large = min(small, took(256<<10)), min(large, took(1<<20)) // other programs only make it longer
	}
	require.Less(t, large, 3*linear*small, "of a quadratic time it would be %d", quadratic)
}
