package plots

import (
	"fmt"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Rungs is the path of a successive halving: a line for each setting from rung to rung, those that were dropped early pale, those
// that reached the last rung in colour and named.
type Rungs struct {
	Sweep
	Title  string    // empty for one made of the name
	Budget Parameter // of the rungs, from small to large
	Metric Metric
	// Entrants have a sample for every rung that they ran on, and zero ones behind.
	Entrants []Series
}

const (
	maxNamed = 14   // entrants that are named
	maxLines = 3000 // of dropped entrants
)

// Picture draws the rungs. It fails on entrants that do not fit the rungs or return to one, and where nothing was measured.
func (r Rungs) Picture() (Picture, error) {
	if err := r.Metric.checkSided(); err != nil {
		return Picture{}, err
	}
	if err := r.Budget.check(); err != nil {
		return Picture{}, err
	}
	if err := checkSeries(r.Entrants, len(r.Budget.Values)); err != nil {
		return Picture{}, err
	}
	for _, s := range r.Entrants {
		if reached := rungOf(s); reached > 0 && slices.ContainsFunc(s.Y[:reached], func(x Sample) bool { return x.N == 0 }) {
			return Picture{}, fmt.Errorf("%s reached %s %s without all rungs before it", s.Name, r.Budget.Name, r.Budget.Values[reached])
		}
	}
	f := newRungsFigure(r)
	if f.tally.most == 0 {
		return Picture{}, ErrNothing
	}
	return f.draw(), nil
}

// rungOf is the last rung that an entrant ran on, −1 for none.
func rungOf(s Series) int {
	for i, x := range slices.Backward(s.Y) {
		if x.N > 0 {
			return i
		}
	}
	return -1
}

type rungsFigure struct {
	Rungs
	x        placed
	y        scale
	tally    tally
	notes    []string
	dropped  []rungLine
	finished []rungLine
	entered  []int // on each rung
	floor    []plotter.XYs
}

// rungLine is an entrant's way.
type rungLine struct {
	series Series
	last   int
	look   look
	points []responsePoint
}

func newRungsFigure(r Rungs) *rungsFigure {
	f := &rungsFigure{Rungs: r, x: r.Budget.side(440, 0), entered: make([]int, len(r.Budget.Values))}
	shown := r.Metric.shown(r.Entrants)
	final := 0
	for _, s := range shown {
		final = max(final, rungOf(s))
	}
	var all [][]Sample
	for _, s := range shown {
		drawn := slices.Clone(s.Y)
		for i, y := range s.Y {
			if y.N > 0 {
				f.entered[i]++
				f.tally.add(y)
			}
			if rungOf(s) < final { // its intervals are not drawn
				drawn[i].Low, drawn[i].High = 0, 0
			}
		}
		all = append(all, drawn)
	}
	f.y, f.notes = r.Metric.measure(all...)
	slices.Sort(f.tally.floors)
	for _, s := range shown {
		l := rungLine{series: s, last: rungOf(s)}
		for i, y := range s.Y {
			if y.measured() && f.y.has(y.Mean) {
				l.points = append(l.points, responsePoint{float64(i), y})
			}
		}
		switch {
		case len(l.points) == 0:
		case l.last == final:
			l.look = lookOf(len(f.finished))
			f.finished = append(f.finished, l)
		default:
			f.dropped = append(f.dropped, l)
		}
	}
	// Those that were dropped last are drawn last.
	slices.SortStableFunc(f.dropped, func(a, b rungLine) int { return a.last - b.last })
	responses := &responseFigure{y: f.y}
	f.floor = responses.floor(f.x, shown)
	return f
}

func (f *rungsFigure) say() []string {
	notes := []string{
		fmt.Sprintf("Lines: %s, from rung to rung; grey, the paler the earlier, where it was dropped; in "+
			"colour where it reached the last rung. The numbers above count those that ran.", plural(len(f.Entrants), "setting")),
		f.tally.seeds(f.Sweep, "All points", "bars, of those in colour"),
		"Rungs differ in their budget, so that figures of two rungs are not of equal runs; of settings that differ by noise alone the luckiest stay.",
	}
	if n := len(f.dropped); n > maxLines {
		notes = append(notes, fmt.Sprintf("Of the grey lines %s are drawn, evenly spaced.", count(len(evenly(0, n, maxLines)))))
	}
	if n := len(f.finished); n > maxNamed {
		notes = append(notes, fmt.Sprintf("Named are the best %d of the %s that reached the last rung.", maxNamed, count(n)))
	}
	if f.tally.without > 0 {
		notes = append(notes, fmt.Sprintf("Gaps: %s without a value.", plural(f.tally.without, "run")))
	}
	return append(append(notes, f.notes...), f.x.key)
}

func (f *rungsFigure) draw() Picture {
	p := newPlot("", "")
	f.x.apply(&p.X)
	f.y.apply(&p.Y, 6, 300, true)
	p.Add(horizontalGrid{})
	labels := endLabels{marked: true}
	if constant(f.floor) {
		labels.floor = f.floor[0][0].Y
	} else {
		for _, run := range f.floor {
			p.Add(floorSteps(run))
		}
	}
	p.Add(rungLines{f})
	named := slices.Clone(f.finished)
	slices.SortStableFunc(named, func(a, b rungLine) int {
		if x, y := f.Metric.cost(a.points[len(a.points)-1].Mean), f.Metric.cost(b.points[len(b.points)-1].Mean); x < y {
			return -1
		} else if x > y {
			return 1
		}
		return 0
	})
	for _, l := range named[:min(maxNamed, len(named))] {
		labels.courses = append(labels.courses, course{look: l.look, label: wrap(l.series.label(), labelText, endLabelWidth), mean: l.runs()})
	}
	if len(f.floor) > 0 && labels.floor == 0 {
		k := look{color: floorLine.Color, dashes: floorLine.Dashes}
		labels.courses = append(labels.courses, course{look: k, label: wrap(floorLabel, labelText, endLabelWidth), mean: f.floor})
	}
	p.Add(labels)
	head := lineHeight(eventText) + 2
	return sheet{
		title:   orElse(f.Title, "Successive halving for the "+f.Metric.best()+" "+f.Metric.subject()),
		caption: f.caption(f.say()...),
		height:  max(340, labels.height()+axisSpace) + head,
		body: func(c draw.Canvas) {
			drawLabelled(draw.Crop(c, 0, -labels.width(), 0, -head), p, oneLine(f.Budget.Name)+" of the rung", f.Metric.label(f.y.kind))
		},
	}.picture()
}

// runs are the entrant's way, broken at rungs without a value.
func (l rungLine) runs() []plotter.XYs {
	var runs runsOfPoints
	rung := 0.0
	for _, v := range l.points {
		for ; rung < v.x; rung++ {
			runs.addIf(false, 0, 0)
		}
		runs.addIf(true, v.x, v.Mean)
		rung++
	}
	return runs.runs
}

// rungLines draws the ways of all entrants and counts them above the frame.
type rungLines struct{ *rungsFigure }

// Plot implements plot.Plotter.
func (f rungLines) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, i := range evenly(0, len(f.dropped), maxLines) {
		l := f.dropped[i]
		shade := 0x40 + 0x70*(l.last+1)/len(f.entered)
		if len(f.dropped) > 300 {
			shade /= 3
		}
		style := draw.LineStyle{Color: veil(soft, uint8(shade)), Width: 0.7}
		curve{l.runs(), style}.Plot(c, p)
		last := l.points[len(l.points)-1]
		end := vg.Point{X: x(last.x), Y: y(last.Mean)}
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: style.Color, Radius: 1.6, Shape: draw.CircleGlyph{}}, end)
	}
	for _, l := range f.finished {
		curve{l.runs(), l.look.line(1.5)}.Plot(c, p)
		for _, v := range l.points {
			if v.ranged() {
				drawBar(c, draw.LineStyle{Color: l.look.color, Width: 0.8}, x(v.x), y, f.y, v.Sample, 2)
			}
		}
		for _, v := range l.points {
			drawMark(c, l.look, vg.Point{X: x(v.x), Y: y(v.Mean)}, 2.8)
		}
	}
	style := coloured(aligned(eventText, draw.XCenter), soft)
	var ticks plot.ConstantTicks
	for i, n := range f.entered {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: count(n)})
	}
	for _, t := range (roomyTicks{ticks, f.x.scale, c.Size().X, false}).Ticks(f.x.scale.low, f.x.scale.high) {
		writeLines(&c, style, vg.Point{X: x(t.Value), Y: c.Max.Y + lineHeight(eventText) + 1}, []string{t.Label})
	}
}
