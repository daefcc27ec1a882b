package stat

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"

	"evenkeel/internal/rng"
)

// Bootstrap says how intervals are drawn from resamples: n values drawn with replacement from the n of a sample. Its zero
// value asks for 95 % intervals of the mean from 10,000 resamples of seed 0.
//
// Resample r draws from the key of (Seed, rng.Resample, r): the same places of every sample of one size, and more resamples
// only add to those of fewer.
type Bootstrap struct {
	Statistic func(x []float64) float64 // of a sample in any order, not kept or changed; nil is [Mean]
	Level     float64                   // nominal coverage, in (0, 1); 0 is 0.95
	Resamples int                       // 0 is 10,000
	Seed      uint64

	// Expand widens an interval of few values to about what Student's t would make of them: each tail α becomes
	// Φ(t(α, n−1) √(n/(n−1))) (Hesterberg 2015, The American Statistician 69, 371). Without it the bootstrap divides by n
	// where t divides by n−1 and takes normal quantiles, and covers too rarely below some 30 values. No widening takes an
	// interval of the mean beyond the sample's range, which covers the median with 1 − 2/2^n only: below 6 values a 95 %
	// interval cannot be had from resamples ([LeastSeeds]), and [Student] gives one.
	Expand bool
}

// Interval is an estimate with an interval around it. Without any spread it has no width; from one value it is infinite.
type Interval struct{ Estimate, Low, High float64 }

// Student returns the t-interval of the mean, mean ± t(α, n−1) s / √n with α = (1 − level)/2 beyond each end.
func Student(x []float64, level float64) Interval {
	mean := Mean(x)
	if len(x) < 2 {
		return Interval{mean, math.Inf(-1), math.Inf(1)}
	}
	t := distuv.StudentsT{Sigma: 1, Nu: float64(len(x) - 1)}.Quantile((1 + level) / 2)
	half := t * deviation(x) / math.Sqrt(float64(len(x)))
	return Interval{mean, mean - half, mean + half}
}

// Percentile returns the interval between the α and 1−α quantiles of the statistic over resamples, α = (1 − Level)/2, with
// linear interpolation between order statistics (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).
// It is an error if x is empty, a value or the statistic of a resample is not finite, or an option is out of range.
func (b Bootstrap) Percentile(x []float64) (Interval, error) {
	theta, replicates, err := b.replicates(x)
	if err != nil || replicates == nil {
		return theta, err
	}
	alpha := b.tail(len(x))
	theta.Low, theta.High = quantile(replicates, alpha), quantile(replicates, 1-alpha)
	return theta, nil
}

// BCa returns the bias-corrected and accelerated interval (Efron 1987, JASA 82, 171; Efron and Tibshirani 1993, equations
// 14.9 to 14.15), the quantiles of the statistic θ* over resamples at
//
//	α₁ = Φ(z₀ + (z₀ + z) / (1 − a (z₀ + z))),  z = Φ⁻¹(α) and, for the upper end, Φ⁻¹(1 − α),
//	z₀ = Φ⁻¹((#{θ* < θ} + ½ #{θ* = θ}) / Resamples),
//	a  = Σ (m − θ₍ᵢ₎)³ / (6 (Σ (m − θ₍ᵢ₎)²)^(3/2)),
//
// where θ₍ᵢ₎ is the statistic without value i and m their mean. a is 0 where those are all equal; the share in z₀ is kept
// half a resample from 0 and 1, where no finite correction exists. Errors are those of [Bootstrap.Percentile], and a
// statistic that is not finite without some value.
func (b Bootstrap) BCa(x []float64) (Interval, error) {
	theta, replicates, err := b.replicates(x)
	if err != nil || replicates == nil {
		return theta, err
	}
	a, err := b.acceleration(x)
	if err != nil {
		return Interval{}, err
	}
	var below float64
	for _, r := range replicates {
		switch {
		case r < theta.Estimate:
			below++
		case r == theta.Estimate:
			below += 0.5
		}
	}
	n := float64(len(replicates))
	z0 := distuv.UnitNormal.Quantile(min(max(below, 0.5), n-0.5) / n)
	alpha := b.tail(len(x))
	theta.Low = quantile(replicates, accelerated(alpha, z0, a))
	theta.High = quantile(replicates, accelerated(1-alpha, z0, a))
	return theta, nil
}

// accelerated returns the share of replicates at which an end of the BCa interval of nominal share alpha lies.
func accelerated(alpha, z0, a float64) float64 {
	w := z0 + distuv.UnitNormal.Quantile(alpha)
	if shrink := 1 - float64(a*w); shrink > 0 {
		return distuv.UnitNormal.CDF(z0 + w/shrink)
	}
	if a > 0 { // past the pole of the transformation: w/shrink had gone to infinity
		return 1
	}
	return 0
}

// tail returns the share of replicates that lies beyond each end of the interval, before BCa moves the ends.
func (b Bootstrap) tail(n int) float64 {
	alpha := (1 - b.level()) / 2
	if !b.Expand {
		return alpha
	}
	t := distuv.StudentsT{Sigma: 1, Nu: float64(n - 1)}.Quantile(alpha)
	return distuv.UnitNormal.CDF(t * math.Sqrt(float64(n)/float64(n-1)))
}

func (b Bootstrap) level() float64 {
	if b.Level == 0 {
		return defaultLevel
	}
	return b.Level
}

func (b Bootstrap) statistic() func([]float64) float64 {
	if b.Statistic == nil {
		return Mean
	}
	return b.Statistic
}

// replicates returns the estimate and the sorted statistics of the resamples. These are nil where the interval does not
// depend on them: an infinite one from one value, one without width where all values are equal.
func (b Bootstrap) replicates(x []float64) (Interval, []float64, error) {
	if len(x) == 0 {
		return Interval{}, nil, fmt.Errorf("an interval needs values, and there are none")
	}
	if i := slices.IndexFunc(x, func(v float64) bool { return !finite(v) }); i >= 0 {
		return Interval{}, nil, fmt.Errorf("value %d is %v: an interval needs finite values", i, x[i])
	}
	if l := b.level(); !(l > 0 && l < 1) {
		return Interval{}, nil, fmt.Errorf("the level of an interval is %v: it must lie between 0 and 1", l)
	}
	if b.Resamples < 0 {
		return Interval{}, nil, fmt.Errorf("%d resamples are asked for: there must be at least one", b.Resamples)
	}
	statistic := b.statistic()
	theta := statistic(x)
	if !finite(theta) {
		return Interval{}, nil, fmt.Errorf("the statistic of the sample is %v: it must be finite", theta)
	}
	if len(x) == 1 {
		return Interval{theta, math.Inf(-1), math.Inf(1)}, nil, nil
	}
	if allEqual(x) {
		return Interval{theta, theta, theta}, nil, nil
	}
	n := b.Resamples
	if n == 0 {
		n = defaultResamples
	}
	replicates, drawn := make([]float64, n), make([]float64, len(x))
	for r := range replicates {
		draw := rng.New(rng.Key(b.Seed, rng.Resample, uint64(r)))
		for i := range drawn {
			drawn[i] = x[draw.IntN(len(x))]
		}
		if replicates[r] = statistic(drawn); !finite(replicates[r]) {
			return Interval{}, nil, fmt.Errorf("the statistic of resample %d is %v: it must be finite for any values of the sample",
				r, replicates[r])
		}
	}
	slices.Sort(replicates)
	return Interval{Estimate: theta}, replicates, nil
}

// acceleration returns a sixth of the skewness of the jackknife values.
func (b Bootstrap) acceleration(x []float64) (float64, error) {
	statistic := b.statistic()
	jackknife, rest := make([]float64, len(x)), make([]float64, len(x)-1)
	for i := range x {
		copy(rest, x[:i])
		copy(rest[i:], x[i+1:])
		if jackknife[i] = statistic(rest); !finite(jackknife[i]) {
			return 0, fmt.Errorf("the statistic without value %d is %v: BCa needs it finite", i, jackknife[i])
		}
	}
	if allEqual(jackknife) {
		return 0, nil
	}
	mean := Mean(jackknife)
	var squares, cubes float64
	for _, v := range jackknife {
		d := mean - v
		squares += float64(d * d)
		cubes += float64(d * d * d)
	}
	if squares == 0 {
		return 0, nil
	}
	return cubes / (6 * squares * math.Sqrt(squares)), nil
}

// quantile interpolates linearly between order statistics: the k-th of n, from 0, is the k/(n−1) quantile (Hyndman and Fan
// 1996, definition 7).
func quantile(sorted []float64, p float64) float64 {
	at := float64(p * float64(len(sorted)-1))
	k := min(int(at), len(sorted)-2)
	if k < 0 { // one value
		return sorted[0]
	}
	w := at - float64(k)
	return sorted[k] + float64(w*(sorted[k+1]-sorted[k]))
}
