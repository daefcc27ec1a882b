package metrics

import (
	"math"
	"strconv"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// confidence is the level of every interval.
const confidence = 0.95

// MeanInterval returns the mean of x, one value for each seed, and its 95 % Student-t interval
//
//	mean ± t(0.975, n−1) · s / √n,  s² = Σ (x_i − mean)² / (n − 1).
//
// The ends are rounded to six significant digits, but never past the mean. They are nil with fewer than two values and
// where they are not finite. Without values the mean is NaN.
func MeanInterval(x []float64) (mean float64, low, high *float64) {
	mean = orderedMean(x)
	if len(x) < 2 {
		return mean, nil, nil
	}
	n := float64(len(x))
	_, sd := stat.MeanStdDev(x, nil)
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile((1 + confidence) / 2)
	half := t * sd / math.Sqrt(n)
	if math.IsNaN(half) || math.IsInf(half, 0) {
		return mean, nil, nil
	}
	from, to := min(Round6(mean-half), mean), max(Round6(mean+half), mean)
	return mean, &from, &to
}

// PairedInterval returns the mean of a_i − b_i over the seeds i and its 95 % Student-t interval, as [MeanInterval] does.
// It panics if a and b differ in length.
func PairedInterval(a, b []float64) (mean float64, low, high *float64) {
	if len(a) != len(b) {
		panic("metrics: paired values differ in number")
	}
	difference := make([]float64, len(a))
	for i := range a {
		difference[i] = a[i] - b[i]
	}
	return MeanInterval(difference)
}

// Round6 returns the float64 nearest to x written with six significant decimal digits. NaN and infinities stay.
func Round6(x float64) float64 {
	var room [32]byte
	r, _ := strconv.ParseFloat(string(strconv.AppendFloat(room[:0], x, 'e', 5, 64)), 64)
	return r
}

func orderedMean(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v
	}
	return s / float64(len(x))
}
