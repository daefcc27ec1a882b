package plots

import (
	"cmp"
	"fmt"
	"image"
	"image/color"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Parallel is a metric over many parameters at once (parallel coordinates, Inselberg 1985): an upright axis for each parameter
// and one for the metric, and a line for each cell, coloured by the metric. The best tenth is drawn bold.
type Parallel struct {
	Sweep
	Title      string // empty for one made of the name
	Parameters []Parameter
	Metric     Metric
	Cells      []Setting
}

// Setting is a cell: of every parameter the index of its value, and the metric there.
type Setting struct {
	At []int32
	Y  Sample
}

const (
	parallelHeight = 330 * vg.Length(1)
	narrowest      = 56 * vg.Length(1) // distance of two axes
	maxPale        = 1200              // lines that are not among the best
	maxBold        = 500
)

// Picture draws the lines. It fails on settings that do not fit the parameters, on more parameters than have room, and where
// nothing was measured.
func (p Parallel) Picture() (Picture, error) {
	if err := p.check(); err != nil {
		return Picture{}, err
	}
	g := newParallelFigure(p)
	if len(g.cells) == 0 {
		return Picture{}, ErrNothing
	}
	return g.draw(), nil
}

// maxAxes is the number of parameters that have room.
const maxAxes = 10

func (p Parallel) check() error {
	if len(p.Parameters) == 0 || len(p.Parameters) > maxAxes {
		return fmt.Errorf("%s: a picture has room for 1 to %d, so choose those with the largest share of variance",
			plural(len(p.Parameters), "parameter"), maxAxes)
	}
	for _, x := range p.Parameters {
		if err := x.check(); err != nil {
			return err
		}
	}
	for i, c := range p.Cells {
		if len(c.At) != len(p.Parameters) {
			return fmt.Errorf("cell %d has %d values for %s", i, len(c.At), plural(len(p.Parameters), "parameter"))
		}
		for a, v := range c.At {
			if v < 0 || int(v) >= len(p.Parameters[a].Values) {
				return fmt.Errorf("cell %d has value %d of %s: there are %d", i, v, p.Parameters[a].Name, len(p.Parameters[a].Values))
			}
		}
		if err := checkSamples("cell", []Sample{c.Y}); err != nil {
			return fmt.Errorf("cell %d: %w", i, err)
		}
	}
	return nil
}

// parallelFigure is the picture made ready: the cells in the order of the metric, the best last.
type parallelFigure struct {
	Parallel
	cells    []Setting
	bold     int // of them, the last ones
	tally    tally
	y        scale
	axes     []placed
	place    [][]float64 // of the values of each axis, as fractions of it
	spread   []float64   // of the lines of one value, as fractions of the axis
	gap      vg.Length   // between axes
	left     vg.Length   // of the first
	notes    []string
	pale     []int // the cells drawn
	stressed []int
}

func newParallelFigure(p Parallel) *parallelFigure {
	g := &parallelFigure{Parallel: p}
	var means []Sample
	for _, c := range p.Cells {
		y := p.Metric.sample(c.Y)
		g.tally.add(y)
		if y.measured() {
			g.cells = append(g.cells, Setting{c.At, y})
			means = append(means, Sample{Mean: y.Mean, Floor: y.Floor, N: y.N})
		}
	}
	if len(g.cells) == 0 {
		return g
	}
	slices.Sort(g.tally.floors)
	g.y, g.notes = p.Metric.measure(means)
	g.cells = slices.DeleteFunc(g.cells, func(c Setting) bool { return !g.y.has(c.Y.Mean) })
	slices.SortStableFunc(g.cells, func(a, b Setting) int { return cmp.Compare(p.Metric.cost(b.Y.Mean), p.Metric.cost(a.Y.Mean)) })
	if p.Metric.Better != 0 {
		g.bold = (len(g.cells) + 9) / 10
	}
	first := len(g.cells) - g.bold
	g.pale, g.stressed = evenly(0, first, maxPale), evenly(first, len(g.cells), maxBold)
	g.layOut()
	return g
}

// evenly are at most so many numbers from one up to another, evenly spaced, the last of them among these.
func evenly(from, to, most int) (at []int) {
	step := max(1, (to-from+most-1)/most)
	for i := to - 1; i >= from; i -= step {
		at = append(at, i)
	}
	slices.Reverse(at)
	return at
}

const parallelNumber = 33 * vg.Length(1) // width of a number beside an axis

// leftOf is the room for the labels of the first axis.
func (p Parameter) leftOf() vg.Length {
	const least, most = 40, 100
	room := vg.Length(least)
	if _, numeric := p.numbers(); !numeric {
		for _, v := range p.Values {
			room = max(room, tickText.Width(oneLine(v))+12)
		}
	}
	if room > most { // its values become numbers
		return least
	}
	return room
}

func (g *parallelFigure) layOut() {
	const width = pageWidth - 2*margin
	g.left = g.Parameters[0].leftOf()
	g.gap = (width - g.left - 70) / vg.Length(len(g.Parameters))
	g.gap = min(g.gap, 250)
	for _, p := range g.Parameters {
		a := p.stand(parallelHeight, min(g.gap-12, 76))
		if len(g.axes) == 0 {
			a = p.stand(parallelHeight, g.left-6)
		}
		g.axes = append(g.axes, a)
		var at, sorted []float64
		for _, v := range a.at {
			at = append(at, a.scale.at(v))
		}
		g.place = append(g.place, at)
		sorted = slices.Clone(at)
		slices.Sort(sorted)
		spread := 0.05
		for i := 1; i < len(sorted); i++ {
			spread = min(spread, 0.7*(sorted[i]-sorted[i-1]))
		}
		if len(g.cells) <= len(p.Values) {
			spread = 0
		}
		g.spread = append(g.spread, spread)
	}
}

// say are the sentences of the caption.
func (g *parallelFigure) say() []string {
	best := g.cells[len(g.cells)-1].Y
	notes := []string{fmt.Sprintf("Lines: %s, coloured by %s at the right.", plural(len(g.cells), "cell"), g.Metric.name())}
	if g.bold > 0 {
		text := fmt.Sprintf("Bold: the best tenth, %s; the %s is %s", plural(g.bold, "cell"), g.Metric.best(), rounded(best.Mean, 3))
		if best.ranged() {
			text += fmt.Sprintf(" (%s to %s, %s, n = %d)", rounded(best.Low, 3), rounded(best.High, 3),
				orElse(g.Interval, "interval of the mean over the seeds"), best.N)
		} else if best.N == 1 {
			text += " (one seed)"
		}
		notes = append(notes, text+": of many cells that differ by noise alone the best is the luckiest.")
	}
	if drawn := len(g.pale) + len(g.stressed); drawn < len(g.cells) {
		notes = append(notes, fmt.Sprintf("Drawn are %s bold and %s others, evenly spaced in the order of the metric.", count(len(g.stressed)), count(len(g.pale))))
	}
	if slices.ContainsFunc(g.spread, func(s float64) bool { return s > 0 }) {
		notes = append(notes, "Lines through one value are spread a little, in the order of the metric.")
	}
	if n := len(g.tally.floors); n > 0 {
		floor := "The sampling floor is " + rounded(g.tally.floors[0], 3)
		if n > 1 {
			floor += " to " + rounded(g.tally.floors[n-1], 3)
		}
		notes = append(notes, floor+".")
	}
	if g.tally.partial {
		notes = append(notes, leftOut)
	}
	notes = append(append(notes, g.tally.gaps()), g.notes...)
	for _, a := range g.axes {
		notes = append(notes, a.key)
	}
	return notes
}

func (g *parallelFigure) draw() Picture {
	titles, key := g.titles()
	lines := 0
	for _, t := range titles {
		lines = max(lines, len(t))
	}
	head := lineHeight(tickText)*vg.Length(lines) + 10
	return sheet{
		title:   orElse(g.Title, g.Metric.opening()+" over "+plural(len(g.Parameters), "parameter")),
		caption: g.caption(append(g.say(), key)...),
		height:  parallelHeight + head + 10,
		body: func(c draw.Canvas) {
			frame := vg.Rectangle{Min: vg.Point{X: c.Min.X + g.left, Y: c.Max.Y - head - parallelHeight}}
			frame.Max = vg.Point{X: frame.Min.X + g.gap*vg.Length(len(g.axes)), Y: frame.Min.Y + parallelHeight}
			alpha := uint8(0x50)
			if len(g.pale) > 300 {
				alpha = 0x28
			}
			for _, i := range g.pale {
				g.line(c, frame, i, draw.LineStyle{Color: veil(g.colour(i), alpha), Width: 0.5})
			}
			for _, i := range g.stressed {
				g.line(c, frame, i, draw.LineStyle{Color: veil(g.colour(i), 0xd0), Width: 1.1})
			}
			for i, a := range g.axes {
				x := frame.Min.X + g.gap*vg.Length(i)
				drawUpright(c, x, frame, a.scale, a.ticks, true)
			}
			g.metricAxis(c, frame)
			for i, t := range titles {
				style := aligned(tickText, draw.XCenter)
				writeLines(&c, style, vg.Point{X: max(frame.Min.X+g.gap*vg.Length(i), c.Min.X+widthOf(t)/2), Y: frame.Max.Y + 6 + lineHeight(tickText)*vg.Length(len(t))}, t)
			}
		},
	}.picture()
}

// titles are those of the axes, in at most three lines each; where one needs more, all parameters are numbered and a key names
// them.
func (g *parallelFigure) titles() (titles [][]string, key string) {
	title := func(text string, k scaleKind) string {
		if k == logarithmic || k == logAndZero {
			return text + " (log)"
		}
		return text
	}
	long := false
	for i, a := range g.axes {
		width := g.gap - 8
		if i == 0 {
			width = min(width, 2*g.left-4)
		}
		lines := wrap(title(oneLine(a.Name), a.scale.kind), tickText, width)
		titles, long = append(titles, lines), long || len(lines) > 3
	}
	if long {
		var names []string
		for i, a := range g.axes {
			titles[i] = []string{title(count(i+1), a.scale.kind)}
			names = append(names, count(i+1)+" = "+oneLine(a.Name))
		}
		key = "Axes: " + strings.Join(names, "; ") + "."
	}
	return append(titles, wrap(title(g.Metric.name(), g.y.kind), tickText, max(g.gap-8, 60))), key
}

func widthOf(lines []string) (w vg.Length) {
	for _, line := range lines {
		w = max(w, tickText.Width(line))
	}
	return w
}

// colour is that of a cell: the better, the darker.
func (g *parallelFigure) colour(i int) color.RGBA { return g.shade(g.y.at(g.cells[i].Y.Mean)) }

// shade is the colour at a fraction of the axis of the metric, short of the yellow that no line on white survives.
func (g *parallelFigure) shade(f float64) color.RGBA {
	if g.Metric.Better > 0 {
		f = 1 - f
	}
	return valueScale.at(0.88 * max(0, min(1, f)))
}

func (g *parallelFigure) line(c draw.Canvas, frame vg.Rectangle, i int, style draw.LineStyle) {
	cell := g.cells[i]
	// Cells are in the order of their cost, the highest first.
	rank := 0.5
	if n := len(g.cells); n > 1 {
		rank = float64(i) / float64(n-1)
	}
	if g.Metric.Better <= 0 {
		rank = 1 - rank
	}
	var points []vg.Point
	for a, v := range cell.At {
		at := g.place[a][v] + (rank-0.5)*g.spread[a]
		points = append(points, vg.Point{X: frame.Min.X + g.gap*vg.Length(a), Y: frame.Min.Y + parallelHeight*vg.Length(at)})
	}
	points = append(points, vg.Point{X: frame.Max.X, Y: frame.Min.Y + parallelHeight*vg.Length(g.y.at(cell.Y.Mean))})
	c.StrokeLines(style, points)
}

// drawUpright draws an axis, its labels at the left with a little paper behind them, or at the right.
func drawUpright(c draw.Canvas, x vg.Length, frame vg.Rectangle, s scale, ticks plot.Ticker, left bool) {
	axis := draw.LineStyle{Color: ink, Width: 0.7}
	c.StrokeLine2(axis, x, frame.Min.Y, x, frame.Max.Y)
	style := tickText
	style.YAlign = draw.YCenter
	sign := vg.Length(1)
	if left {
		sign, style.XAlign = -1, draw.XRight
	}
	for _, t := range ticks.Ticks(s.low, s.high) {
		at := s.at(t.Value)
		if at < 0 || at > 1 {
			continue
		}
		y := frame.Min.Y + (frame.Max.Y-frame.Min.Y)*vg.Length(at)
		if t.IsMinor() {
			c.StrokeLine2(axis, x, y, x+sign*2, y)
			continue
		}
		c.StrokeLine2(axis, x, y, x+sign*4, y)
		t.Label = narrow(t, parallelNumber)
		w := style.Width(t.Label)
		box := vg.Rectangle{Min: vg.Point{X: x + 5, Y: y - 5.5}, Max: vg.Point{X: x + 7 + w, Y: y + 5.5}}
		if left {
			box.Min.X, box.Max.X = x-7-w, x-5
		}
		c.SetColor(veil(paper, 0xc8))
		c.Fill(box.Path())
		c.FillText(style, vg.Point{X: x + sign*6, Y: y + style.FontExtents().Descent}, t.Label)
	}
}

// metricAxis draws the last axis, a strip of the colours beside it and the sampling floor.
func (g *parallelFigure) metricAxis(c draw.Canvas, frame vg.Rectangle) {
	const strip, steps = 7, 512
	x := frame.Max.X
	img := image.NewRGBA(image.Rect(0, 0, 8, steps))
	for i := range steps {
		for j := range 8 {
			img.SetRGBA(j, i, g.shade(1-(float64(i)+0.5)/steps))
		}
	}
	c.DrawImage(vg.Rectangle{Min: vg.Point{X: x, Y: frame.Min.Y}, Max: vg.Point{X: x + strip, Y: frame.Max.Y}}, img)
	drawUpright(c, x+strip, frame, g.y, roomyTicks{g.y.ticker(8), g.y, parallelHeight, true}, false)
	c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.7}, x, frame.Min.Y, x, frame.Max.Y)
	if len(g.tally.floors) == 1 && g.y.has(g.tally.floors[0]) {
		if at := g.y.at(g.tally.floors[0]); at >= 0 && at <= 1 {
			y := frame.Min.Y + parallelHeight*vg.Length(at)
			c.StrokeLine2(floorLine, x-28, y, x+strip, y)
			text := coloured(aligned(eventText, draw.XRight), soft)
			c.SetColor(veil(paper, 0xc8))
			c.Fill(vg.Rectangle{Min: vg.Point{X: x - 27, Y: y + 1}, Max: vg.Point{X: x - 2, Y: y + lineHeight(eventText) + 1}}.Path())
			writeLines(&c, text, vg.Point{X: x - 4, Y: y + lineHeight(eventText) + 1}, []string{"floor"})
		}
	}
}
