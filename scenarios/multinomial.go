package scenarios

import (
	"math"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
)

// weights are chances of some outcomes, prepared for drawing how often each comes up.
type weights struct {
	p    []float64
	tail []float64 // Σ of p from each outcome on
}

func newWeights(p []float64) *weights {
	w := &weights{p, make([]float64, len(p))}
	sum := 0.0
	for i := len(p) - 1; i >= 0; i-- {
		sum += p[i]
		w.tail[i] = sum
	}
	return w
}

// draw adds to counts how often each outcome comes up in n trials: a multinomial draw, exact, by the binomial one of each outcome
// given those before it.
func (w *weights) draw(r *rng.Rand, n int64, counts []int64) {
	for i, p := range w.p {
		if n == 0 {
			return
		}
		k := n
		if i < len(w.p)-1 {
			k = binomial(r, n, min(1, p/w.tail[i]))
		}
		counts[i] += k
		n -= k
	}
}

// binomial draws from B(n, p), exactly but for the rounding of float64: by inversion where the mean is small, else by
// Hörmann's transformed rejection with squeeze (BTRS, 1993, Journal of Statistical Computation and Simulation 46).
func binomial(r *rng.Rand, n int64, p float64) int64 {
	switch {
	case p > 0.5:
		return n - binomial(r, n, 1-p)
	case p <= 0:
		return 0
	case float64(n)*p < 10:
		return inverted(r, n, p)
	}
	return rejected(r, n, p)
}

// inverted walks up the distribution function: P(0) = (1−p)^n, P(k+1) = P(k)·(n−k)/(k+1)·p/(1−p).
func inverted(r *rng.Rand, n int64, p float64) int64 {
	odds := p / (1 - p)
	at := vec.Exp64(float64(n) * vec.Log64(1-p))
	u := r.Float64()
	for k := int64(0); k < n; k++ {
		if u < at {
			return k
		}
		u -= at
		at *= float64(n-k) / float64(k+1) * odds
		if at == 0 {
			return k // what is left of u is rounding
		}
	}
	return n
}

func rejected(r *rng.Rand, n int64, p float64) int64 {
	size := float64(n)
	spread := math.Sqrt(size * p * (1 - p))
	b := 1.15 + float64(2.53*spread)
	a := -0.0873 + float64(0.0248*b) + float64(0.01*p)
	centre := float64(size*p) + 0.5
	inside := 0.92 - 4.2/b
	alpha := float64((2.83 + 5.1/b) * spread)
	odds := p / (1 - p)
	mode := math.Floor(float64((size + 1) * p))
	height := float64((mode+0.5)*vec.Log64((mode+1)/(odds*(size-mode+1)))) + stirling(mode) + stirling(size-mode)
	for {
		u, v := float64(r.Float64())-0.5, r.Float64()
		us := 0.5 - math.Abs(u)
		if us == 0 || v == 0 {
			continue
		}
		k := math.Floor(float64((float64(2*a)/us+b)*u) + centre)
		if us >= 0.07 && v <= inside {
			return int64(k)
		}
		if k < 0 || k > size {
			continue
		}
		v = vec.Log64(v * alpha / (float64(a/float64(us*us)) + b))
		bound := height + float64((size+1)*vec.Log64((size-mode+1)/(size-k+1))) +
			float64((k+0.5)*vec.Log64(odds*(size-k+1)/(k+1))) - stirling(k) - stirling(size-k)
		if v <= bound {
			return int64(k)
		}
	}
}

// stirling is ln k! less Stirling's approximation of it, ½·ln 2π + (k+½)·ln(k+1) − (k+1).
func stirling(k float64) float64 {
	if k < float64(len(stirlings)) {
		return stirlings[int(k)]
	}
	square := float64((k + 1) * (k + 1))
	return (1./12 - (1./360-1./1260/square)/square) / (k + 1)
}

var stirlings = [...]float64{0.0810614667953272, 0.0413406959554092, 0.0276779256849983, 0.02079067210376509, 0.0166446911898211,
	0.0138761288230707, 0.0118967099458917, 0.0104112652619720, 0.00925546218271273, 0.00833056343336287}
