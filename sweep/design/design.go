// Package design decides which values a sweep tries.
//
// It knows nothing of scenarios and strategies: an axis has a name and values, both text, and a point is one value for each
// axis. The reading order is axis → design → search → serve. [ParseAxis] reads what a user writes after --vary. A [Design]
// names all its points beforehand: every combination, zipped lists, random points, a Latin hypercube, a Halton sequence. A
// [Search] names them generation by generation and is told what they were worth: successive halving, CMA-ES, NSGA-II. [Serve]
// leaves the choice to somebody else's optimiser. All are functions of their arguments and a seed.
package design

import (
	"fmt"
	"iter"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat/distmv"
	"gonum.org/v1/gonum/stat/samplemv"

	"evenkeel/internal/rng"
)

// Point is one value for each axis, in the order of the axes.
type Point []string

// Kind is how a design chooses its points.
type Kind string

// The kinds of designs.
const (
	Grid   Kind = "grid"   // every combination; the last axis changes fastest
	Zip    Kind = "zip"    // the first values of all axes, the second values, and so on
	Random Kind = "random" // independent and uniform along each axis
	// LatinHypercube has exactly one point in each of n strata of every axis: McKay, Beckman and Conover (1979). It is built
	// by doubling, so that 2n points begin with the n: Sallaberry, Helton and Hora (2008), Extension of Latin hypercube
	// samples with correlated variables.
	LatinHypercube Kind = "lhs"
	// Halton is the Halton sequence scrambled by random digit permutations: Owen (2017), A randomized Halton algorithm,
	// arXiv:1706.02808.
	Halton Kind = "halton"
)

// Limits of a design.
const (
	MaxPoints = 1_000_000 // and of the values of one axis
	MaxAxes   = 64
)

// Design is a set of points that is fixed before anything runs.
type Design struct {
	Kind   Kind
	Points int    // of the sampled kinds; 0 for grid and zip, whose axes tell
	Seed   uint64 // of the sampled kinds
}

// ParseDesign reads grid, zip, random:N, lhs:N or halton:N.
func ParseDesign(text string, seed uint64) (Design, error) {
	name, count, counted := strings.Cut(text, ":")
	d := Design{Kind: Kind(name), Seed: seed}
	switch d.Kind {
	case Grid, Zip:
		if counted {
			return Design{}, fmt.Errorf("design %q: %s takes its points from the values of the axes: write just %s", text, name, name)
		}
		return Design{Kind: d.Kind}, nil
	case Random, LatinHypercube, Halton:
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 || n > MaxPoints {
			return Design{}, fmt.Errorf("design %q: write %s:N with N points from 1 to %d", text, name, MaxPoints)
		}
		d.Points = n
		return d, nil
	}
	return Design{}, fmt.Errorf("design %q is none of grid, zip, random:N, lhs:N and halton:N, nor a search: halving:N, cma-es:N, nsga2:PxG or ask", text)
}

// String is the design as ParseDesign reads it.
func (d Design) String() string {
	if d.Kind == Grid || d.Kind == Zip {
		return string(d.Kind)
	}
	return fmt.Sprintf("%s:%d", d.Kind, d.Points)
}

// Extends says whether the design with n points begins with the points of d in the same order, or why not and what would. A
// sweep that is extended so computes only what is new.
func (d Design) Extends(n int) error {
	switch d.Kind {
	case Grid, Zip:
		return fmt.Errorf("a %s has no number of points: extend it by adding values to its axes", d.Kind)
	case LatinHypercube:
		m := max(d.Points, 1)
		if n < m {
			break
		}
		if n%m == 0 && n/m&(n/m-1) == 0 {
			return nil
		}
		return fmt.Errorf("a Latin hypercube of %d points cannot become one of %d: double it to %d, or use halton, which any number extends",
			d.Points, n, 2*d.Points)
	default:
		if n >= d.Points {
			return nil
		}
	}
	return fmt.Errorf("the design has %d points already: %d would be fewer", d.Points, n)
}

// Sample yields the points. Equal points occur where axes have few values. A sampled design takes a range of real numbers as
// it is, and any other axis as equally probable values.
func (d Design) Sample(axes []Axis) (iter.Seq[Point], error) {
	if len(axes) == 0 || len(axes) > MaxAxes {
		return nil, fmt.Errorf("a design over %d axes: there must be 1 to %d", len(axes), MaxAxes)
	}
	switch d.Kind {
	case Grid:
		return grid(axes)
	case Zip:
		return zip(axes)
	}
	if d.Points < 1 || d.Points > MaxPoints {
		return nil, fmt.Errorf("a %s design of %d points: there must be 1 to %d", d.Kind, d.Points, MaxPoints)
	}
	var cube [][]float64
	switch d.Kind {
	case Random:
		cube = random(d.Points, len(axes), d.Seed)
	case LatinHypercube:
		cube = latinHypercube(d.Points, len(axes), d.Seed)
	case Halton:
		source := rng.New(rng.Key(d.Seed, rng.Design, ofHalton))
		cube = halton(d.Points, len(axes), &source)
	default:
		return nil, fmt.Errorf("design %q is none of grid, zip, random, lhs and halton", d.Kind)
	}
	return func(yield func(Point) bool) {
		for _, u := range cube {
			if !yield(at(axes, u)) {
				return
			}
		}
	}, nil
}

// at returns the point at a place of the axes' unit cube.
func at(axes []Axis, u []float64) Point {
	p := make(Point, len(axes))
	for j, a := range axes {
		p[j] = a.At(u[j])
	}
	return p
}

// Places that keep the streams of one seed apart.
const (
	ofRandom = iota + 1
	ofLatinHypercube
	ofHalton
	ofCMAES
	ofNSGA2
)

func grid(axes []Axis) (iter.Seq[Point], error) {
	n := 1
	for _, a := range axes {
		if a.Values() == nil {
			return nil, fmt.Errorf("%s has no number of values, and a grid needs one: %s", a, a.counted())
		}
		if n *= len(a.Values()); n > MaxPoints {
			return nil, fmt.Errorf("the grid has more than %d points: vary less, or sample it by halton:N", MaxPoints)
		}
	}
	return func(yield func(Point) bool) {
		for i := range n {
			p := make(Point, len(axes))
			for j, rest := len(axes)-1, i; j >= 0; j-- {
				values := axes[j].Values()
				p[j], rest = values[rest%len(values)], rest/len(values)
			}
			if !yield(p) {
				return
			}
		}
	}, nil
}

func zip(axes []Axis) (iter.Seq[Point], error) {
	for _, a := range axes {
		switch {
		case a.Values() == nil:
			return nil, fmt.Errorf("%s has no number of values, and zipping needs one: %s", a, a.counted())
		case len(a.Values()) != len(axes[0].Values()):
			return nil, fmt.Errorf("%s has %d values and %s has %d: zipped axes have equally many, or use grid",
				axes[0].Name, len(axes[0].Values()), a.Name, len(a.Values()))
		}
	}
	return func(yield func(Point) bool) {
		for i := range axes[0].Values() {
			var p Point
			for _, a := range axes {
				p = append(p, a.Values()[i])
			}
			if !yield(p) {
				return
			}
		}
	}, nil
}

func random(n, axes int, seed uint64) [][]float64 {
	cube := rows(n, axes)
	for i, u := range cube {
		r := rng.New(rng.Key(seed, rng.Design, ofRandom, uint64(i)))
		for j := range u {
			u[j] = r.Float64()
		}
	}
	return cube
}

// latinHypercube begins with the largest odd divisor of n and doubles: each stratum splits, and the new points take the halves
// that are empty, in random order. Gonum's sampler cannot be doubled so, since it does not tell the strata.
func latinHypercube(n, axes int, seed uint64) [][]float64 {
	base := n
	for base%2 == 0 {
		base /= 2
	}
	cube := rows(n, axes)
	stratum, within := make([]int32, n), make([]float64, n)
	for j := range axes {
		for from, to, level := 0, base, uint64(0); to <= n; from, to, level = to, 2*to, level+1 {
			r := rng.New(rng.Key(seed, rng.Design, ofLatinHypercube, uint64(base), uint64(j), level))
			taken := make([]bool, to)
			for i := range from {
				half := int32(0)
				if within[i] >= 0.5 {
					half = 1
				}
				stratum[i] = 2*stratum[i] + half
				within[i] = 2*within[i] - float64(half) // exact
				taken[stratum[i]] = true
			}
			var empty []int32
			for s := range taken {
				if !taken[s] {
					empty = append(empty, int32(s))
				}
			}
			order := make([]int32, to-from)
			r.Perm(order)
			for k, o := range order {
				stratum[from+k], within[from+k] = empty[o], r.Float64()
			}
		}
		for i := range cube {
			cube[i][j] = (float64(stratum[i]) + within[i]) / float64(n)
		}
	}
	return cube
}

// halton draws its permutations axis by axis and digit by digit, whatever n is, so that more points begin with the same.
func halton(n, axes int, source interface{ Uint64() uint64 }) [][]float64 {
	batch := mat.NewDense(n, axes, nil)
	samplemv.Halton{Kind: samplemv.Owen, Q: distmv.NewUnitUniform(axes, nil), Src: source}.Sample(batch)
	cube := make([][]float64, n)
	for i := range cube {
		cube[i] = batch.RawRowView(i)
	}
	return cube
}

func rows(n, axes int) [][]float64 {
	all := make([]float64, n*axes)
	cube := make([][]float64, n)
	for i := range cube {
		cube[i] = all[i*axes : (i+1)*axes : (i+1)*axes]
	}
	return cube
}
