package plots

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"evenkeel/sim"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const frontierTitle = "At equal imbalance: affinity lost along each strategy's strength"

// Frontier draws curves of affinity lost against global MaxVio, one for each strategy along its strength, with the balanced
// optimum and the sampling floor. Better is down and left.
func Frontier(r *sim.Result, curves []*sim.Curve, scenario string) (Picture, error) {
	var lines []strengthLine
	var all []trade
	var absent []string
	for i, c := range curves {
		l := strengthLine{look: lookOf(i), label: oneLine(c.Family)}
		if kind := c.Kind(); kind != "" {
			l.label += " (" + kind + ")"
		}
		for _, s := range c.Points {
			if t, ok := tradeOf(s); ok {
				t.look = l.look
				l.points = append(l.points, t)
			}
		}
		if len(l.points) > 0 {
			lines, all = append(lines, l), append(all, l.points...)
		} else {
			absent = append(absent, oneLine(c.Family))
		}
	}
	for _, s := range r.Strategies {
		if t, ok := tradeOf(s); ok && s.Traits.Bound {
			all = append(all, t)
		}
	}
	if len(lines) == 0 {
		return Picture{}, ErrNothing
	}
	floor := floorOf(r, "maxvio_global")
	p := newPlot("", "")
	q := qualityOf(r)
	setTradeAxes(p, all, floor, q)
	bounds := slices.DeleteFunc(slices.Clone(all), func(t trade) bool { return !t.bound })
	p.Add(horizontalGrid{}, tradeGuides{bounds, floor})
	for _, l := range lines {
		p.Add(l)
	}
	p.Add(tradeGlyphs(bounds), frame{})
	legend := strengthLegend{lines: lines, bound: len(bounds) > 0}
	return sheet{
		title:   frontierTitle,
		caption: caption(r, scenario, append(frontierNotes(r, len(bounds) > 0), tradeGaps(all, absent)...)...),
		height:  430,
		body: func(c draw.Canvas) {
			side := legend.width()
			drawLabelled(draw.Crop(c, 0, -side-10, 0, -lineHeight(eventText)-2), p,
				"global MaxVio, max r − 1 over the evaluation (log scale)", q.axis)
			legend.draw(draw.Crop(c, c.Max.X-c.Min.X-side, 0, 0, -lineHeight(eventText)-8))
		},
	}.picture(), nil
}

// WriteFrontier draws the figure into an existing folder, as frontier.svg and frontier.png.
func WriteFrontier(dir string, r *sim.Result, curves []*sim.Curve, scenario string) error {
	p, err := Frontier(r, curves, scenario)
	if err != nil {
		return fmt.Errorf("figure frontier: %w", err)
	}
	svg, err := p.SVG()
	if err != nil {
		return err
	}
	png, err := p.PNG()
	if err != nil {
		return err
	}
	_, err = writeFiles(dir, []file{{"frontier.svg", svg}, {"frontier.png", png}}, nil)
	return err
}

func frontierNotes(r *sim.Result, bound bool) []string {
	notes := []string{"Loads and affinity: " + evaluation(r) + ".",
		"Each line is one strategy, its points in the order of their strength, from strength 0 where that is another strategy."}
	if len(r.Seeds) > 1 {
		notes = append(notes, "Points: mean over the seeds; bars: 95 % t-interval of each alone, not paired; differences between lines at equal imbalance are in the table, paired by seed.")
	}
	if bound {
		notes = append(notes, "Hollow star and dotted line: the best exactly balanced assignment of a batch, a bound, no strategy that one could use.")
	}
	return notes
}

// strengthLine is one strategy along its strength.
type strengthLine struct {
	label  string
	look   look
	points []trade
}

// Plot implements plot.Plotter.
func (l strengthLine) Plot(c draw.Canvas, p *plot.Plot) {
	var line plotter.XYs
	for _, t := range l.points {
		line = append(line, plotter.XY{X: t.x.mean, Y: t.y.mean})
	}
	if len(line) > 1 {
		curve{[]plotter.XYs{line}, l.look.line(1.4)}.Plot(c, p)
	}
	x, y := p.Transforms(&c)
	thin := draw.LineStyle{Color: veil(l.look.color, 0x60), Width: 0.7}
	for _, t := range l.points {
		px, py := x(t.x.mean), y(t.y.mean)
		if t.y.ranged() {
			c.StrokeLine2(thin, px, y(max(t.y.low, p.Y.Min)), px, y(min(t.y.high, p.Y.Max)))
		}
		if t.x.ranged() {
			c.StrokeLine2(thin, x(max(t.x.low, p.X.Min)), py, x(min(t.x.high, p.X.Max)), py)
		}
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: paper, Radius: 3.6, Shape: draw.CircleGlyph{}}, vg.Point{X: px, Y: py})
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: l.look.color, Radius: 3, Shape: l.look.glyph}, vg.Point{X: px, Y: py})
	}
}

// strengthLegend names the lines beside the plot, in the order in which the most even part of each lies.
type strengthLegend struct {
	lines []strengthLine
	bound bool
}

const legendWidth = 150 * vg.Length(1)

func (l strengthLegend) width() vg.Length {
	widest := labelText.Width("balanced optimum")
	for _, x := range l.lines {
		for _, line := range wrap(x.label, labelText, legendWidth) {
			widest = max(widest, labelText.Width(line))
		}
	}
	return endSample + 6 + widest
}

func (l strengthLegend) draw(c draw.Canvas) {
	top := c.Max.Y
	entry := func(lines []string, sample func(at vg.Point)) {
		middle := top - lineHeight(labelText)/2
		sample(vg.Point{X: c.Min.X + endSample/2, Y: middle})
		writeLines(&c, labelText, vg.Point{X: c.Min.X + endSample + 6, Y: top}, lines)
		top -= lineHeight(labelText)*vg.Length(len(lines)) + 4
	}
	ordered := slices.Clone(l.lines)
	slices.SortStableFunc(ordered, func(a, b strengthLine) int { return cmp.Compare(b.height(), a.height()) })
	for _, x := range ordered {
		entry(wrap(x.label, labelText, legendWidth), func(at vg.Point) {
			if len(x.points) > 1 {
				c.StrokeLine2(x.look.line(1.4), c.Min.X, at.Y, c.Min.X+endSample, at.Y)
			}
			c.DrawGlyph(draw.GlyphStyle{Color: x.look.color, Radius: 3, Shape: x.look.glyph}, at)
		})
	}
	if l.bound {
		entry([]string{"balanced optimum"}, func(at vg.Point) {
			c.DrawGlyph(draw.GlyphStyle{Color: ink, Radius: 6, Shape: star{}}, at)
		})
	}
}

// height is the largest affinity lost along the line.
func (l strengthLine) height() float64 {
	h := math.Inf(-1)
	for _, t := range l.points {
		h = max(h, t.y.mean)
	}
	return h
}
