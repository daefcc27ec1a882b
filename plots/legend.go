package plots

import (
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// legend names what a picture shows in a column at its right, where no label has room beside its curve.
type legend struct {
	entries []legendEntry
	widest  vg.Length // of a line
}

type legendEntry struct {
	lines  []string
	sample func(c draw.Canvas, from, to vg.Point)
}

const legendGap = 4 * vg.Length(1) // between two entries

// newLegend prepares a legend of so many entries: long ones may be wider where there are many.
func newLegend(entries int) *legend {
	l := &legend{widest: legendWidth}
	if entries > 12 {
		l.widest = 1.6 * legendWidth
	}
	return l
}

func (l *legend) add(label string, sample func(c draw.Canvas, from, to vg.Point)) {
	l.entries = append(l.entries, legendEntry{wrap(label, labelText, l.widest), sample})
}

// addLook adds a strategy, with its line unless only its glyph is drawn.
func (l *legend) addLook(label string, k look, lines bool) {
	l.add(label, func(c draw.Canvas, from, to vg.Point) {
		if lines {
			c.StrokeLine2(k.line(1.4), from.X, from.Y, to.X, to.Y)
		}
		drawMark(c, k, vg.Point{X: (from.X + to.X) / 2, Y: from.Y}, 3.2)
	})
}

// addLine adds a line without points.
func (l *legend) addLine(label string, style draw.LineStyle) {
	l.add(label, func(c draw.Canvas, from, to vg.Point) { c.StrokeLine2(style, from.X, from.Y, to.X, to.Y) })
}

func (l *legend) width() vg.Length {
	widest := vg.Length(0)
	for _, e := range l.entries {
		for _, line := range e.lines {
			widest = max(widest, labelText.Width(line))
		}
	}
	return endSample + 6 + widest
}

func (l *legend) height() (h vg.Length) {
	for _, e := range l.entries {
		h += lineHeight(labelText)*vg.Length(len(e.lines)) + legendGap
	}
	return h
}

// draw draws the legend from the top of a canvas.
func (l *legend) draw(c draw.Canvas) {
	top := c.Max.Y
	for _, e := range l.entries {
		middle := top - lineHeight(labelText)/2
		e.sample(c, vg.Point{X: c.Min.X, Y: middle}, vg.Point{X: c.Min.X + endSample, Y: middle})
		writeLines(&c, labelText, vg.Point{X: c.Min.X + endSample + 6, Y: top}, e.lines)
		top -= lineHeight(labelText)*vg.Length(len(e.lines)) + legendGap
	}
}

// drawMark draws the glyph of a look at a point, a hollow star where it is a bound's.
func drawMark(c draw.Canvas, k look, at vg.Point, radius vg.Length) {
	if _, ok := k.glyph.(star); ok {
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: k.color, Radius: 1.7 * radius, Shape: star{}}, at)
		return
	}
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: paper, Radius: radius + 0.6, Shape: draw.CircleGlyph{}}, at)
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: k.color, Radius: radius, Shape: k.glyph}, at)
}

// boundLook is how a bound appears among strategies.
var boundLook = look{color: ink, dashes: []vg.Length{1.2, 2.4}, glyph: star{}}

// looksOf gives every strategy of a figure the look of its place, and bounds their own.
func looksOf(series ...[]Series) (n namedLooks) {
	for _, s := range series {
		for _, x := range s {
			if !slices.Contains(n.names, x.label()) {
				k := lookOf(len(n.names))
				if x.Bound {
					k = boundLook
				}
				n.names, n.looks = append(n.names, x.label()), append(n.looks, k)
			}
		}
	}
	return n
}
