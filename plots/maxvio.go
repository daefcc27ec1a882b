package plots

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"evenkeel/sim"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"
)

const (
	maxVioTitle = "Imbalance of every step: batch MaxVio"
	floorLabel  = "sampling floor (uniform choice)"
	keep        = 0.9 // factor of the running mean
	maxBands    = 6   // more than so many shadings hide each other
)

// hasMaxVio reports whether a causal strategy has a MaxVio that a logarithmic axis can show.
func hasMaxVio(r *sim.Result) bool {
	return slices.ContainsFunc(r.Strategies, func(s *sim.StrategyResult) bool { return usable(s) && len(maxVioOf(s).mean) > 0 })
}

// usable reports whether a strategy could route a language model: causal and no bound.
func usable(s *sim.StrategyResult) bool { return s.Traits.Causal && !s.Traits.Bound }

// MaxVio draws the MaxVio of each step's batch for all causal strategies, with the sampling floor.
func MaxVio(r *sim.Result, scenario string) (Picture, error) {
	if !hasMaxVio(r) {
		return Picture{}, ErrNothing
	}
	var courses []course
	zeros := 0
	for i, s := range r.Strategies {
		if !usable(s) {
			continue
		}
		if c := maxVioOf(s); len(c.mean) > 0 {
			c.look, c.label = lookOf(i), wrap(specOf(s), labelText, endLabelWidth)
			courses = append(courses, c)
			zeros += c.zeros
		}
	}
	p := newPlot("", "")
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks{}
	p.X.Tick.Marker = roundTicks{Count: 6, Whole: true}
	p.Add(horizontalGrid{})
	for i := range courses {
		if len(courses) > maxBands {
			courses[i].low, courses[i].high = nil, nil
		}
		courses[i].addTo(p)
	}
	labels := endLabels{courses: courses}
	if floor := floorOf(r, "maxvio_batch"); floor > 0 {
		labels.floor = floor
		p.Y.Min, p.Y.Max = min(p.Y.Min, floor), max(p.Y.Max, floor)
	}
	p.Y.Min, p.Y.Max = logRange(p.Y.Min, p.Y.Max)
	if p.X.Min == p.X.Max {
		p.X.Min, p.X.Max = p.X.Min-0.5, p.X.Max+0.5
	}
	p.Add(labels)

	side := labels.width()
	events := layEvents(r.Facts.Events, p.X.Min, p.X.Max, pageWidth-2*margin-side-60, 3)
	p.Add(events)
	return sheet{
		title:   maxVioTitle,
		caption: caption(r, scenario, append(maxVioNotes(r, len(courses), zeros), events.legend)...),
		height:  max(330, labels.height()+axisSpace) + events.height(),
		body: func(c draw.Canvas) {
			drawLabelled(draw.Crop(c, 0, -side, 0, -events.height()), p, "step", "MaxVio of the step's batch, max r − 1 (log scale)")
		},
	}.picture(), nil
}

// maxVioNotes are the sentences of the caption.
func maxVioNotes(r *sim.Result, courses, zeros int) []string {
	notes := []string{"MaxVio is over all T tokens of a step, before the state moves."}
	switch {
	case len(r.Seeds) > 1 && courses > maxBands:
		notes = append(notes, "Lines: mean over the seeds, running mean with factor 0.9.")
	case len(r.Seeds) > 1:
		notes = append(notes, "Lines: mean over the seeds, running mean with factor 0.9; shading: least to greatest of the seeds' running means.")
	default:
		notes = append(notes, "Lines: running mean with factor 0.9; faint: the steps themselves.")
	}
	var absent []string
	for _, s := range r.Strategies {
		switch {
		case s.Traits.Bound:
			absent = append(absent, specOf(s)+" (a bound: its loads are balanced, MaxVio 0)")
		case !s.Traits.Causal:
			absent = append(absent, specOf(s)+" (not causal)")
		case len(maxVioOf(s).mean) == 0:
			absent = append(absent, specOf(s)+" (no MaxVio above 0)")
		}
	}
	if len(absent) > 0 {
		notes = append(notes, "Causal strategies only; not drawn: "+strings.Join(absent, ", ")+".")
	} else {
		notes = append(notes, "Every strategy is causal.")
	}
	if zeros > 0 {
		notes = append(notes, fmt.Sprintf("A log scale has no place for a MaxVio of 0: %s left out.", plural(zeros, "value")))
	}
	return notes
}

// course is how the MaxVio of a strategy went: runs of steps on which it can be drawn.
type course struct {
	look      look
	label     []string
	mean      []plotter.XYs // running mean of the mean over the seeds
	low, high []plotter.XYs // of the seeds' running means; nil with one seed
	raw       []plotter.XYs // the steps themselves, with one seed
	zeros     int           // values that could not be drawn
}

// maxVioOf follows the MaxVio of a strategy over the steps that all its seeds have.
func maxVioOf(s *sim.StrategyResult) course {
	var c course
	seeds := make([]map[int]float64, 0, len(s.Runs))
	for _, run := range s.Runs {
		if run != nil && len(run.Steps) > 0 {
			seeds = append(seeds, runningMaxVio(run.Steps))
		}
	}
	if len(seeds) == 0 {
		return c
	}
	var mean, low, high, raw runsOfPoints
	for _, row := range firstSteps(s) {
		var sum float64
		least, greatest := math.Inf(1), math.Inf(-1)
		for _, seed := range seeds {
			v, ok := seed[row.Step]
			if !ok {
				v = math.NaN()
			}
			sum += v
			least, greatest = min(least, v), max(greatest, v)
		}
		x, m := float64(row.Step), sum/float64(len(seeds))
		if m == 0 {
			c.zeros++
		}
		// A band that reaches down to zero ends where its mean can be drawn.
		if ok := drawable(m, true); ok && least <= 0 {
			least = m
		}
		mean.add(x, m)
		low.add(x, least)
		high.add(x, greatest)
		raw.add(x, row.MaxVio)
	}
	c.mean = mean.runs
	if len(seeds) > 1 {
		c.low, c.high = low.runs, high.runs
	} else {
		c.raw = raw.runs
	}
	return c
}

// firstSteps are the steps of the first seed that has any.
func firstSteps(s *sim.StrategyResult) []sim.StepRow {
	for _, run := range s.Runs {
		if run != nil && len(run.Steps) > 0 {
			return run.Steps
		}
	}
	return nil
}

// runningMaxVio is the running mean of the MaxVio of the steps that have one.
func runningMaxVio(rows []sim.StepRow) map[int]float64 {
	mean := make(map[int]float64, len(rows))
	m := math.NaN()
	for _, row := range rows {
		v := row.MaxVio
		switch {
		case !drawable(v, false):
			continue
		case math.IsNaN(m):
			m = v
		default:
			m = keep*m + (1-keep)*v
		}
		mean[row.Step] = m
	}
	return mean
}

// runsOfPoints collects points in runs that end where one is missing.
type runsOfPoints struct {
	runs   []plotter.XYs
	broken bool
}

// add adds a point unless a logarithmic axis has no place for it.
func (s *runsOfPoints) add(x, y float64) { s.addIf(drawable(y, true), x, y) }

func (s *runsOfPoints) addIf(there bool, x, y float64) {
	if !there {
		s.broken = true
		return
	}
	if s.broken || len(s.runs) == 0 {
		s.runs, s.broken = append(s.runs, nil), false
	}
	last := len(s.runs) - 1
	s.runs[last] = append(s.runs[last], plotter.XY{X: x, Y: y})
}

// addTo adds the course to a plot and widens its axes.
func (c course) addTo(p *plot.Plot) {
	if c.low != nil {
		p.Add(band{c.low, c.high, veil(c.look.color, 0x28)})
	}
	if c.raw != nil {
		p.Add(curve{c.raw, draw.LineStyle{Color: veil(c.look.color, 0x50), Width: 0.5}})
	}
	p.Add(curve{c.mean, c.look.line(1.4)})
	for _, runs := range [][]plotter.XYs{c.mean, c.low, c.high, c.raw} {
		for _, run := range runs {
			xmin, xmax, ymin, ymax := plotter.XYRange(run)
			p.X.Min, p.X.Max = min(p.X.Min, xmin), max(p.X.Max, xmax)
			p.Y.Min, p.Y.Max = min(p.Y.Min, ymin), max(p.Y.Max, ymax)
		}
	}
}

// end is the last point of the course.
func (c course) end() plotter.XY {
	run := c.mean[len(c.mean)-1]
	return run[len(run)-1]
}

// floorOf is the sampling floor of a metric, of the first usable strategy that has one, or 0.
func floorOf(r *sim.Result, metric string) float64 {
	for _, s := range r.Strategies {
		if f := s.Metrics[metric].Floor; usable(s) && f != nil && drawable(*f, true) {
			return *f
		}
	}
	return 0
}
