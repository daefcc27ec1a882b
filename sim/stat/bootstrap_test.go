package stat

import (
	"math"
	"slices"
	"testing"

	"evenkeel/internal/rng"
)

// The spatial test data A of Efron and Tibshirani 1993, table 14.1. For the plug-in variance 171.5 they give the 90 % BCa
// interval (115.8, 259.6), from 2,000 resamples.
var spatial = []float64{48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41}

var skewed = []float64{0.1, 0.3, 0.4, 0.7, 0.9, 1.3, 1.9, 2.8, 4.1, 9.5}

func plugInVariance(x []float64) float64 {
	mean := Mean(x)
	var sum float64
	for _, v := range x {
		sum += (v - mean) * (v - mean)
	}
	return sum / float64(len(x))
}

// scipy 1.10.1 stats.bootstrap with 1,000,000 resamples. The tolerances are four standard errors of an end from 200,000: that
// of the quantile, and for BCa that of z₀, 1.25/√200,000, which moves an end by twice as many standard errors of the statistic.
func TestBootstrapAgainstScipy(t *testing.T) {
	for _, row := range []struct {
		name             string
		x                []float64
		b                Bootstrap
		percentile, bca  [2]float64
		tolerance, wider float64
	}{
		{"spatial", spatial, Bootstrap{Statistic: plugInVariance, Level: 0.9},
			[2]float64{97.710, 235.765}, [2]float64{115.751, 260.986}, 0.8, 1.6},
		{"maize", maize, Bootstrap{}, [2]float64{1.4, 38.1333}, [2]float64{-1.6, 36.3333}, 0.25, 0.5},
		{"skewed", skewed, Bootstrap{}, [2]float64{0.83, 4.09}, [2]float64{1.05, 4.94}, 0.025, 0.05},
	} {
		row.b.Resamples = 200_000
		p, err := row.b.Percentile(row.x)
		if err != nil {
			t.Fatal(err)
		}
		c, err := row.b.BCa(row.x)
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range [][2]float64{{p.Low, c.Low}, {p.High, c.High}} {
			if math.Abs(got[0]-row.percentile[i]) > row.tolerance {
				t.Errorf("%s, percentile, end %d: %v, want %v", row.name, i, got[0], row.percentile[i])
			}
			if math.Abs(got[1]-row.bca[i]) > row.wider {
				t.Errorf("%s, BCa, end %d: %v, want %v", row.name, i, got[1], row.bca[i])
			}
		}
	}
	p, _ := Bootstrap{Statistic: plugInVariance}.Percentile(spatial)
	near(t, "plug-in variance", p.Estimate, 171.53402366863904, 1e-14)
}

// Two values have four resamples of means 0, ½, ½, 1: each end lies at 0 or 1, z₀ = 0 but for chance and a = 0.
func TestBootstrapOfTwo(t *testing.T) {
	for _, f := range []func(Bootstrap, []float64) (Interval, error){Bootstrap.Percentile, Bootstrap.BCa} {
		if got, err := f(Bootstrap{}, []float64{0, 1}); err != nil || got != (Interval{0.5, 0, 1}) {
			t.Errorf("%v, %v", got, err)
		}
		// At level 0.2 the ends are the 0.4 and 0.6 quantiles.
		if got, err := f(Bootstrap{Level: 0.2}, []float64{0, 1}); err != nil || got != (Interval{0.5, 0.5, 0.5}) {
			t.Errorf("%v, %v", got, err)
		}
	}
}

func TestAcceleration(t *testing.T) {
	// For the mean a = Σ (x_i − mean)³ / (6 (Σ (x_i − mean)²)^(3/2)), here of 0, 0, 0, 4: deviations −1, −1, −1, 3.
	a, err := Bootstrap{}.acceleration([]float64{0, 0, 0, 4})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "acceleration", a, 24/(6*math.Pow(12, 1.5)), 1e-15)
	// Past the pole 1 = a (z₀ + z) an end is the last replicate on its side.
	if accelerated(0.975, 3, 0.3) != 1 || accelerated(0.025, -3, -0.3) != 0 {
		t.Error("an end beyond the pole does not stay at the last replicate")
	}
	near(t, "without correction", accelerated(0.1, 0, 0), 0.1, 1e-14)
	// Φ(z₀ + (z₀ + z)/(1 − a (z₀ + z))) with z₀ = 0.1, a = 0.05, z = −1.6448536: Φ(0.1 − 1.5448536/1.0772427) = Φ(−1.3340811).
	near(t, "with correction", accelerated(0.05, 0.1, 0.05), 0.5*math.Erfc(1.3340811/math.Sqrt2), 1e-7)
}

func TestBootstrapDegenerate(t *testing.T) {
	for _, f := range []func(Bootstrap, []float64) (Interval, error){Bootstrap.Percentile, Bootstrap.BCa} {
		if got, err := f(Bootstrap{}, []float64{3}); err != nil || got != (Interval{3, math.Inf(-1), math.Inf(1)}) {
			t.Errorf("one value: %v, %v", got, err)
		}
		got, err := f(Bootstrap{Expand: true}, []float64{0.1, 0.1, 0.1})
		if err != nil || got.Low != got.High || got.Low != got.Estimate {
			t.Errorf("equal values: %v, %v", got, err)
		}
		if got, err := f(Bootstrap{Resamples: 1}, []float64{1, 2}); err != nil || got.Low != got.High {
			t.Errorf("one resample: %v, %v", got, err)
		}
		undefined := func([]float64) float64 { return math.NaN() }
		rare := func(x []float64) float64 { return 1 / slices.Max(x) }
		for i, err := range []error{
			second(f(Bootstrap{}, nil)), second(f(Bootstrap{}, []float64{1, math.NaN()})),
			second(f(Bootstrap{Level: 1}, []float64{1, 2})), second(f(Bootstrap{Level: -0.5}, []float64{1, 2})),
			second(f(Bootstrap{Resamples: -1}, []float64{1, 2})),
			second(f(Bootstrap{Statistic: undefined}, []float64{1, 2})), second(f(Bootstrap{Statistic: rare}, []float64{0, 2})),
		} {
			if err == nil {
				t.Errorf("bad request %d is accepted", i)
			}
		}
	}
	// No resample of 20 values here has as many distinct ones as the sample: z₀ must stay finite, and the interval in reach.
	distinct := func(x []float64) float64 {
		sorted := slices.Sorted(slices.Values(x))
		return float64(len(slices.Compact(sorted)))
	}
	x := ranksWith(20, 0)
	got, err := Bootstrap{Statistic: distinct, Resamples: 500}.BCa(x)
	if err != nil || got.Estimate != 20 || !(got.Low <= got.High && got.High < 20) {
		t.Errorf("%v, %v", got, err)
	}
}

func second(_ Interval, err error) error { return err }

func TestBootstrapProperties(t *testing.T) {
	for key := range uint64(40) {
		x := whole(key, 4+int(key%12), 50)
		b := Bootstrap{Resamples: 500, Seed: key, Expand: key%2 == 0}
		p, _ := b.Percentile(x)
		c, _ := b.BCa(x)
		if again, _ := b.BCa(x); again != c {
			t.Errorf("%v: %v, and again %v", x, c, again)
		}
		for _, i := range []Interval{p, c} {
			if i.Low > i.High || i.Low < slices.Min(x) || i.High > slices.Max(x) || i.Estimate != Mean(x) {
				t.Errorf("%v: %v", x, i)
			}
		}
		// Sums of whole numbers below 2^53 are exact, so a shift moves the interval and a factor stretches it.
		shifted, larger := slices.Clone(x), scaled(x, 8)
		for i := range shifted {
			shifted[i] += 1000
		}
		s, _ := b.BCa(shifted)
		near(t, "shifted low", s.Low, c.Low+1000, 1e-12)
		near(t, "shifted high", s.High, c.High+1000, 1e-12)
		if l, _ := b.BCa(larger); l != (Interval{8 * c.Estimate, 8 * c.Low, 8 * c.High}) {
			t.Errorf("%v: %v, eight times as large %v", x, c, l)
		}
		// Negated, an interval turns round: the quantile of 1 − p from above is that of p from below.
		n, _ := b.BCa(scaled(x, -1))
		near(t, "negated low", n.Low, -c.High, 1e-9)
		near(t, "negated high", n.High, -c.Low, 1e-9)
	}
}

// TestBootstrapStream holds the resamples of the first seeds: they are part of every result.
func TestBootstrapStream(t *testing.T) {
	x := []float64{1, 2, 4, 8, 16, 32, 64, 128}
	_, replicates, err := Bootstrap{Statistic: func(x []float64) float64 { return x[0] }, Resamples: 8, Seed: 3}.replicates(x)
	if err != nil {
		t.Fatal(err)
	}
	var want []float64
	for r := range uint64(8) {
		g := rng.New(rng.Key(3, rng.Resample, r))
		want = append(want, x[g.IntN(len(x))])
	}
	slices.Sort(want)
	if !slices.Equal(replicates, want) {
		t.Errorf("%v, want %v", replicates, want)
	}
	other, _ := Bootstrap{Seed: 1}.BCa(skewed)
	if one, _ := (Bootstrap{}).BCa(skewed); one == other {
		t.Error("two seeds draw the same resamples")
	}
}

// TestCoverage counts how often 95 % intervals hold the true mean. Student's t does by theory on normal values; the plain
// bootstrap falls short of it, which is why verdicts expand it.
func TestCoverage(t *testing.T) {
	const samples = 2000
	sd := math.Sqrt(0.95*0.05/samples) * 3
	for _, n := range []int{8, 20} {
		var student, plain, expanded float64
		for key := range uint64(samples) {
			x := normals(rng.Key(key, rng.Resample, uint64(n), 1), n)
			holds := func(i Interval) float64 {
				if i.Low <= 0 && 0 <= i.High {
					return 1.0 / samples
				}
				return 0
			}
			student += holds(Student(x, 0.95))
			b := Bootstrap{Resamples: 500, Seed: key}
			i, _ := b.BCa(x)
			plain += holds(i)
			b.Expand = true
			i, _ = b.BCa(x)
			expanded += holds(i)
		}
		t.Logf("n = %d: Student %.3f, BCa %.3f, expanded %.3f", n, student, plain, expanded)
		if math.Abs(student-0.95) > sd || math.Abs(expanded-0.95) > 0.01+sd || plain > expanded-0.01 {
			t.Errorf("n = %d: Student covers %.3f, BCa %.3f, expanded %.3f", n, student, plain, expanded)
		}
	}
}

func TestStudent(t *testing.T) {
	// t(0.975, 4) = 2.7764451 and s² = 4 of 7, 5, 8, 3, 7.
	i := Student([]float64{7, 5, 8, 3, 7}, 0.95)
	near(t, "low", i.Low, 6-2.7764451052*2/math.Sqrt(5), 1e-10)
	near(t, "high", i.High, 6+2.7764451052*2/math.Sqrt(5), 1e-10)
	if i := Student([]float64{3}, 0.95); i != (Interval{3, math.Inf(-1), math.Inf(1)}) {
		t.Errorf("one value: %v", i)
	}
}
