package plots

import (
	"fmt"
	"math"
	"slices"

	"evenkeel/sim"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const balanceQualityTitle = "What balance costs: affinity lost, or task loss, against global MaxVio"

// hasBalanceQuality reports whether a strategy that is no bound has both its balance and its quality measured.
func hasBalanceQuality(r *sim.Result) bool {
	return slices.ContainsFunc(tradesOf(r), func(t trade) bool { return !t.bound })
}

// BalanceQuality draws the affinity that every strategy loses, or its task loss where experts learn, against the imbalance that
// it leaves. Better is down and left.
func BalanceQuality(r *sim.Result, scenario string) (Picture, error) {
	if !hasBalanceQuality(r) {
		return Picture{}, ErrNothing
	}
	trades := tradesOf(r)
	floor := floorOf(r, "maxvio_global")
	p := newPlot("", "")
	q := qualityOf(r)
	setTradeAxes(p, trades, floor, q)
	labels := tradeLabels{trades: trades, floor: floor}
	p.Add(horizontalGrid{}, tradeGuides{trades, floor})
	for _, line := range families(trades) {
		p.Add(curve{[]plotter.XYs{line}, draw.LineStyle{Color: noise, Width: 0.8}})
		for i := 1; i < len(line); i++ {
			labels.lines = append(labels.lines, [2]plotter.XY{line[i-1], line[i]})
		}
	}
	p.Add(tradeBars(trades), tradeGlyphs(trades), frame{}, labels)

	return sheet{
		title:   "What balance costs: " + q.title + " against global MaxVio",
		caption: caption(r, scenario, tradeNotes(r, trades)...),
		height:  420,
		body: func(c draw.Canvas) {
			drawLabelled(draw.Crop(c, 0, -4, 0, -lineHeight(eventText)-2), p,
				"global MaxVio, max r − 1 over the evaluation (log scale)", q.axis)
		},
	}.picture(), nil
}

// tradeNotes are the sentences of the caption.
func tradeNotes(r *sim.Result, trades []trade) []string {
	what := "affinity"
	if r.ExpertsLearn {
		what = "task loss"
	}
	notes := []string{"Loads and " + what + ": " + evaluation(r) + "."}
	if first := r.Strategies[0]; r.ExpertsLearn {
		notes = append(notes, fmt.Sprintf("The task loss of %s is %.3f of the target's energy.", oneLine(first.Traits.Spec), first.Metrics["task_loss"].Mean))
	}
	alone := " of each alone, not paired"
	if r.ExpertsLearn {
		alone = ", of MaxVio of each alone, of task loss of the paired difference"
	}
	if slices.ContainsFunc(trades, func(t trade) bool { return t.x.ranged() || t.y.ranged() }) {
		notes = append(notes, "Points: mean over the seeds; bars: 95 % t-interval"+alone+"; a bar without a cap goes on beyond the axis.")
	}
	if len(families(trades)) > 0 {
		notes = append(notes, "Grey lines join strategies that differ in strength alone, in the order of the command line, from strength 0 where it is shown.")
	}
	if slices.ContainsFunc(trades, func(t trade) bool { return t.bound }) {
		notes = append(notes, "Hollow star and dotted line: a bound, no strategy that one could use; points below it buy affinity with imbalance.")
	}
	var absent []string
	for _, s := range r.Strategies {
		if _, ok := tradeOf(s); !ok {
			absent = append(absent, specOf(s))
		}
	}
	return append(notes, tradeGaps(trades, absent)...)
}

// setTradeAxes fits the axes to the points, their intervals and the floor. Zero gets a place of its own left of the
// logarithmic scale if anything is there.
func setTradeAxes(p *plot.Plot, trades []trade, floor float64, q quality) {
	xmin, xmax, ymin, ymax := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	if q.zero {
		ymin, ymax = 0, 0
	}
	zero := false
	reach := func(x float64) {
		if drawable(x, true) {
			xmin, xmax = min(xmin, x), max(xmax, x)
		}
	}
	for _, t := range trades {
		zero = zero || t.x.mean <= 0
		reach(t.x.mean)
		reach(t.x.high)
		// An interval that goes far below its mean, perhaps below zero, is cut at the edge.
		if t.x.mean > 0 && t.x.ranged() {
			reach(max(t.x.low, t.x.mean/3))
		}
		if drawable(t.y.mean, false) {
			ymin, ymax = min(ymin, t.y.mean), max(ymax, t.y.mean)
		}
	}
	// Intervals far beyond all means are cut at the edge.
	far := (ymax - ymin) / 2
	for _, t := range trades {
		for _, y := range []float64{t.y.low, t.y.high} {
			if drawable(y, false) {
				ymin, ymax = min(ymin, max(y, t.y.mean-far)), max(ymax, min(y, t.y.mean+far))
			}
		}
	}
	reach(floor)
	if math.IsInf(xmin, 1) {
		xmin, xmax = 0.1, 1
	}
	p.X.Min, p.X.Max = logRange(xmin, xmax)
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	if zero {
		p.X.Scale, p.X.Tick.Marker = zeroLog{}, zeroLogTicks{}
	}
	room := max(0.08*(ymax-ymin), q.least)
	if ymin < 0 || !q.zero {
		ymin -= room
	}
	// Below zero nothing can be lost; the room there is for the glyphs of those who lose nothing.
	p.Y.Min, p.Y.Max = ymin-room/2, ymax+room
	p.Y.Tick.Marker = roundTicks{Count: 6}
}

const barCap = 3 * vg.Length(1) // half the line that ends an interval

// tradeBars draws the intervals of all points in both directions.
type tradeBars []trade

// Plot implements plot.Plotter.
func (b tradeBars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, t := range b {
		style := draw.LineStyle{Color: t.glyph().Color, Width: 0.9}
		px, py := x(t.x.mean), y(t.y.mean)
		if t.y.ranged() {
			from, to := y(max(t.y.low, p.Y.Min)), y(min(t.y.high, p.Y.Max))
			c.StrokeLine2(style, px, from, px, to)
			if t.y.low >= p.Y.Min {
				c.StrokeLine2(style, px-barCap, from, px+barCap, from)
			}
			if t.y.high <= p.Y.Max {
				c.StrokeLine2(style, px-barCap, to, px+barCap, to)
			}
		}
		if t.x.ranged() {
			from, to := x(max(t.x.low, p.X.Min)), x(t.x.high)
			c.StrokeLine2(style, from, py, to, py)
			c.StrokeLine2(style, to, py-barCap, to, py+barCap)
			if t.x.low >= p.X.Min {
				c.StrokeLine2(style, from, py-barCap, from, py+barCap)
			}
		}
	}
}

// tradeGlyphs draws the points.
type tradeGlyphs []trade

// glyph is the mark of the trade.
func (t trade) glyph() draw.GlyphStyle {
	if t.bound {
		return draw.GlyphStyle{Color: ink, Radius: 7, Shape: star{}}
	}
	return draw.GlyphStyle{Color: t.look.color, Radius: 4, Shape: t.look.glyph}
}

// Plot implements plot.Plotter.
func (g tradeGlyphs) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, t := range g {
		at := vg.Point{X: x(t.x.mean), Y: y(t.y.mean)}
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: paper, Radius: 4.5, Shape: draw.CircleGlyph{}}, at)
		c.DrawGlyphNoClip(t.glyph(), at)
	}
}

// tradeGuides draws what points are to be measured against: the sampling floor, the bounds, and where better is.
type tradeGuides struct {
	trades []trade
	floor  float64
}

// Plot implements plot.Plotter.
func (g tradeGuides) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	if g.floor > 0 {
		at := x(g.floor)
		c.StrokeLine2(floorLine, at, c.Min.Y, at, c.Max.Y)
		style := coloured(aligned(eventText, draw.XCenter), soft)
		half := style.Width(floorLabel) / 2
		at = max(c.Min.X+half, min(at, c.Max.X-half))
		writeLines(&c, style, vg.Point{X: at, Y: c.Max.Y + lineHeight(style) + 1}, []string{floorLabel})
	}
	for _, t := range g.trades {
		if t.bound {
			c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.9, Dashes: []vg.Length{1.2, 2.4}}, c.Min.X, y(t.y.mean), c.Max.X, y(t.y.mean))
		}
	}
	drawZeroBreak(c, p)
	drawBetter(c, betterCorner(c, p))
}

// drawZeroBreak sets the place of zero apart where the x axis has one.
func drawZeroBreak(c draw.Canvas, p *plot.Plot) {
	if _, ok := p.X.Scale.(zeroLog); !ok {
		return
	}
	at := c.X(zeroBreak) - 5
	c.StrokeLine2(draw.LineStyle{Color: faint, Width: 0.8, Dashes: []vg.Length{2, 2}}, at, c.Min.Y, at, c.Max.Y)
	for _, side := range []vg.Length{-1.5, 1.5} {
		c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.6}, at+side-1.5, c.Min.Y-4, at+side+1.5, c.Min.Y+4)
	}
}

// betterCorner is the lower left corner of the part of a plot that has a logarithmic scale.
func betterCorner(c draw.Canvas, p *plot.Plot) vg.Point {
	at := vg.Point{X: c.Min.X + 10, Y: c.Min.Y + 10}
	if _, ok := p.X.Scale.(zeroLog); ok {
		at.X = c.X(zeroBreak) + 6
	}
	return at
}

const betterSize = 20 * vg.Length(1) // of the arrow

// drawBetter draws an arrow into a corner and says what it means.
func drawBetter(c draw.Canvas, corner vg.Point) {
	tail := corner.Add(vg.Point{X: betterSize, Y: betterSize})
	c.StrokeLine2(draw.LineStyle{Color: soft, Width: 1.2}, corner.X+3, corner.Y+3, tail.X, tail.Y)
	c.FillPolygon(soft, []vg.Point{corner, corner.Add(vg.Point{X: 8, Y: 3}), corner.Add(vg.Point{X: 3, Y: 8})})
	style := coloured(labelText, soft)
	word := vg.Rectangle{Min: tail.Add(vg.Point{X: 2, Y: -8}), Max: tail.Add(vg.Point{X: 4 + style.Width("better"), Y: 6})}
	c.SetColor(paper)
	c.Fill(word.Path())
	writeLines(&c, style, vg.Point{X: word.Min.X + 1, Y: word.Max.Y - 1}, []string{"better"})
}

// betterBox is the place that the arrow and its label take.
func betterBox(c draw.Canvas, p *plot.Plot) vg.Rectangle {
	at := betterCorner(c, p)
	return vg.Rectangle{Min: at, Max: at.Add(vg.Point{X: betterSize + 6 + labelText.Width("better"), Y: betterSize + 10})}
}
