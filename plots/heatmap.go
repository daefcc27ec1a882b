package plots

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// HeatMap is a metric over two parameters, a panel for each strategy, all with one scale of colours. Values stand in the cells
// where these have room for them, with their intervals.
type HeatMap struct {
	Sweep
	Title  string // empty for one made of the names
	X, Y   Parameter
	Metric Metric
	Panels []HeatPanel
}

// HeatPanel is one strategy over two parameters.
type HeatPanel struct {
	Name  string
	Cells [][]Sample // by value of Y, then of X
	Bound bool       // a bound, no strategy that one could use
}

// valueScale gives values their colours, low ones dark. It is viridis (van der Walt and Smith 2015), even to the eye, also to
// that of the colour-blind and in grey.
var valueScale = gradient{
	{0x44, 0x01, 0x54, 0xff}, {0x48, 0x25, 0x76, 0xff}, {0x41, 0x44, 0x87, 0xff}, {0x35, 0x60, 0x8d, 0xff},
	{0x2a, 0x78, 0x8e, 0xff}, {0x21, 0x90, 0x8c, 0xff}, {0x22, 0xa8, 0x84, 0xff}, {0x43, 0xbf, 0x71, 0xff},
	{0x7a, 0xd1, 0x51, 0xff}, {0xbb, 0xdf, 0x27, 0xff}, {0xfd, 0xe7, 0x25, 0xff},
}

// maxHeatCells bounds the cells of a picture: beyond it none could be seen.
const maxHeatCells = 400_000

// Picture draws the map. It fails on cells that do not fit the parameters, on too many of them, and where nothing was measured.
func (h HeatMap) Picture() (Picture, error) {
	if err := h.check(); err != nil {
		return Picture{}, err
	}
	panels, all, even := h.shown()
	t := tallyOf(all...)
	if t.most == 0 {
		return Picture{}, ErrNothing
	}
	colours, said := heatColours(h.Metric, all)
	return h.draw(panels, t, colours, append(said, even)), nil
}

func (h HeatMap) check() error {
	if h.X.Name == h.Y.Name && h.X.Name != "" {
		return fmt.Errorf("both sides of the map are %s: they must be two parameters", h.X.Name)
	}
	for _, p := range []Parameter{h.X, h.Y} {
		if err := p.check(); err != nil {
			return err
		}
	}
	if len(h.Panels) > maxPanels {
		return fmt.Errorf("there are %d strategies: a picture holds at most %d panels", len(h.Panels), maxPanels)
	}
	if n := len(h.X.Values) * len(h.Y.Values) * len(h.Panels); n > maxHeatCells {
		return fmt.Errorf("%s by %s is a map of %d cells: a picture holds at most %d", h.X.Name, h.Y.Name, n, maxHeatCells)
	}
	for _, p := range h.Panels {
		if oneLine(p.Name) == "" {
			return fmt.Errorf("a panel of %s by %s has no name", h.X.Name, h.Y.Name)
		}
		if len(p.Cells) != len(h.Y.Values) {
			return fmt.Errorf("%s has %d rows for %d values of %s", p.Name, len(p.Cells), len(h.Y.Values), h.Y.Name)
		}
		for _, row := range p.Cells {
			if len(row) != len(h.X.Values) {
				return fmt.Errorf("%s has a row of %d cells for %d values of %s", p.Name, len(row), len(h.X.Values), h.X.Name)
			}
			if err := checkSamples(p.Name, row); err != nil {
				return err
			}
		}
	}
	return nil
}

// shown are the panels in the units of the metric, without bounds that are 0 throughout.
func (h HeatMap) shown() (panels []HeatPanel, all [][]Sample, even string) {
	var names []string
	for _, p := range h.Panels {
		some, flat := false, true
		q := HeatPanel{Name: p.Name, Bound: p.Bound}
		for _, row := range p.Cells {
			var cells []Sample
			for _, x := range row {
				y := h.Metric.sample(x)
				cells = append(cells, y)
				some = some || y.measured()
				flat = flat && (!y.measured() || y.Mean == 0)
			}
			q.Cells = append(q.Cells, cells)
		}
		if p.Bound && some && flat {
			names = append(names, oneLine(p.Name))
			continue
		}
		panels, all = append(panels, q), append(all, q.Cells...)
	}
	if len(names) > 0 {
		even = "Not drawn, since it is 0 throughout, by construction: " + strings.Join(names, ", ") + " (bound)."
	}
	return panels, all, even
}

// heatColours is the range of colours of all panels: exactly that of the means, logarithmic if the metric and the means permit.
func heatColours(m Metric, all [][]Sample) (s scale, notes []string) {
	low, high, zeros := math.Inf(1), math.Inf(-1), 0
	least := math.Inf(1)
	for _, row := range all {
		for _, x := range row {
			if !x.measured() {
				continue
			}
			low, high = min(low, x.Mean), max(high, x.Mean)
			if x.Mean > 0 {
				least = min(least, x.Mean)
			}
			if x.Mean == 0 {
				zeros++
			}
		}
	}
	s = scale{linear, low, high}
	switch {
	case m.Log && low < 0:
		notes = append(notes, "Linear colours, since a log scale has no place for values below 0.")
	case m.Log && high > 0:
		s = scale{logarithmic, least, high}
		if zeros > 0 {
			notes = append(notes, "A log scale has no place for 0: "+plural(zeros, "cell")+" has the lowest colour.")
		}
	}
	if s.high-s.low <= 1e-9*max(math.Abs(s.low), math.Abs(s.high)) {
		if s.kind == logarithmic {
			s.low, s.high = logRange(s.low, s.high)
		} else {
			s.low, s.high = roomAround(s.low, s.high)
		}
	}
	return s, notes
}

// colour is that of a value.
func (s scale) colour(v float64) color.RGBA {
	if s.kind == logarithmic && v < s.low {
		v = s.low
	}
	return valueScale.at(s.at(v))
}

func (h HeatMap) draw(panels []HeatPanel, t tally, colours scale, said []string) Picture {
	const width = pageWidth - 2*margin
	line := lineHeight(labelText)
	columns := heatColumns(len(panels), len(h.X.Values))
	bar := colorBarSpace + 12
	if len(t.floors) == 1 {
		bar += 20 // for its label
	}
	body := width - bar - line - 2
	cellWidth := (body-panelAxes-panelGap*vg.Length(columns-1))/vg.Length(columns) - 8
	inner := max(90, min(vg.Length(len(h.Y.Values))*34, 260))
	if columns == 1 {
		inner = max(120, min(vg.Length(len(h.Y.Values))*40, 380))
	}
	y := h.Y.side(inner, 90)
	cellWidth -= max(0, y.labelWidth()+8-panelAxes) / vg.Length(columns)
	x := h.X.side(cellWidth, 0)
	var drawn []panel
	var maps []heatCells
	printed, near, fine := cellsIntervals, 0, false
	for _, p := range panels {
		cells := heatCells{rows: p.Cells, colours: colours, width: cellWidth / vg.Length(len(h.X.Values)), height: inner / vg.Length(len(h.Y.Values))}
		printed = min(printed, cells.printable())
		near, fine = near+cells.nearFloor(), cells.fine()
		maps = append(maps, cells)
	}
	for i, p := range panels {
		cells := maps[i]
		cells.print = printed
		q := newPlot("", "")
		q.Add(cells)
		x.apply(&q.X)
		y.apply(&q.Y)
		q.X.Tick.Length, q.Y.Tick.Length = 2, 2
		title := oneLine(p.Name)
		if p.Bound {
			title += " (bound)"
		}
		drawn = append(drawn, panel{title, q})
	}
	g := newPanelGrid(drawn, columns, body, inner, true)
	notes := []string{t.seeds(h.Sweep, "Colours", heatBars[printed]), heatGaps(t, fine)}
	if n := len(t.floors); n > 0 {
		floor := "The sampling floor is " + rounded(t.floors[0], 3)
		if n > 1 {
			floor += " to " + rounded(t.floors[n-1], 3)
		}
		if near > 0 {
			floor += fmt.Sprintf("; the interval, or the mean where there is none, reaches it in %s, so "+
				"that what is left there may be noise", plural(near, "cell"))
		} else {
			floor += "; no interval, nor a mean where there is none, reaches it"
		}
		if near > 0 && !fine {
			floor += " (dot in the corner)"
		}
		notes = append(notes, floor+".")
	}
	notes = append(append(notes, said...), "Values stand side by side, not to scale; all panels have the same colours.", x.key, y.key)
	return sheet{
		title:   orElse(h.Title, h.Metric.opening()+" over "+oneLine(h.X.Name)+" and "+oneLine(h.Y.Name)),
		caption: h.caption(notes...),
		height:  max(g.height(), 150),
		body: func(c draw.Canvas) {
			body := draw.Crop(c, line+2, -bar, 0, 0)
			g.draw(body)
			foot := body.Max.Y - g.height() + line
			writeLines(&c, aligned(labelText, draw.XCenter), vg.Point{X: body.Center().X + panelAxes/2, Y: foot}, []string{oneLine(h.X.Name)})
			writeUpwards(c, labelText, vg.Point{X: c.Min.X + line, Y: body.Max.Y - g.height()/2}, shorten(oneLine(h.Y.Name), labelText, g.height()))
			drawValueBar(c, colours, t.floors, h.Metric.name()+colours.kind.remark())
		},
	}.picture()
}

// heatColumns is the number of columns of panels: fewer where cells are many.
func heatColumns(panels, cells int) int {
	if cells > 20 {
		return min(gridColumns(panels), 2)
	}
	return gridColumns(panels)
}

// What is printed in the cells, and how the caption calls the intervals.
const (
	cellsNothing = iota
	cellsMeans
	cellsHalves
	cellsIntervals
)

var heatBars = []string{"", "", "±, the longer side", "in brackets"}

func heatGaps(t tally, fine bool) string {
	var parts []string
	if fine && t.without > 0 {
		return fmt.Sprintf("Hatched: %s not run, %s run without a value.", plural(t.absent, "cell"), plural(t.without, "cell"))
	}
	if t.absent > 0 {
		parts = append(parts, "Hatched: "+plural(t.absent, "cell")+" not run.")
	}
	if t.without > 0 {
		parts = append(parts, "Crossed: "+plural(t.without, "cell")+" run without a value.")
	}
	return strings.Join(parts, " ")
}

// heatCells draws the cells of a panel, the first row at the foot.
type heatCells struct {
	rows          [][]Sample
	colours       scale
	width, height vg.Length // of a cell, about
	print         int
}

// atFloor reports whether noise alone could give a sample.
func atFloor(x Sample) bool {
	return x.floored() && (x.Mean <= x.Floor || x.ranged() && x.Low <= x.Floor)
}

// fine reports whether cells are too small for anything but colour.
func (h heatCells) fine() bool { return h.width < 8 || h.height < 8 }

// nearFloor counts the cells at the floor.
func (h heatCells) nearFloor() (n int) {
	for _, row := range h.rows {
		for _, x := range row {
			if atFloor(x) {
				n++
			}
		}
	}
	return n
}

var cellText = textStyle(8, labelText.Font.Weight, ink)

// intervalText writes the interval of a sample, or nothing where it has none.
func intervalText(x Sample, how int) string {
	switch {
	case !x.ranged():
		return ""
	case how == cellsIntervals:
		return "[" + rounded(x.Low, 2) + ", " + rounded(x.High, 2) + "]"
	case how == cellsHalves:
		return "±" + rounded(max(x.High-x.Mean, x.Mean-x.Low), 2)
	}
	return ""
}

// printable is how much fits into every cell.
func (h heatCells) printable() int {
	if h.height < lineHeight(cellText)+2 {
		return cellsNothing
	}
	fits := cellsMeans
	if h.height >= 2*lineHeight(cellText)+4 && slices.ContainsFunc(h.rows, func(row []Sample) bool { return slices.ContainsFunc(row, Sample.ranged) }) {
		fits = cellsIntervals
	}
	for _, row := range h.rows {
		for _, x := range row {
			if !x.measured() {
				continue
			}
			if cellText.Width(rounded(x.Mean, 3)) > h.width-6 {
				return cellsNothing
			}
			for fits > cellsMeans && cellText.Width(intervalText(x, fits)) > h.width-3 {
				fits--
			}
		}
	}
	return fits
}

// Plot implements plot.Plotter.
func (h heatCells) Plot(c draw.Canvas, p *plot.Plot) {
	if h.fine() {
		h.image(c)
		frame{}.Plot(c, p)
		return
	}
	x, y := p.Transforms(&c)
	for i, row := range h.rows {
		for j, s := range row {
			// Cells overlap by a hair, so that no paper shows between them.
			const hair = 0.15
			cell := vg.Rectangle{Min: vg.Point{X: x(float64(j) - 0.5), Y: y(float64(i) - 0.5)},
				Max: vg.Point{X: min(c.Max.X, x(float64(j)+0.5)+hair), Y: min(c.Max.Y, y(float64(i)+0.5)+hair)}}
			h.cell(draw.Canvas{Canvas: c.Canvas, Rectangle: cell}, s)
		}
	}
	frame{}.Plot(c, p)
}

// image draws the cells as an image, which shows no seams.
func (h heatCells) image(c draw.Canvas) {
	const pixels = 192 / 72.0 // a point
	size := c.Size()
	img := image.NewPaletted(image.Rect(0, 0, int(math.Ceil(float64(size.X)*pixels)), int(math.Ceil(float64(size.Y)*pixels))), valueScale.palette())
	gaps := false
	for y := range img.Rect.Dy() {
		row := h.rows[len(h.rows)-1-y*len(h.rows)/img.Rect.Dy()]
		for x := range img.Rect.Dx() {
			s := row[x*len(row)/img.Rect.Dx()]
			if !s.measured() {
				gaps = true
				continue
			}
			f := h.colours.at(max(s.Mean, h.colours.low))
			img.Pix[y*img.Stride+x] = 1 + uint8(math.Round(max(0, min(1, f))*(shades-1)))
		}
	}
	if gaps {
		hatch(c)
	}
	c.DrawImage(c.Rectangle, img)
}

func (h heatCells) cell(c draw.Canvas, s Sample) {
	if !s.measured() {
		hatch(c)
		if s.N > 0 {
			style := draw.LineStyle{Color: soft, Width: 0.8}
			c.StrokeLine2(style, c.Min.X, c.Min.Y, c.Max.X, c.Max.Y)
			c.StrokeLine2(style, c.Min.X, c.Max.Y, c.Max.X, c.Min.Y)
		}
		return
	}
	fill := h.colours.colour(s.Mean)
	c.SetColor(fill)
	c.Fill(c.Rectangle.Path())
	text := coloured(aligned(cellText, draw.XCenter), onColour(fill))
	if atFloor(s) {
		c.DrawGlyph(draw.GlyphStyle{Color: text.Color, Radius: 1.4, Shape: draw.CircleGlyph{}}, vg.Point{X: c.Max.X - 4, Y: c.Max.Y - 4})
	}
	if h.print == cellsNothing {
		return
	}
	lines := []string{rounded(s.Mean, 3)}
	if interval := intervalText(s, h.print); interval != "" {
		lines = append(lines, interval)
	}
	top := c.Center().Y + lineHeight(cellText)*vg.Length(len(lines))/2
	writeLines(&c, text, vg.Point{X: c.Center().X, Y: top}, lines)
}

// onColour is black or white, whichever is read better on a colour (relative luminance of WCAG 2).
func onColour(c color.RGBA) color.Color {
	part := func(v uint8) float64 {
		x := float64(v) / 255
		if x <= 0.04045 {
			return x / 12.92
		}
		return math.Pow((x+0.055)/1.055, 2.4)
	}
	if 0.2126*part(c.R)+0.7152*part(c.G)+0.0722*part(c.B) < 0.18 {
		return paper
	}
	return ink
}

// drawValueBar draws a scale of colours along the right edge of a canvas, with the sampling floor if it is one value.
func drawValueBar(c draw.Canvas, s scale, floors []float64, title string) {
	const thickness, most = 12, 300
	height := min(most, c.Size().Y-24)
	mid := max(c.Center().Y, c.Max.Y-most/2-20) // near the top of a tall picture
	left := c.Max.X - colorBarSpace + 6
	bar := vg.Rectangle{Min: vg.Point{X: left, Y: mid - height/2}, Max: vg.Point{X: left + thickness, Y: mid + height/2}}
	drawShades(c, bar, valueScale.palette())
	style := tickText
	style.YAlign = draw.YCenter
	place := func(v float64) vg.Length { return bar.Min.Y + height*vg.Length(s.at(v)) }
	for _, t := range (roomyTicks{s.ticker(6), s, height, true}).Ticks(s.low, s.high) {
		if t.Value < s.low || t.Value > s.high {
			continue
		}
		y, length := place(t.Value), vg.Length(3)
		if t.IsMinor() {
			length = 1.5
		}
		c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.5}, bar.Max.X, y, bar.Max.X+length, y)
		t.Label = narrow(t, 34)
		c.FillText(style, vg.Point{X: bar.Max.X + 5, Y: y + style.FontExtents().Descent}, t.Label)
	}
	if len(floors) == 1 && s.has(floors[0]) && floors[0] >= s.low && floors[0] <= s.high {
		y := place(floors[0])
		c.StrokeLine2(draw.LineStyle{Color: paper, Width: 2.6}, bar.Min.X, y, bar.Max.X, y)
		c.StrokeLine2(draw.LineStyle{Color: ink, Width: 1, Dashes: []vg.Length{2.5, 1.5}}, bar.Min.X-4, y, bar.Max.X, y)
		writeLines(&c, coloured(aligned(eventText, draw.XRight), soft), vg.Point{X: bar.Min.X - 5, Y: y + lineHeight(eventText)/2}, []string{"floor"})
	}
	writeUpwards(c, tickText, vg.Point{X: c.Max.X, Y: mid}, shorten(title, tickText, 2*min(mid-c.Min.Y, c.Max.Y-mid)))
}
