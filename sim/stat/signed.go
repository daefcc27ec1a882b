package stat

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// exactPairs is the number of differences other than 0 up to which the null distribution is enumerated: its counts, at most
// 2^50, are whole numbers that a float64 holds exactly.
const exactPairs = 50

// SignedRank is the outcome of Wilcoxon's signed-rank test.
type SignedRank struct {
	N, Zeros    int     // differences other than 0, and equal to 0
	Plus, Minus float64 // sums of the ranks of positive and of negative differences
	P           float64 // two-sided
	Exact       bool    // whether P is enumerated, not approximated by a normal
}

// Wilcoxon tests whether differences are symmetric about 0 (Wilcoxon 1945, Biometrics Bulletin 1, 80). Values are ranked by
// their magnitude, equal ones sharing the mean of their ranks. Zeros are ranked too, and only then left out of the sums
// (Pratt 1959, JASA 54, 655): dropping them before could make a sample significant that a zero less would not be.
//
// Under the null each of the 2^N signs of the ranks r_i at hand is equally likely, so that with T = max(Plus, Minus)
//
//	P = min(1, 2 #{signs with Σ₊ r_i ≥ T} / 2^N),
//
// counted by dynamic programming over doubled ranks, which are whole, ties or not. Beyond 50 differences other than 0 a
// normal of mean Σ r_i / 2 and variance Σ r_i² / 4 (the usual ones with their corrections for ties and zeros) replaces the
// count, with a continuity correction of ½. Equal means equal to the last bit: round coarse figures before. Without a
// difference other than 0 P is 1; if a value is NaN it is NaN.
func Wilcoxon(d []float64) SignedRank {
	var w SignedRank
	var ranks []int // of differences other than 0, doubled
	order := slices.Clone(d)
	slices.SortFunc(order, func(a, b float64) int { return cmp.Compare(math.Abs(a), math.Abs(b)) })
	for from, to := 0, 0; from < len(order); from = to {
		if math.IsNaN(order[from]) {
			return SignedRank{Plus: math.NaN(), Minus: math.NaN(), P: math.NaN()}
		}
		for to = from; to < len(order) && math.Abs(order[to]) == math.Abs(order[from]); to++ {
		}
		if order[from] == 0 {
			w.Zeros = to
			continue
		}
		doubled := from + to + 1 // ranks from+1 ... to
		for _, v := range order[from:to] {
			ranks = append(ranks, doubled)
			if v > 0 {
				w.Plus += float64(float64(doubled) / 2)
			} else {
				w.Minus += float64(float64(doubled) / 2)
			}
		}
	}
	w.N = len(ranks)
	most := max(w.Plus, w.Minus)
	if w.Exact = w.N <= exactPairs; w.Exact {
		w.P = min(1, 2*atLeast(ranks, int(2*most)))
	} else {
		w.P = min(1, 2*normalAtLeast(ranks, 2*most))
	}
	return w
}

// atLeast returns the share of the subsets of the ranks whose sum is at least some total.
func atLeast(ranks []int, total int) float64 {
	subsets := []float64{1} // by sum
	for _, r := range ranks {
		next := make([]float64, len(subsets)+r)
		copy(next, subsets)
		for sum, n := range subsets {
			next[sum+r] += n
		}
		subsets = next
	}
	var n float64
	for _, s := range subsets[total:] {
		n += s
	}
	return math.Ldexp(n, -len(ranks))
}

// normalAtLeast approximates atLeast, with the doubled continuity correction that doubled ranks ask for.
func normalAtLeast(ranks []int, total float64) float64 {
	var sum, squares float64
	for _, r := range ranks {
		sum += float64(r)
		squares += float64(r * r)
	}
	return distuv.UnitNormal.Survival(max(0, total-float64(sum/2)-1) / math.Sqrt(squares/4))
}

// SignTest returns the exact two-sided p of the hypothesis that a difference is as often positive as negative,
//
//	P = min(1, 2 Σ_{k ≤ min(n₊, n₋)} C(n, k) / 2^n),  n = n₊ + n₋,
//
// leaving zeros out (Dixon and Mood 1946, JASA 41, 557). It asks less of the differences than [Wilcoxon] and sees less. P is
// 1 without a difference other than 0, and NaN if a value is NaN.
func SignTest(d []float64) float64 {
	var plus, minus int
	for _, v := range d {
		switch {
		case math.IsNaN(v):
			return math.NaN()
		case v > 0:
			plus++
		case v < 0:
			minus++
		}
	}
	n := plus + minus
	if n == 0 {
		return 1
	}
	return min(1, 2*distuv.Binomial{N: float64(n), P: 0.5}.CDF(float64(min(plus, minus))))
}
