package plots

import (
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// tradeLabels writes the specs beside their points.
type tradeLabels struct {
	trades []trade
	floor  float64
	lines  [][2]plotter.XY // what labels should not cover
}

// Plot implements plot.Plotter.
func (l tradeLabels) Plot(c draw.Canvas, p *plot.Plot) {
	const widest, padding = 190, 2
	x, y := p.Transforms(&c)
	var tags []tag
	var texts [][]string
	obstacles := []vg.Rectangle{betterBox(c, p)}
	var lines []stroke
	for _, t := range l.trades {
		lines = append(lines, t.strokes(c, p)...)
		at := vg.Point{X: x(t.x.mean), Y: y(t.y.mean)}
		text := wrap(t.label, labelText, widest)
		width := vg.Length(0)
		for _, line := range text {
			width = max(width, labelText.Width(line))
		}
		texts = append(texts, text)
		tags = append(tags, tag{at, width + 2*padding, lineHeight(labelText)*vg.Length(len(text)) + padding})
		obstacles = append(obstacles, around(at, 14, 14))
	}
	for _, s := range l.lines {
		lines = append(lines, stroke{vg.Point{X: x(s[0].X), Y: y(s[0].Y)}, vg.Point{X: x(s[1].X), Y: y(s[1].Y)}, dataWeight})
	}
	if l.floor > 0 {
		lines = append(lines, stroke{vg.Point{X: x(l.floor), Y: c.Min.Y}, vg.Point{X: x(l.floor), Y: c.Max.Y}, guideWeight})
	}
	for i, r := range placeTags(tags, inset(c.Rectangle, 2), obstacles, lines) {
		end := nearestIn(r, tags[i].at)
		gap := end.Sub(tags[i].at)
		if math.Hypot(float64(gap.X), float64(gap.Y)) > 14 {
			c.StrokeLine2(draw.LineStyle{Color: soft, Width: 0.4}, tags[i].at.X, tags[i].at.Y, end.X, end.Y)
		}
		c.SetColor(veil(paper, 0xa0))
		c.Fill(r.Path())
		writeLines(&c, labelText, vg.Point{X: r.Min.X + padding, Y: r.Max.Y}, texts[i])
	}
}

// strokes are the lines that belong to a point: its intervals and the line of a bound.
func (t trade) strokes(c draw.Canvas, p *plot.Plot) []stroke {
	x, y := p.Transforms(&c)
	px, py := x(t.x.mean), y(t.y.mean)
	var lines []stroke
	add := func(x0, y0, x1, y1 vg.Length, weight float64) {
		lines = append(lines, stroke{vg.Point{X: x0, Y: y0}, vg.Point{X: x1, Y: y1}, weight})
	}
	if t.bound {
		add(c.Min.X, py, c.Max.X, py, guideWeight)
	}
	if t.x.ranged() {
		from, to := x(max(t.x.low, p.X.Min)), x(t.x.high)
		add(from, py, to, py, dataWeight)
		add(from, py-barCap, from, py+barCap, dataWeight)
		add(to, py-barCap, to, py+barCap, dataWeight)
	}
	if t.y.ranged() {
		from, to := y(t.y.low), y(t.y.high)
		add(px, from, px, to, dataWeight)
		add(px-barCap, from, px+barCap, from, dataWeight)
		add(px-barCap, to, px+barCap, to, dataWeight)
	}
	return lines
}

func inset(r vg.Rectangle, by vg.Length) vg.Rectangle {
	d := vg.Point{X: by, Y: by}
	return vg.Rectangle{Min: r.Min.Add(d), Max: r.Max.Sub(d)}
}
