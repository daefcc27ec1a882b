package design

import (
	"math"
	"math/big"
)

// linear returns n numbers from lo to hi, each the float64 nearest to its exact value.
func linear(lo, hi float64, n int) []float64 {
	from, to := exactly(lo), exactly(hi)
	step := new(big.Rat).Sub(to, from)
	step.Quo(step, big.NewRat(int64(n-1), 1))
	x := make([]float64, n)
	for i := range x {
		at := new(big.Rat).Mul(step, big.NewRat(int64(i), 1))
		x[i], _ = at.Add(at, from).Float64()
	}
	return x
}

// precision in bits of the logarithmic spacing: a million products lose 20 of them.
const precision = 256

// logarithmic returns n numbers from lo to hi with equal ratios, each the float64 nearest to its exact value.
func logarithmic(lo, hi float64, n int) []float64 {
	from, to := exactly(lo), exactly(hi)
	ratio := root(wide().SetRat(new(big.Rat).Quo(to, from)), n-1)
	at := wide().SetRat(from)
	x := make([]float64, n)
	for i := range x {
		x[i], _ = at.Float64()
		at.Mul(at, ratio)
	}
	x[n-1] = hi
	return x
}

// root returns the n-th root of r > 1 by Newton's method, whose correct bits double each time.
func root(r *big.Float, n int) *big.Float {
	var exponent big.Float
	e := r.MantExp(&exponent)
	m, _ := exponent.Float64()
	y := wide().SetFloat64(math.Exp((math.Log(m) + float64(float64(e)*math.Ln2)) / float64(n)))
	for range 5 {
		// y ← y + y (r / y^n − 1) / n
		d := wide().Quo(r, power(y, n))
		d.Sub(d, wide().SetInt64(1))
		d.Quo(d, wide().SetInt64(int64(n)))
		y.Add(y, d.Mul(d, y))
	}
	return y
}

func power(y *big.Float, n int) *big.Float {
	p, square := wide().SetInt64(1), wide().Set(y)
	for ; n > 0; n /= 2 {
		if n%2 == 1 {
			p.Mul(p, square)
		}
		square.Mul(square, square)
	}
	return p
}

func wide() *big.Float { return new(big.Float).SetPrec(precision) }

// exactly is the decimal number that x prints as: 1/10 for 0.1.
func exactly(x float64) *big.Rat {
	r, _ := new(big.Rat).SetString(shortest(x))
	return r
}
