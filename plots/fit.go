package plots

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenkeel/scenarios/fit"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const fitTitle = "A fitted stream against the trace: imbalance of tokens held back"

// Fit draws real MaxVio beside that of the fitted stream, on tokens that the fit did not see: against the size of the batch
// and, where the trace has several domains, by domain, both with the sampling floor.
func Fit(r *fit.Result) (Picture, error) {
	batches, domains := fitPoints(r, "maxvio_batch"), fitPoints(r, "maxvio_domain")
	if len(batches) == 0 {
		return Picture{}, ErrNothing
	}
	low, high := fitRange(slices.Concat(batches, domains))
	var sizes []int
	for _, p := range batches {
		sizes = append(sizes, p.Tokens)
	}
	bySize := fitPlot(low, high)
	bySize.X.Scale = plot.LogScale{}
	bySize.X.Min, bySize.X.Max = logRange(batches[0].at, batches[len(batches)-1].at)
	bySize.Add(horizontalGrid{}, fitLines(batches), frame{})
	byDomain := fitPlot(low, high)
	byDomain.X.Min, byDomain.X.Max = -0.6, float64(len(domains))-0.4
	byDomain.X.Tick.Marker = nameTicks(domains)
	byDomain.Add(horizontalGrid{}, fitBars(domains), frame{})
	const gap = 16
	legend := lineHeight(labelText) + 6
	return sheet{
		title:   fitTitle,
		caption: fitCaption(r, len(domains) > 0),
		height:  330 + legend,
		body: func(c draw.Canvas) {
			drawFitLegend(c, r)
			c = draw.Crop(c, 0, 0, 0, -legend)
			const y = "MaxVio, max r − 1 (log scale)"
			mark := func(width vg.Length) {
				bySize.X.Tick.Marker = sizeTicks(sizes, width-panelAxes, math.Log(bySize.X.Max/bySize.X.Min))
			}
			if len(domains) == 0 {
				mark(c.Max.X - c.Min.X)
				drawLabelled(c, bySize, "tokens in a batch (log scale)", y)
				return
			}
			width := c.Max.X - c.Min.X
			part := width * vg.Length(max(0.34, min(0.6, 0.1+0.07*float64(len(domains)))))
			mark(width - part - gap)
			drawLabelled(draw.Crop(c, 0, -part-gap, 0, 0), bySize, "tokens in a batch (log scale)", y)
			drawLabelled(draw.Crop(c, width-part, 0, 0, 0), byDomain, "domain", "")
		},
	}.picture(), nil
}

// fitPoint is one figure at its place on the x axis.
type fitPoint struct {
	at     float64
	domain string // empty of batches
	fit.Figure
}

func fitPoints(r *fit.Result, key string) (points []fitPoint) {
	for _, f := range r.Goodness {
		if f.Key != key || !drawable(f.Real, true) || !drawable(f.Synthetic, true) {
			continue
		}
		p := fitPoint{float64(f.Tokens), oneLine(f.Domain), f}
		if f.Domain != "" {
			p.at = float64(len(points))
		}
		points = append(points, p)
	}
	return points
}

// fitRange spans all figures; a range that reaches down to 0 ends at half of the least figure.
func fitRange(points []fitPoint) (low, high float64) {
	low, high = math.Inf(1), 0
	for _, p := range points {
		low, high = min(low, p.Real, p.Synthetic), max(high, p.Real, p.High)
		if p.Floor != nil && *p.Floor > 0 {
			low = min(low, *p.Floor)
		}
	}
	return logRange(low, high)
}

func fitPlot(low, high float64) *plot.Plot {
	p := newPlot("", "")
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks{}
	p.Y.Min, p.Y.Max = low, high
	return p
}

const nameLength = 12 // characters of a domain below its place

func nameTicks(points []fitPoint) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, p := range points {
		name := p.domain
		if r := []rune(name); len(r) > nameLength {
			name = string(r[:nameLength-1]) + "…"
		}
		if len(points) > 8 {
			name = strconv.Itoa(int(p.at))
		}
		ticks = append(ticks, plot.Tick{Value: p.at, Label: name})
	}
	return ticks
}

// The two things compared, and how they look.
var (
	realLook  = look{color: lookColors[6], glyph: draw.CircleGlyph{}}
	drawnLook = look{color: lookColors[0], dashes: []vg.Length{7, 2.5}, glyph: draw.BoxGlyph{}}
)

const fitWeight = 1.5 * vg.Length(1)

func dot(c draw.Canvas, l look, at vg.Point) {
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: paper, Radius: 4, Shape: l.glyph}, at)
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: l.color, Radius: 3, Shape: l.glyph}, at)
}

// fitLines draws figures as lines over the x axis.
type fitLines []fitPoint

// Plot implements plot.Plotter.
func (l fitLines) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	var real, drawn, low, high, floor plotter.XYs
	for _, f := range l {
		real, drawn = append(real, plotter.XY{X: f.at, Y: f.Real}), append(drawn, plotter.XY{X: f.at, Y: f.Synthetic})
		low, high = append(low, plotter.XY{X: f.at, Y: max(f.Low, p.Y.Min)}), append(high, plotter.XY{X: f.at, Y: min(f.High, p.Y.Max)})
		if f.Floor != nil && *f.Floor > 0 {
			floor = append(floor, plotter.XY{X: f.at, Y: *f.Floor})
		}
	}
	band{[]plotter.XYs{low}, []plotter.XYs{high}, veil(drawnLook.color, 0x28)}.Plot(c, p)
	if len(floor) > 0 {
		curve{[]plotter.XYs{floor}, floorLine}.Plot(c, p)
	}
	curve{[]plotter.XYs{drawn}, drawnLook.line(fitWeight)}.Plot(c, p)
	curve{[]plotter.XYs{real}, realLook.line(fitWeight)}.Plot(c, p)
	for _, f := range l {
		dot(c, drawnLook, vg.Point{X: x(f.at), Y: y(f.Synthetic)})
		dot(c, realLook, vg.Point{X: x(f.at), Y: y(f.Real)})
	}
}

// fitBars draws figures side by side, each at its place.
type fitBars []fitPoint

// Plot implements plot.Plotter.
func (b fitBars) Plot(c draw.Canvas, p *plot.Plot) {
	const apart, half, reach = 0.13, 4, 0.36
	x, y := p.Transforms(&c)
	for _, f := range b {
		if f.Floor != nil && *f.Floor > 0 {
			c.StrokeLine2(floorLine, x(f.at-reach), y(*f.Floor), x(f.at+reach), y(*f.Floor))
		}
		at := x(f.at + apart)
		bar := vg.Rectangle{Min: vg.Point{X: at - half, Y: y(max(f.Low, p.Y.Min))}, Max: vg.Point{X: at + half, Y: y(min(f.High, p.Y.Max))}}
		c.SetColor(veil(drawnLook.color, 0x28))
		c.Fill(bar.Path())
		dot(c, drawnLook, vg.Point{X: at, Y: y(f.Synthetic)})
		dot(c, realLook, vg.Point{X: x(f.at - apart), Y: y(f.Real)})
	}
}

// drawFitLegend writes one line at the top of a canvas.
func drawFitLegend(c draw.Canvas, r *fit.Result) {
	left, middle := c.Min.X, c.Max.Y-lineHeight(labelText)/2
	entry := func(style draw.LineStyle, l *look, text string) {
		if l == &drawnLook {
			c.SetColor(veil(l.color, 0x28))
			c.Fill(vg.Rectangle{Min: vg.Point{X: left, Y: middle - 5}, Max: vg.Point{X: left + endSample, Y: middle + 5}}.Path())
		}
		c.StrokeLine2(style, left, middle, left+endSample, middle)
		if l != nil {
			dot(c, *l, vg.Point{X: left + endSample/2, Y: middle})
		}
		writeLines(&c, labelText, vg.Point{X: left + endSample + 5, Y: c.Max.Y}, []string{text})
		left += endSample + 5 + labelText.Width(text) + 22
	}
	entry(realLook.line(fitWeight), &realLook, "the trace")
	entry(drawnLook.line(fitWeight), &drawnLook, "the fitted stream, mean and 95 % of "+r.Spread())
	entry(floorLine, nil, floorLabel)
}

func fitCaption(r *fit.Result, domains bool) string {
	var files []string
	for _, x := range r.Sources {
		files = append(files, fmt.Sprintf("%s, layer %d", oneLine(filepath.Base(strings.TrimPrefix(x.File, "embedded:"))), x.Layer))
	}
	s := r.Scenario
	words := []string{fmt.Sprintf("Trace: %s (%s); E = %s experts, K = %d chosen.", strings.Join(files, "; "), r.Level, count(s.Experts), s.TopK),
		fmt.Sprintf("Fitted to %s tokens in %s, shown for %s tokens in %s that were held back.", count(r.Tokens), plural(r.Documents, "document"), count(r.HeldTokens), plural(r.HeldDocuments, "document")),
		"Batches are cut from the documents in shuffled order; mean over 8 orders."}
	if domains {
		words = append(words, "By domain: all held-back tokens of one.")
	}
	what := "each a world of its own (experts, token types, domains) and its tokens, so that the range is where a real router of these parameters would lie"
	if r.Nearest > 0 {
		what = fmt.Sprintf("of fresh tokens in one world, the nearest of %s to the fitted half", count(r.Nearest))
	}
	return strings.Join(append(words, fmt.Sprintf("Stream: %d draws of as many documents, %s.", r.Worlds, what)), " ")
}
