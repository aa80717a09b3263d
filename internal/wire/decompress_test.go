package wire

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spillover-go/spillover/internal/wiretest"
)

// A compressed response that decodes to far more than its size is not decoded further.
func TestDecompressorStopsAtMaxInflationRatio(t *testing.T) {
	text := wiretest.Compress(t, "gzip", strings.Repeat("\x00", 64<<20))[0]
	var decoded int64
	d := NewDecompressor("gzip", func(p []byte) bool { decoded += int64(len(p)); return true })
	defer d.Close()
	require.False(t, d.Feed([]byte(text)))
	require.LessOrEqual(t, decoded, inflationAllowance+maxInflationRatio*int64(len(text))+4<<10)
	const limit = 64 << 10
	require.Len(t, Decompress(http.Header{"Content-Encoding": {"gzip"}}, []byte(text), limit), limit)
}

// However a compressed response is cut into pieces, it is decoded the same way as at once.
func FuzzDecompressor(f *testing.F) {
	for _, encoding := range []string{"gzip", "deflate", ""} {
		f.Add([]byte(strings.Join(wiretest.Compress(f, encoding, "data: {\"choices\":[]}\n\n", "data: [DONE]\n\n"), "")), uint8(3), encoding == "gzip")
		f.Add([]byte(strings.Join(wiretest.Compress(f, encoding, `{"error":{"code":"429"}}`), "")), uint8(200), encoding == "gzip")
	}
	f.Add([]byte("\x1f\x8b"), uint8(1), true)
	f.Fuzz(func(t *testing.T, text []byte, size uint8, zipped bool) {
		encoding := "deflate"
		if zipped {
			encoding = "gzip"
		}
		decode := func(size int) (plain []byte) {
			d := NewDecompressor(encoding, func(p []byte) bool { plain = append(plain, p...); return true })
			defer d.Close()
			for piece := range slices.Chunk(text, size) {
				if !d.Feed(piece) {
					break
				}
			}
			return plain
		}
		whole, pieces := decode(max(len(text), 1)), decode(max(int(size), 1))
		if len(whole) < inflationAllowance {
			require.Equal(t, whole, pieces)
		}
		if plain, err := decompressed(text, zipped); err == nil && len(plain) < inflationAllowance {
			require.Equal(t, string(plain), string(whole))
		}
	})
}

// decompressed decodes a whole text with the standard library.
func decompressed(text []byte, zipped bool) ([]byte, error) {
	if zipped {
		r, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(io.LimitReader(r, inflationAllowance))
	}
	r, err := zlib.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, inflationAllowance))
}

func TestDecompressErrors(t *testing.T) {
	const text = `{"error":{"code":"429"}}`
	for _, encoding := range []string{"gzip", "x-gzip", "deflate", "raw"} {
		compressed := []byte(strings.Join(wiretest.Compress(t, encoding, text), ""))
		header := encoding
		if encoding == "raw" {
			header = " Deflate "
		}
		h := http.Header{"Content-Encoding": {header}}
		require.True(t, CanDecompress(h))
		require.Equal(t, text, string(Decompress(h, compressed, 1000)), encoding)
		require.Equal(t, text[:5], string(Decompress(h, compressed, 5)), encoding)
		require.Equal(t, text, string(Decompress(h, compressed[:len(compressed)-3], 1000)), "without its checksum: "+encoding)
		require.Empty(t, Decompress(h, nil, 1000))
	}
	for _, header := range []string{"", "Identity", "br", "gzip, br"} {
		h := http.Header{"Content-Encoding": {header}}
		require.Equal(t, text, string(Decompress(h, []byte(text), 1000)))
		require.Equal(t, header == "" || header == "Identity", CanDecompress(h), header)
	}
}

func TestClosedDecompressor(t *testing.T) {
	text := wiretest.Compress(t, "gzip", "a", "b")
	var decoded string
	d := NewDecompressor("gzip", func(p []byte) bool { decoded += string(p); return true })
	require.True(t, d.Feed([]byte(text[0])))
	d.Close()
	d.Close()
	require.True(t, d.Feed([]byte(text[1])))
	require.Equal(t, "a", decoded)

	d = NewDecompressor("deflate", func([]byte) bool { return false })
	require.True(t, d.Feed([]byte(wiretest.Compress(t, "deflate", "a")[0])), "out has ended the decoding")
	d.Close()
	d = NewDecompressor("gzip", func([]byte) bool { return true })
	require.False(t, d.Feed([]byte("this is not gzip")))
}
