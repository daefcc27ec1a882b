package design

import (
	"math"
	"strconv"
	"strings"
	"testing"
)

func valuesOf(t testing.TB, p Point) []float64 {
	t.Helper()
	x := make([]float64, len(p))
	for i, word := range p {
		var err error
		if x[i], err = strconv.ParseFloat(word, 64); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// least runs a search to its end, or until a value is below enough, and returns the least value, its point and the trials.
func least(t testing.TB, s Search, enough float64, f func(x []float64) float64) (best float64, where []float64, n int) {
	t.Helper()
	best = math.Inf(1)
	for trials := s.Ask(); len(trials) > 0 && best > enough; trials = s.Ask() {
		var values [][]float64
		for _, trial := range trials {
			x := valuesOf(t, trial.Point)
			v := f(x)
			if v < best {
				best, where = v, x
			}
			values = append(values, []float64{v})
		}
		n += len(trials)
		if err := s.Tell(values); err != nil {
			t.Fatal(err)
		}
	}
	return best, where, n
}

func newCMAES(t testing.TB, o CMAESOptions, axes ...string) *CMAES {
	t.Helper()
	s, err := NewCMAES(parse(t, axes...), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sphere(x []float64) (f float64) {
	for _, v := range x {
		f += (v - 0.3) * (v - 0.3)
	}
	return f
}

func rosenbrock(x []float64) (f float64) {
	for i := range x[1:] {
		f += 100*(x[i+1]-x[i]*x[i])*(x[i+1]-x[i]*x[i]) + (1-x[i])*(1-x[i])
	}
	return f
}

// All of twenty seeds stay below numbers of trials that are a fraction of what the method takes without its step size.
func TestCMAESFindsTheLeast(t *testing.T) {
	four := []string{"a=lin:-2..3", "b=lin:-2..3", "c=lin:-2..3", "d=lin:-2..3"}
	for _, c := range []struct {
		name   string
		f      func([]float64) float64
		axes   []string
		trials int
	}{
		{"sphere", sphere, four[:1], 200},
		{"sphere", sphere, four[:2], 500},
		{"sphere", sphere, four, 1000},
		{"rosenbrock", rosenbrock, four[:2], 1500},
		{"rosenbrock", rosenbrock, four, 4000},
	} {
		for seed := range uint64(20) {
			best, where, n := least(t, newCMAES(t, CMAESOptions{Trials: c.trials, Seed: seed}, c.axes...), 1e-8, c.f)
			if best > 1e-8 {
				t.Errorf("%s in %d dimensions, seed %d: %g at %v after %d trials", c.name, len(c.axes), seed, best, where, n)
			}
		}
	}
}

// The least value may lie on a face or in a corner of the cube, on whole numbers, or be a question of magnitude.
func TestCMAESOnAxes(t *testing.T) {
	best, where, _ := least(t, newCMAES(t, CMAESOptions{Trials: 2000, Seed: 1}, "a=lin:1..3", "b=lin:-7..-2"), 0, sphere)
	if want := sphere([]float64{1, -2}); best > want+1e-5 {
		t.Errorf("corner: %v at %v, want %v", best, where, want)
	}
	rate := func(x []float64) float64 {
		return math.Pow(math.Log10(x[0]/0.0023), 2) + math.Pow(float64(x[1])-37, 2)/100
	}
	best, where, _ = least(t, newCMAES(t, CMAESOptions{Trials: 1000, Seed: 1}, "rate=log:1e-5..1", "experts=int:8..64"), 0, rate)
	if best > 1e-8 || where[1] != 37 {
		t.Errorf("rate and experts: %v at %v", best, where)
	}
}

func TestCMAESEnds(t *testing.T) {
	flat := func([]float64) float64 { return 1 }
	if _, _, n := least(t, newCMAES(t, CMAESOptions{Trials: 10_000}, "x=lin:0..1", "y=lin:0..1"), 0, flat); n != 6*maxFlat {
		t.Errorf("a flat function takes %d trials, want %d", n, 6*maxFlat)
	}
	if _, _, n := least(t, newCMAES(t, CMAESOptions{Trials: 25}, "x=lin:0..1", "y=lin:0..1"), 0, sphere); n != 24 {
		t.Errorf("of 25 trials it takes %d, want 4 generations of 6", n)
	}
	if _, _, n := least(t, newCMAES(t, CMAESOptions{Trials: 100_000}, "x=lin:0..1", "y=lin:0..1"), 0, sphere); n > 1000 {
		t.Errorf("it goes on for %d trials after it has converged", n)
	}
	s := newCMAES(t, CMAESOptions{Trials: 300}, "x=lin:0..1", "y=lin:0..1")
	for trials := s.Ask(); len(trials) > 0; trials = s.Ask() { // failures alone
		if err := s.Tell(make([][]float64, len(trials))); err != nil {
			t.Fatal(err)
		}
	}
}

// Where half of the cube fails, the other half is searched.
func TestCMAESAvoidsFailures(t *testing.T) {
	f := func(x []float64) float64 {
		if x[0] > 0.5 {
			return math.NaN()
		}
		return sphere(x)
	}
	if best, where, n := least(t, newCMAES(t, CMAESOptions{Trials: 1000, Seed: 3}, "x=lin:0..1", "y=lin:0..1"), 1e-8, f); best > 1e-8 {
		t.Errorf("%v at %v after %d trials", best, where, n)
	}
}

func TestCMAESRefusals(t *testing.T) {
	for _, c := range []struct {
		o    CMAESOptions
		axis string
		want string
	}{
		{CMAESOptions{Trials: 100}, "mode=a,b", "cannot vary mode"},
		{CMAESOptions{Trials: 100}, "x=1,3,2", "cannot vary x"},
		{CMAESOptions{Trials: 3}, "x=1,2,3", "from 4, its population"},
		{CMAESOptions{Trials: 100, Population: 3}, "x=3,2,1", "must be 4 to 10000"},
	} {
		if _, err := NewCMAES(parse(t, c.axis), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v, %s: %v", c.o, c.axis, err)
		}
	}
	if _, err := NewCMAES(nil, CMAESOptions{Trials: 100}); err == nil {
		t.Error("no axes pass")
	}
}
