package plots

import (
	"fmt"
	"slices"

	"gonum.org/v1/plot/vg/draw"
)

// Generations is the path of a search for two objectives: the front of every generation, early ones pale, the last one with its
// intervals, and the bounds.
type Generations struct {
	Sweep
	Title  string // empty for one made of the names
	X, Y   Metric
	Fronts []Generation // in their order
	Bounds []Cloud
}

// Generation is the cells that a generation of a search tried, with those of the front that came before it.
type Generation struct {
	Number int
	X, Y   []Sample
}

// maxFronts bounds the fronts of a picture: more could not be told apart.
const maxFronts = 8

// Picture draws the fronts. It fails where Pareto does, on generations that are not in order, and where no generation has a cell
// with both metrics.
func (g Generations) Picture() (Picture, error) {
	f := Pareto{Sweep: g.Sweep, X: g.X, Y: g.Y}
	for i, x := range g.Fronts {
		if i > 0 && x.Number <= g.Fronts[i-1].Number {
			return Picture{}, fmt.Errorf("generation %d stands behind generation %d: they must be in order", x.Number, g.Fronts[i-1].Number)
		}
	}
	var shown []int
	for i, n := 0, min(len(g.Fronts), maxFronts); i < n; i++ {
		shown = append(shown, i*(len(g.Fronts)-1)/max(1, n-1)) // the first, the last, and evenly between
	}
	for _, i := range shown {
		x := g.Fronts[i]
		f.Clouds = append(f.Clouds, Cloud{Name: fmt.Sprintf("generation %d", x.Number), X: x.X, Y: x.Y})
	}
	for _, b := range g.Bounds {
		b.Bound = true
		f.Clouds = append(f.Clouds, b)
	}
	if err := f.check(); err != nil {
		return Picture{}, err
	}
	p := newParetoFigure(f)
	last := -1
	for i, c := range p.clouds {
		if !c.Bound {
			last = i
		}
	}
	if last < 0 {
		return Picture{}, ErrNothing
	}
	p.whole, p.some = nil, false
	for i := range p.clouds {
		if c := &p.clouds[i]; !c.Bound {
			c.look = look{color: valueScale.at(0.85 * (1 - float64(i+1)/float64(last+1))), dashes: lookDashes[(last-i)%len(lookDashes)], glyph: draw.CircleGlyph{}}
			c.quiet = i < last
		}
	}
	p.notes = slices.Concat(g.notes(p, len(shown)), p.extra)
	return p.draw(orElse(g.Title, "Fronts by generation: "+g.Y.subject()+" against "+g.X.subject())), nil
}

func (g Generations) notes(p *paretoFigure, shown int) []string {
	var kept tally
	for _, c := range p.clouds {
		for _, v := range c.cells {
			kept.add(v.y)
			kept.ranged = kept.ranged || v.x.ranged()
		}
	}
	notes := []string{
		"Dots: the cells that a generation tried, and the front before it; steps: the front so far, which none of them beats in both metrics; the later, the darker. " + p.better(),
		kept.seeds(g.Sweep, "All points", "bars, of the last generation"),
		"A front is of means: of cells that differ by noise alone a search keeps the luckiest, so confirm its points with fresh seeds.",
	}
	if shown < len(g.Fronts) {
		notes = append(notes, fmt.Sprintf("Drawn are %d of %s.", shown, plural(len(g.Fronts), "generation")))
	}
	return notes
}
