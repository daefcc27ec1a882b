package stat

import (
	"math"
	"slices"
	"testing"

	"evenkeel/internal/rng"
)

// near fails unless two numbers agree to a share of the wanted one, or to tol itself below 1.
func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tol*max(1, math.Abs(want))) && got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// normals draws n deviates that are normal enough: sums of twelve uniform numbers.
func normals(key uint64, n int) []float64 {
	r := rng.New(key)
	x := make([]float64, n)
	for i := range x {
		for range 12 {
			x[i] += r.Float64()
		}
		x[i] -= 6
	}
	return x
}

// whole draws n integers from −most to most.
func whole(key uint64, n, most int) []float64 {
	r := rng.New(key)
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(r.IntN(2*most+1) - most)
	}
	return x
}

func scaled(x []float64, factor float64) []float64 {
	y := slices.Clone(x)
	for i := range y {
		y[i] *= factor
	}
	return y
}

// Hamilton's depression scale before and after a tranquilliser, nine patients: Hollander and Wolfe 1973, page 29, as
// printed by example(wilcox.test) in R.
var (
	before = []float64{1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30}
	after  = []float64{0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29}
)

// Darwin's fifteen pairs of maize, cross- less self-fertilised, in eighths of an inch: Fisher 1935, The Design of
// Experiments, chapter III.
var maize = []float64{6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75}

func TestWilcoxonPublished(t *testing.T) {
	d, err := Differences(before, after)
	if err != nil {
		t.Fatal(err)
	}
	// R 4.2.2 wilcox.test: V = 40, p = 0.0390625; V = 96, p = 0.0412597656. scipy 1.10.1 gives the same.
	if got, want := Wilcoxon(d), (SignedRank{N: 9, Plus: 40, Minus: 5, P: 0.0390625, Exact: true}); got != want {
		t.Errorf("depression: %+v, want %+v", got, want)
	}
	if got, want := Wilcoxon(maize), (SignedRank{N: 15, Plus: 96, Minus: 24, P: 0.041259765625, Exact: true}); got != want {
		t.Errorf("maize: %+v, want %+v", got, want)
	}
}

// ranksWith returns 1 ... n, of which the negative ones sum to total.
func ranksWith(n, total int) []float64 {
	d := make([]float64, n)
	for r := n; r > 0; r-- {
		if d[r-1] = float64(r); r <= total {
			d[r-1], total = -d[r-1], total-r
		}
	}
	return d
}

// TestWilcoxonTable holds the two-sided critical values at 0.05 of Wilcoxon's table: T has a p below it, T + 1 has not. The
// p-values are counted in rational arithmetic.
func TestWilcoxonTable(t *testing.T) {
	for _, row := range []struct {
		n, critical int
		p, next     float64
	}{
		{6, 0, 0.03125, 0.0625}, {7, 2, 0.046875, 0.078125}, {8, 3, 0.0390625, 0.0546875}, {9, 5, 0.0390625, 0.0546875},
		{10, 8, 0.048828125, 0.064453125}, {12, 13, 0.04248046875, 0.05224609375}, {15, 25, 0.04791259765625, 0.05535888671875},
		{20, 52, 0.04844093322753906, 0.05316925048828125}, {25, 89, 0.04826241731643677, 0.05157625675201416},
		{30, 137, 0.049710121005773544, 0.052263347432017326}, {40, 264, 0.049760567819248536, 0.051399685278738616},
		{50, 434, 0.04944640680060175, 0.05060520369320898},
	} {
		w, next := Wilcoxon(ranksWith(row.n, row.critical)), Wilcoxon(ranksWith(row.n, row.critical+1))
		if w.Minus != float64(row.critical) || !w.Exact {
			t.Fatalf("n = %d: %+v", row.n, w)
		}
		near(t, "p at the critical value", w.P, row.p, 1e-15)
		near(t, "p beyond the critical value", next.P, row.next, 1e-15)
	}
}

func TestWilcoxonLeast(t *testing.T) {
	for n := 1; n <= exactPairs; n++ {
		if got, want := Wilcoxon(ranksWith(n, 0)).P, min(1, math.Ldexp(2, -n)); got != want {
			t.Errorf("n = %d: %v, want 2/2^n = %v", n, got, want)
		}
	}
}

// The p-values of samples with ties and zeros, counted over all signs by a program of another language.
func TestWilcoxonTiesAndZeros(t *testing.T) {
	for _, row := range []struct {
		d    []float64
		want SignedRank
	}{
		{[]float64{1, 1, 2, -1, 3, 3, -2, 4}, SignedRank{8, 0, 29.5, 6.5, 0.140625, true}},
		{[]float64{0, 0, 1, 2, -2, 3, 4, 5, -1, 6}, SignedRank{8, 2, 43, 9, 0.1015625, true}},
		{[]float64{0, 1, 1, 1, 1, 1, 1}, SignedRank{6, 1, 27, 0, 0.03125, true}},
		{[]float64{2, 2, 2, 2, -2, 2, 2, 2, 2, 2}, SignedRank{10, 0, 49.5, 5.5, 0.021484375, true}},
		{[]float64{0, -3, 1.5, 1.5, 0, 7, -1.5, 8, 8, -2, 9, 10}, SignedRank{10, 2, 58, 17, 0.109375, true}},
		{[]float64{0, 0, 0}, SignedRank{Zeros: 3, P: 1, Exact: true}},
		{nil, SignedRank{P: 1, Exact: true}},
	} {
		if got := Wilcoxon(row.d); got != row.want {
			t.Errorf("%v: %+v, want %+v", row.d, got, row.want)
		}
	}
}

// TestWilcoxonBruteForce counts every assignment of signs by itself.
func TestWilcoxonBruteForce(t *testing.T) {
	for key := range uint64(200) {
		d := whole(key, 2+int(key%10), 4)
		w := Wilcoxon(d)
		var at, all int
		for signs := range 1 << len(d) {
			other := slices.Clone(d)
			same := true // zeros have one sign only
			for i := range other {
				if signs>>i&1 == 1 {
					other[i] = -other[i]
					same = same && d[i] != 0
				}
			}
			if !same {
				continue
			}
			all++
			if o := Wilcoxon(other); o.Plus >= max(w.Plus, w.Minus) {
				at++
			}
		}
		if want := min(1, 2*float64(at)/float64(all)); w.P != want {
			t.Errorf("%v: p = %v, and %d of %d signs give %v", d, w.P, at, all, want)
		}
	}
}

// scipy 1.10.1: wilcoxon(d, zero_method='pratt', correction=True, mode='approx').
func TestWilcoxonNormal(t *testing.T) {
	var ties, distinct []float64
	for k := 1; k <= 70; k++ {
		ties = append(ties, float64(k*37%29-11))
		if d := float64(k*37%71 - 30); d != 0 {
			distinct = append(distinct, d)
		}
	}
	w := Wilcoxon(ties)
	if w.N != 67 || w.Zeros != 3 || w.Minus != 797.5 || w.Exact {
		t.Errorf("ties and zeros: %+v", w)
	}
	near(t, "ties and zeros", w.P, 0.00973366237715554, 1e-14)
	w = Wilcoxon(distinct)
	if w.N != 69 || w.Minus != 855.5 || w.Exact {
		t.Errorf("ties: %+v", w)
	}
	near(t, "ties", w.P, 0.035576424073338685, 1e-14)
	// Where the count ends it and the approximation agree up to the next term of Edgeworth's series, at most
	// φ(z) κ/24 |z³ − 3z| with κ = 2 Σ r⁴ / (Σ r²)² = 0.07: 0.0016 near z = 0.7.
	ranks := make([]int, 50)
	for i := range ranks {
		ranks[i] = 2 * (i + 1)
	}
	for _, sum := range []int{700, 841, 900} {
		near(t, "approximation", normalAtLeast(ranks, float64(2*sum)), atLeast(ranks, 2*sum), 1.7e-3)
	}
}

func TestWilcoxonProperties(t *testing.T) {
	for key := range uint64(100) {
		d := whole(key, int(key%70), 12)
		w := Wilcoxon(d)
		if n := len(d); w.N+w.Zeros != n || w.Plus+w.Minus != float64(n*(n+1)-w.Zeros*(w.Zeros+1))/2 || !(w.P > 0 && w.P <= 1) {
			t.Errorf("%v: %+v", d, w)
		}
		m := Wilcoxon(scaled(d, -1))
		if m.P != w.P || m.Plus != w.Minus || m.Minus != w.Plus {
			t.Errorf("%v: %+v, negated %+v", d, w, m)
		}
		if s := Wilcoxon(scaled(d, 0.125)); s != w {
			t.Errorf("%v: %+v, scaled %+v", d, w, s)
		}
		slices.Reverse(d)
		if r := Wilcoxon(d); r != w {
			t.Errorf("%v: %+v, reversed %+v", d, r, w)
		}
	}
	if w := Wilcoxon([]float64{1, math.NaN(), 2}); !math.IsNaN(w.P) {
		t.Errorf("with a NaN: %+v", w)
	}
}

// TestWilcoxonHolds counts false alarms: at most 5 % of symmetric samples may be significant at 0.05.
func TestWilcoxonHolds(t *testing.T) {
	const samples = 4000
	for _, n := range []int{6, 10, 60} {
		var alarms float64
		for key := range uint64(samples) {
			if Wilcoxon(normals(rng.Key(key, rng.Resample, uint64(n)), n)).P <= 0.05 {
				alarms++
			}
		}
		if sd := math.Sqrt(samples * 0.05 * 0.95); alarms > samples*0.05+3*sd || alarms == 0 {
			t.Errorf("n = %d: %.0f of %d symmetric samples are significant", n, alarms, samples)
		}
	}
}

func TestSignTest(t *testing.T) {
	for _, row := range []struct {
		d    []float64
		want float64
	}{
		{maize, 0.00738525390625}, // scipy 1.10.1 binomtest(2, 15); 2 (1 + 15 + 105) / 2^15
		{[]float64{1, 2, 3, 4, 5}, 0.0625},
		{[]float64{1, 2, 3, 4, 5, 6, 0, 0}, 0.03125},
		{[]float64{-1, 1}, 1},
		{[]float64{0}, 1},
		{nil, 1},
	} {
		near(t, "sign test", SignTest(row.d), row.want, 1e-14)
	}
	if p := SignTest([]float64{1, math.NaN()}); !math.IsNaN(p) {
		t.Errorf("with a NaN: %v", p)
	}
}
