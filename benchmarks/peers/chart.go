package main

import (
	"bytes"
	"image/color"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A chart shows how a cost grows, with logarithmic axes: a line of slope one is linear growth.
type chart struct {
	file, title, x, y string
	lines             []line
}

type line struct {
	name   string
	points plotter.XYs
}

// colors are those of the lines that charts share.
var colors = map[string]color.Color{
	bare: rgb(0x868e96), cloned: rgb(0x212529), "oauth2.Transport": rgb(0x0b7285), "otelhttp": rgb(0xe8a100), roundRob: rgb(0x2b8a3e),
	"failsafe-go": rgb(0xd9480f), "go-retryablehttp": rgb(0x9c36b5), ours: rgb(0x0b57d0), oursNamed: rgb(0x6ea8fe), inSession: rgb(0x6ea8fe),
}

func rgb(v uint32) color.Color { return color.RGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255} }

// newChart has a line for each candidate of a series.
func newChart(file, title, x, y string, s series, of func(usage) float64) chart {
	c := chart{file: file, title: title, x: x, y: y}
	for _, name := range s.comparisons[0].names() {
		l := line{name: name}
		for i, v := range s.values {
			l.points = append(l.points, plotter.XY{X: float64(v), Y: of(s.comparisons[i].of(name))})
		}
		c.lines = append(c.lines, l)
	}
	return c
}

func microseconds(u usage) float64 { return float64(u.Clock.Nanoseconds()) / 1e3 }

func (c chart) write(dir string) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, c.y
	p.BackgroundColor = color.White
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = decades{}, decades{}
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Left = true, true
	for i, l := range c.lines {
		drawn, points, err := plotter.NewLinePoints(l.points)
		if err != nil {
			return err
		}
		c := colors[l.name]
		if c == nil {
			c = plotutil.Color(i)
		}
		drawn.Color, points.Color, points.Shape = c, c, plotutil.Shape(i)
		if l.name == ours || l.name == cloned {
			drawn.Width = vg.Points(2.5)
		}
		p.Add(drawn, points)
		p.Legend.Add(l.name, drawn, points)
	}
	// Room for the legend above the lines.
	p.Y.Max *= 30
	canvas := vgsvg.New(8*vg.Inch, 5*vg.Inch)
	p.Draw(draw.New(canvas))
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	return os.WriteFile(dir+"/"+c.file, svg.Bytes(), 0o644)
}

// decades marks the axes at powers of ten.
type decades struct{}

func (decades) Ticks(low, high float64) []plot.Tick {
	var all []plot.Tick
	for _, t := range (plot.LogTicks{Prec: -1}).Ticks(low, high) {
		if t.Label != "" {
			t.Label = strconv.FormatFloat(t.Value, 'f', -1, 64)
		}
		all = append(all, t)
	}
	return all
}
