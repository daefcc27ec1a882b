package design

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample(t testing.TB, d Design, axes ...string) []Point {
	t.Helper()
	points, err := d.Sample(parse(t, axes...))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(points)
}

func TestGridAndZip(t *testing.T) {
	axes := []string{"a=1,2", "b=x,y,z"}
	want := []Point{{"1", "x"}, {"1", "y"}, {"1", "z"}, {"2", "x"}, {"2", "y"}, {"2", "z"}}
	if diff := cmp.Diff(want, sample(t, Design{Kind: Grid}, axes...)); diff != "" {
		t.Error(diff)
	}
	want = []Point{{"1", "x", "0"}, {"2", "y", "0.5"}, {"4", "z", "1"}}
	if diff := cmp.Diff(want, sample(t, Design{Kind: Zip}, "a=pow2:1..4", "b=x,y,z", "c=lin:0..1:3")); diff != "" {
		t.Error(diff)
	}
}

func TestDesignRefusals(t *testing.T) {
	for _, c := range []struct {
		d    Design
		axes []string
		want string
	}{
		{Design{Kind: Grid}, []string{"a=lin:0..1"}, "a=lin:0..1 has no number of values, and a grid needs one: give a number of values, such as lin:0..1:5"},
		{Design{Kind: Grid}, []string{"a=int:1..9"}, "give a step from 1"},
		{Design{Kind: Grid}, []string{"a=int:1..1001:1", "b=int:1..1000:1"}, "more than 1000000 points"},
		{Design{Kind: Zip}, []string{"a=1,2", "b=log:1..2"}, "zipping needs one"},
		{Design{Kind: Zip}, []string{"a=1,2", "b=1,2,3"}, "a has 2 values and b has 3"},
		{Design{Kind: Random}, []string{"a=1,2"}, "a random design of 0 points"},
		{Design{Kind: Halton, Points: MaxPoints + 1}, []string{"a=1,2"}, "there must be 1 to 1000000"},
		{Design{Kind: "sobol", Points: 3}, []string{"a=1,2"}, "is none of grid"},
		{Design{Kind: Grid}, nil, "over 0 axes"},
	} {
		_, err := c.d.Sample(parse(t, c.axes...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v over %v: %v, want ...%s...", c.d, c.axes, err, c.want)
		}
	}
	for _, text := range []string{"grid:5", "zip:1", "random", "lhs:0", "halton:-1", "halton:1000001", "halton:1e3", "sobol:5", ""} {
		if d, err := ParseDesign(text, 1); err == nil {
			t.Errorf("%q passes as %v", text, d)
		}
	}
	for _, text := range []string{"grid", "zip", "random:5", "lhs:64", "halton:1000000"} {
		if d, err := ParseDesign(text, 1); err != nil || d.String() != text {
			t.Errorf("%q is %v, %v", text, d, err)
		}
	}
}

var mixed = []string{"rate=log:1e-4..1e-1", "tokens=1024,4096,16384", "x=lin:-1..1", "experts=int:8..64"}

// What Extends promises holds, and what it refuses does not.
func TestExtension(t *testing.T) {
	for _, kind := range []Kind{Random, LatinHypercube, Halton} {
		for _, n := range []int{1, 6, 13, 40} {
			for _, m := range []int{n, n + 1, 2 * n, 3 * n, 4 * n} {
				d := Design{kind, n, 5}
				short, long := sample(t, d, mixed...), sample(t, Design{kind, m, 5}, mixed...)
				begins := cmp.Equal(short, long[:n])
				if promised := d.Extends(m) == nil; promised != begins {
					t.Errorf("%s from %d to %d points: promised %v, is %v", kind, n, m, promised, begins)
				}
			}
		}
	}
	for _, c := range []struct {
		d    Design
		n    int
		want string
	}{
		{Design{Kind: Grid}, 10, "by adding values"},
		{Design{LatinHypercube, 10, 0}, 15, "double it to 20, or use halton"},
		{Design{LatinHypercube, 10, 0}, 5, "would be fewer"},
		{Design{Halton, 10, 0}, 9, "would be fewer"},
	} {
		if err := c.d.Extends(c.n); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v to %d: %v", c.d, c.n, err)
		}
	}
}

// An axis that is added comes after the others and moves no value of theirs.
func TestAddedAxis(t *testing.T) {
	for _, kind := range []Kind{Random, LatinHypercube, Halton} {
		few, more := sample(t, Design{kind, 20, 5}, mixed[:3]...), sample(t, Design{kind, 20, 5}, mixed...)
		for i := range few {
			if !slices.Equal(few[i], more[i][:3]) {
				t.Fatalf("%s: point %d is %v, with another axis %v", kind, i, few[i], more[i])
			}
		}
	}
}

func TestSeeds(t *testing.T) {
	for _, kind := range []Kind{Random, LatinHypercube, Halton} {
		if cmp.Equal(sample(t, Design{kind, 20, 1}, mixed...), sample(t, Design{kind, 20, 2}, mixed...)) {
			t.Errorf("%s: two seeds give the same points", kind)
		}
		if !cmp.Equal(sample(t, Design{kind, 20, 1}, mixed...), sample(t, Design{kind, 20, 1}, mixed...)) {
			t.Errorf("%s: one seed gives two designs", kind)
		}
	}
}

// The first points are pinned: stored sweeps are extended by later versions of the program.
func TestFirstPoints(t *testing.T) {
	for kind, want := range map[Kind][]Point{
		Random: {
			{"0.003519186", "4096", "0.6451032", "12"}, {"0.00012672768", "4096", "-0.5551421", "52"}, {"0.004172549", "1024", "0.7147093", "16"},
		},
		LatinHypercube: {
			{"0.0001733271", "16384", "0.0396553", "26"}, {"0.001671897", "1024", "-0.3423004", "57"}, {"0.012365341", "4096", "0.3523254", "31"},
		},
		Halton: {
			{"0.004825953", "4096", "0.6403839", "41"}, {"0.00015261", "16384", "-0.9596161", "57"}, {"0.02713833", "1024", "-0.1596161", "8"},
		},
	} {
		if diff := cmp.Diff(want, sample(t, Design{kind, 3, 1}, mixed...)); diff != "" {
			t.Errorf("%s: %s", kind, diff)
		}
	}
}

// Exactly one point is in each of n strata of every axis, for odd n, powers of two and between, and so at every doubling.
func TestLatinHypercubeHasOnePointPerStratum(t *testing.T) {
	for _, n := range []int{1, 7, 12, 64, 100, 1000} {
		cube := latinHypercube(n, 3, 9)
		for j := range 3 {
			seen := make([]int, n)
			for _, u := range cube {
				seen[int(u[j]*float64(n))]++
			}
			for s, k := range seen {
				if k != 1 {
					t.Errorf("%d points, axis %d: %d in stratum %d", n, j, k, s)
				}
			}
		}
	}
}

// Each of three values comes up equally often, give or take the rounding of a stratum.
func TestLatinHypercubeBalancesLists(t *testing.T) {
	count := map[string]int{}
	for _, p := range sample(t, Design{LatinHypercube, 30, 3}, "tokens=1024,4096,16384") {
		count[p[0]]++
	}
	if diff := cmp.Diff(map[string]int{"1024": 10, "4096": 10, "16384": 10}, count); diff != "" {
		t.Error(diff)
	}
}

// ones is a source for which every permutation is the identity, so that nothing is scrambled.
type ones struct{}

func (ones) Uint64() uint64 { return math.MaxUint64 }

// The van der Corput sequences in bases 2, 3 and 5, as in Halton (1960) and every textbook, from index 0.
func TestHaltonWithoutScrambling(t *testing.T) {
	want := [][]float64{
		{0, 0, 0}, {1. / 2, 1. / 3, 1. / 5}, {1. / 4, 2. / 3, 2. / 5}, {3. / 4, 1. / 9, 3. / 5}, {1. / 8, 4. / 9, 4. / 5},
		{5. / 8, 7. / 9, 1. / 25}, {3. / 8, 2. / 9, 6. / 25}, {7. / 8, 5. / 9, 11. / 25}, {1. / 16, 8. / 9, 16. / 25},
	}
	got := halton(len(want), 3, ones{})
	for i := range want {
		for j := range want[i] {
			if math.Abs(got[i][j]-want[i][j]) > 1e-15 {
				t.Errorf("point %d, axis %d: %v, want %v", i, j, got[i][j], want[i][j])
			}
		}
	}
}

// Warnock's formula for the square of the L2 star discrepancy.
func discrepancy(cube [][]float64) float64 {
	n, d := float64(len(cube)), len(cube[0])
	sum := math.Pow(1./3, float64(d))
	for _, x := range cube {
		p := 1.0
		for j := range x {
			p *= (1 - x[j]*x[j]) / 2
		}
		sum -= 2 / n * p
		for _, y := range cube {
			p := 1.0
			for j := range x {
				p *= 1 - max(x[j], y[j])
			}
			sum += p / (n * n)
		}
	}
	return sum
}

func TestHaltonIsMoreEvenThanRandom(t *testing.T) {
	for seed := range uint64(20) {
		even, uneven := discrepancy(places(t, Halton, seed)), discrepancy(places(t, Random, seed))
		if even*4 > uneven {
			t.Errorf("seed %d: squared discrepancy %.3g of Halton and %.3g of random points", seed, even, uneven)
		}
	}
}

func places(t *testing.T, kind Kind, seed uint64) (cube [][]float64) {
	for _, p := range sample(t, Design{kind, 256, seed}, "x=lin:0..1", "y=lin:0..1", "z=lin:0..1") {
		cube = append(cube, valuesOf(t, p))
	}
	return cube
}

// The mean squared discrepancy of n random points is (2^-d - 3^-d)/n, whatever draws them.
func TestRandomIsUniform(t *testing.T) {
	var sum float64
	const seeds = 100
	for seed := range uint64(seeds) {
		sum += discrepancy(random(64, 2, seed))
	}
	want := (1./4 - 1./9) / 64
	if got := sum / seeds; math.Abs(got-want) > 0.25*want {
		t.Errorf("mean squared discrepancy %.4g, want %.4g", got, want)
	}
}
