package stat

import (
	"math"
	"sort"

	"gonum.org/v1/gonum/stat/distuv"
)

// mostSeeds is where the search for a number of seeds gives up: nobody runs more.
const mostSeeds = 100_000

// LeastSeeds returns the fewest seeds with which an exact signed-rank test can be significant at all after Holm's correction
// over pairs: the least n with pairs · 2/2^n ≤ alpha, since with n differences no p is below 2/2^n. It is 6 for one pair at
// 0.05. With alpha not in (0, 1) or no pairs it is 0.
func LeastSeeds(alpha float64, pairs int) int {
	if !(alpha > 0 && alpha < 1) || pairs < 1 {
		return 0
	}
	n := 1
	for float64(pairs)*math.Ldexp(2, -n) > alpha {
		n++
	}
	return n
}

// Power returns the probability that a two-sided paired t-test of n differences, normal with mean dz standard deviations, is
// significant at alpha,
//
//	P(|T| > t(1 − alpha/2, n−1)),  T noncentral t with n−1 degrees of freedom and noncentrality dz √n
//
// (Cohen 1988, section 2.3.5; G*Power 3, "difference between two dependent means"). NaN with fewer than two seeds or alpha
// not in (0, 1).
func Power(dz float64, n int, alpha float64) float64 {
	if n < 2 || !(alpha > 0 && alpha < 1) || math.IsNaN(dz) {
		return math.NaN()
	}
	if math.IsInf(dz, 0) {
		return 1
	}
	nu := float64(n - 1)
	t := -distuv.StudentsT{Sigma: 1, Nu: nu}.Quantile(alpha / 2)
	dist := distuv.NoncentralT{Nu: nu, Mu: math.Abs(dz) * math.Sqrt(float64(n))}
	return min(1, max(0, 1-dist.CDF(t)+dist.CDF(-t)))
}

// SeedsNeeded returns the fewest seeds at which [Power] reaches the given power for a true effect of dz. It is not ok where
// no number up to 100,000 does, above all for dz 0, or if power or alpha is not in (0, 1).
func SeedsNeeded(dz, alpha, power float64) (n int, ok bool) {
	if !(power > 0 && power < 1) || !(Power(dz, mostSeeds, alpha) >= power) {
		return 0, false
	}
	return 2 + sort.Search(mostSeeds-2, func(i int) bool { return Power(dz, 2+i, alpha) >= power }), true
}

// LeastEffect returns the smallest |dz| for which [Power] of n seeds reaches the given power: what they can be relied on to
// show. NaN with fewer than two seeds, or if power or alpha is not in (0, 1).
func LeastEffect(n int, alpha, power float64) float64 {
	if !(power > 0 && power < 1) || math.IsNaN(Power(0, n, alpha)) {
		return math.NaN()
	}
	low, high := 0.0, 1.0
	for Power(high, n, alpha) < power {
		low, high = high, 2*high
	}
	for range 60 {
		if mid := (low + high) / 2; Power(mid, n, alpha) < power {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
