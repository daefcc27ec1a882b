package metrics

import (
	"math"
	"testing"
)

func interval(t *testing.T, what string, mean float64, low, high *float64, wantMean, wantLow, wantHigh float64) {
	t.Helper()
	near(t, what+" mean", mean, wantMean, 1e-15)
	if low == nil || high == nil {
		t.Fatalf("%s: no interval", what)
	}
	if *low != wantLow || *high != wantHigh {
		t.Errorf("%s: [%v, %v], want [%v, %v]", what, *low, *high, wantLow, wantHigh)
	}
}

func TestMeanInterval(t *testing.T) {
	// s = 1, t(0.975, 2) = 4.302653, half = 4.302653/√3 = 2.484138.
	m, l, h := MeanInterval([]float64{1, 2, 3})
	interval(t, "three", m, l, h, 2, -0.484138, 4.48414)
	// s = √½, t(0.975, 1) = 12.706205, half = 12.706205/2.
	m, l, h = MeanInterval([]float64{4, 5})
	interval(t, "two", m, l, h, 4.5, -1.8531, 10.8531)
	// s² = 20/4, t(0.975, 4) = 2.776445, half = 2.776445.
	m, l, h = MeanInterval([]float64{7, 5, 8, 3, 7})
	s := math.Sqrt(16.0 / 4)
	interval(t, "five", m, l, h, 6, Round6(6-2.776445105*s/math.Sqrt(5)), Round6(6+2.776445105*s/math.Sqrt(5)))
}

func TestMeanIntervalHoldsItsMean(t *testing.T) {
	x := 0.123456789
	m, l, h := MeanInterval([]float64{x, x, x})
	if m != x || *l > m || *h < m || *h-*l > 1e-6 {
		t.Errorf("equal values: %v in [%v, %v]", m, *l, *h)
	}
}

func TestMeanIntervalWithout(t *testing.T) {
	for _, x := range [][]float64{nil, {3}, {1, math.NaN()}, {1, math.Inf(1)}} {
		if _, low, high := MeanInterval(x); low != nil || high != nil {
			t.Errorf("%v has an interval", x)
		}
	}
	if m, _, _ := MeanInterval([]float64{3}); m != 3 {
		t.Errorf("mean of 3 is %v", m)
	}
	if m, _, _ := MeanInterval(nil); !math.IsNaN(m) {
		t.Errorf("mean of nothing is %v", m)
	}
}

func TestPairedInterval(t *testing.T) {
	m, l, h := PairedInterval([]float64{11, 22, 33}, []float64{10, 20, 30})
	interval(t, "paired", m, l, h, 2, -0.484138, 4.48414)
}

func TestRound6(t *testing.T) {
	for _, test := range []struct{ x, want float64 }{
		{0, 0}, {1, 1}, {123456789, 123457000}, {-0.001234564999, -0.00123456}, {0.99999951, 1}, {1e-300 / 3, 3.33333e-301},
		{math.Inf(-1), math.Inf(-1)}, {0.1 + 0.2, 0.3},
	} {
		if got := Round6(test.x); got != test.want {
			t.Errorf("Round6(%v) = %v, want %v", test.x, got, test.want)
		}
	}
	if !math.IsNaN(Round6(math.NaN())) {
		t.Error("Round6(NaN) is a number")
	}
}
