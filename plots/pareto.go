package plots

import (
	"cmp"
	"fmt"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Pareto is one metric against another, such as quality against imbalance: all cells as dots, what no other cell beats in both
// as steps, for every strategy and for all together, with bounds and the sampling floor.
type Pareto struct {
	Sweep
	Title  string // empty for one made of the names
	X, Y   Metric
	Clouds []Cloud
}

// Cloud is a strategy's cells.
type Cloud struct {
	Name  string
	X, Y  []Sample // by cell
	Bound bool     // a bound, no strategy that one could use; it takes no part in the front of all
}

func (c Cloud) label() string { return Series{Name: c.Name, Bound: c.Bound}.label() }

const (
	maxDots  = 8000 // of a picture; more would only cover each other
	maxBars  = 120  // points of fronts with intervals
	dotSpace = 560  // the frame's width in points, about, for thinning
)

// Picture draws the fronts. It fails on clouds whose samples do not pair, on a metric that has no better side, and where no cell
// has both metrics.
func (f Pareto) Picture() (Picture, error) {
	if err := f.check(); err != nil {
		return Picture{}, err
	}
	g := newParetoFigure(f)
	if len(g.clouds) == 0 {
		return Picture{}, ErrNothing
	}
	return g.draw(orElse(f.Title, f.Y.opening()+" against "+f.X.subject())), nil
}

func (f Pareto) check() error {
	for _, m := range []Metric{f.X, f.Y} {
		if err := m.checkSided(); err != nil {
			return err
		}
	}
	for i, c := range f.Clouds {
		switch {
		case oneLine(c.Name) == "":
			return fmt.Errorf("cloud %d has no name", i)
		case slices.ContainsFunc(f.Clouds[:i], func(d Cloud) bool { return d.Name == c.Name }):
			return fmt.Errorf("the name %s stands for two clouds", c.Name)
		case len(c.X) != len(c.Y):
			return fmt.Errorf("%s has %d samples of %s and %d of %s", c.Name, len(c.X), f.X.name(), len(c.Y), f.Y.name())
		}
		for _, samples := range [][]Sample{c.X, c.Y} {
			if err := checkSamples(c.Name, samples); err != nil {
				return err
			}
		}
	}
	return nil
}

// cellPoint is a cell in both metrics, as shown.
type cellPoint struct{ x, y Sample }

// paretoFigure is a front made ready to be drawn.
type paretoFigure struct {
	Pareto
	clouds         []paretoCloud
	whole          []cellPoint // the front of all
	cells, without int
	dots           int // drawn
	floors         [2][]float64
	x, y           scale
	notes          []string
	extra          []string // of the notes, those on what is not as one would expect
	barred         bool     // intervals are drawn
	some           bool     // but not of all points of the fronts
}

type paretoCloud struct {
	Cloud
	look  look
	quiet bool // its front has neither marks nor bars
	cells []cellPoint
	front []cellPoint
	dots  []cellPoint
}

func newParetoFigure(f Pareto) *paretoFigure {
	g := &paretoFigure{Pareto: f}
	var usable []cellPoint
	var t tally
	var across, up tally
	for i, c := range f.Clouds {
		p := paretoCloud{Cloud: c, look: lookOf(i)}
		if c.Bound {
			p.look = boundLook
		}
		for j := range c.X {
			x, y := f.X.sample(c.X[j]), f.Y.sample(c.Y[j])
			g.cells++
			if !x.measured() || !y.measured() {
				g.without++
				continue
			}
			p.cells = append(p.cells, cellPoint{x, y})
			t.add(x)
			t.add(y)
			if !c.Bound {
				across.add(x)
				up.add(y)
			}
		}
		if len(p.cells) == 0 {
			continue
		}
		if p.front = g.front(p.cells); !c.Bound {
			usable = append(usable, p.front...)
		}
		g.clouds = append(g.clouds, p)
	}
	g.whole = g.front(usable)
	slices.Sort(across.floors)
	slices.Sort(up.floors)
	g.floors = [2][]float64{across.floors, up.floors}
	g.scale()
	g.thin()
	g.barred = t.ranged
	g.say(t)
	return g
}

// front are the cells that no other is at least equal to in both metrics, from the best in x to the best in y. Of equal cells
// it has the first.
func (g *paretoFigure) front(cells []cellPoint) (front []cellPoint) {
	sorted := slices.Clone(cells)
	slices.SortStableFunc(sorted, func(a, b cellPoint) int {
		return cmp.Or(cmp.Compare(g.X.cost(a.x.Mean), g.X.cost(b.x.Mean)), cmp.Compare(g.Y.cost(a.y.Mean), g.Y.cost(b.y.Mean)))
	})
	for _, c := range sorted {
		if n := len(front); n == 0 || g.Y.cost(c.y.Mean) < g.Y.cost(front[n-1].y.Mean) {
			front = append(front, c)
		}
	}
	return front
}

// scale fits the axes to all cells, and to the intervals of those that are drawn with one.
func (g *paretoFigure) scale() {
	var xs, ys []Sample
	alone := func(s Sample) Sample { return Sample{Mean: s.Mean, Floor: s.Floor, N: 1} }
	for _, c := range g.clouds {
		for _, p := range c.cells {
			xs, ys = append(xs, alone(p.x)), append(ys, alone(p.y))
		}
		barred := c.front
		if c.Bound {
			barred = c.cells
		}
		for _, p := range barred {
			xs, ys = append(xs, p.x), append(ys, p.y)
		}
	}
	var notes []string
	g.x, notes = g.X.measureAcross(xs)
	g.notes = append(g.notes, notes...)
	g.y, notes = g.Y.measure(ys)
	for _, n := range notes {
		if !slices.Contains(g.notes, n) {
			g.notes = append(g.notes, n)
		}
	}
}

// thin keeps of the dots of a cloud that cover each other the first, on a raster as fine as the number of dots permits.
func (g *paretoFigure) thin() {
	type place struct{ x, y int32 }
	free := g.cells <= maxDots/2
	for raster := 1.0; ; raster *= 1.5 {
		g.dots = 0
		for i := range g.clouds {
			c := &g.clouds[i]
			c.dots = nil
			seen := map[place]bool{}
			for _, p := range c.cells {
				if !g.x.has(p.x.Mean) || !g.y.has(p.y.Mean) {
					continue
				}
				at := place{int32(g.x.at(p.x.Mean) * dotSpace / raster), int32(g.y.at(p.y.Mean) * 0.7 * dotSpace / raster)}
				if free || !seen[at] {
					seen[at] = true
					c.dots = append(c.dots, p)
				}
			}
			g.dots += len(c.dots)
		}
		if free || g.dots <= maxDots || raster > 100 {
			return
		}
	}
}

// better says where better is.
func (g *paretoFigure) better() string {
	side := func(m Metric, less, more string) string {
		if m.Better < 0 {
			return less
		}
		return more
	}
	return fmt.Sprintf("Better is %s and %s.", side(g.X, "left", "right"), side(g.Y, "down", "up"))
}

// say writes the sentences of the caption.
func (g *paretoFigure) say(t tally) {
	n := 0
	for _, c := range g.clouds {
		n += len(c.front)
	}
	bars := "bars"
	if n > maxBars {
		bars, g.some = "bars, of the front of all alone", true
		if k := g.every(); k > 1 {
			bars = fmt.Sprintf("bars, of one in %d points of the front of all alone", k)
		}
	}
	notes := []string{
		fmt.Sprintf("Dots: %s; steps: the front, which no other cell of the strategy beats in both metrics; grey: the front of all. %s",
			plural(g.cells-g.without, "cell"), g.better()),
		t.seeds(g.Sweep, "All points", bars),
		"A front is of means: of many cells that differ by noise alone the luckiest stand on it, so confirm its points with fresh seeds.",
	}
	if len(g.floors[0]) > 1 || len(g.floors[1]) > 1 {
		g.extra = append(g.extra, "Cells differ in their sampling floor: the shade is from the least to the largest.")
	}
	if g.without > 0 {
		g.extra = append(g.extra, fmt.Sprintf("Not drawn: %s without one of the metrics.", plural(g.without, "cell")))
	}
	shown := 0
	for _, c := range g.clouds {
		for _, p := range c.cells {
			if g.x.has(p.x.Mean) && g.y.has(p.y.Mean) {
				shown++
			}
		}
	}
	if g.dots < shown {
		g.extra = append(g.extra, fmt.Sprintf("Of the dots %s are drawn: the first of each strategy at every place.", count(g.dots)))
	}
	if slices.ContainsFunc(g.clouds, func(c paretoCloud) bool { return c.Bound }) {
		g.extra = append(g.extra, "Hollow star and dotted line: a bound, no strategy that one could use.")
	}
	g.extra = append(g.extra, g.notes...)
	g.notes = append(notes, g.extra...)
}

// every is the distance of the points of the front of all that have bars.
func (g *paretoFigure) every() int { return (len(g.whole) + maxBars/3 - 1) / (maxBars / 3) }

// wholeLine is how the front of all is drawn.
var wholeLine = draw.LineStyle{Color: veil(ink, 0x38), Width: 5}

func (g *paretoFigure) draw(title string) Picture {
	l := newLegend(len(g.clouds))
	p := newPlot("", "")
	g.y.apply(&p.Y, 6, 380, true)
	p.Add(horizontalGrid{}, zeroMark{}, g.guides())
	g.addDots(p)
	if len(g.whole) > 0 {
		p.Add(curve{[]plotter.XYs{g.steps(g.whole)}, wholeLine})
	}
	for _, c := range g.clouds {
		p.Add(paretoSteps{g, c})
		if c.quiet {
			l.addLine(c.label(), c.look.line(1.2))
		} else {
			l.addLook(c.label(), c.look, !c.Bound)
		}
	}
	p.Add(frame{})
	if len(g.whole) > 0 {
		l.addLine("front of all", wholeLine)
	}
	if len(g.floors[1]) > 0 {
		l.addLine(floorLabel, floorLine)
	}
	side := l.width() + 10
	g.x.apply(&p.X, 6, pageWidth-2*margin-side-60, false)
	head := vg.Length(0)
	if len(g.floors[0]) > 0 {
		head = lineHeight(eventText) + 2
	}
	return sheet{
		title:   title,
		caption: g.caption(g.notes...),
		height:  max(420, l.height()+head+8),
		body: func(c draw.Canvas) {
			drawLabelled(draw.Crop(c, 0, -side, 0, -head), p, g.X.label(g.x.kind), g.Y.label(g.y.kind))
			l.draw(draw.Crop(c, c.Max.X-c.Min.X-side+10, 0, 0, -head))
		},
	}.picture()
}

// guides are the floors of both metrics, each a line or, where cells differ in it, two with a shade between.
func (g *paretoFigure) guides() paretoGuides { return paretoGuides{g.floors, g.x, g.y} }

type paretoGuides struct {
	floors [2][]float64
	x, y   scale
}

// Plot implements plot.Plotter.
func (g paretoGuides) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	shade := veil(noise, 0x20)
	if f := g.within(0, g.x); len(f) > 0 {
		from, to := x(f[0]), x(f[len(f)-1])
		c.FillPolygon(shade, []vg.Point{{X: from, Y: c.Min.Y}, {X: from, Y: c.Max.Y}, {X: to, Y: c.Max.Y}, {X: to, Y: c.Min.Y}})
		c.StrokeLine2(floorLine, from, c.Min.Y, from, c.Max.Y)
		if to > from {
			c.StrokeLine2(floorLine, to, c.Min.Y, to, c.Max.Y)
		}
		style := coloured(aligned(eventText, draw.XCenter), soft)
		half := style.Width(floorLabel) / 2
		at := max(c.Min.X+half, min((from+to)/2, c.Max.X-half))
		writeLines(&c, style, vg.Point{X: at, Y: c.Max.Y + lineHeight(style) + 1}, []string{floorLabel})
	}
	if f := g.within(1, g.y); len(f) > 0 {
		from, to := y(f[0]), y(f[len(f)-1])
		c.FillPolygon(shade, []vg.Point{{X: c.Min.X, Y: from}, {X: c.Max.X, Y: from}, {X: c.Max.X, Y: to}, {X: c.Min.X, Y: to}})
		c.StrokeLine2(floorLine, c.Min.X, from, c.Max.X, from)
		if to > from {
			c.StrokeLine2(floorLine, c.Min.X, to, c.Max.X, to)
		}
	}
}

func (g paretoGuides) within(i int, s scale) []float64 {
	return slices.DeleteFunc(slices.Clone(g.floors[i]), func(v float64) bool { return !s.has(v) || v < s.low || v > s.high })
}

// addDots adds the dots of all clouds in turn, so that none lies above all of another.
func (g *paretoFigure) addDots(p *plot.Plot) {
	var d cellDots
	for i := 0; ; i++ {
		some := false
		for _, c := range g.clouds {
			if i < len(c.dots) && !c.Bound {
				some = true
				d = append(d, cellDot{c.dots[i].x.Mean, c.dots[i].y.Mean, c.look})
			}
		}
		if !some {
			break
		}
	}
	p.Add(d)
}

type cellDot struct {
	x, y float64
	look look
}

type cellDots []cellDot

// Plot implements plot.Plotter.
func (d cellDots) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	radius := vg.Length(1.8)
	if len(d) > 2000 {
		radius = 1
	}
	for _, v := range d {
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: veil(v.look.color, 0x80), Radius: radius, Shape: draw.CircleGlyph{}}, vg.Point{X: x(v.x), Y: y(v.y)})
	}
}

// steps is the edge of what a front attains.
func (g *paretoFigure) steps(front []cellPoint) (line plotter.XYs) {
	for _, p := range front {
		if !g.x.has(p.x.Mean) || !g.y.has(p.y.Mean) {
			continue
		}
		if n := len(line); n > 0 {
			line = append(line, plotter.XY{X: p.x.Mean, Y: line[n-1].Y})
		}
		line = append(line, plotter.XY{X: p.x.Mean, Y: p.y.Mean})
	}
	return line
}

// paretoSteps draws a strategy's front, or the points of a bound.
type paretoSteps struct {
	*paretoFigure
	cloud paretoCloud
}

// Plot implements plot.Plotter.
func (s paretoSteps) Plot(c draw.Canvas, p *plot.Plot) {
	points := s.cloud.front
	if s.cloud.Bound {
		points = s.cloud.dots
		if len(points) == 1 && s.y.has(points[0].y.Mean) {
			at := p.Y.Norm(points[0].y.Mean)
			c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.9, Dashes: boundLook.dashes}, c.Min.X, c.Y(at), c.Max.X, c.Y(at))
		}
	} else if line := s.steps(points); len(line) > 1 {
		curve{[]plotter.XYs{line}, s.cloud.look.line(1.2)}.Plot(c, p)
	}
	x, y := p.Transforms(&c)
	if s.cloud.quiet {
		return
	}
	barred := func(v cellPoint) bool { return s.cloud.Bound || !s.some || s.onWhole(v) }
	for _, v := range points {
		if s.barred && barred(v) && s.x.has(v.x.Mean) && s.y.has(v.y.Mean) {
			drawBars(c, draw.LineStyle{Color: s.cloud.look.color, Width: 0.8}, x, y, s.x, s.y, v)
		}
	}
	for _, v := range points {
		// Marks of many points would hide the steps between them.
		if (len(points) <= maxBars || barred(v)) && s.x.has(v.x.Mean) && s.y.has(v.y.Mean) {
			drawMark(c, s.cloud.look, vg.Point{X: x(v.x.Mean), Y: y(v.y.Mean)}, 3)
		}
	}
}

// onWhole reports whether a point is one of those of the front of all that have bars.
func (g *paretoFigure) onWhole(v cellPoint) bool {
	for i := 0; i < len(g.whole); i += g.every() {
		if g.whole[i] == v {
			return true
		}
	}
	return false
}

// drawBars draws the intervals of a point in both directions; an end beyond the scales has no cap.
func drawBars(c draw.Canvas, style draw.LineStyle, x, y func(float64) vg.Length, xs, ys scale, v cellPoint) {
	const bar = 2
	if v.y.ranged() {
		drawBar(c, style, x(v.x.Mean), y, ys, v.y, bar)
	}
	if !v.x.ranged() || v.x.Low == v.x.High {
		return
	}
	// Where zero has a place of its own, an interval from there begins at the edge of the logarithmic part.
	low, high, at := x(xs.cut(v.x.Low)), x(xs.cut(v.x.High)), y(v.y.Mean)
	c.StrokeLine2(style, low, at, high, at)
	if v.x.Low >= xs.low {
		c.StrokeLine2(style, low, at-bar, low, at+bar)
	}
	if v.x.High <= xs.high {
		c.StrokeLine2(style, high, at-bar, high, at+bar)
	}
}
