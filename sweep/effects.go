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
	F     float64 `json:"f,omitempty"` // over the mean square between seeds; 0 where there is none
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
	if slices.Contains(names, "spec") && len(r.Manifest.Knobs) > 0 {
		e.Notes = append(e.Notes, "A strategy with its knobs is one parameter here: --filter strategy=NAME shows what each of its knobs does.")
	}
	if len(names) == 0 {
		return nil, errors.New("--effects: nothing varies among the cells that are kept, so that there is no effect to look for")
	}
	levels, response := make([][]int, len(rows)), make([]float64, len(rows))
	for k, i := range rows {
		for _, f := range factors {
			levels[k] = append(levels[k], int(f[i]))
		}
		response[k] = values[i]
	}
	d, err := stat.Decompose(levels, response)
	if err != nil {
		return nil, fmt.Errorf("--effects: %w", err)
	}
	e.fill(d, names)
	return e, nil
}

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
		if l.index[i] != l.index[rows[0]] {
			return append(list, "spec"), nil
		}
	}
	return append(list, r.Manifest.Knobs...), nil
}

func (e *Effects) fill(d *stat.Decomposition, names []string) {
	seeds := d.Seeds.MeanSquares
	for _, t := range d.Terms {
		var words []string
		for _, f := range t.Factors {
			words = append(words, strings.Replace(names[f], "spec", wholeStrategy, 1))
		}
		x := Effect{Name: strings.Join(words, " × "), Order: len(words), DF: t.DF, Share: t.Share}
		if seeds > 0 && t.DF > 0 {
			x.F = t.MeanSquares / seeds
		}
		if t.DF > 0 {
			e.Terms = append(e.Terms, x)
		}
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
	for _, rest := range []struct {
		name string
		stat.Term
	}{{"shared by unbalanced terms", d.Shared}, {"interactions of three and more", d.Higher}, {"seeds", d.Seeds}} {
		if rest.DF > 0 || math.Abs(rest.Share) > 1e-9 {
			e.Terms = append(e.Terms, Effect{Name: rest.name, DF: rest.DF, Share: rest.Share})
		}
	}
	e.Notes = append(e.Notes, "Shares are of the sum of squares about the mean (type II), over the cells that were run: they say what mattered within these ranges. Seeds are worlds, so that their share is of differences between worlds, not of noise alone.")
}
