package lab

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// A chart is drawn as SVG: lines over labelled positions, or groups of bars.
type chart struct {
	title, about string // what is shown, and how to read it
	labels       []string
	x            string
	bars         bool
	format       string // of the numbers on the axis
	top          float64
	series       []series
	goal         float64 // a dashed line; 0: none
}

type series struct {
	name   string
	values []float64
}

// colors tell the policies apart, ours in front.
var colors = map[string]string{
	"spillover": "#0b57d0", "spillover + utilization": "#6ea8fe", "random": "#d9480f", "ring": "#e8a100",
	"counted": "#2b8a3e", "shuffle": "#9c36b5", "fallback": "#868e96", "walk": "#0b7285", "oracle": "#212529",
}

const (
	width, height            = 820.0, 380.0
	left, right, over, under = 60.0, 190.0, 56.0, 46.0
)

func (c chart) svg() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="system-ui, sans-serif" font-size="12" role="img">`, width, height)
	p(`<title>%s</title><rect width="100%%" height="100%%" fill="#fff"/>`, html.EscapeString(c.title))
	p(`<text x="14" y="22" font-size="15" font-weight="600">%s</text>`, html.EscapeString(c.title))
	p(`<text x="14" y="40" fill="#555">%s</text>`, html.EscapeString(c.about))
	top := c.ceiling()
	for i := range 5 {
		v := top * float64(i) / 4
		p(`<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#e3e6ea"/>`, left, width-right, c.y(v), c.y(v))
		p(`<text x="%g" y="%.1f" text-anchor="end" fill="#555">%s</text>`, left-8, c.y(v)+4, fmt.Sprintf(c.format, v))
	}
	every := (len(c.labels) + 11) / 12
	for i, label := range c.labels {
		if i%every == 0 {
			p(`<text x="%.1f" y="%.1f" text-anchor="middle" fill="#555">%s</text>`, c.at(i), height-under+18, html.EscapeString(label))
		}
	}
	p(`<text x="%.1f" y="%.1f" text-anchor="middle" fill="#555">%s</text>`, (left+width-right)/2, height-10, html.EscapeString(c.x))
	if c.goal > 0 {
		p(`<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#000" stroke-dasharray="5 4"/>`, left, width-right, c.y(c.goal), c.y(c.goal))
	}
	for i := range slices.Backward(c.series) { // the first is drawn last, in front
		if c.bars {
			c.drawBars(p, i)
		} else {
			c.drawLine(p, i)
		}
		c.legend(p, i)
	}
	p(`</svg>`)
	return b.String()
}

// ceiling is the top of the axis: given, or a round number above all values.
func (c chart) ceiling() float64 {
	if c.top > 0 {
		return c.top
	}
	high := c.goal
	for _, s := range c.series {
		for _, v := range s.values {
			if !math.IsNaN(v) {
				high = max(high, v)
			}
		}
	}
	step := math.Pow(10, math.Floor(math.Log10(max(high, 1e-6))))
	for _, m := range []float64{1, 2, 4, 6, 8, 10} {
		if m*step >= high {
			return m * step
		}
	}
	return high
}

func (c chart) y(v float64) float64 {
	return height - under - min(v, c.ceiling())/c.ceiling()*(height-under-over)
}

// at is the middle of a label's place.
func (c chart) at(i int) float64 {
	return left + (float64(i)+0.5)*(width-left-right)/float64(len(c.labels))
}

func (c chart) drawLine(p func(string, ...any), i int) {
	s := c.series[i]
	var points []string
	for k, v := range s.values {
		if !math.IsNaN(v) {
			points = append(points, fmt.Sprintf("%.1f,%.1f", c.at(k), c.y(v)))
		}
	}
	stroke := 1.6
	if i == 0 {
		stroke = 3
	}
	p(`<polyline points="%s" fill="none" stroke="%s" stroke-width="%g" stroke-linejoin="round"/>`, strings.Join(points, " "), colors[s.name], stroke)
	if len(s.values) <= 12 {
		for _, point := range points {
			x, y, _ := strings.Cut(point, ",")
			p(`<circle cx="%s" cy="%s" r="3" fill="%s"/>`, x, y, colors[s.name])
		}
	}
}

func (c chart) drawBars(p func(string, ...any), i int) {
	s := c.series[i]
	place := (width - left - right) / float64(len(c.labels))
	bar := place * 0.86 / float64(len(c.series))
	for k, v := range s.values {
		if math.IsNaN(v) {
			continue
		}
		x := c.at(k) - place*0.43 + bar*float64(i)
		p(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>`,
			x, c.y(v), bar*0.9, height-under-c.y(v), colors[s.name], html.EscapeString(fmt.Sprintf("%s: %.3g", s.name, v)))
		if len(c.series)*len(c.labels) <= 24 {
			p(`<text x="%.1f" y="%.1f" font-size="9" text-anchor="middle" fill="#333">%.2g</text>`, x+bar*0.45, c.y(v)-3, v)
		}
	}
}

func (c chart) legend(p func(string, ...any), i int) {
	y := over + 8 + 20*float64(i)
	p(`<rect x="%g" y="%g" width="12" height="12" fill="%s"/>`, width-right+18, y, colors[c.series[i].name])
	p(`<text x="%g" y="%g">%s</text>`, width-right+36, y+10, html.EscapeString(c.series[i].name))
}
