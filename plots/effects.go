package plots

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Effects are bars of the shares of variance that the varied parameters explain, alone and in pairs, with what they leave.
type Effects struct {
	Sweep
	Title    string // empty for one made of the name
	Metric   Metric
	Of       string // what the variance is of, such as "the logarithm of MaxVio"; empty for the metric itself
	Terms    []Effect
	Blocks   Effect // what seeds do to all settings alike, by their worlds and tokens; none if its share is 0
	Residual Effect // what no term explains: seeds, and higher interactions where they are no terms
}

// Effect is a parameter's share of variance, or that of several together.
type Effect struct {
	Name      string // of the parameters, such as rate × tokens
	Order     int    // 1 for a main effect, 2 for an interaction of two parameters, and so on
	Share     float64
	Low, High float64 // interval; NaN or both 0 for none
}

const maxEffects = 24 // bars of terms

// Picture draws the bars. It fails on shares that are none, on terms without a name or an order, and where there is no term.
func (e Effects) Picture() (Picture, error) {
	for i, t := range append(slices.Clone(e.Terms), e.Blocks, e.Residual) {
		name := orElse(t.Name, "what is no term")
		switch {
		case i < len(e.Terms) && oneLine(t.Name) == "":
			return Picture{}, fmt.Errorf("term %d has no name", i)
		case i < len(e.Terms) && t.Order < 1:
			return Picture{}, fmt.Errorf("%s is of order %d: a main effect is of order 1, an interaction of two parameters of order 2", name, t.Order)
		case !drawable(t.Share, false) || t.Share > 1+1e-9 || t.Share < -1:
			return Picture{}, fmt.Errorf("%s has a share of %g: it must be a fraction of the variance, at most 1", name, t.Share)
		case t.Low > t.High:
			return Picture{}, fmt.Errorf("%s has an interval from %g down to %g", name, t.Low, t.High)
		}
	}
	if len(e.Terms) == 0 {
		return Picture{}, ErrNothing
	}
	return e.draw(), nil
}

func (t Effect) ranged() bool {
	return drawable(t.Low, false) && drawable(t.High, false) && (t.Low != 0 || t.High != 0)
}

// effectRow is a bar with its label.
type effectRow struct {
	Effect
	label []string
	fill  color.Color
	tall  vg.Length
	top   vg.Length // below the top of the frame
}

var (
	mainFill     = lookColors[0]
	pairFill     = lookColors[1]
	blocksFill   = color.Gray{0x8c}
	residualFill = color.Gray{0xb4}
	restFill     = color.Gray{0xe4}
)

// rows are the bars: terms by their share, those for which there is no bar together, and the residual.
func (e Effects) rows() (rows []effectRow, height vg.Length) {
	const widest = 215
	terms := slices.Clone(e.Terms)
	slices.SortStableFunc(terms, func(a, b Effect) int { return cmp.Compare(b.Share, a.Share) })
	add := func(t Effect, fill color.Color) {
		r := effectRow{Effect: t, label: wrap(oneLine(t.Name), labelText, widest), fill: fill, top: height}
		r.tall = max(20, lineHeight(labelText)*vg.Length(len(r.label))+6)
		height += r.tall
		rows = append(rows, r)
	}
	rest := Effect{}
	for i, t := range terms {
		fill := mainFill
		if t.Order > 1 {
			fill = pairFill
		}
		if i < maxEffects {
			add(t, fill)
		} else {
			rest.Share += t.Share
		}
	}
	if n := len(terms) - maxEffects; n > 0 {
		rest.Name = plural(n, "further term") + " together"
		add(rest, restFill)
	}
	if blocks := e.Blocks; blocks.Share != 0 {
		blocks.Name = orElse(blocks.Name, "seeds, to all settings alike")
		add(blocks, blocksFill)
	}
	residual := e.Residual
	residual.Name = orElse(residual.Name, "residual: seeds, and what the terms leave")
	add(residual, residualFill)
	return rows, height
}

func (e Effects) notes(rows []effectRow) []string {
	sum, ranged := e.Residual.Share+e.Blocks.Share, false
	for _, t := range e.Terms {
		sum += t.Share
	}
	for _, r := range rows {
		ranged = ranged || r.ranged()
	}
	notes := []string{"Bars: share of the variance between runs, over all seeds; an interaction " +
		"is what two parameters do together beyond what each does alone."}
	if ranged {
		notes = append(notes, "Whiskers: "+orElse(e.Interval, "interval")+".")
	} else {
		notes = append(notes, "The shares have no intervals.")
	}
	if math.Abs(sum-1) > 0.005 {
		notes = append(notes, fmt.Sprintf("The shares add up to %s %%, not to 100: the design is not balanced, or terms are missing.", rounded(100*sum, 3)))
	}
	return append(notes, "Shares hold for the ranges that were varied: a parameter that was varied little explains little.")
}

func (e Effects) draw() Picture {
	rows, height := e.rows()
	low, high, left := 0.0, 0.0, vg.Length(0)
	for _, r := range rows {
		low, high = min(low, r.Share), max(high, r.Share)
		if r.ranged() {
			low, high = min(low, r.Low), max(high, r.High)
		}
		for _, line := range r.label {
			left = max(left, labelText.Width(line))
		}
	}
	if high-low < 0.01 {
		high = low + 0.01
	}
	left += 10
	const width = pageWidth - 2*margin
	// The figure of a bar stands behind it, hence the room at the right.
	s := scale{linear, 100 * low, 100 * (high + 0.13*(high-low))}
	if low < 0 {
		s.low -= 3 * (high - low)
	}
	l := newLegend(4)
	box := func(fill color.Color) func(draw.Canvas, vg.Point, vg.Point) {
		return func(c draw.Canvas, from, to vg.Point) { fillBox(c, fill, from.X+4, to.X-4, from.Y-4, from.Y+4) }
	}
	if slices.ContainsFunc(e.Terms, func(t Effect) bool { return t.Order == 1 }) {
		l.add("main effect", box(mainFill))
	}
	if slices.ContainsFunc(e.Terms, func(t Effect) bool { return t.Order > 1 }) {
		l.add("interaction", box(pairFill))
	}
	if e.Blocks.Share != 0 {
		l.add("seeds", box(blocksFill))
	}
	l.add("residual", box(residualFill))
	p := newPlot("", "")
	s.apply(&p.X, 6, width-left-l.width()-12, false)
	p.Y.Min, p.Y.Max = 0, 1
	p.HideY()
	p.Add(effectBars{rows, s})
	of := orElse(e.Of, e.Metric.subject())
	return sheet{
		title:   orElse(e.Title, "What moves "+e.Metric.subject()),
		caption: e.caption(e.notes(rows)...),
		height:  max(height, l.height()) + axisSpace,
		body: func(c draw.Canvas) {
			side := l.width() + 12
			body := draw.Crop(c, left, -side, 0, 0)
			body.Min.Y = body.Max.Y - height - axisSpace
			body = stretch(body, p, body.Max.Y-height, body.Max.Y)
			p.Draw(body)
			data := p.DataCanvas(body)
			writeLines(&c, aligned(labelText, draw.XCenter), vg.Point{X: data.Center().X, Y: c.Min.Y + lineHeight(labelText)}, []string{
				"share of the variance of " + of + ", %",
			})
			for _, r := range rows {
				at := vg.Point{X: data.Min.X - 6, Y: data.Max.Y - r.top - (r.tall-lineHeight(labelText)*vg.Length(len(r.label)))/2 - 1.5}
				writeLines(&c, aligned(labelText, draw.XRight), at, r.label)
			}
			l.draw(draw.Crop(c, c.Max.X-c.Min.X-side+12, 0, 0, 0))
		},
	}.picture()
}

func fillBox(c draw.Canvas, fill color.Color, left, right, bottom, top vg.Length) {
	c.SetColor(fill)
	c.Fill(vg.Rectangle{Min: vg.Point{X: left, Y: bottom}, Max: vg.Point{X: right, Y: top}}.Path())
	c.StrokeLines(draw.LineStyle{Color: ink, Width: 0.4}, []vg.Point{{X: left, Y: bottom}, {X: right, Y: bottom}, {X: right, Y: top}, {X: left, Y: top}, {X: left, Y: bottom}})
}

// effectBars draws the bars with their intervals and figures.
type effectBars struct {
	rows  []effectRow
	scale scale
}

// Plot implements plot.Plotter.
func (b effectBars) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	for _, t := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		if !t.IsMinor() && t.Value >= p.X.Min && t.Value <= p.X.Max {
			c.StrokeLine2(draw.LineStyle{Color: faint, Width: 0.5}, x(t.Value), c.Min.Y, x(t.Value), c.Max.Y)
		}
	}
	for _, r := range b.rows {
		mid := c.Max.Y - r.top - r.tall/2
		zero, end := x(0), x(100*r.Share)
		fillBox(c, r.fill, min(zero, end), max(zero, end), mid-6, mid+6)
		right := max(zero, end)
		if r.ranged() {
			from, to := x(100*r.Low), x(100*r.High)
			style := draw.LineStyle{Color: ink, Width: 0.9}
			c.StrokeLine2(style, from, mid, to, mid)
			c.StrokeLine2(style, from, mid-barCap, from, mid+barCap)
			c.StrokeLine2(style, to, mid-barCap, to, mid+barCap)
			right = max(right, to)
		}
		text := tickText
		text.YAlign = draw.YCenter
		c.FillText(text, vg.Point{X: right + 4, Y: mid + text.FontExtents().Descent}, rounded(math.Round(1000*r.Share)/10, 3)+" %")
	}
	c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.7}, x(0), c.Min.Y, x(0), c.Max.Y)
	frame{}.Plot(c, p)
}
