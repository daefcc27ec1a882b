package plots

import (
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"evenkeel/sim"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const biasTitle = "Selection bias of every expert over the run"

// hasBias reports whether any strategy has biases.
func hasBias(r *sim.Result) bool {
	return slices.ContainsFunc(r.Strategies, func(s *sim.StrategyResult) bool { return len(biasShots(r, s)) > 0 })
}

// Bias draws the selection bias of every expert over the steps and their mean, one panel for each strategy that has biases.
func Bias(r *sim.Result, scenario string) (Picture, error) {
	if !hasBias(r) {
		return Picture{}, ErrNothing
	}
	var panels []panel
	low, high := math.Inf(1), math.Inf(-1)
	label, factors := biasUnits(r)
	for _, s := range r.Strategies {
		shots := biasShots(r, s)
		if len(shots) == 0 {
			continue
		}
		p := newPlot("step", label)
		p.X.Tick.Marker = roundTicks{Count: 4, Whole: true}
		p.Y.Tick.Marker = roundTicks{Count: 5}
		addBiases(p, shots)
		low, high = min(low, p.X.Min), max(high, p.X.Max)
		panels = append(panels, panel{heading(s, ""), p})
	}
	if low == high {
		low, high = low-0.5, high+0.5
	}
	shared := shareBiasAxes(panels)
	for _, p := range panels {
		p.plot.X.Min, p.plot.X.Max = low, high
	}
	const width, inner = pageWidth - 2*margin, 190
	g := newPanelGrid(panels, gridColumns(len(panels)), width-4, inner, shared)
	g.events = layEvents(r.Facts.Events, low, high, g.panelWidth(), 2)
	axes := ""
	if !shared {
		axes = "Panels have y axes of their own: their ranges differ too much."
	}
	return sheet{
		title: biasTitle,
		caption: caption(r, scenario, "The bias b is added to the scores for the choice only; it is drawn as it stood at the step.", factors, firstSeed(r),
			fmt.Sprintf("Thin lines: the %s experts, dark to light by their last bias; black dashes: their mean (common-mode drift).", count(r.Layer.Experts)),
			axes, g.events.legend),
		height: g.height(),
		body:   func(c draw.Canvas) { g.draw(draw.Crop(c, 0, -4, 0, 0)) },
	}.picture(), nil
}

// biasUnits is the label of the biases, and a sentence on those that are factors, if any is drawn.
func biasUnits(r *sim.Result) (label, sentence string) {
	var factors []string
	for _, s := range r.Strategies {
		if s.Traits.Factor && len(biasShots(r, s)) > 0 {
			factors = append(factors, specOf(s))
		}
	}
	if len(factors) == 0 {
		return "bias b, in units of the score", ""
	}
	return "bias b", "Of " + strings.Join(factors, ", ") + ", b is a factor on the scores instead, and 1 changes nothing."
}

// biasShots are the shots of a strategy's first run that carry finite biases, in order.
func biasShots(r *sim.Result, s *sim.StrategyResult) []sim.Shot {
	return shotsWith(s, func(x sim.Shot) bool {
		return len(x.Bias) == r.Layer.Experts &&
			slices.ContainsFunc(x.Bias, func(b float32) bool { return drawable(float64(b), false) })
	})
}

// biasScale colours experts by their last bias. It is Viridis without its lightest part, which white paper swallows.
var biasScale = gradient{
	{0x44, 0x01, 0x54, 0xff}, {0x48, 0x28, 0x78, 0xff}, {0x3e, 0x49, 0x89, 0xff}, {0x31, 0x68, 0x8e, 0xff},
	{0x26, 0x82, 0x8e, 0xff}, {0x1f, 0x9e, 0x89, 0xff}, {0x35, 0xb7, 0x79, 0xff}, {0x6e, 0xce, 0x58, 0xff},
	{0xa0, 0xd8, 0x40, 0xff},
}

// addBiases adds the experts' lines, the mean, and room for them.
func addBiases(p *plot.Plot, shots []sim.Shot) {
	last := shots[len(shots)-1].Bias
	p.Add(zeroLine{})
	width := vg.Length(0.8)
	if len(last) > 100 {
		width = 0.5
	}
	for e := range last {
		line := expertBias(shots, e)
		p.Add(curve{line, draw.LineStyle{Color: biasColor(last, e), Width: width}})
		for _, run := range line {
			xmin, xmax, ymin, ymax := plotter.XYRange(run)
			p.X.Min, p.X.Max = min(p.X.Min, xmin), max(p.X.Max, xmax)
			p.Y.Min, p.Y.Max = min(p.Y.Min, ymin), max(p.Y.Max, ymax)
		}
	}
	mean := []plotter.XYs{meanBias(shots)}
	p.Add(curve{mean, draw.LineStyle{Color: veil(paper, 0xd0), Width: 3.2}})
	p.Add(curve{mean, draw.LineStyle{Color: ink, Width: 1.5, Dashes: []vg.Length{5, 2.5}}})
}

// biasColor is the colour of an expert whose bias ends where it does among the others.
func biasColor(last []float32, e int) color.Color {
	low, high := math.Inf(1), math.Inf(-1)
	for _, b := range last {
		if v := float64(b); drawable(v, false) {
			low, high = min(low, v), max(high, v)
		}
	}
	v := float64(last[e])
	if !drawable(v, false) || high == low {
		return biasScale.at(0)
	}
	return biasScale.at((v - low) / (high - low))
}

// expertBias is the course of one expert's bias, broken where it is not finite.
func expertBias(shots []sim.Shot, e int) []plotter.XYs {
	var runs []plotter.XYs
	broken := true
	for _, x := range shots {
		b := float64(x.Bias[e])
		if !drawable(b, false) {
			broken = true
			continue
		}
		if broken {
			runs, broken = append(runs, nil), false
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], plotter.XY{X: float64(x.Step), Y: b})
	}
	return runs
}

// meanBias is the course of the mean of the finite biases.
func meanBias(shots []sim.Shot) plotter.XYs {
	mean := make(plotter.XYs, len(shots))
	for i, x := range shots {
		sum, n := 0.0, 0
		for _, b := range x.Bias {
			if v := float64(b); drawable(v, false) {
				sum += v
				n++
			}
		}
		mean[i] = plotter.XY{X: float64(x.Step), Y: sum / float64(n)}
	}
	return mean
}

// shareBiasAxes gives all panels one y axis, unless that would squeeze one of them to less than a quarter of its height, and
// reports whether it did.
func shareBiasAxes(panels []panel) bool {
	low, high, least := math.Inf(1), math.Inf(-1), math.Inf(1)
	for _, p := range panels {
		y := &p.plot.Y
		low, high = min(low, y.Min), max(high, y.Max)
		if y.Max > y.Min {
			least = min(least, y.Max-y.Min)
		}
	}
	shared := high-low <= 4*least
	for _, p := range panels {
		y := &p.plot.Y
		if shared {
			y.Min, y.Max = low, high
		}
		room := 0.05 * (y.Max - y.Min)
		if room == 0 {
			room = max(1e-3, 0.05*math.Abs(y.Max))
		}
		y.Min, y.Max = y.Min-room, y.Max+room
	}
	return shared
}

// zeroLine marks zero on the y axis.
type zeroLine struct{}

// Plot implements plot.Plotter.
func (zeroLine) Plot(c draw.Canvas, p *plot.Plot) {
	if _, y := p.Transforms(&c); p.Y.Min < 0 && p.Y.Max > 0 {
		c.StrokeLine2(draw.LineStyle{Color: faint, Width: 0.8}, c.Min.X, y(0), c.Max.X, y(0))
	}
}
