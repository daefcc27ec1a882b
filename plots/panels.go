package plots

import (
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// panel is one of several plots that share a figure and their axes.
type panel struct {
	title string
	plot  *plot.Plot
}

// panelGrid lays panels out in rows. Only the outer ones keep the labels of the axes; the events of a run are marked in all.
type panelGrid struct {
	panels  []panel
	columns int
	width   vg.Length // of the body
	inner   vg.Length // height of the area of a panel that holds data
	events  events
	titles  [][]string
}

const (
	panelGap    = 14 * vg.Length(1)
	panelAxes   = 34 * vg.Length(1) // room for the labels of the y axis, about
	axisSpace   = 32 * vg.Length(1) // room for the labels of the x axis, about
	panelHeader = 4 * vg.Length(1)  // between a frame and what stands above it
)

// gridColumns is the number of columns in which n panels are laid out.
func gridColumns(n int) int {
	switch {
	case n == 4:
		return 2
	case n < 3:
		return n
	default:
		return 3
	}
}

// newPanelGrid prepares panels for a body of some width. Where they share their y axis only the first column labels it.
func newPanelGrid(panels []panel, columns int, width, inner vg.Length, shared bool) *panelGrid {
	g := &panelGrid{panels: panels, columns: columns, width: width, inner: inner}
	for i, p := range panels {
		g.titles = append(g.titles, wrap(p.title, panelText, g.panelWidth()))
		if i%columns > 0 {
			p.plot.Y.Label.Text = ""
			if shared {
				p.plot.Y.Tick.Marker = unlabelled{p.plot.Y.Tick.Marker}
			}
		}
		if i+columns < len(panels) {
			p.plot.X.Label.Text = ""
			p.plot.X.Tick.Marker = unlabelled{p.plot.X.Tick.Marker}
		}
	}
	return g
}

// panelWidth is the width of the data of one panel, about.
func (g *panelGrid) panelWidth() vg.Length {
	n := vg.Length(g.columns)
	return (g.width-panelAxes-panelGap*(n-1))/n - 8
}

// rows is the number of rows of the grid.
func (g *panelGrid) rows() int { return (len(g.panels) + g.columns - 1) / g.columns }

// header is the height of what stands above the panels of a row.
func (g *panelGrid) header(row int) vg.Length {
	lines := 0
	for _, t := range g.titles[row*g.columns : min((row+1)*g.columns, len(g.titles))] {
		lines = max(lines, len(t))
	}
	return panelHeader + g.events.height() + vg.Length(lines)*lineHeight(panelText)
}

// footer is the height of what stands below the panels of a row: a gap, and the x axis where no panel follows below one.
func (g *panelGrid) footer(row int) vg.Length {
	last, labelled := row == g.rows()-1, (row+2)*g.columns > len(g.panels)
	switch {
	case last:
		return axisSpace
	case labelled:
		return axisSpace + panelGap
	default:
		return panelGap
	}
}

// height is that of the whole grid.
func (g *panelGrid) height() (h vg.Length) {
	for row := range g.rows() {
		h += g.header(row) + g.inner + g.footer(row)
	}
	return h
}

// draw draws the grid onto a canvas, from its top.
func (g *panelGrid) draw(c draw.Canvas) {
	plots := make([][]*plot.Plot, g.rows())
	for row := range plots {
		plots[row] = make([]*plot.Plot, g.columns)
		for j, p := range g.panels[row*g.columns : min((row+1)*g.columns, len(g.panels))] {
			plots[row][j] = p.plot
		}
	}
	tiles := draw.Tiles{Rows: len(plots), Cols: g.columns, PadX: panelGap}
	top := c.Max.Y
	for row, canvases := range plot.Align(plots, tiles, c) {
		top -= g.header(row)
		for j, canvas := range canvases {
			if p := plots[row][j]; p != nil {
				canvas = stretch(canvas, p, top-g.inner, top)
				p.Draw(canvas)
				g.drawHeader(p.DataCanvas(canvas), p, g.titles[row*g.columns+j])
			}
		}
		top -= g.inner + g.footer(row)
	}
}

// stretch moves the lower and upper edge of a plot's canvas so that its data lie between bottom and top. The room that the
// labels of the y axis need beyond the data hangs on the height, hence the second round.
func stretch(c draw.Canvas, p *plot.Plot, bottom, top vg.Length) draw.Canvas {
	for range 2 {
		data := p.DataCanvas(c)
		c.Min.Y += bottom - data.Min.Y
		c.Max.Y += top - data.Max.Y
	}
	return c
}

// drawHeader writes what stands above the data of one panel, and its frame.
func (g *panelGrid) drawHeader(data draw.Canvas, p *plot.Plot, title []string) {
	g.events.Plot(data, p)
	frame{}.Plot(data, p)
	top := data.Max.Y + panelHeader/2 + g.events.height() + vg.Length(len(title))*lineHeight(panelText)
	writeLines(&data, panelText, vg.Point{X: data.Min.X, Y: top}, title)
}

// unlabelled keeps the places of ticks and drops their labels.
type unlabelled struct{ plot.Ticker }

// Ticks implements plot.Ticker.
func (u unlabelled) Ticks(low, high float64) []plot.Tick {
	ticks := slices.Clone(u.Ticker.Ticks(low, high))
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = " " // still a long tick
		}
	}
	return ticks
}
