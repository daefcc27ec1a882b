package plots

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Response is a metric along one parameter, a line for each strategy with the interval over seeds as its band, and the
// sampling floor. A parameter whose values are no numbers gives points with intervals, side by side.
type Response struct {
	Sweep
	Title  string // empty for one made of the names
	X      Parameter
	Metric Metric
	Series []Series // each with a sample for every value of X
}

// Picture draws the response. It fails on series that do not fit the parameter, and where nothing was measured.
func (r Response) Picture() (Picture, error) {
	if err := r.X.check(); err != nil {
		return Picture{}, err
	}
	if err := checkSeries(r.Series, len(r.X.Values)); err != nil {
		return Picture{}, err
	}
	f := newResponseFigure(r.Metric, [][]Series{r.Series})
	if !f.any() {
		return Picture{}, ErrNothing
	}
	title := orElse(r.Title, r.Metric.opening()+" along "+oneLine(r.X.Name))
	if _, numeric := r.X.numbers(); !numeric {
		return f.side(r, title), nil
	}
	return f.along(r, title), nil
}

// along draws lines over a parameter of numbers, each named where it ends.
func (f *responseFigure) along(r Response, title string) Picture {
	series := f.panels[0]
	labels := endLabels{marked: true}
	length := vg.Length(430) // of the frame, about: names of many strategies take more room
	if len(series) > 12 {
		length = 370
	}
	x := r.X.place(length)
	p := newPlot("", "")
	x.apply(&p.X)
	drawn := f.plot(p, x, series, 300)
	width := vg.Length(endLabelWidth)
	if len(drawn) > 12 {
		width *= 1.6
	}
	for _, l := range drawn {
		labels.courses = append(labels.courses, course{look: l.look, label: wrap(l.series.label(), labelText, width), mean: l.runs})
	}
	switch floor := f.floor(x, series); {
	case constant(floor):
		labels.floor = floor[0][0].Y
	case len(floor) > 0:
		k := look{color: floorLine.Color, dashes: floorLine.Dashes}
		labels.courses = append(labels.courses, course{look: k, label: wrap(floorLabel, labelText, width), mean: floor})
		p.Add(curve{floor, floorLine})
	}
	p.Add(labels)
	side := labels.width()
	return sheet{
		title:   title,
		caption: r.caption(append(f.notes(r.Sweep), x.key)...),
		height:  max(340, labels.height()+axisSpace),
		body: func(c draw.Canvas) {
			drawLabelled(draw.Crop(c, 0, -side, 0, 0), p, r.X.label(x.scale.kind), r.Metric.label(f.y.kind))
		},
	}.picture()
}

// side draws points with intervals over a parameter whose values are names.
func (f *responseFigure) side(r Response, title string) Picture {
	series := f.panels[0]
	l := f.legend(series)
	width := l.width() + 10
	x := r.X.place(pageWidth - 2*margin - width - 60)
	p := newPlot("", "")
	x.apply(&p.X)
	f.plot(p, x, series, 300)
	p.Add(frame{})
	return sheet{
		title:   title,
		caption: r.caption(append(f.notes(r.Sweep), x.key)...),
		height:  max(340, l.height()+axisSpace),
		body: func(c draw.Canvas) {
			drawLabelled(draw.Crop(c, 0, -width, 0, 0), p, r.X.label(x.scale.kind), r.Metric.label(f.y.kind))
			l.draw(draw.Crop(c, c.Max.X-c.Min.X-width+10, 0, 0, 0))
		},
	}.picture()
}

// responseFigure is what the panels of responses share: the metric, its scale and the looks of the strategies.
type responseFigure struct {
	metric Metric
	panels [][]Series // shown values
	y      scale
	looks  namedLooks
	tally  tally
	said   []string
	bands  bool
	joined bool // by lines
	floors bool // floors differ between lines
}

func newResponseFigure(m Metric, panels [][]Series) *responseFigure {
	f := &responseFigure{metric: m}
	var all [][]Sample
	most := 0
	even := map[string]bool{}
	var names []string
	f.looks = looksOf(panels...)
	for _, series := range panels {
		var shown []Series
		for _, s := range m.shown(series) {
			// A bound that is 0 throughout would be a line at the end of no logarithmic axis.
			if m.Log && s.Bound && !slices.ContainsFunc(s.Y, func(x Sample) bool { return x.measured() && x.Mean != 0 }) {
				if slices.ContainsFunc(s.Y, Sample.measured) && !even[s.label()] {
					even[s.label()], names = true, append(names, s.label())
				}
				continue
			}
			shown = append(shown, s)
		}
		f.panels = append(f.panels, shown)
		all = append(all, samplesOf(shown)...)
		most = max(most, len(shown))
	}
	f.tally = tallyOf(all...)
	f.y, f.said = m.measure(all...)
	if len(names) > 0 {
		f.said = append(f.said, "Not drawn, since it is 0 throughout, by construction: "+strings.Join(names, ", ")+".")
	}
	f.bands = most <= maxBands
	return f
}

func (f *responseFigure) any() bool { return f.tally.most > 0 }

// notes are the sentences of the caption.
func (f *responseFigure) notes(s Sweep) []string {
	bars := "bars"
	if f.bands && f.joined {
		bars = "shading and bars"
	}
	notes := []string{f.tally.seeds(s, "Points", bars), f.tally.gaps()}
	notes = append(notes, f.said...)
	if len(f.tally.floors) > 0 {
		notes = append(notes, "The sampling floor is what K experts chosen at random give: it is noise, not imbalance.")
	}
	if f.floors {
		notes = append(notes, fmt.Sprintf("Floors differ between the lines, %s to %s: drawn is the first one's.", rounded(slices.Min(f.tally.floors), 3), rounded(slices.Max(f.tally.floors), 3)))
	}
	if slices.ContainsFunc(f.panels, func(series []Series) bool { return slices.ContainsFunc(series, func(s Series) bool { return s.Bound }) }) {
		notes = append(notes, "A bound is no strategy that one could use.")
	}
	return notes
}

func (f *responseFigure) legend(series []Series) *legend {
	l := newLegend(len(series))
	for _, s := range series {
		l.addLook(s.label(), f.looks.of(s.label()), false)
	}
	if len(f.tally.floors) > 0 {
		l.addLine(floorLabel, floorLine)
	}
	return l
}

// responseLine is a strategy along a parameter.
type responseLine struct {
	series Series
	look   look
	points []responsePoint
	runs   []plotter.XYs
	scale  scale
	joined bool // by lines, and with bands
	banded bool
	radius vg.Length
}

type responsePoint struct {
	x float64
	Sample
}

// plot adds the strategies to a plot and returns those that have a point.
func (f *responseFigure) plot(p *plot.Plot, x placed, series []Series, height vg.Length) (drawn []responseLine) {
	f.y.apply(&p.Y, 5, height, true)
	p.Add(horizontalGrid{}, zeroMark{})
	joined := x.scale.kind != named
	f.joined = joined
	if !joined {
		p.Add(slotLines(len(x.at)))
		for _, run := range f.floor(x, series) {
			p.Add(floorSteps(run))
		}
	}
	for i, s := range series {
		l := responseLine{series: s, look: f.looks.of(s.label()), scale: f.y, joined: joined, banded: f.bands, radius: 2.8}
		switch {
		case len(s.Y) > 60:
			l.radius = 1.2
		case len(s.Y) > 25 || len(series) > 12:
			l.radius = 2
		}
		var runs runsOfPoints
		for _, j := range ascending(x.at) {
			at := x.at[j]
			if !joined {
				at += 0.72 * (float64(i) + 0.5 - float64(len(series))/2) / float64(len(series))
			}
			ok := s.Y[j].measured() && f.y.has(s.Y[j].Mean)
			runs.addIf(ok, at, s.Y[j].Mean)
			if ok {
				l.points = append(l.points, responsePoint{at, s.Y[j]})
			} else {
				l.points = append(l.points, responsePoint{at, Sample{}})
			}
		}
		if l.runs = runs.runs; len(l.runs) > 0 {
			drawn = append(drawn, l)
		}
	}
	for _, l := range drawn {
		p.Add(responseBand{l})
	}
	for _, l := range drawn {
		p.Add(l)
	}
	return drawn
}

// ascending are the indices of values in their order.
func ascending(v []float64) []int {
	order := make([]int, len(v))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(v[a], v[b]) })
	return order
}

// floor is the sampling floor along a parameter: that of the first strategy that is no bound and has one.
func (f *responseFigure) floor(x placed, series []Series) []plotter.XYs {
	var runs runsOfPoints
	for _, j := range ascending(x.at) {
		at, ok := 0.0, false
		for _, s := range series {
			if y := s.Y[j]; y.floored() && !s.Bound {
				if ok && y.Floor != at {
					f.floors = true
				} else if !ok {
					at, ok = y.Floor, true
				}
			}
		}
		runs.addIf(ok && f.y.has(at), x.at[j], at)
	}
	return runs.runs
}

// constant reports whether runs are one height above 0.
func constant(runs []plotter.XYs) bool {
	for _, run := range runs {
		for _, v := range run {
			if v.Y != runs[0][0].Y {
				return false
			}
		}
	}
	return len(runs) > 0 && runs[0][0].Y > 0
}

// responseBand is the shading of a line: the interval between neighbours that both have one.
type responseBand struct{ responseLine }

// Plot implements plot.Plotter.
func (b responseBand) Plot(c draw.Canvas, p *plot.Plot) {
	if !b.joined || !b.banded {
		return
	}
	var low, high runsOfPoints
	for _, v := range b.points {
		low.addIf(v.ranged(), v.x, b.scale.cut(v.Low))
		high.addIf(v.ranged(), v.x, b.scale.cut(v.High))
	}
	for i, run := range low.runs {
		if len(run) > 1 {
			band{[]plotter.XYs{run}, []plotter.XYs{high.runs[i]}, veil(b.look.color, 0x28)}.Plot(c, p)
		}
	}
}

// Plot implements plot.Plotter.
func (l responseLine) Plot(c draw.Canvas, p *plot.Plot) {
	if l.joined {
		curve{l.runs, l.look.line(1.4)}.Plot(c, p)
	}
	x, y := p.Transforms(&c)
	thin := draw.LineStyle{Color: l.look.color, Width: 0.8}
	for _, v := range l.points {
		if v.ranged() && (!l.joined || !l.banded || len(l.points) <= 40) { // where bars would touch, the shading is enough
			drawBar(c, thin, x(v.x), y, l.scale, v.Sample, min(barCap, l.radius))
		}
	}
	for _, v := range l.points {
		if v.measured() {
			drawMark(c, l.look, vg.Point{X: x(v.x), Y: y(v.Mean)}, l.radius)
		}
	}
}

// drawBar draws an interval upright; an end beyond the scale has no cap.
func drawBar(c draw.Canvas, style draw.LineStyle, x vg.Length, y func(float64) vg.Length, s scale, v Sample, bar vg.Length) {
	low, high := y(s.cut(v.Low)), y(s.cut(v.High))
	c.StrokeLine2(style, x, low, x, high)
	if v.Low >= s.low {
		c.StrokeLine2(style, x-bar, low, x+bar, low)
	}
	if v.High <= s.high {
		c.StrokeLine2(style, x-bar, high, x+bar, high)
	}
}

// zeroMark draws the break of an axis that has a place for zero.
type zeroMark struct{}

// Plot implements plot.Plotter.
func (zeroMark) Plot(c draw.Canvas, p *plot.Plot) { drawZeroBreak(c, p) }

// slotLines are faint lines between values that stand side by side.
type slotLines int

// Plot implements plot.Plotter.
func (n slotLines) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	for i := 1; i < int(n); i++ {
		at := x(float64(i) - 0.5)
		c.StrokeLine2(draw.LineStyle{Color: faint, Width: 0.5}, at, c.Min.Y, at, c.Max.Y)
	}
}

// floorSteps draws the floor of values that stand side by side, each over its own width.
type floorSteps plotter.XYs

// Plot implements plot.Plotter.
func (f floorSteps) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, v := range f {
		c.StrokeLine2(floorLine, x(v.X-0.5), y(v.Y), x(v.X+0.5), y(v.Y))
	}
}

// floorAt draws a floor across the frame.
type floorAt float64

// Plot implements plot.Plotter.
func (f floorAt) Plot(c draw.Canvas, p *plot.Plot) {
	_, y := p.Transforms(&c)
	c.StrokeLine2(floorLine, c.Min.X, y(float64(f)), c.Max.X, y(float64(f)))
}

// Multiples are responses along one parameter, a panel for each value of another, all with the same axes.
type Multiples struct {
	Sweep
	Title  string // empty for one made of the names
	X      Parameter
	Over   Parameter
	Metric Metric
	Panels [][]Series // by value of Over
}

// maxPanels bounds the panels of a picture: more are no picture.
const maxPanels = 48

// Picture draws the panels. It fails on series that do not fit the parameters, on too many panels, and where nothing was
// measured.
func (m Multiples) Picture() (Picture, error) {
	for _, p := range []Parameter{m.X, m.Over} {
		if err := p.check(); err != nil {
			return Picture{}, err
		}
	}
	if len(m.Panels) != len(m.Over.Values) {
		return Picture{}, fmt.Errorf("there are %d panels for %d values of %s", len(m.Panels), len(m.Over.Values), m.Over.Name)
	}
	if len(m.Panels) > maxPanels {
		return Picture{}, fmt.Errorf("%s has %d values: a picture holds at most %d panels, so filter it", m.Over.Name, len(m.Panels), maxPanels)
	}
	for i, series := range m.Panels {
		if err := checkSeries(series, len(m.X.Values)); err != nil {
			return Picture{}, fmt.Errorf("%s %s: %w", m.Over.Name, m.Over.Values[i], err)
		}
	}
	f := newResponseFigure(m.Metric, m.Panels)
	if !f.any() {
		return Picture{}, ErrNothing
	}
	return m.draw(f), nil
}

func (m Multiples) draw(f *responseFigure) Picture {
	columns := gridColumns(len(m.Panels))
	var all []Series
	for _, series := range f.panels {
		for _, s := range series {
			if !slices.ContainsFunc(all, func(t Series) bool { return t.label() == s.label() }) {
				all = append(all, s)
			}
		}
	}
	_, numeric := m.X.numbers()
	l := newLegend(len(all))
	for _, s := range all {
		l.addLook(s.label(), f.looks.of(s.label()), numeric)
	}
	if len(f.tally.floors) > 0 {
		l.addLine(floorLabel, floorLine)
	}
	const width = pageWidth - 2*margin
	line := lineHeight(labelText)
	side := l.width() + 12
	inner := vg.Length(150)
	if len(m.Panels) <= columns { // one row, beside which the label has to fit
		inner = 260
	}
	body := width - side - line - 2
	x := m.X.place((body-panelAxes-panelGap*vg.Length(columns-1))/vg.Length(columns) - 12)
	var panels []panel
	hatched := ""
	for i, series := range f.panels {
		p := newPlot("", "")
		x.apply(&p.X)
		f.plot(p, x, series, inner)
		switch floor := f.floor(x, series); {
		case x.scale.kind == named: // drawn with the points
		case constant(floor):
			p.Add(floorAt(floor[0][0].Y))
		default:
			p.Add(curve{floor, floorLine})
		}
		if !f.drawn(series) {
			p.Add(nothing{})
			hatched = "Hatched: nothing was measured."
		}
		panels = append(panels, panel{oneLine(m.Over.Name + " = " + m.Over.Values[i]), p})
	}
	g := newPanelGrid(panels, columns, body, inner, true)
	return sheet{
		title:   orElse(m.Title, m.Metric.opening()+" along "+oneLine(m.X.Name)+", by "+oneLine(m.Over.Name)),
		caption: m.caption(append(f.notes(m.Sweep), "All panels have the same axes.", hatched, x.key)...),
		height:  max(g.height(), l.height()+panelHeader+lineHeight(panelText)),
		body: func(c draw.Canvas) {
			body := draw.Crop(c, line+2, -side, 0, 0)
			g.draw(body)
			foot := body.Max.Y - g.height() + line
			writeLines(&c, aligned(labelText, draw.XCenter), vg.Point{X: body.Center().X + panelAxes/2, Y: foot}, []string{m.X.label(x.scale.kind)})
			writeUpwards(c, labelText, vg.Point{X: c.Min.X + line, Y: body.Max.Y - g.height()/2}, shorten(m.Metric.label(f.y.kind), labelText, g.height()))
			l.draw(draw.Crop(c, c.Max.X-c.Min.X-side+12, 0, 0, -panelHeader-lineHeight(panelText)))
		},
	}.picture()
}

// drawn reports whether any strategy of a panel has a point.
func (f *responseFigure) drawn(series []Series) bool {
	return slices.ContainsFunc(series, func(s Series) bool {
		return slices.ContainsFunc(s.Y, func(x Sample) bool { return x.measured() && f.y.has(x.Mean) })
	})
}

// nothing hatches a panel without a point.
type nothing struct{}

// Plot implements plot.Plotter.
func (nothing) Plot(c draw.Canvas, _ *plot.Plot) { hatch(c) }
