package browser_test

import (
	"bytes"
	"flag"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the screenshots in docs")

// The pictures in docs show the scene: go test -run TestScreenshots -update. They depend
// on fonts and on the version of the browser, so that they are not compared.
func TestScreenshots(t *testing.T) {
	if !*update {
		t.Skip("it writes the pictures: -update")
	}
	server := serve(t, scene(t))
	for _, shot := range []struct {
		file          string
		scheme        string
		width, height int64
		phone         bool
	}{
		{"../../docs/statuspage-light.png", "light", 1240, 0, false},
		{"../../docs/statuspage-dark.png", "dark", 1240, 0, false},
		{"../../docs/statuspage-phone.png", "light", 390, 1500, true},
	} {
		tab := open(t, options{
			width: shot.width, height: 900, scheme: shot.scheme, phone: shot.phone,
			// The clock stands still, so that a slow machine does not change countdowns.
			initScript: `{ const at = Date.now(); Date.now = () => at; }`,
		}, server.URL)
		tab.until(`document.querySelectorAll('.tier .spark path').length > 20`)
		height := shot.height
		if height == 0 {
			height = eval[int64](tab, `document.documentElement.scrollHeight`)
		}
		beyond := true
		picture := call(tab, page.CaptureScreenshot, page.CaptureScreenshotParams{
			Clip: &page.Viewport{Width: float64(shot.width), Height: float64(height), Scale: 1}, CaptureBeyondViewport: &beyond,
		}).Data
		small := compress(t, picture)
		require.Less(t, len(small), 150<<10, shot.file)
		require.NoError(t, os.WriteFile(shot.file, small, 0o644))
	}
}

// compress reduces a picture to the 256 colours that are used most.
func compress(t *testing.T, picture []byte) []byte {
	full, err := png.Decode(bytes.NewReader(picture))
	require.NoError(t, err)
	reduced := image.NewPaletted(full.Bounds(), palette(full))
	draw.Draw(reduced, full.Bounds(), full, full.Bounds().Min, draw.Src)
	var b bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, reduced))
	return b.Bytes()
}

// palette returns the colours that are used most, less than eight units apart in no
// channel from one that is in it already.
func palette(p image.Image) (all color.Palette) {
	counts := map[color.RGBA]int{}
	for y := p.Bounds().Min.Y; y < p.Bounds().Max.Y; y++ {
		for x := p.Bounds().Min.X; x < p.Bounds().Max.X; x++ {
			counts[color.RGBAModel.Convert(p.At(x, y)).(color.RGBA)]++
		}
	}
	for len(all) < 256 && len(counts) > 0 {
		var most color.RGBA
		for c, n := range counts {
			if n > counts[most] || n == counts[most] && less(c, most) {
				most = c
			}
		}
		all = append(all, most)
		for c := range counts {
			if near(c, most) {
				delete(counts, c)
			}
		}
	}
	return all
}

func near(a, b color.RGBA) bool {
	d := func(x, y uint8) int { return max(int(x), int(y)) - min(int(x), int(y)) }
	return max(d(a.R, b.R), d(a.G, b.G), d(a.B, b.B)) < 8
}

func less(a, b color.RGBA) bool {
	return int(a.R)<<16|int(a.G)<<8|int(a.B) < int(b.R)<<16|int(b.G)<<8|int(b.B)
}
