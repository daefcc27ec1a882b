package plots

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"evenkeel/moe"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// events draws the marks of a run as vertical lines whose labels stand in rows above the frame, where they cover nothing.
type events struct {
	marks []eventMark
	rows  int
	// Legend explains the labels where they had to be numbers.
	legend string
}

type eventMark struct {
	step  float64
	label string
	row   int
	left  bool // the label lies left of its line
}

// layEvents places the labels of the marks within an axis from low to high that is about so wide. Where they need more
// rows than allowed they become numbers.
func layEvents(marks []moe.Mark, low, high float64, width vg.Length, maxRows int) events {
	named := collectMarks(marks, low, high)
	e := placeMarks(named, low, high, width)
	if e.rows <= maxRows {
		return e
	}
	list := make([]string, len(named))
	for i := range named {
		list[i] = fmt.Sprintf("%d %s (step %s)", i+1, named[i].label, number(named[i].step))
		named[i].label = fmt.Sprint(i + 1)
	}
	e = placeMarks(named, low, high, width)
	e.legend = "Events: " + strings.Join(list, "; ") + "."
	return e
}

// collectMarks returns the marks within a range in order of their steps, those of one step joined.
func collectMarks(marks []moe.Mark, low, high float64) []eventMark {
	var m []eventMark
	sorted := slices.Clone(marks)
	slices.SortStableFunc(sorted, func(a, b moe.Mark) int { return a.Step - b.Step })
	for _, x := range sorted {
		step, label := float64(x.Step), oneLine(x.Label)
		switch n := len(m); {
		case step < low || step > high:
		case n > 0 && m[n-1].step == step:
			m[n-1].label += "; " + label
		default:
			m = append(m, eventMark{step: step, label: label})
		}
	}
	return m
}

// placeMarks gives every label the lowest row in which it covers no other.
func placeMarks(marks []eventMark, low, high float64, width vg.Length) events {
	const gap = 6
	var ends []vg.Length // right end of the last label of each row
	placed := slices.Clone(marks)
	for i := range placed {
		m := &placed[i]
		m.label = shorten(m.label, eventText, width)
		w := eventText.Width(m.label)
		x := vg.Length((m.step - low) / max(high-low, math.SmallestNonzeroFloat64) * float64(width))
		m.left = x+w > width && x-w >= 0
		from := x
		if m.left {
			from = x - w
		}
		m.row = slices.IndexFunc(ends, func(end vg.Length) bool { return end+gap <= from })
		if m.row < 0 {
			m.row = len(ends)
			ends = append(ends, 0)
		}
		ends[m.row] = from + w
	}
	return events{marks: placed, rows: len(ends)}
}

// height is the room that the labels need above the frame.
func (e events) height() vg.Length { return vg.Length(e.rows) * lineHeight(eventText) }

// Plot implements plot.Plotter.
func (e events) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	for _, m := range e.marks {
		at, foot := x(m.step), c.Max.Y+vg.Length(m.row)*lineHeight(eventText)
		top := foot + 0.8*lineHeight(eventText)
		// White under black is seen on any colour of a heat map.
		c.StrokeLine2(draw.LineStyle{Color: veil(paper, 0xa0), Width: 2.2}, at, c.Min.Y, at, c.Max.Y)
		c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.9, Dashes: []vg.Length{3, 2}}, at, c.Min.Y, at, c.Max.Y)
		c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.5}, at, c.Max.Y, at, top)
		style, offset := aligned(eventText, draw.XLeft), vg.Length(2.5)
		if m.left {
			style, offset = aligned(eventText, draw.XRight), -offset
		}
		writeLines(&c, style, vg.Point{X: at + offset, Y: foot + lineHeight(eventText)}, []string{m.label})
	}
}
