package plots

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// curve draws runs of points as lines, and a run of a single point as a dot.
type curve struct {
	runs  []plotter.XYs
	style draw.LineStyle
}

// Plot implements plot.Plotter.
func (l curve) Plot(c draw.Canvas, p *plot.Plot) {
	for _, run := range l.runs {
		points := simplify(onCanvas(c, p, run))
		if len(points) == 1 {
			c.DrawGlyph(draw.GlyphStyle{Color: l.style.Color, Radius: max(1.5, 1.5*l.style.Width), Shape: draw.CircleGlyph{}}, points[0])
			continue
		}
		c.StrokeLines(l.style, points)
	}
}

// band fills the room between two curves over the same places.
type band struct {
	low, high []plotter.XYs // runs of the same lengths
	fill      color.Color
}

// Plot implements plot.Plotter.
func (b band) Plot(c draw.Canvas, p *plot.Plot) {
	for i := range b.low {
		outline := simplify(onCanvas(c, p, b.low[i]))
		above := simplify(onCanvas(c, p, b.high[i]))
		for j := len(above) - 1; j >= 0; j-- {
			outline = append(outline, above[j])
		}
		c.FillPolygon(b.fill, outline)
	}
}

// drawable reports whether a value has a place on an axis, which on a logarithmic one zero has not.
func drawable(v float64, log bool) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (!log || v > 0)
}

func onCanvas(c draw.Canvas, p *plot.Plot, run plotter.XYs) []vg.Point {
	x, y := p.Transforms(&c)
	points := make([]vg.Point, len(run))
	for i, v := range run {
		points[i] = vg.Point{X: x(v.X), Y: y(v.Y)}
	}
	return points
}

// simplify leaves out points without which a line moves by less than an eye can see (Douglas and Peucker 1973).
func simplify(p []vg.Point) []vg.Point {
	const visible = 0.15 // points
	if len(p) < 3 {
		return p
	}
	first, last := p[0], p[len(p)-1]
	along := last.Sub(first)
	length := vg.Length(math.Hypot(float64(along.X), float64(along.Y)))
	worst, distance := 0, vg.Length(visible)
	for i := 1; i < len(p)-1; i++ {
		off := p[i].Sub(first)
		d := vg.Length(math.Hypot(float64(off.X), float64(off.Y)))
		if length > 0 {
			d = vg.Length(math.Abs(float64((along.X*off.Y - along.Y*off.X) / length)))
		}
		if d > distance {
			worst, distance = i, d
		}
	}
	if worst == 0 {
		return []vg.Point{first, last}
	}
	head := simplify(p[:worst+1])
	// A full slice expression, so that the tail is not appended into p.
	return append(head[:len(head)-1:len(head)-1], simplify(p[worst:])...)
}

// horizontalGrid draws faint lines at the labelled ticks of the y axis.
type horizontalGrid struct{}

// Plot implements plot.Plotter.
func (horizontalGrid) Plot(c draw.Canvas, p *plot.Plot) {
	_, y := p.Transforms(&c)
	for _, t := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		if !t.IsMinor() && t.Value >= p.Y.Min && t.Value <= p.Y.Max {
			c.StrokeLine2(draw.LineStyle{Color: faint, Width: 0.5}, c.Min.X, y(t.Value), c.Max.X, y(t.Value))
		}
	}
}
