package plots

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"evenkeel/metrics"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg/draw"
)

const (
	coActivationTitle = "Who is chosen with whom: co-activation of all pairs of experts"
	ratioLabel        = "tokens that choose both / expected, log2 scale"
)

// CoActivation draws how many times as often as under independence, given the loads, each pair of experts is chosen
// together. Experts stand in an order in which those that go together are neighbours. About names the trace and the layer.
func CoActivation(a *metrics.CoActivation, about string) (Picture, error) {
	if a == nil {
		return Picture{}, ErrNothing
	}
	order := neighbours(a)
	if len(order) < 2 {
		return Picture{}, ErrNothing
	}
	p := newPlot("", "")
	p.Add(heat{
		columns: rankSpans(len(order)),
		rows:    len(order),
		load: func(column, row int) float64 {
			if !told(a, order[row], order[column]) {
				return math.NaN()
			}
			return a.Ratio(order[row], order[column])
		},
	}, frame{})
	p.X.Tick.Marker, p.Y.Tick.Marker = expertTicks(order, false), expertTicks(order, true)
	dead := ""
	if n := a.Experts - len(order); n > 0 {
		dead = fmt.Sprintf(" %s never chosen with another left out.", plural(n, "expert"))
	}
	const side = 470
	return sheet{
		title: coActivationTitle,
		caption: fmt.Sprintf("%s Expected is what independence given the loads would give (quasi-independence of the pairs). Pairs say %.3g bits beyond the loads, of which %.3g are noise. Experts are in an order in which those that go together are neighbours.%s Hatched: an expert with itself, and pairs in fewer than %d tokens, found and expected, which say nothing.",
			oneLine(about), a.Information, a.Floor, dead, fewTokens),
		height: side + 30,
		body: func(c draw.Canvas) {
			spare := (c.Size().X - side - 44 - colorBarSpace) / 2
			c = draw.Crop(c, spare, -spare, 0, 0)
			drawLabelled(draw.Crop(c, 0, -colorBarSpace, 0, 0), p, "expert", "expert")
			drawLoadBar(c, ratioLabel)
		},
	}.picture(), nil
}

// WriteCoActivation draws the figure into an existing folder, as co-activation.svg and .png, if there is anything to draw.
func WriteCoActivation(dir string, a *metrics.CoActivation, about string) error {
	p, err := CoActivation(a, about)
	return writePicture(dir, "co-activation", p, err)
}

// fewTokens is the number of tokens, found and expected, below which a pair shows noise alone.
const fewTokens = 5

// told reports whether a pair is in enough tokens, or is expected in enough, for its ratio to say something.
func told(a *metrics.CoActivation, i, j int) bool {
	return a.Count[i*a.Experts+j] >= fewTokens || a.Expected(i, j) >= fewTokens
}

// neighbours orders the experts that are in any pair: from the pair with the largest ratio on, the one that goes best with
// either end of the row joins it there.
func neighbours(a *metrics.CoActivation) []int {
	var left []int
	for e := range a.Experts {
		if a.Factor[e] > 0 {
			left = append(left, e)
		}
	}
	if len(left) < 2 {
		return nil
	}
	ratio := func(i, j int) float64 {
		if i != j && !told(a, i, j) {
			return 1
		}
		return a.Ratio(i, j)
	}
	best, from := math.Inf(-1), 0
	for _, i := range left {
		for _, j := range left {
			if r := ratio(i, j); r > best {
				best, from = r, i
			}
		}
	}
	row := []int{from}
	left = slices.DeleteFunc(left, func(e int) bool { return e == from })
	for len(left) > 0 {
		first, last := row[0], row[len(row)-1]
		best, next, front := math.Inf(-1), left[0], false
		for _, e := range left {
			if r := ratio(last, e); r > best {
				best, next, front = r, e, false
			}
			if r := ratio(first, e); r > best {
				best, next, front = r, e, true
			}
		}
		if front {
			row = slices.Insert(row, 0, next)
		} else {
			row = append(row, next)
		}
		left = slices.DeleteFunc(left, func(e int) bool { return e == next })
	}
	return row
}

// expertTicks names the experts in their order, every so many where there is no room for all; downwards on the y axis.
func expertTicks(order []int, downwards bool) plot.ConstantTicks {
	const roomFor = 22
	every := (len(order) + roomFor - 1) / roomFor
	var ticks plot.ConstantTicks
	for i := 0; i < len(order); i += every {
		at := float64(i) + 0.5
		if downwards {
			at = float64(len(order)) - at
		}
		ticks = append(ticks, plot.Tick{Value: at, Label: strconv.Itoa(order[i])})
	}
	return ticks
}
