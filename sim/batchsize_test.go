package sim_test

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/stat"

	"evenkeel/metrics"
	"evenkeel/sim"
)

// estimate is a mean with its standard error.
type estimate struct{ mean, se float64 }

func estimated(x []float64) estimate {
	mean, sd := stat.MeanStdDev(x, nil)
	return estimate{mean, sd / math.Sqrt(float64(len(x)))}
}

// agrees checks that two independent estimates agree at three standard errors.
func agrees(t *testing.T, what string, got, want estimate) {
	t.Helper()
	if z := (got.mean - want.mean) / math.Hypot(got.se, want.se); !(math.Abs(z) <= 3) {
		t.Errorf("%s is %.5f ± %.5f, want %.5f ± %.5f: %.1f standard errors", what, got.mean, got.se, want.mean, want.se, z)
	}
}

// logSlope is the least-squares slope of ln y against ln x.
func logSlope(x []int, y []estimate) estimate {
	centre, square := 0.0, 0.0
	for _, v := range x {
		centre += math.Log(float64(v)) / float64(len(x))
	}
	for _, v := range x {
		square += math.Pow(math.Log(float64(v))-centre, 2)
	}
	values, variance := make([]float64, len(y)), 0.0
	for i, v := range y {
		values[i] = v.mean
		variance += math.Pow((math.Log(float64(x[i]))-centre)/square*v.se/v.mean, 2)
	}
	return estimate{metrics.LogSlope(x, values), math.Sqrt(variance)}
}

// floorOf is MaxVio of T independent tokens with its Monte-Carlo error.
func floorOf(experts, topk, tokens int) estimate {
	f := metrics.SamplingFloor(experts, topk, tokens)
	return estimate{f.MaxVio, f.MaxVioSD / math.Sqrt(metrics.FloorRepetitions)}
}

// MaxVio of a step against its T tokens (numbers.md 6.7), nothing balanced. Tokens of sequences of S have, with θ the standard
// deviation between sequences of an expert's relative load, and none of its popularity,
//
//	Var r = (E − K)/(K T) + θ² (1 − 1/S)/(T/S) = (E − K)/(K T'),
//
// exactly: they are as T' independent ones. Those lie at the sampling floor, which falls as T^−½ once experts have more than a few
// tokens; where a sequence fills the batch, S = T, all but the floor's share stays.
//
// In the synthetic world K is E/2 and latent vectors are noise and a topic of their sequence. Both are as likely as their opposites,
// for which the other half of the experts is chosen, so whatever the experts' directions, each has exactly half of the tokens, and no
// popularity ends the fall. Directions that are not quite orthogonal lower the maximum of loads, but by 0.3 % at a width of 256 (normal
// loads simulated), half a standard error.
func TestMaxVioAgainstTheBatch(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for ten seconds: run without -short")
	}
	sizes := []int{64, 256, 1024, 4096}
	// Every cell has seeds of its own, since those of one seed share their first tokens.
	seed := 1
	measure := func(scenario string, tokens, length, topk int, more ...string) (vio, variance estimate) {
		seeds := seedList(seed, 4)
		seed += 4
		c := configure(t, scenario, append([]string{fmt.Sprint("tokens=", tokens), fmt.Sprint("sequence_length=", length),
			fmt.Sprint("topk=", topk), "micro_batches=1", "experts=64", "evaluation_tokens=64", "steps=250", seeds}, more...), sim.Frozen, "none")
		var v, w []float64
		for _, x := range run(t, c).Strategies[0].Runs {
			for _, row := range x.Steps {
				v, w = append(v, row.MaxVio), append(w, row.LoadVariance)
			}
		}
		return estimated(v), estimated(w)
	}
	floors := func(topk int) (list []estimate) {
		for _, n := range sizes {
			list = append(list, floorOf(64, topk, n))
		}
		return list
	}

	t.Run("alike experts", func(t *testing.T) {
		var curve []estimate
		floor := floors(6)
		for i, n := range sizes {
			vio, variance := measure("uniform", n, 1, 6)
			agrees(t, fmt.Sprintf("MaxVio of %d tokens", n), vio, floor[i])
			agrees(t, fmt.Sprintf("variance of %d tokens", n), variance, estimate{58. / 6 / float64(n), 0})
			curve = append(curve, vio)
		}
		slope, want := logSlope(sizes, curve), logSlope(sizes, floor)
		t.Logf("slope %.4f ± %.4f, of the floor %.4f ± %.4f", slope.mean, slope.se, want.mean, want.se)
		agrees(t, "slope", slope, want) // −0.52, since the six tokens an expert has of 64 are skewed to the right
	})

	world := []string{"world_seed=9", "width=256", "synthetic.vocabulary=1", "synthetic.common_energy=0",
		"synthetic.energy={type: 0, domain: 0, sequence: 0.1, noise: 0.9}"}
	var independent, packed []estimate
	t.Run("independent tokens of one world", func(t *testing.T) {
		floor := floors(32)
		for i, n := range sizes {
			vio, variance := measure("pretraining", n, 1, 32, world...)
			agrees(t, fmt.Sprintf("MaxVio of %d tokens", n), vio, floor[i])
			agrees(t, fmt.Sprintf("variance of %d tokens", n), variance, estimate{1 / float64(n), 0})
			independent = append(independent, vio)
		}
		slope := logSlope(sizes, independent)
		t.Logf("slope %.4f ± %.4f", slope.mean, slope.se)
		agrees(t, "slope", slope, estimate{-0.5, 0})
	})
	var theta estimate // θ²
	t.Run("a batch of one sequence", func(t *testing.T) {
		var law []estimate
		variances := make([]estimate, len(sizes))
		for i, n := range sizes {
			var vio estimate
			vio, variances[i] = measure("pretraining", n, n, 32, world...)
			packed = append(packed, vio)
		}
		last := float64(sizes[3])
		theta = estimate{(variances[3].mean - 1/last) / (1 - 1/last), variances[3].se / (1 - 1/last)}
		for i, n := range sizes {
			share := 1 - 1/float64(n)
			want := estimate{1/float64(n) + theta.mean*share, theta.se * share}
			law = append(law, estimate{math.Sqrt(want.mean), 0})
			if i < 3 {
				agrees(t, fmt.Sprintf("variance of %d tokens", n), variances[i], want)
			}
		}
		slope, want := logSlope(sizes, packed), logSlope(sizes, law)
		t.Logf("θ² %.4f ± %.4f; MaxVio %.3f to %.3f, slope %.4f ± %.4f, by the law %.4f",
			theta.mean, theta.se, packed[0].mean, packed[3].mean, slope.mean, slope.se, want.mean)
		agrees(t, "slope", slope, want)
		if !(slope.mean < 0 && slope.mean > -0.05) {
			t.Errorf("the slope is %.3f, want a curve that is all but flat", slope.mean)
		}
	})
	t.Run("sequences of 256", func(t *testing.T) {
		for i, n := range sizes {
			if n <= 256 {
				continue // a batch of one sequence
			}
			vio, variance := measure("pretraining", n, 256, 32, world...)
			share := (1 - 1./256) * 256 / float64(n)
			agrees(t, fmt.Sprintf("variance of %d tokens", n), variance, estimate{1/float64(n) + theta.mean*share, theta.se * share})
			as := 1 / (1/float64(n) + theta.mean*share)
			floor := floorOf(64, 32, int(math.Round(as)))
			low, high := independent[i], packed[i]
			t.Logf("MaxVio of %d tokens %.4f ± %.4f: between %.4f and %.4f, of %.0f independent tokens %.4f",
				n, vio.mean, vio.se, low.mean, high.mean, as, floor.mean)
			if !(vio.mean > low.mean+3*math.Hypot(vio.se, low.se) && vio.mean < high.mean-3*math.Hypot(vio.se, high.se)) {
				t.Errorf("MaxVio of %d tokens is %.4f, not between %.4f of independent tokens and %.4f of one sequence", n, vio.mean, low.mean, high.mean)
			}
			if n == 4096 { // sixteen sequences: loads are near enough normal for the maximum to be 0.3 % low
				agrees(t, "MaxVio of 4096 tokens", vio, floor)
			}
		}
	})
}
