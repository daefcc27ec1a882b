package plots

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const batchSizesTitle = "Noise or structure? MaxVio against the tokens of a batch"

// BatchPanel is how the MaxVio of one layer, or of the mean of several, goes with the size of a batch.
type BatchPanel struct {
	Title string
	Lines []BatchLine // the last is all tokens
}

// BatchLine is the mean MaxVio of batches by their size in tokens.
type BatchLine struct {
	Name      string
	Sizes     []int
	MaxVio    []float64
	Shuffled  []float64 // of the same tokens in random order; nil for none
	Low, High []float64 // what most layers lie between, by size; nil for none
	Floor     []float64 // of the sizes
}

// BatchSizes draws MaxVio against the batch size on logarithmic axes, one panel for each layer, with the sampling floor:
// independent tokens fall as it does, structure stays. About names the trace, and of what batches are cut from it: tokens, or
// steps of counts.
func BatchSizes(panels []BatchPanel, about, of string) (Picture, error) {
	panels = slices.DeleteFunc(slices.Clone(panels), func(p BatchPanel) bool {
		return !slices.ContainsFunc(p.Lines, func(l BatchLine) bool { return len(l.Sizes) > 1 })
	})
	if len(panels) == 0 {
		return Picture{}, ErrNothing
	}
	looks := batchLooks(panels)
	legend := batchLegend{looks: looks}
	low, high, bottom, top := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	var drawn []panel
	for _, x := range panels {
		p := newPlot("", "")
		p.X.Scale, p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogScale{}, logTicks{}
		p.Add(horizontalGrid{})
		for _, l := range x.Lines {
			for i, size := range l.Sizes {
				low, high = min(low, float64(size)), max(high, float64(size))
				values := []float64{l.MaxVio[i], l.Floor[i]}
				if l.Low != nil {
					values = append(values, l.Low[i], l.High[i])
				}
				for _, v := range values {
					if drawable(v, true) {
						bottom, top = min(bottom, v), max(top, v)
					}
				}
			}
			legend.banded = legend.banded || l.Low != nil
			legend.shuffled = legend.shuffled || l.Shuffled != nil
			p.Add(batchCurve{l, looks.of(l.Name)})
		}
		p.Add(batchFloor(x))
		drawn = append(drawn, panel{oneLine(x.Title), p})
	}
	low, high = logRange(low, high)
	bottom, top = logRange(bottom, top)
	side := legend.width() + 10
	const width = pageWidth - 2*margin
	line := lineHeight(labelText)
	inner := vg.Length(300)
	if len(drawn) > 1 {
		inner = 190
	}
	columns := gridColumns(len(drawn))
	for i, x := range panels {
		p := drawn[i].plot
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = low, high, bottom, top
		p.X.Tick.Marker = sizeTicks(x.sizes(), (width-side)/vg.Length(columns)-panelAxes-panelGap, math.Log(high/low))
	}
	g := newPanelGrid(drawn, columns, width-side-line-2, inner, true)
	shown := fmt.Sprintf("Lines: mean over whole batches of consecutive %s; the last point is all of them.", of)
	if len(looks.names) > 1 {
		shown += " The batches of a domain hold its tokens alone."
	}
	if legend.shuffled {
		shown += " Dotted: the same tokens in random order, without what neighbours have in common."
	}
	if legend.banded {
		shown += " Shading: 90 % of the layers."
	}
	return sheet{
		title:   batchSizesTitle,
		caption: oneLine(about) + " " + shown + " The sampling floor is what K experts chosen at random give: independent tokens fall beside it (slope −1/2), structure stays.",
		height:  max(g.height(), legend.height()),
		body: func(c draw.Canvas) {
			body := draw.Crop(c, line+2, -side, 0, 0)
			g.draw(body)
			writeLines(&c, aligned(labelText, draw.XCenter), vg.Point{X: body.Center().X + panelAxes/2, Y: c.Min.Y + line}, []string{"tokens of a batch (log scale)"})
			writeUpwards(c, labelText, vg.Point{X: c.Min.X + line, Y: c.Center().Y}, "MaxVio, max r − 1 (log scale)")
			legend.draw(draw.Crop(c, c.Max.X-c.Min.X-side+10, 0, 0, -panelHeader-lineHeight(panelText)))
		},
	}.picture(), nil
}

// namedLooks are the looks of lines by their names.
type namedLooks struct {
	names []string
	looks []look
}

func (n namedLooks) of(name string) look { return n.looks[slices.Index(n.names, name)] }

// batchLooks gives every domain its look, and all tokens black.
func batchLooks(panels []BatchPanel) (n namedLooks) {
	for _, p := range panels {
		for i, l := range p.Lines {
			if slices.Contains(n.names, l.Name) {
				continue
			}
			k := lookOf(len(n.names))
			if i == len(p.Lines)-1 {
				k = look{color: ink, glyph: draw.CircleGlyph{}}
			}
			n.names, n.looks = append(n.names, l.Name), append(n.looks, k)
		}
	}
	return n
}

// sizes are the batch sizes of a panel, in order.
func (p BatchPanel) sizes() (all []int) {
	for _, l := range p.Lines {
		all = append(all, l.Sizes...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// sizeTicks marks batch sizes, which are in order, on a logarithmic axis of some width and ln(max/min), and labels those that have
// room, the largest first.
func sizeTicks(sizes []int, width vg.Length, span float64) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	taken := math.Inf(1) // where the label to the right begins
	for _, size := range slices.Backward(sizes) {
		t := plot.Tick{Value: float64(size)}
		at, half := float64(width)*math.Log(float64(size))/span, float64(tickText.Width(count(size)))/2
		if at+half < taken-3 {
			t.Label, taken = count(size), at-half
		}
		ticks = append(ticks, t)
	}
	return ticks
}

// batchCurve draws one line, its band and its shuffled twin.
type batchCurve struct {
	BatchLine
	look look
}

// along are the points of some values by batch size.
func (l BatchLine) along(values []float64) []plotter.XYs {
	var s runsOfPoints
	for i, v := range values {
		s.add(float64(l.Sizes[i]), v)
	}
	return s.runs
}

// Plot implements plot.Plotter.
func (b batchCurve) Plot(c draw.Canvas, p *plot.Plot) {
	if b.Low != nil {
		if low, high := b.along(b.Low), b.along(b.High); len(low) == 1 && len(high) == 1 && len(low[0]) == len(high[0]) {
			band{low, high, veil(b.look.color, 0x28)}.Plot(c, p)
		}
	}
	if b.Shuffled != nil {
		curve{b.along(b.Shuffled), shuffledLine(b.look)}.Plot(c, p)
	}
	runs := b.along(b.MaxVio)
	curve{runs, draw.LineStyle{Color: b.look.color, Width: 1.4}}.Plot(c, p)
	for _, run := range runs {
		for _, at := range onCanvas(c, p, run) {
			c.DrawGlyphNoClip(draw.GlyphStyle{Color: b.look.color, Radius: 2.8, Shape: b.look.glyph}, at)
		}
	}
}

func shuffledLine(l look) draw.LineStyle {
	return draw.LineStyle{Color: l.color, Width: 1, Dashes: []vg.Length{1.5, 2}}
}

// batchFloor is the floor at all sizes of a panel.
func batchFloor(p BatchPanel) curve {
	var points plotter.XYs
	for _, l := range p.Lines {
		for i, size := range l.Sizes {
			if x := float64(size); drawable(l.Floor[i], true) && !slices.ContainsFunc(points, func(q plotter.XY) bool { return q.X == x }) {
				points = append(points, plotter.XY{X: x, Y: l.Floor[i]})
			}
		}
	}
	slices.SortFunc(points, func(a, b plotter.XY) int { return int(a.X - b.X) })
	return curve{[]plotter.XYs{points}, floorLine}
}

// batchLegend names the lines beside the panels.
type batchLegend struct {
	looks            namedLooks
	shuffled, banded bool
}

// entries are the labels and how each is drawn.
func (l batchLegend) entries() (labels [][]string, draws []func(c draw.Canvas, from, to vg.Point)) {
	add := func(label string, sample func(c draw.Canvas, from, to vg.Point)) {
		labels, draws = append(labels, wrap(oneLine(label), labelText, legendWidth-40)), append(draws, sample)
	}
	stroke := func(style draw.LineStyle) func(draw.Canvas, vg.Point, vg.Point) {
		return func(c draw.Canvas, from, to vg.Point) { c.StrokeLine2(style, from.X, from.Y, to.X, to.Y) }
	}
	for i, name := range l.looks.names {
		k := l.looks.looks[i]
		add(name, func(c draw.Canvas, from, to vg.Point) {
			stroke(draw.LineStyle{Color: k.color, Width: 1.4})(c, from, to)
			c.DrawGlyph(draw.GlyphStyle{Color: k.color, Radius: 2.8, Shape: k.glyph}, vg.Point{X: (from.X + to.X) / 2, Y: from.Y})
		})
	}
	if l.shuffled {
		add("shuffled", stroke(shuffledLine(look{color: ink})))
	}
	add(floorLabel, stroke(floorLine))
	return labels, draws
}

func (l batchLegend) width() vg.Length {
	widest := vg.Length(0)
	labels, _ := l.entries()
	for _, line := range slices.Concat(labels...) {
		widest = max(widest, labelText.Width(line))
	}
	return endSample + 6 + widest
}

func (l batchLegend) height() (h vg.Length) {
	labels, _ := l.entries()
	for _, x := range labels {
		h += vg.Length(len(x))*lineHeight(labelText) + 4
	}
	return h + panelHeader + lineHeight(panelText)
}

func (l batchLegend) draw(c draw.Canvas) {
	top := c.Max.Y
	labels, draws := l.entries()
	for i, lines := range labels {
		middle := top - lineHeight(labelText)/2
		draws[i](c, vg.Point{X: c.Min.X, Y: middle}, vg.Point{X: c.Min.X + endSample, Y: middle})
		writeLines(&c, labelText, vg.Point{X: c.Min.X + endSample + 6, Y: top}, lines)
		top -= lineHeight(labelText)*vg.Length(len(lines)) + 4
	}
}

// WriteBatchSizes draws the figure into an existing folder, as maxvio-batch-size.svg and .png, if there is anything to draw.
func WriteBatchSizes(dir string, panels []BatchPanel, about, of string) error {
	p, err := BatchSizes(panels, about, of)
	return writePicture(dir, "maxvio-batch-size", p, err)
}

// writePicture writes a picture that was drawn, or removes the one of an earlier result where there was nothing to draw.
func writePicture(dir, name string, p Picture, err error) error {
	if err == ErrNothing {
		_, err = writeFiles(dir, nil, []string{name + ".svg", name + ".png"})
		return err
	}
	if err != nil {
		return fmt.Errorf("figure %s: %w", name, err)
	}
	svg, err := p.SVG()
	if err != nil {
		return err
	}
	png, err := p.PNG()
	if err != nil {
		return err
	}
	_, err = writeFiles(dir, []file{{name + ".svg", svg}, {name + ".png", png}}, nil)
	return err
}
