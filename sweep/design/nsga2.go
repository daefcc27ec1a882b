package design

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"evenkeel/internal/rng"
)

// NSGA2Options are the settings of a search for a front.
type NSGA2Options struct {
	Objectives  int // 0: 2
	Population  int // even
	Generations int // with the first, which is a Latin hypercube
	Seed        uint64
}

// NSGA2 searches for the Pareto front of several objectives; see [NewNSGA2].
type NSGA2 struct {
	axes    []Axis
	options NSGA2Options
	told    int // generations
	asked   []Trial
	young   [][]float64 // places of those asked
	parents []individual
}

type individual struct {
	place  []float64 // in the unit cube
	values []float64
	rank   int // of its front, from 0
	crowd  float64
}

// The parameters of Deb et al. for real-coded NSGA-II; a coordinate mutates with probability 1/axes.
const (
	crossoverProbability = 0.9
	crossoverIndex       = 20
	mutationIndex        = 20
)

// NewNSGA2 returns a search for the Pareto front of several objectives: Deb, Pratap, Agarwal and Meyarivan (2002), A fast and
// elitist multiobjective genetic algorithm: NSGA-II. Parents win binary tournaments by front, then by crowding distance; children
// come of simulated binary crossover and polynomial mutation, both bounded, in the axes' unit cube, logarithmic axes by their
// logarithms. Values of axes with few are neighbours in the order in which they are given.
func NewNSGA2(axes []Axis, o NSGA2Options) (*NSGA2, error) {
	if o.Objectives == 0 {
		o.Objectives = 2
	}
	switch {
	case len(axes) == 0 || len(axes) > MaxAxes:
		return nil, fmt.Errorf("NSGA-II over %d axes: there must be 1 to %d", len(axes), MaxAxes)
	case o.Objectives < 2 || o.Objectives > 16:
		return nil, fmt.Errorf("NSGA-II takes 2 to 16 objectives, and %d is given", o.Objectives)
	case o.Population < 4 || o.Population > 10_000 || o.Population%2 != 0:
		return nil, fmt.Errorf("NSGA-II with a population of %d: it must be even, from 4 to 10000", o.Population)
	case o.Generations < 1 || o.Generations > MaxPoints/o.Population:
		return nil, fmt.Errorf("NSGA-II with %d generations: there must be 1 to %d of this population", o.Generations, MaxPoints/o.Population)
	}
	s := &NSGA2{axes: slices.Clone(axes), options: o}
	s.ask(latinHypercube(o.Population, len(axes), rng.Key(o.Seed, rng.Design, ofNSGA2)))
	return s, nil
}

// Ask implements [Search].
func (s *NSGA2) Ask() []Trial { return slices.Clone(s.asked) }

// Tell implements [Search].
func (s *NSGA2) Tell(values [][]float64) error {
	told, err := checked(s.asked, values, s.options.Objectives)
	if err != nil {
		return err
	}
	all := s.parents
	for i, place := range s.young {
		all = append(all, individual{place: place, values: told[i]})
	}
	s.parents = survivors(all, s.options.Population)
	s.told++
	s.asked = nil
	if s.told < s.options.Generations {
		s.ask(s.children())
	}
	return nil
}

// ask asks for the points at places, which are rounded so that platforms, which differ in last bits, do not part.
func (s *NSGA2) ask(places [][]float64) {
	s.young = places
	for _, u := range places {
		for j := range u {
			u[j] = onGrid(u[j], 0x1p40)
		}
		s.asked = append(s.asked, Trial{Point: at(s.axes, u)})
	}
}

// survivors returns the n best by front, then by crowding distance, then by age.
func survivors(all []individual, n int) (best []individual) {
	values := make([][]float64, len(all))
	for i := range all {
		values[i] = all[i].values
	}
	for rank, front := range fronts(values) {
		distance := crowding(values, front)
		order := make([]int, len(front))
		for i := range order {
			order[i] = i
		}
		if len(best)+len(front) > n {
			slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(distance[b], distance[a]) })
		}
		for _, i := range order[:min(len(order), n-len(best))] {
			one := all[front[i]]
			one.rank, one.crowd = rank, distance[i]
			best = append(best, one)
		}
		if len(best) == n {
			break
		}
	}
	return best
}

// children returns the places of the next generation.
func (s *NSGA2) children() [][]float64 {
	r := rng.New(rng.Key(s.options.Seed, rng.Design, ofNSGA2, uint64(s.told)))
	places := rows(s.options.Population, len(s.axes))
	for i := 0; i < len(places); i += 2 {
		a, b := places[i], places[i+1]
		copy(a, s.tournament(&r).place)
		copy(b, s.tournament(&r).place)
		if r.Float64() < crossoverProbability {
			for j := range a {
				if r.Float64() < 0.5 {
					a[j], b[j] = crossed(a[j], b[j], &r)
				}
			}
		}
		for _, u := range places[i : i+2] {
			for j := range u {
				if r.Float64()*float64(len(u)) < 1 {
					u[j] = mutated(u[j], r.Float64())
				}
			}
		}
	}
	return places
}

// tournament returns the better of two parents drawn at random, the first if they are equally good.
func (s *NSGA2) tournament(r *rng.Rand) individual {
	a, b := s.parents[r.IntN(len(s.parents))], s.parents[r.IntN(len(s.parents))]
	if b.rank < a.rank || b.rank == a.rank && b.crowd > a.crowd {
		return b
	}
	return a
}

// crossed returns two children of x and y by simulated binary crossover within 0 to 1: Deb and Agrawal (1995).
func crossed(x, y float64, r *rng.Rand) (float64, float64) {
	const power = 1.0 / (crossoverIndex + 1)
	lo, hi := min(x, y), max(x, y)
	u, swap := r.Float64(), r.Float64() < 0.5
	if hi-lo < 1e-14 {
		return x, y
	}
	spread := func(room float64) float64 {
		beta := 1 + 2*room/(hi-lo)
		alpha := 2 - math.Pow(beta, -(crossoverIndex+1))
		if u <= 1/alpha {
			return math.Pow(u*alpha, power)
		}
		return math.Pow(1/(2-float64(u*alpha)), power)
	}
	c := 0.5 * (lo + hi - float64(spread(lo)*(hi-lo)))
	d := 0.5 * (lo + hi + float64(spread(1-hi)*(hi-lo)))
	c, d = min(max(c, 0), 1), min(max(d, 0), 1)
	if swap {
		return d, c
	}
	return c, d
}

// mutated moves x within 0 to 1 by polynomial mutation, u being uniform.
func mutated(x, u float64) float64 {
	const power = 1.0 / (mutationIndex + 1)
	if u < 0.5 {
		v := float64(2*u) + float64((1-2*u)*math.Pow(1-x, mutationIndex+1))
		return min(max(x+math.Pow(v, power)-1, 0), 1)
	}
	v := float64(2*(1-u)) + float64(2*(u-0.5)*math.Pow(x, mutationIndex+1))
	return min(max(x+1-math.Pow(v, power), 0), 1)
}
