package sweep

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"evenkeel/sim/stat"
)

// Effects are the shares of a metric's variance by what a sweep varied; see stat.Decompose.
type Effects struct {
	Metric string   `json:"metric"`
	Terms  []Effect `json:"terms"`
	Notes  []string `json:"notes,omitempty"`
}

// Effect is one term: a parameter, a pair of them, or what is left.
type Effect struct {
	Name  string  `json:"name"`
	Order int     `json:"order"` // parameters in the term; 0 of what is left
	DF    int     `json:"degrees_of_freedom"`
	Share float64 `json:"share"`
	F     float64 `json:"f,omitempty"` // over the mean square of what is left; 0 where there is none
}

// maxLevels is how many values a parameter may have to be a factor: of more, as a random design has, each would be a level of its
// own.
const maxLevels = 200

// Effects decomposes the variance of a metric over the cells that the filters keep.
func (r *Results) Effects(q Query) (*Effects, error) {
	kept, err := r.kept(q.Filters)
	if err != nil {
		return nil, err
	}
	p := &Projection{Metric: q.Metric}
	values, err := r.metric(p, kept)
	if err != nil {
		return nil, err
	}
	e := &Effects{Metric: q.Metric}
	var rows []int
	for i, x := range values {
		if kept[i] && !math.IsNaN(x) {
			rows = append(rows, i)
		}
	}
	var names []string
	var factors [][]int32
	varied, err := r.factors(rows)
	if err != nil {
		return nil, err
	}
	for _, name := range varied {
		l, err := r.labels(name)
		if err != nil {
			return nil, err
		}
		seen := map[int32]bool{}
		for _, i := range rows {
			seen[l.index[i]] = true
		}
		switch {
		case len(seen) < 2:
			continue
		case len(seen) > maxLevels:
			e.Notes = append(e.Notes, fmt.Sprintf("%s has %d values, more than a factor may have: what it explains is in what is left.", name, len(seen)))
			continue
		}
		names, factors = append(names, name), append(factors, l.index)
	}
	if slices.Contains(names, "spec") {
		e.Notes = append(e.Notes, "A strategy with its knobs is one parameter here: --filter strategy=NAME shows what each of its knobs does.")
	}
	if len(names) == 0 {
		return nil, errors.New("--effects: nothing varies among the cells that are kept, so that there is no effect to look for")
	}
	if err := tooMany(len(rows), factors, rows); err != nil {
		return nil, err
	}
	seedOf, err := r.labels("seed")
	if err != nil {
		return nil, err
	}
	levels, response, seeds := make([][]int, len(rows)), make([]float64, len(rows)), make([]int, len(rows))
	for k, i := range rows {
		seeds[k] = int(seedOf.index[i])
		for _, f := range factors {
			levels[k] = append(levels[k], int(f[i]))
		}
		response[k] = values[i]
	}
	d, err := stat.Decompose(levels, response)
	if err != nil {
		return nil, fmt.Errorf("--effects: %w", err)
	}
	e.fill(d, names, d.Block(levels, seeds, response))
	return e, nil
}

// tooMany refuses a fit that would take minutes: its work is the rows times the square of the columns.
func tooMany(n int, factors [][]int32, rows []int) error {
	const most = 3e10
	var sizes []int
	columns := 0
	for _, f := range factors {
		seen := map[int32]bool{}
		for _, i := range rows {
			seen[f[i]] = true
		}
		for _, other := range sizes {
			columns += other * (len(seen) - 1)
		}
		columns += len(seen) - 1
		sizes = append(sizes, len(seen)-1)
	}
	if float64(n)*float64(columns)*float64(columns) > most {
		return fmt.Errorf("--effects: %d cells with %d effects of values and pairs are too many to fit: --filter picks fewer", n, columns)
	}
	return nil
}

// Blocks is the name of what seeds do to all settings alike: each by its world, where they do not share one, and by its tokens.
const Blocks = "seeds, to all settings alike"

// Higher is the name of all interactions that are no terms of their own.
const Higher = "interactions of three and more"

// wholeStrategy is what reports call the column spec.
const wholeStrategy = "strategy with knobs"

// factors lists what may vary among some cells: keys of the scenario, then the knobs of one strategy, or, of several, of which each
// has knobs of its own, strategies with their knobs as one factor.
func (r *Results) factors(rows []int) (list []string, err error) {
	for _, a := range r.Manifest.Axes {
		list = append(list, a.Name)
	}
	l, err := r.labels("strategy")
	if err != nil {
		return nil, err
	}
	for _, i := range rows {
		switch {
		case l.index[i] == l.index[rows[0]]:
		case len(r.Manifest.Knobs) == 0:
			return append(list, "strategy"), nil
		default:
			return append(list, "spec"), nil
		}
	}
	return append(list, r.Manifest.Knobs...), nil
}

// rounding is a share of variance that is no more than what arithmetic leaves of equal figures.
const rounding = 1e-12

// fill enters the terms. Where seeds are blocks, what all settings share under a seed is no part of what effects are judged by.
func (e *Effects) fill(d *stat.Decomposition, names []string, blocks bool) {
	rest, left := "seeds and what is left", d.Seeds.MeanSquares
	if blocks {
		rest = "what is left"
	}
	if d.Seeds.Share < rounding {
		left = 0
	}
	var together []string
	pairs := 0
	for _, t := range d.Terms {
		var words []string
		for _, f := range t.Factors {
			if names[f] == "spec" {
				words = append(words, wholeStrategy)
			} else {
				words = append(words, names[f])
			}
		}
		x := Effect{Name: strings.Join(words, " × "), Order: len(words), DF: t.DF, Share: t.Share}
		if left > 0 && t.DF > 0 {
			x.F = t.MeanSquares / left
		}
		switch {
		case t.DF > 0:
			e.Terms = append(e.Terms, x)
		case x.Order == 1:
			together = append(together, x.Name)
		default:
			pairs++
		}
	}
	if pairs > 0 {
		together = append(together, fmt.Sprintf("%d of the pairs", pairs))
	}
	if len(together) > 0 {
		e.Notes = append(e.Notes, "Left out, because the design varies them together with others, from which they cannot be told: "+strings.Join(together, ", ")+".")
	}
	slices.SortStableFunc(e.Terms, func(a, b Effect) int {
		switch {
		case a.Share > b.Share:
			return -1
		case a.Share < b.Share:
			return 1
		}
		return 0
	})
	for _, x := range []struct {
		name string
		stat.Term
	}{{"shared by unbalanced terms", d.Shared}, {Higher, d.Higher}, {Blocks, d.Blocks}, {rest, d.Seeds}} {
		if x.DF > 0 || math.Abs(x.Share) > 1e-9 {
			e.Terms = append(e.Terms, Effect{Name: x.name, DF: x.DF, Share: x.Share})
		}
	}
	e.Notes = append(e.Notes, "Shares are of the sum of squares about the mean (type II), over the cells that were run: they say what mattered within these ranges.")
	switch {
	case d.Seeds.DF == 0:
		e.Notes = append(e.Notes, "Every setting has one figure, so that effects cannot be told from what seeds do: run more seeds.")
	case !blocks:
		e.Notes = append(e.Notes, "Not every setting has a figure under every seed, so that what a seed does to all of them cannot be told from the rest.")
	}
}
