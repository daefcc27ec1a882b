package vec

import "math"

// Sigmoid computes s = 1/(1+e^−z) for a tile of the given number of rows. s and z may be the same.
func Sigmoid(s, z []float32, rows int) {
	s, z = s[:rows*Lanes], z[:rows*Lanes]
	for i, v := range z {
		s[i] = 1 / (1 + Exp(-v))
	}
}

// SigmoidBackward turns ∂L/∂s into ∂L/∂z in place: g ← g·s·(1−s).
func SigmoidBackward(g, s []float32, rows int) {
	g, s = g[:rows*Lanes], s[:rows*Lanes]
	for i, v := range s {
		g[i] = float32(g[i] * float32(v*(1-v)))
	}
}

// Softmax computes s = softmax(z) over the rows of a tile, token by token; sums run over the rows in order. s and z may be
// the same.
func Softmax(s, z []float32, rows int) {
	top, sum := *row(z, 0), Row{}
	for e := 1; e < rows; e++ {
		for t, v := range row(z, e) {
			top[t] = max(top[t], v)
		}
	}
	for e := range rows {
		zr, sr := row(z, e), row(s, e)
		for t, v := range zr {
			p := Exp(v - top[t])
			sr[t] = p
			sum[t] += p
		}
	}
	for t, v := range sum {
		sum[t] = 1 / v
	}
	for e := range rows {
		sr := row(s, e)
		for t, v := range sum {
			sr[t] *= v
		}
	}
}

// SoftmaxBackward turns ∂L/∂s into ∂L/∂z in place: g_j ← s_j·(g_j − Σ_i g_i·s_i).
func SoftmaxBackward(g, s []float32, rows int) {
	var mean Row
	for e := range rows {
		gr, sr := row(g, e), row(s, e)
		for t, v := range gr {
			mean[t] += float32(v * sr[t])
		}
	}
	for e := range rows {
		gr, sr := row(g, e), row(s, e)
		for t, m := range mean {
			gr[t] = float32(sr[t] * (gr[t] - m))
		}
	}
}

// SqrtSoftplus computes s = √(ln(1+e^z)) (DeepSeek-V4's score). s and z may be the same.
func SqrtSoftplus(s, z []float32, rows int) {
	s, z = s[:rows*Lanes], z[:rows*Lanes]
	for i, v := range z {
		s[i] = float32(math.Sqrt(float64(softplus(v))))
	}
}

// softplus returns ln(1+e^z) = max(z, 0) + ln(1+u) with u = e^−|z|, which is not added to 1 while it is small.
func softplus(z float32) float32 {
	u := Exp(-max(z, -z))
	if u < math.Sqrt2-1 {
		return max(z, 0) + log1pUnit(u)
	}
	return max(z, 0) + (math.Ln2 + log1pUnit((u-1)/2))
}

// SqrtSoftplusBackward turns ∂L/∂s into ∂L/∂z in place: g ← g·σ(z)/(2s), with σ(z) = 1 − e^(−s²).
func SqrtSoftplusBackward(g, s []float32, rows int) {
	g, s = g[:rows*Lanes], s[:rows*Lanes]
	for i, v := range s {
		g[i] = float32(g[i]*oneMinusExp(float32(v*v))) / float32(2*v)
	}
}

// oneMinusExp returns 1 − e^(−x) for x > 0, by its series while e^(−x) is close to 1.
func oneMinusExp(x float32) float32 {
	if x > 0.25 {
		return 1 - Exp(-x)
	}
	p := 1 - float32(x*(1./6))
	p = 1 - float32(float32(x*(1./5))*p)
	p = 1 - float32(float32(x*(1./4))*p)
	p = 1 - float32(float32(x*(1./3))*p)
	p = 1 - float32(float32(x*(1./2))*p)
	return float32(x * p)
}
