package stat

import (
	"math"
	"slices"
	"testing"

	"evenkeel/internal/rng"
)

func TestEffectSizes(t *testing.T) {
	// numpy 1.24.2: mean 20.933333333333334, sample standard deviation 37.7443783262898.
	near(t, "d_z of maize", CohenDZ(maize), 0.5546079777065185, 1e-14)
	d, _ := Differences(before, after)
	near(t, "rank-biserial of depression", RankBiserial(d), 35.0/45, 1e-15)
	near(t, "rank-biserial of maize", RankBiserial(maize), 72.0/120, 1e-15)
	// scipy 1.10.1 mannwhitneyu: U = 22.5 of 72 pairs.
	a, b := []float64{3, 1, 4, 1, 5, 9, 2, 6}, []float64{5, 3, 5, 8, 9, 7, 9, 3, 2}
	near(t, "A12", A12(a, b), 0.3125, 1e-15)
	near(t, "Cliff's delta", CliffDelta(a, b), -0.375, 1e-15)
}

func TestEffectSizesWithout(t *testing.T) {
	for _, row := range []struct {
		what      string
		got, want float64
	}{
		{"d_z of zeros", CohenDZ([]float64{0, 0, 0}), 0},
		{"d_z of equal differences", CohenDZ([]float64{0.1, 0.1, 0.1}), math.Inf(1)},
		{"d_z of equal negative differences", CohenDZ([]float64{-0.1, -0.1, -0.1}), math.Inf(-1)},
		{"rank-biserial of zeros", RankBiserial([]float64{0, 0}), 0},
		{"rank-biserial of nothing", RankBiserial(nil), 0},
		{"A12 of equal samples", A12([]float64{1, 1}, []float64{1}), 0.5},
	} {
		if row.got != row.want {
			t.Errorf("%s: %v, want %v", row.what, row.got, row.want)
		}
	}
	for what, got := range map[string]float64{
		"d_z of one": CohenDZ([]float64{3}), "d_z of nothing": CohenDZ(nil), "A12 of nothing": A12(nil, []float64{1}),
		"A12 of NaN": A12([]float64{math.NaN()}, []float64{1}), "rank-biserial of NaN": RankBiserial([]float64{math.NaN()}),
	} {
		if !math.IsNaN(got) {
			t.Errorf("%s: %v, want NaN", what, got)
		}
	}
}

func TestEffectProperties(t *testing.T) {
	for key := range uint64(100) {
		n := 3 + int(key%8)
		a, b := whole(key, n, 5), whole(rng.Mix(key+1), n, 5)
		d, _ := Differences(a, b)
		e, _ := Differences(b, a)
		if CohenDZ(d) != -CohenDZ(e) || RankBiserial(d) != -RankBiserial(e) || CliffDelta(a, b) != -CliffDelta(b, a) ||
			A12(a, b)+A12(b, a) != 1 {
			t.Errorf("%v and %v: an effect is not the opposite of its reverse", a, b)
		}
		if CohenDZ(scaled(d, 4)) != CohenDZ(d) || CliffDelta(scaled(a, 4), scaled(b, 4)) != CliffDelta(a, b) {
			t.Errorf("%v and %v: an effect depends on the unit", a, b)
		}
		if r := RankBiserial(d); r < -1 || r > 1 {
			t.Errorf("%v: rank-biserial %v", d, r)
		}
		delta := CliffDelta(a, b)
		slices.Reverse(a)
		if CliffDelta(a, b) != delta {
			t.Errorf("%v and %v: Cliff's delta depends on the order", a, b)
		}
	}
}

func TestDifferences(t *testing.T) {
	d, err := Differences([]float64{1, 5}, []float64{3, 1})
	if err != nil || !slices.Equal(d, []float64{-2, 4}) {
		t.Errorf("%v, %v", d, err)
	}
	for _, bad := range [][2][]float64{{{1}, {1, 2}}, {{math.NaN()}, {1}}, {{math.Inf(1)}, {math.Inf(1)}}, {{1e308}, {-1e308}}} {
		if _, err := Differences(bad[0], bad[1]); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}
