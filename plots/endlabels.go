package plots

import (
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// endLabels name the curves at the right of the frame, each beside where it ends, and draw the sampling floor.
type endLabels struct {
	courses []course
	floor   float64 // 0 for none
	marked  bool    // the points of the curves have glyphs
}

const (
	endLabelWidth = 150 * vg.Length(1)
	endLeader     = 16 * vg.Length(1)
	endSample     = 24 * vg.Length(1)
)

// entries are the labels with what they stand for.
func (l endLabels) entries() (lines [][]string, y []float64, styles []draw.LineStyle) {
	for _, c := range l.courses {
		lines, y, styles = append(lines, c.label), append(y, c.end().Y), append(styles, c.look.line(1.6))
	}
	if l.floor > 0 {
		lines = append(lines, wrap(floorLabel, labelText, endLabelWidth))
		y, styles = append(y, l.floor), append(styles, floorLine)
	}
	return lines, y, styles
}

// floorLine is how the sampling floor is drawn in all figures.
var floorLine = draw.LineStyle{Color: noise, Width: 1.3, Dashes: []vg.Length{5, 4}}

func labelHeight(lines []string) float64 {
	return float64(len(lines))*float64(lineHeight(labelText)) + 2
}

func (l endLabels) height() (h vg.Length) {
	lines, _, _ := l.entries()
	for _, x := range lines {
		h += vg.Length(labelHeight(x))
	}
	return h
}

// width is the room that the labels need at the right of the frame.
func (l endLabels) width() vg.Length {
	lines, _, _ := l.entries()
	widest := vg.Length(0)
	for _, x := range slices.Concat(lines...) {
		widest = max(widest, labelText.Width(x))
	}
	return endLeader + endSample + 4 + widest
}

// Plot implements plot.Plotter.
func (l endLabels) Plot(c draw.Canvas, p *plot.Plot) {
	frame{}.Plot(c, p)
	x, y := p.Transforms(&c)
	lines, values, styles := l.entries()
	want, size := make([]float64, len(lines)), make([]float64, len(lines))
	for i := range lines {
		want[i], size[i] = float64(y(values[i])), labelHeight(lines[i])
	}
	if l.floor > 0 {
		c.StrokeLine2(floorLine, c.Min.X, y(l.floor), c.Max.X, y(l.floor))
	}
	for i, at := range spread(want, size, float64(c.Min.Y), float64(c.Max.Y)) {
		from := vg.Point{X: c.Max.X, Y: vg.Length(want[i])}
		if i < len(l.courses) {
			from.X = x(l.courses[i].end().X)
		}
		left := c.Max.X + endLeader
		thin := draw.LineStyle{Color: soft, Width: 0.4}
		c.StrokeLines(thin, []vg.Point{from, {X: c.Max.X + 2, Y: from.Y}, {X: left - 2, Y: vg.Length(at)}})
		c.StrokeLine2(styles[i], left, vg.Length(at), left+endSample, vg.Length(at))
		if l.marked && i < len(l.courses) && l.courses[i].look.glyph != nil {
			drawMark(c, l.courses[i].look, vg.Point{X: left + endSample/2, Y: vg.Length(at)}, 2.8)
		}
		top := vg.Length(at) + lineHeight(labelText)*vg.Length(len(lines[i]))/2
		writeLines(&c, labelText, vg.Point{X: left + endSample + 4, Y: top}, lines[i])
	}
}
