package sim_test

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"evenkeel/sim"
)

// beyond3 is how likely a normal number is more than three standard errors off.
var beyond3 = 2 * distuv.UnitNormal.Survival(3)

// bonferroni is how many standard errors the largest of n deviations may have to be as unlikely as one of three is alone, however
// they depend on each other.
func bonferroni(n int) float64 { return distuv.UnitNormal.Quantile(1 - beyond3/float64(2*n)) }

// seedList is the setting of seeds from first on.
func seedList(first, seeds int) string {
	var list []string
	for i := range seeds {
		list = append(list, strconv.Itoa(first+i))
	}
	return "seeds=[" + strings.Join(list, ",") + "]"
}

// loadsOf returns how many tokens chose each expert in every batch of a run of none with a frozen router: [batch][E].
func loadsOf(t *testing.T, settings ...string) (loads [][]float64) {
	t.Helper()
	c := configure(t, "pretraining", settings, sim.Frozen, "none")
	for _, x := range run(t, c).Strategies[0].Runs {
		if len(x.Shots) != c.Steps {
			t.Fatalf("%d of %d steps were recorded", len(x.Shots), c.Steps)
		}
		for _, shot := range x.Shots {
			n := make([]float64, len(shot.Load))
			for e, r := range shot.Load {
				n[e] = float64(r) * float64(c.Layer.TopK*c.Tokens) / float64(len(n))
			}
			loads = append(loads, n)
		}
	}
	return loads
}

func column(loads [][]float64, expert int) (x []float64) {
	for _, n := range loads {
		x = append(x, n[expert])
	}
	return x
}

// covarianceOf returns the sample covariance of all experts' loads, which is singular since loads have a fixed sum.
func covarianceOf(loads [][]float64) *mat.SymDense {
	x := mat.NewDense(len(loads), len(loads[0]), slices.Concat(loads...))
	c := mat.NewSymDense(len(loads[0]), nil)
	stat.CovarianceMatrix(c, x, nil)
	return c
}

// mahalanobis returns dᵀC⁻¹d, C the covariance of the first experts, as many as there are deviations d.
func mahalanobis(t *testing.T, covariance *mat.SymDense, d []float64) float64 {
	t.Helper()
	var c mat.Cholesky
	if !c.Factorize(covariance.SliceSym(0, len(d))) {
		t.Fatal("a covariance is not positive definite")
	}
	v := mat.NewVecDense(len(d), slices.Clone(d))
	x := mat.NewVecDense(len(d), nil)
	if err := c.SolveVecTo(x, v); err != nil {
		t.Fatal(err)
	}
	return mat.Dot(v, x)
}

// deviations judges the z of some experts: the largest against Bonferroni's bound, and all together, by their covariance, against
// the chi-square that they follow; both at the level of three standard errors.
func deviations(t *testing.T, what string, z []float64, square float64, free int) {
	t.Helper()
	bound := bonferroni(len(z))
	worst, beyond := 0, 0
	for e, v := range z {
		if math.Abs(v) > math.Abs(z[worst]) {
			worst = e
		}
		if math.Abs(v) > 3 {
			beyond++
		}
	}
	level := (distuv.ChiSquared{K: float64(free)}).Survival(square)
	t.Logf("%s: largest deviation %.2f standard errors of %.2f allowed, %d beyond three; chi-square %.1f of %d, p = %.3f",
		what, z[worst], bound, beyond, square, free, level)
	if !(math.Abs(z[worst]) <= bound) {
		t.Errorf("%s of expert %d is %.2f standard errors off, and %.2f would be allowed", what, worst, z[worst], bound)
	}
	if level < beyond3 {
		t.Errorf("%s: chi-square %.1f of %d, p = %.2g", what, square, free, level)
	}
}

// Loads of aggregated batches have each expert's mean and variance that those drawn token by token have.
//
// In one world and without balancing tokens are independent, so an expert's load is binomial, of T and its popularity π, and those
// of a batch covary as T(π_ij − π_i π_j). With N batches a mean then has the standard error √(Tπ(1−π)/N), and a variance σ² has
// √((μ₄ − σ⁴(N−3)/(N−1))/N), μ₄ = 3σ⁴ + σ²(1 − 6π(1−π)). Two variances correlate by the square ρ² of their loads' correlation.
func TestLoadsOfAggregatedBatches(t *testing.T) {
	const experts, small, huge = 16, 512, 62_914_560 // the latter is DeepSeek-V3's batch
	batches := func(aggregate bool, tokens, first, seeds int) [][]float64 {
		return loadsOf(t, "experts=16", "topk=3", "width=8", "sequence_length=1", "micro_batches=1", "synthetic.vocabulary=40", "world_seed=7", "steps=250",
			"synthetic.energy={type: 0.8, domain: 0.2, sequence: 0, noise: 0}", seedList(first, seeds),
			fmt.Sprint("aggregate=", aggregate), fmt.Sprint("tokens=", tokens), fmt.Sprint("evaluation_tokens=", tokens))
	}
	// Seeds differ, since those of one seed would draw from the same numbers.
	one, many, most := batches(false, small, 1, 200), batches(true, small, 1001, 200), batches(true, huge, 2001, 20)

	// The largest batches tell popularity to some 1e-5 of itself, and the covariance of one token.
	unit, squares := covarianceOf(most), mat.NewSymDense(experts, nil)
	unit.ScaleSym(1./huge, unit)
	pi := make([]float64, experts)
	for i := range pi {
		pi[i] = stat.Mean(column(most, i), nil) / huge
		for j := range i + 1 {
			squares.SetSym(i, j, unit.At(i, j)*unit.At(i, j)/(unit.At(i, i)*unit.At(j, j)))
		}
	}
	// varianceOf is that of a mean load, in tokens, and errorOfVariance the standard error of a load's variance.
	varianceOf := func(expert, tokens, batches int) float64 {
		return float64(tokens) * pi[expert] * (1 - pi[expert]) / float64(batches)
	}
	errorOfVariance := func(expert, tokens, batches int) float64 {
		s, n := varianceOf(expert, tokens, 1), float64(batches)
		return math.Sqrt((3*s*s + s*(1-6*pi[expert]*(1-pi[expert])) - s*s*(n-3)/(n-1)) / n)
	}
	means := func(name string, other [][]float64, tokens int) {
		t.Run(name, func(t *testing.T) {
			z, d := make([]float64, experts), make([]float64, experts)
			scale := 1/float64(small*len(one)) + 1/float64(tokens*len(other)) // of a share of the tokens
			for e := range z {
				d[e] = stat.Mean(column(one, e), nil)/small - stat.Mean(column(other, e), nil)/float64(tokens)
				z[e] = d[e] / math.Sqrt(scale*pi[e]*(1-pi[e]))
			}
			deviations(t, "mean load", z, mahalanobis(t, unit, d[:experts-1])/scale, experts-1)
		})
	}
	means("mean", many, small)
	means("mean, 62.9 million tokens", most, huge)
	t.Run("variance", func(t *testing.T) {
		z := make([]float64, experts)
		for e := range z {
			difference := stat.Variance(column(one, e), nil) - stat.Variance(column(many, e), nil)
			z[e] = difference / math.Hypot(errorOfVariance(e, small, len(one)), errorOfVariance(e, small, len(many)))
		}
		deviations(t, "variance of the load", z, mahalanobis(t, squares, z), experts)
	})
	for _, c := range []struct {
		name   string
		loads  [][]float64
		tokens int
	}{{"token by token", one, small}, {"aggregated", many, small}, {"62.9 million tokens", most, huge}} {
		t.Run("variance by the law, "+c.name, func(t *testing.T) {
			z := make([]float64, experts)
			for e := range z {
				z[e] = (stat.Variance(column(c.loads, e), nil) - varianceOf(e, c.tokens, 1)) / errorOfVariance(e, c.tokens, len(c.loads))
			}
			deviations(t, "variance of the load", z, mahalanobis(t, squares, z), experts)
		})
	}
}
