package wire

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// specEvent is the name and the data of an event by the HTML standard.
func specEvent(event string) (name, data string) {
	event = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(event, "\ufeff"))
	var lines []string
	for line := range strings.SplitSeq(event, "\n") {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "data":
			lines = append(lines, value)
		}
	}
	return name, strings.Join(lines, "\n")
}

// The events of a stream are the same in whatever pieces it arrives. Together they are
// the stream, and each is parsed as the HTML standard says.
func FuzzEvents(f *testing.F) {
	for _, s := range []string{
		"", "data: a\n\ndata: b\r\n\r\nevent: c\rdata\r\r", ": comment\n\n\n\n", "\ufeffdata:{}\n\n", "{\"error\":{}}", "data: [DONE]", "event:a\nevent: b\ndata:  x\ndata:y\n\n", "\r\n\r\n\n\r",
	} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(5))
	}
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		split := func(pieces ...[]byte) (events [][]byte) {
			var r EventReader
			for _, piece := range pieces {
				for event := range r.Events(piece) {
					events = append(events, bytes.Clone(event))
				}
			}
			return append(events, append([]byte{}, r.Partial...))
		}
		whole := split(stream)
		require.Equal(t, whole, split(slices.Collect(slices.Chunk(stream, 1+int(size)))...))
		require.Equal(t, string(stream), string(slices.Concat(whole...)))
		for _, event := range whole {
			name, data := ParseEvent(event)
			require.True(t, bytes.Contains(event, name))
			if text := strings.TrimLeft(strings.TrimPrefix(string(event), "\ufeff"), " \t\r\n"); !strings.HasPrefix(text, "{") {
				wantName, wantData := specEvent(string(event))
				require.Equal(t, wantName, string(name), "%q", event)
				require.Equal(t, wantData, string(data), "%q", event)
			}
		}
	})
}
