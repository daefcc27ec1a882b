package design

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"evenkeel/internal/rng"
)

// run drives a search for a front to its end and returns the number of trials.
func run(t testing.TB, s *NSGA2, f func(x []float64) []float64) (trials int) {
	t.Helper()
	for asked := s.Ask(); len(asked) > 0; asked = s.Ask() {
		var values [][]float64
		for _, trial := range asked {
			values = append(values, f(valuesOf(t, trial.Point)))
		}
		trials += len(asked)
		if err := s.Tell(values); err != nil {
			t.Fatal(err)
		}
	}
	return trials
}

func zdt1(x []float64) []float64 {
	var sum float64
	for _, v := range x[1:] {
		sum += v
	}
	g := 1 + 9*sum/float64(len(x)-1)
	return []float64{x[0], g * (1 - math.Sqrt(x[0]/g))}
}

// Deb et al. (2002), tables II and III: on ZDT1 with 30 variables, a population of 100 and 250 generations, real-coded NSGA-II has
// a mean distance to the front of 0.033482 (the metric ϒ, to 500 points of the front) and a spread of 0.390307 (the metric Δ).
func TestNSGA2ReachesTheFrontOfZDT1(t *testing.T) {
	var axes []string
	for i := range 30 {
		axes = append(axes, fmt.Sprintf("x%d=lin:0..1", i))
	}
	for seed := range uint64(2) {
		s, err := NewNSGA2(parse(t, axes...), NSGA2Options{Population: 100, Generations: 250, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		if n := run(t, s, zdt1); n != 25_000 {
			t.Errorf("%d trials, want 25000", n)
		}
		var values [][]float64
		for _, one := range s.parents {
			values = append(values, one.values)
		}
		var front [][]float64
		for _, i := range Front(values) {
			front = append(front, values[i])
		}
		distance, spread := convergence(front), spreadOf(front)
		t.Logf("seed %d: distance %.6f, spread %.6f", seed, distance, spread)
		if distance > 0.033482 || spread > 0.5 || len(front) < 90 {
			t.Errorf("seed %d: %d on the front, distance %.6f, spread %.6f", seed, len(front), distance, spread)
		}
	}
}

// convergence is ϒ: the mean distance to the nearest of 500 points of f2 = 1 - √f1.
func convergence(front [][]float64) (mean float64) {
	for _, v := range front {
		nearest := math.Inf(1)
		for i := range 500 {
			f1 := float64(i) / 499
			nearest = min(nearest, math.Hypot(v[0]-f1, v[1]-(1-math.Sqrt(f1))))
		}
		mean += nearest / float64(len(front))
	}
	return mean
}

// spreadOf is Δ: the unevenness of neighbours' distances, with those of the ends to the ends of the true front.
func spreadOf(front [][]float64) float64 {
	front = slices.SortedFunc(slices.Values(front), slices.Compare)
	apart := func(a, b []float64) float64 { return math.Hypot(a[0]-b[0], a[1]-b[1]) }
	var gaps []float64
	var mean, uneven float64
	for i := range front[1:] {
		gaps = append(gaps, apart(front[i], front[i+1]))
		mean += gaps[i] / float64(len(front)-1)
	}
	for _, g := range gaps {
		uneven += math.Abs(g - mean)
	}
	ends := apart(front[0], []float64{0, 1}) + apart(front[len(front)-1], []float64{1, 0})
	return (ends + uneven) / (ends + float64(len(gaps))*mean)
}

// Failed trials do not survive while there are others.
func TestNSGA2WithFailures(t *testing.T) {
	s, err := NewNSGA2(parse(t, "x=lin:0..1", "y=a,b,c"), NSGA2Options{Population: 20, Generations: 10})
	if err != nil {
		t.Fatal(err)
	}
	for asked := s.Ask(); len(asked) > 0; asked = s.Ask() {
		var values [][]float64
		for _, trial := range asked {
			x := valuesOf(t, trial.Point[:1])[0]
			if trial.Point[1] == "c" {
				values = append(values, nil)
			} else {
				values = append(values, []float64{x, 1 - x})
			}
		}
		if err := s.Tell(values); err != nil {
			t.Fatal(err)
		}
	}
	for _, one := range s.parents {
		if math.IsInf(one.values[0], 1) {
			t.Errorf("a failed trial survives")
		}
	}
}

// Simulated binary crossover keeps the mean of parents that are far from the ends, and nothing leaves the cube.
func TestCrossoverAndMutationStayInTheCube(t *testing.T) {
	s := cloud(2000, 3, 0, 7)
	for i, row := range s {
		r := rng.New(uint64(i))
		c, d := crossed(row[0], row[1], &r)
		m := mutated(row[0], row[2])
		for _, x := range []float64{c, d, m, mutated(0, row[2]), mutated(1, row[2])} {
			if !(x >= 0 && x <= 1) {
				t.Fatalf("%v leaves the cube", x)
			}
		}
		near, far := 0.5+row[0]/100, 0.5-row[1]/100
		c, d = crossed(near, far, &r)
		if math.Abs(c+d-near-far) > 1e-9 {
			t.Fatalf("children %v and %v of %v and %v", c, d, near, far)
		}
	}
	if x := mutated(0.3, 0.5); math.Abs(x-0.3) > 1e-15 {
		t.Errorf("the middle of the mutation moves 0.3 to %v", x)
	}
}

func TestNSGA2Refusals(t *testing.T) {
	for _, c := range []struct {
		o    NSGA2Options
		want string
	}{
		{NSGA2Options{Objectives: 1, Population: 10, Generations: 1}, "2 to 16"},
		{NSGA2Options{Population: 5, Generations: 1}, "even, from 4"},
		{NSGA2Options{Population: 10}, "0 generations"},
		{NSGA2Options{Population: 10_000, Generations: 101}, "1 to 100 of this population"},
	} {
		if _, err := NewNSGA2(parse(t, "x=1,2"), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
}
