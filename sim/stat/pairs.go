package stat

import (
	"fmt"
	"math"
)

// Differences returns a_i − b_i for every seed i. It is an error if a and b differ in length or a difference is not finite.
func Differences(a, b []float64) ([]float64, error) {
	if len(a) != len(b) {
		return nil, fmt.Errorf("%d values are paired with %d: each seed must give one of each", len(a), len(b))
	}
	d := make([]float64, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
		if !finite(d[i]) {
			return nil, fmt.Errorf("pair %d, %v and %v, has no finite difference", i, a[i], b[i])
		}
	}
	return d, nil
}

// Mean returns Σ x_i / n, summed in order; NaN without values.
func Mean(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// deviation returns the sample standard deviation √(Σ (x_i − mean)² / (n − 1)), exactly 0 where all are equal; NaN if n < 2.
func deviation(x []float64) float64 {
	if len(x) >= 2 && allEqual(x) {
		return 0
	}
	mean := Mean(x)
	var sum float64
	for _, v := range x {
		sum += float64((v - mean) * (v - mean))
	}
	return math.Sqrt(sum / float64(len(x)-1))
}

func allEqual(x []float64) bool {
	for _, v := range x {
		if v != x[0] {
			return false
		}
	}
	return true
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
