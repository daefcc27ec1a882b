package stat

import (
	"math"
	"regexp"
	"strings"
	"testing"

	"evenkeel/internal/rng"
)

func compare(t *testing.T, a, b []float64, o Options) Verdict {
	t.Helper()
	v, err := Compare(a, b, o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// above returns values that exceed 100 by the differences.
func above(d []float64) (a, b []float64) {
	for _, v := range d {
		a, b = append(a, 100+v), append(b, 100)
	}
	return a, b
}

var names = Options{A: "aux-loss", B: "loss-free", Metric: "maxvio_global"}

// The least differences and the numbers needed in the sentences are those of scipy 1.10.1's noncentral t, times √(π/3) and π/3.
func TestSentences(t *testing.T) {
	for _, row := range []struct {
		d     []float64
		pairs int
		o     Options
		want  string
	}{
		{[]float64{1, 2, 3, 4, 5}, 1, names,
			"no difference of aux-loss and loss-free in maxvio_global shown over 5 seeds (p = 0.062): " +
				"fewer than 6 cannot show any; about 6 would be needed for the one measured"},
		{[]float64{4, -3, 1, -2, 2.5, -1.5, 0.5, 3.5}, 1, names,
			"no difference of aux-loss and loss-free in maxvio_global shown over 8 seeds " +
				"(p = 0.55): as many cannot be relied on to show one below 3.09; about 147 would be needed for the one measured"},
		{[]float64{4, -3, 1, -2, 2.5, -1.5, 0.5, 3.5}, 3, names,
			"no difference of aux-loss and loss-free in maxvio_global shown over 8 seeds " +
				"(p = 1 corrected for 3 comparisons): as many cannot be relied on to show one below 3.88; " +
				"about 196 would be needed for the one measured"},
		{[]float64{1, -1, 2, -2, 3, -3}, 1, Options{}, "no difference of the first and the second shown over 6 seeds (p = 1): " +
			"as many cannot be relied on to show one below 3.47; no number up to 100000 would do for the one measured"},
		{[]float64{2}, 1, names,
			"no difference of aux-loss and loss-free in maxvio_global shown over 1 seed (p = 1): " +
				"fewer than 6 cannot show any; how many would be needed takes two to tell"},
		{[]float64{0, 0, 0}, 1, names, "no difference of aux-loss and loss-free in maxvio_global: they are equal over 3 seeds"},
		{[]float64{1, 1, 1, 1, 1, 1}, 1, names,
			"aux-loss is above loss-free in maxvio_global by 1, 95 % interval 1 to 1, 1 % of loss-free's mean (6 seeds, p = 0.031)"},
		{maize, 1, names,
			"aux-loss is above loss-free in maxvio_global by 20.9, 95 % interval -4.6 to 38.1, 21 % of loss-free's mean (15 seeds, p = 0.041)"},
		{scaled(maize, -1), 1, names,
			"aux-loss is below loss-free in maxvio_global by 20.9, 95 % interval -4.6 to 38.1, 21 % of loss-free's mean (15 seeds, p = 0.041)"},
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, -100}, 1, Options{Level: 0.9},
			"the first and the second differ over 10 seeds (p = 0.084), " +
				"but few large differences turn the mean against the ranks: no direction is shown"},
	} {
		a, b := above(row.d)
		family := make([]Verdict, row.pairs)
		for i := range family {
			family[i] = compare(t, a, b, row.o)
		}
		if row.pairs > 1 {
			Correct(family)
		}
		if got := family[0].String(); got != row.want {
			t.Errorf("%v:\n%s, want\n%s", row.d, got, row.want)
		}
	}
}

func TestCompare(t *testing.T) {
	a, b := above(maize)
	v := compare(t, a, b, Options{Seed: 1})
	if v.Seeds != 15 || v.Test != Wilcoxon(maize) || v.Corrected != v.Test.P || v.Pairs != 1 ||
		!v.Significant || v.Needed != 0 || v.Least != 6 || v.Method != "BCa" {
		t.Errorf("%+v", v)
	}
	near(t, "difference", v.Difference.Estimate, Mean(maize), 1e-14)
	near(t, "mean", v.MeanA, 100+Mean(maize), 1e-14)
	near(t, "spread", v.Spread, 37.7443783262898, 1e-14)
	near(t, "d_z", v.DZ, 0.5546079777065185, 1e-13)
	near(t, "rank-biserial", v.RankBiserial, 0.6, 1e-15)
	// scipy 1.10.1: the t-test of 15 seeds reaches power 0.8 at d_z = 0.7780225697854274.
	near(t, "least shown", v.LeastShown, 0.7780225697854274*math.Sqrt(math.Pi/3)*37.7443783262898, 1e-8)
	want, _ := Bootstrap{Seed: 1, Expand: true}.BCa(maize)
	near(t, "low", v.Difference.Low, want.Low, 1e-12)
	near(t, "high", v.Difference.High, want.High, 1e-12)

	v = compare(t, []float64{4, 5, 6}, []float64{3, 3, 3}, Options{})
	near(t, "low of three", v.Difference.Low, 2-4.30265273/math.Sqrt(3), 1e-8)
	if v.Method != "t" || v.Significant || !math.IsInf(v.LeastShown, 1) {
		t.Errorf("%+v", v)
	}

	// An effect that 6 seeds should show by the t-test's reckoning and did not: one more at least. p = 2 · 2/2^6.
	a, b = above([]float64{10, 10.5, 9.5, 9, 11, -0.5})
	if v = compare(t, a, b, Options{}); v.Corrected != 0.0625 || v.Needed != 7 {
		t.Errorf("%+v", v)
	}
}

func TestCorrect(t *testing.T) {
	clear, none := []float64{1, 2, 3, 4, 5, 6}, []float64{1, -2, 3, -4, 5, -6}
	var family []Verdict
	for _, d := range [][]float64{none, clear} {
		a, b := above(d)
		family = append(family, compare(t, a, b, Options{}))
	}
	if family[0].Significant || !family[1].Significant {
		t.Fatalf("alone: %v and %v", family[0], family[1])
	}
	Correct(family)
	if v := family[1]; v.Corrected != 0.0625 || v.Significant || v.Pairs != 2 || v.Least != 7 || v.Needed != 7 {
		t.Errorf("corrected: %+v", v)
	}
	Correct(family[1:])
	if family[1].Corrected != 0.03125 || !family[1].Significant || family[1].Needed != 0 {
		t.Errorf("alone again: %+v", family[1])
	}
}

func TestCompareRefuses(t *testing.T) {
	one, two := []float64{1}, []float64{1, 2}
	for i, err := range []error{
		refusal(Compare(nil, nil, Options{})), refusal(Compare(one, two, Options{})),
		refusal(Compare(one, []float64{math.NaN()}, Options{})), refusal(Compare(two, two, Options{Level: 1})),
		refusal(Compare(two, two, Options{Level: -1})), refusal(Compare(two, two, Options{Power: 1})),
		refusal(Compare(two, two, Options{Power: -1})), refusal(Compare(two, two, Options{Resamples: -1})),
	} {
		if err == nil {
			t.Errorf("bad request %d is accepted", i)
		} else if strings.HasSuffix(err.Error(), ".") {
			t.Errorf("%v ends with a full stop", err)
		}
	}
}

func refusal(_ Verdict, err error) error { return err }

// TestNoWinnerUnlessSignificant draws families of comparisons, with and without a true difference: a sentence with a share or
// a direction belongs to a significant one alone, and the reverse comparison says the reverse.
func TestNoWinnerUnlessSignificant(t *testing.T) {
	claim := regexp.MustCompile(`%| is (above|below) |NaN|Inf`)
	var significant, not int
	for key := range uint64(60) {
		var family, reverse []Verdict
		for pair := range 1 + key%4 {
			n := 1 + int(rng.Mix(key)%14)
			a, b := normals(rng.Key(key, rng.Resample, pair, 0), n), normals(rng.Key(key, rng.Resample, pair, 1), n)
			for i := range a {
				a[i] += 50 + float64(key%3)
				b[i] += 50
			}
			family = append(family, compare(t, a, b, Options{A: "x", B: "y", Resamples: 100}))
			reverse = append(reverse, compare(t, b, a, Options{A: "y", B: "x", Resamples: 100}))
		}
		Correct(family)
		Correct(reverse)
		for i, v := range family {
			if v.Significant != (v.Corrected <= 1-v.Level) || v.Significant && v.Seeds < v.Least ||
				!v.Significant && v.Needed != 0 && v.Needed <= v.Seeds {
				t.Errorf("%+v", v)
			}
			if s := v.String(); claim.MatchString(s) != v.Significant {
				t.Errorf("significant %v: %s", v.Significant, s)
			}
			if v.Significant {
				significant++
			} else {
				not++
			}
			r := reverse[i]
			if r.Significant != v.Significant || r.Needed != v.Needed || r.Difference.Estimate != -v.Difference.Estimate ||
				v.Seeds > 1 && r.DZ != -v.DZ {
				t.Errorf("%+v, reversed %+v", v, r)
			}
			if a, b := strings.Contains(v.String(), " is above "), strings.Contains(r.String(), " is below "); a != b {
				t.Errorf("%s, reversed: %s", v, r)
			}
		}
	}
	if significant < 20 || not < 20 {
		t.Errorf("%d significant and %d other comparisons say little", significant, not)
	}
}
