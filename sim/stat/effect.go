package stat

import "math"

// CohenDZ returns the standardised mean difference of pairs, d_z = mean(d) / s, s the standard deviation with n − 1 (Cohen
// 1988, Statistical Power Analysis, section 2.3.5). It is what the power of a paired test depends on, and is not Cohen's d
// of two groups. Without spread it is 0, or infinite with the mean's sign; NaN with fewer than two values.
func CohenDZ(d []float64) float64 {
	mean, s := Mean(d), deviation(d)
	if s == 0 && mean == 0 {
		return 0
	}
	return mean / s
}

// RankBiserial returns the matched-pairs rank-biserial correlation (W₊ − W₋) / (W₊ + W₋) of the rank sums of [Wilcoxon]
// (Kerby 2014, Comprehensive Psychology 3, 11.IT.3.1): 1 if every difference is positive, −1 if every one is negative, 0
// without a difference.
func RankBiserial(d []float64) float64 {
	w := Wilcoxon(d)
	if w.Plus+w.Minus == 0 {
		return 0
	}
	return (w.Plus - w.Minus) / (w.Plus + w.Minus)
}

// A12 returns Vargha and Delaney's measure, the probability that a value of a is larger than one of b, ties counting half,
//
//	A₁₂ = (#{a_i > b_j} + ½ #{a_i = b_j}) / (len(a) len(b))
//
// (Vargha and Delaney 2000, Journal of Educational and Behavioral Statistics 25, 101). It knows nothing of pairs: with seeds
// that draw worlds of their own it is near ½ for differences that every pair shows. NaN if a or b is empty or holds a NaN.
func A12(a, b []float64) float64 {
	return (1 + CliffDelta(a, b)) / 2
}

// CliffDelta returns δ = (#{a_i > b_j} − #{a_i < b_j}) / (len(a) len(b)) = 2 A₁₂ − 1 (Cliff 1993, Psychological Bulletin 114,
// 494). NaN if a or b is empty or holds a NaN.
func CliffDelta(a, b []float64) float64 {
	var above, below int
	for _, x := range a {
		for _, y := range b {
			switch {
			case x > y:
				above++
			case x < y:
				below++
			case x != y:
				return math.NaN()
			}
		}
	}
	return float64(above-below) / (float64(len(a)) * float64(len(b)))
}
