package plots

import (
	"fmt"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Search is the path of an adaptive search for one objective: every trial at the number of cells that had been run by then, and
// the best of all so far, with its interval and the sampling floor.
type Search struct {
	Sweep
	Title  string // empty for one made of the name
	Metric Metric
	Trials []Trial // in the order in which they finished
}

// Trial is one setting that a search tried.
type Trial struct {
	Cells      int // run so far, with those of this trial
	Generation int // to which it belongs
	Y          Sample
}

// Picture draws the path. It fails on a metric that has no better side, on cells that grow fewer, and where nothing was measured.
func (s Search) Picture() (Picture, error) {
	if err := s.Metric.checkSided(); err != nil {
		return Picture{}, err
	}
	for i, t := range s.Trials {
		if t.Cells <= 0 || i > 0 && t.Cells < s.Trials[i-1].Cells {
			return Picture{}, fmt.Errorf("trial %d is at %d cells: the number of cells run so far begins above 0 and never falls", i, t.Cells)
		}
		if err := checkSamples("the search", []Sample{t.Y}); err != nil {
			return Picture{}, fmt.Errorf("trial %d: %w", i, err)
		}
	}
	f := newSearchFigure(s)
	if len(f.best) == 0 {
		return Picture{}, ErrNothing
	}
	return f.draw(), nil
}

// searchFigure is a search made ready to be drawn, in shown units.
type searchFigure struct {
	Search
	y          scale
	tally      tally
	notes      []string
	best       []Trial // each better than all before it
	drawn      []Trial // those that the axis has a place for
	lost       []int   // the cells at which trials had no value
	from, last int     // cells of the first trial and of the last
}

func newSearchFigure(s Search) *searchFigure {
	f := &searchFigure{Search: s}
	var all []Sample
	for _, t := range s.Trials {
		t.Y = s.Metric.sample(t.Y)
		f.tally.add(t.Y)
		if f.last = t.Cells; f.from == 0 {
			f.from = t.Cells
		}
		if !t.Y.measured() {
			f.lost = append(f.lost, t.Cells)
			continue
		}
		f.drawn = append(f.drawn, t)
		all = append(all, t.Y)
	}
	slices.Sort(f.tally.floors)
	// The intervals of many trials are not drawn, so the axis need not hold them.
	if len(f.drawn) > maxBars/2 {
		for i := range all {
			all[i] = Sample{Mean: all[i].Mean, Floor: all[i].Floor, N: all[i].N}
		}
	}
	f.y, f.notes = s.Metric.measure(all)
	f.drawn = slices.DeleteFunc(f.drawn, func(t Trial) bool { return !f.y.has(t.Y.Mean) })
	for _, t := range f.drawn {
		if n := len(f.best); n == 0 || s.Metric.cost(t.Y.Mean) < s.Metric.cost(f.best[n-1].Y.Mean) {
			f.best = append(f.best, t)
		}
	}
	return f
}

func (f *searchFigure) say() []string {
	bars := "bars"
	if len(f.drawn) > maxBars/2 {
		bars = "bars and shading, of the best so far alone"
	}
	best := f.best[len(f.best)-1]
	found := fmt.Sprintf("The %s, %s, was found after %s", f.Metric.best(), rounded(best.Y.Mean, 3), plural(best.Cells, "cell"))
	if best.Y.ranged() {
		found += fmt.Sprintf(" (interval %s to %s)", rounded(best.Y.Low, 3), rounded(best.Y.High, 3))
	}
	notes := []string{
		fmt.Sprintf("Dots: %s of %s.", plural(len(f.Trials), "trial"), plural(f.Trials[len(f.Trials)-1].Cells, "cell")),
		f.tally.seeds(f.Sweep, "All points", bars),
		found + ": of trials that differ by noise alone a search keeps the luckiest, so confirm it with fresh seeds.",
	}
	if f.generations() != nil {
		notes = append(notes, "Faint upright lines: generations.")
	}
	if len(f.drawn) > maxDots {
		notes = append(notes, fmt.Sprintf("Of the dots %s are drawn, evenly spaced.", count(len(evenly(0, len(f.drawn), maxDots)))))
	}
	if len(f.lost) > 0 {
		notes = append(notes, fmt.Sprintf("Crosses at the top: %s without a value.", plural(len(f.lost), "trial")))
	}
	return append(notes, f.notes...)
}

// generations are the cells at which a generation ended, if there are more than one and not too many.
func (f *searchFigure) generations() (ends []float64) {
	const most = 60
	for i := 1; i < len(f.Trials); i++ {
		if a, b := f.Trials[i-1], f.Trials[i]; a.Generation != b.Generation {
			ends = append(ends, float64(a.Cells+b.Cells)/2)
		}
	}
	if len(ends) > most {
		return nil
	}
	return ends
}

func (f *searchFigure) draw() Picture {
	p := newPlot("", "")
	low, high := roomAround(float64(f.from), float64(f.last))
	x := scale{linear, max(0, low), high}
	x.apply(&p.X, 6, 460, false)
	p.X.Tick.Marker = roomyTicks{roundTicks{Count: 6, Whole: true}, x, 460, false}
	f.y.apply(&p.Y, 6, 300, true)
	best := lookOf(1)
	line := f.steps()
	labels := endLabels{courses: []course{{look: look{color: best.color}, label: []string{"best so far"}, mean: []plotter.XYs{line}}}}
	if len(f.tally.floors) > 0 && f.y.has(f.tally.floors[0]) && f.tally.floors[0] > 0 {
		labels.floor = f.tally.floors[0]
	}
	p.Add(horizontalGrid{}, searchDots{f, best}, curve{[]plotter.XYs{line}, draw.LineStyle{Color: best.color, Width: 1.6}}, labels)
	if len(f.tally.floors) > 1 {
		f.notes = append(f.notes, "The sampling floor differs between trials: drawn is the lowest.")
	}
	return sheet{
		title:   orElse(f.Title, "The search for the "+f.Metric.best()+" "+f.Metric.subject()),
		caption: f.caption(f.say()...),
		height:  340,
		body: func(c draw.Canvas) {
			drawLabelled(draw.Crop(c, 0, -labels.width(), 0, -4), p, "cells run so far", f.Metric.label(f.y.kind))
		},
	}.picture()
}

// steps is the best so far along the cells.
func (f *searchFigure) steps() (line plotter.XYs) {
	for _, t := range f.best {
		if n := len(line); n > 0 {
			line = append(line, plotter.XY{X: float64(t.Cells), Y: line[n-1].Y})
		}
		line = append(line, plotter.XY{X: float64(t.Cells), Y: t.Y.Mean})
	}
	return append(line, plotter.XY{X: float64(f.last), Y: line[len(line)-1].Y})
}

// searchDots draws the trials, the interval of the best so far, and where generations end.
type searchDots struct {
	*searchFigure
	look look
}

// Plot implements plot.Plotter.
func (f searchDots) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, at := range f.generations() {
		c.StrokeLine2(draw.LineStyle{Color: faint, Width: 0.6}, x(at), c.Min.Y, x(at), c.Max.Y)
	}
	for i, t := range f.best {
		to := float64(f.last)
		if i+1 < len(f.best) {
			to = float64(f.best[i+1].Cells)
		}
		if t.Y.ranged() {
			low, high := y(f.y.cut(t.Y.Low)), y(f.y.cut(t.Y.High))
			from, to := x(float64(t.Cells)), x(to)
			c.FillPolygon(veil(f.look.color, 0x28), []vg.Point{{X: from, Y: low}, {X: from, Y: high}, {X: to, Y: high}, {X: to, Y: low}})
		}
	}
	radius := vg.Length(2.2)
	if len(f.drawn) > 500 {
		radius = 1.2
	}
	blue := lookOf(0).color
	for _, i := range evenly(0, len(f.drawn), maxDots) {
		t := f.drawn[i]
		if len(f.drawn) <= maxBars/2 && t.Y.ranged() {
			drawBar(c, draw.LineStyle{Color: veil(blue, 0x80), Width: 0.7}, x(float64(t.Cells)), y, f.y, t.Y, 2)
		}
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: veil(blue, 0x90), Radius: radius, Shape: draw.CircleGlyph{}}, vg.Point{X: x(float64(t.Cells)), Y: y(t.Y.Mean)})
	}
	for _, t := range f.best {
		at := x(float64(t.Cells))
		if t.Y.ranged() {
			drawBar(c, draw.LineStyle{Color: f.look.color, Width: 0.8}, at, y, f.y, t.Y, 2)
		}
		drawMark(c, f.look, vg.Point{X: at, Y: y(t.Y.Mean)}, 2.8)
	}
	for _, i := range evenly(0, len(f.lost), 500) {
		at := vg.Point{X: x(float64(f.lost[i])), Y: c.Max.Y - 6}
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: soft, Radius: 2.5, Shape: draw.CrossGlyph{}}, at)
	}
}
