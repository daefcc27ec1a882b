package plots

import (
	"image"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// maxLog bounds the colour scale of relative loads: 1/8 to 8 in powers of two.
const maxLog = 3

const scaleLabel = "relative load r (1 = perfect balance), log2 scale"

// loadScale gives relative loads their colours, from starved (blue) over balanced (white) to overloaded (red), which all
// kinds of colour vision tell apart. It is RdBu of ColorBrewer (Brewer 2003), reversed.
var loadScale = gradient{
	{0x05, 0x30, 0x61, 0xff}, {0x21, 0x66, 0xac, 0xff}, {0x43, 0x93, 0xc3, 0xff}, {0x92, 0xc5, 0xde, 0xff},
	{0xd1, 0xe5, 0xf0, 0xff}, {0xf7, 0xf7, 0xf7, 0xff}, {0xfd, 0xdb, 0xc7, 0xff}, {0xf4, 0xa5, 0x82, 0xff},
	{0xd6, 0x60, 0x4d, 0xff}, {0xb2, 0x18, 0x2b, 0xff}, {0x67, 0x00, 0x1f, 0xff},
}

// gradient is a colour scale through evenly spaced colours.
type gradient []color.RGBA

// at returns the colour at a fraction of the scale.
func (g gradient) at(f float64) color.RGBA {
	f = max(0, min(1, f)) * float64(len(g)-1)
	i := min(int(f), len(g)-2)
	f -= float64(i)
	mix := func(a, b uint8) uint8 { return uint8(math.Round(float64(a) + f*(float64(b)-float64(a)))) }
	a, b := g[i], g[i+1]
	return color.RGBA{mix(a.R, b.R), mix(a.G, b.G), mix(a.B, b.B), 0xff}
}

// shades is the number of colours of an image; one more, the first of its palette, is transparent.
const shades = 255

func (g gradient) palette() color.Palette {
	p := color.Palette{color.NRGBA{}}
	for i := range shades {
		p = append(p, g.at(float64(i)/(shades-1)))
	}
	return p
}

// loadShade is the place of a relative load in the palette; NaN is transparent.
func loadShade(r float64) uint8 {
	if math.IsNaN(r) {
		return 0
	}
	f := (math.Log2(max(0, r)) + maxLog) / (2 * maxLog)
	return 1 + uint8(math.Round(max(0, min(1, f))*(shades-1)))
}

// heat draws loads as coloured cells: columns of any width, rows of equal height, the first row at the top of an axis
// from 0 to the number of rows. It does what a rasterised plotter.HeatMap does, but with columns of their own width, and
// sharp in PNG, where that one is blurred.
type heat struct {
	columns []span
	rows    int
	load    func(column, row int) float64
}

// span is the range of the x axis that a column covers.
type span struct{ from, to float64 }

// Plot implements plot.Plotter.
func (h heat) Plot(c draw.Canvas, p *plot.Plot) {
	const pixels = 192 / 72.0 // a point
	size := c.Size()
	img := image.NewPaletted(image.Rect(0, 0, int(math.Ceil(float64(size.X)*pixels)), int(math.Ceil(float64(size.Y)*pixels))),
		loadScale.palette())
	columnAt := h.columnsOf(img.Rect.Dx(), p)
	gaps := slices.Contains(columnAt, -1)
	for y := range img.Rect.Dy() {
		row := y * h.rows / img.Rect.Dy()
		for x, column := range columnAt {
			if column >= 0 {
				shade := loadShade(h.load(column, row))
				img.Pix[y*img.Stride+x] = shade
				gaps = gaps || shade == 0
			}
		}
	}
	if gaps {
		hatch(c)
	}
	c.DrawImage(c.Rectangle, img)
	h.outline(c, p)
}

// outline draws lines along the columns that stand alone, which on a balanced strategy would hardly be seen.
func (h heat) outline(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	edge := func(at float64) {
		if px := x(at); px > c.Min.X && px < c.Max.X {
			c.StrokeLine2(draw.LineStyle{Color: soft, Width: 0.5}, px, c.Min.Y, px, c.Max.Y)
		}
	}
	for i := 1; i < len(h.columns); i++ {
		if before, s := h.columns[i-1], h.columns[i]; before.to < s.from {
			edge(before.to)
			edge(s.from)
		}
	}
	if n := len(h.columns); n > 0 {
		edge(h.columns[0].from)
		edge(h.columns[n-1].to)
	}
}

// hatch fills a canvas with slanting lines: nothing is known here.
func hatch(c draw.Canvas) {
	const apart = 5
	size := c.Size()
	var lines [][]vg.Point
	for x := c.Min.X - size.Y; x < c.Max.X; x += apart {
		lines = append(lines, []vg.Point{{X: x, Y: c.Min.Y}, {X: x + size.Y, Y: c.Max.Y}})
	}
	c.StrokeLines(draw.LineStyle{Color: color.Gray{0xa8}, Width: 0.5}, c.ClipLinesXY(lines...)...)
}

// columnsOf finds the column that each of the pixels of a line lies in, −1 for none. A column of less than a pixel gets one.
func (h heat) columnsOf(pixels int, p *plot.Plot) []int {
	at := make([]int, pixels)
	for x := range at {
		at[x] = -1
	}
	for i, s := range h.columns {
		from := int(math.Round(p.X.Norm(s.from) * float64(pixels)))
		to := int(math.Round(p.X.Norm(s.to) * float64(pixels)))
		for x := max(0, from); x < min(pixels, max(to, from+1)); x++ {
			at[x] = i
		}
	}
	return at
}

// DataRange implements plot.DataRanger.
func (h heat) DataRange() (xmin, xmax, ymin, ymax float64) {
	return h.columns[0].from, h.columns[len(h.columns)-1].to, 0, float64(h.rows)
}

// frame is the line around a panel, drawn last.
type frame struct{}

// Plot implements plot.Plotter.
func (frame) Plot(c draw.Canvas, _ *plot.Plot) {
	r := c.Rectangle
	c.StrokeLines(draw.LineStyle{Color: ink, Width: 0.5}, []vg.Point{
		r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}, r.Min, {X: r.Max.X, Y: r.Min.Y},
	})
}

// colorBarSpace is the width that a colour bar takes at the right of a body.
const colorBarSpace = 78 * vg.Length(1)

// drawShades draws the colours of a scale into its bar, the last one above.
func drawShades(c draw.Canvas, bar vg.Rectangle, colours color.Palette) {
	img := image.NewPaletted(image.Rect(0, 0, 8, 2*shades), colours)
	for i := range img.Pix {
		img.Pix[i] = uint8(shades - i/img.Stride/2)
	}
	c.DrawImage(bar, img)
	frame{}.Plot(draw.Canvas{Canvas: c.Canvas, Rectangle: bar}, nil)
}

// drawLoadBar draws the scale of relative loads, or of another ratio, along the right edge of a canvas.
func drawLoadBar(c draw.Canvas, title string) {
	const thickness, most = 12, 300
	height := min(most, c.Size().Y-20)
	mid := c.Center().Y
	left := c.Max.X - colorBarSpace + 16
	bar := vg.Rectangle{Min: vg.Point{X: left, Y: mid - height/2}, Max: vg.Point{X: left + thickness, Y: mid + height/2}}

	drawShades(c, bar, loadScale.palette())
	style := tickText
	style.YAlign = draw.YCenter
	labels := []string{"≤ 1/8", "1/4", "1/2", "1", "2", "4", "≥ 8"}
	for i, label := range labels {
		y := bar.Min.Y + height*vg.Length(i)/vg.Length(len(labels)-1)
		c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.5}, bar.Max.X, y, bar.Max.X+3, y)
		c.FillText(style, vg.Point{X: bar.Max.X + 5, Y: y + style.FontExtents().Descent}, label)
	}
	writeUpwards(c, tickText, vg.Point{X: c.Max.X, Y: mid}, shorten(title, tickText, c.Size().Y))
}

var _ plot.DataRanger = heat{}
