package design

import (
	"cmp"
	"fmt"
	"slices"
)

// HalvingOptions are the settings of successive halving.
type HalvingOptions struct {
	Eta      int    // one in Eta goes on, on Eta times the budget; 0: 3
	Min, Max Budget // of the first and the last rung
}

// Rung is a round of successive halving.
type Rung struct {
	Points int
	Budget
}

// Halving searches for the best of given points; see [NewHalving].
type Halving struct {
	points []Point
	rungs  []Rung
	rung   int
	alive  []int // points, rising
}

// NewHalving returns a search for the best of some points, those of any design, by successive halving: Jamieson and Talwalkar
// (2016), Non-stochastic best arm identification and hyperparameter optimization, arXiv:1502.07943, with the rungs of Li et al.
// (2018), Hyperband. All points run on the least budget, and of n on a rung the best ⌊n/η⌋, by one objective, go on to the next,
// which costs each η times as much. Steps grow first, then seeds: more seeds tell little of runs that are all transient. The last
// rung is the greatest budget; a point that is left alone goes there at once. Of equals the first goes on.
//
// Trials are independent cells, so that a rung runs its points from step 0 again, on seeds of which it has run some before.
func NewHalving(points []Point, o HalvingOptions) (*Halving, error) {
	if o.Eta == 0 {
		o.Eta = 3
	}
	switch {
	case len(points) < 2 || len(points) > MaxPoints:
		return nil, fmt.Errorf("successive halving of %d points: there must be 2 to %d", len(points), MaxPoints)
	case o.Eta < 2 || o.Eta > 16:
		return nil, fmt.Errorf("successive halving with eta %d: it must be 2 to 16", o.Eta)
	case o.Min.Steps < 1 || o.Min.Seeds < 1:
		return nil, fmt.Errorf("successive halving begins at %d steps of %d seeds: both must be at least 1", o.Min.Steps, o.Min.Seeds)
	case o.Max.Steps < o.Min.Steps || o.Max.Seeds < o.Min.Seeds || o.Max == o.Min:
		return nil, fmt.Errorf("successive halving goes from %d steps of %d seeds to %d of %d: it must go up in one and down in none",
			o.Min.Steps, o.Min.Seeds, o.Max.Steps, o.Max.Seeds)
	case o.Max.Steps > maxSteps || o.Max.Seeds > maxSeeds:
		return nil, fmt.Errorf("successive halving goes to %d steps of %d seeds: at most %d of %d", o.Max.Steps, o.Max.Seeds, maxSteps, maxSeeds)
	}
	h := &Halving{points: slices.Clone(points), rungs: rungsOf(len(points), o)}
	for i := range points {
		h.alive = append(h.alive, i)
	}
	return h, nil
}

func rungsOf(n int, o HalvingOptions) (rungs []Rung) {
	eta, factor := int64(o.Eta), int64(1)
	for {
		steps := min(int64(o.Min.Steps)*factor, int64(o.Max.Steps))
		seeds := min(int64(o.Min.Seeds)*int64(o.Min.Steps)*factor/steps, int64(o.Max.Seeds))
		r := Rung{n, Budget{int(steps), int(seeds)}}
		if n == 1 {
			r.Budget = o.Max
		}
		rungs = append(rungs, r)
		if r.Budget == o.Max {
			return rungs
		}
		n = max(n/o.Eta, 1)
		factor *= eta
	}
}

// Rungs are the rounds that the search has, which are known beforehand.
func (h *Halving) Rungs() []Rung { return slices.Clone(h.rungs) }

// Ask implements [Search].
func (h *Halving) Ask() (trials []Trial) {
	if h.rung == len(h.rungs) {
		return nil
	}
	for _, i := range h.alive {
		trials = append(trials, Trial{h.points[i], h.rungs[h.rung].Budget})
	}
	return trials
}

// Tell implements [Search]. There is one objective.
func (h *Halving) Tell(values [][]float64) error {
	told, err := checked(h.Ask(), values, 1)
	if err != nil {
		return err
	}
	h.rung++
	if h.rung == len(h.rungs) {
		return nil
	}
	order := make([]int, len(told))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(told[a][0], told[b][0]) })
	var alive []int
	for _, i := range order[:h.rungs[h.rung].Points] {
		alive = append(alive, h.alive[i])
	}
	slices.Sort(alive)
	h.alive = alive
	return nil
}
