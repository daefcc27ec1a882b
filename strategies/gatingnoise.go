package strategies

import (
	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// noiseEpsilon is the least standard deviation of learned noise (Tensor2Tensor's noise_epsilon).
const noiseEpsilon = 0.01

// gatingNoise is that of noisy top-K gating (Shazeer et al. 2017, arXiv 1701.06538, section 2.1) on training tiles,
//
//	z′ = z + σ·ε,   σ = softplus(r) + 0.01,   r = x·W_noiseᵀ,   ε ~ N(0, 1),
//
// with ∂L/∂r = ∂L/∂z′·ε·sigmoid(r) beside what the load loss gives. W_noise begins at 0; where it does not learn r stays 0, and
// σ = 0.703. Tutel's σ is fixed.
type gatingNoise struct {
	experts int
	fixed   float32 // σ; 0 where it learns
}

func (d gatingNoise) declare(t *moe.Traits) { t.Noise = t.Noise || d.fixed == 0 }

// sigmas computes σ [E][64] from r, which may be nil.
func (d gatingNoise) sigmas(sigma, r []float32) {
	sigma = sigma[:d.experts*vec.Lanes]
	if d.fixed > 0 {
		for i := range sigma {
			sigma[i] = d.fixed
		}
		return
	}
	if r == nil {
		clear(sigma)
		r = sigma
	}
	vec.SqrtSoftplus(sigma, r, d.experts)
	for i, v := range sigma {
		sigma[i] = float32(v*v) + noiseEpsilon
	}
}

// slopes computes dσ/dr = sigmoid(r).
func (d gatingNoise) slopes(slope, r []float32) { vec.Sigmoid(slope, r, d.experts) }

func (d gatingNoise) normals(t *moe.Tile, n []float32) {
	vec.Normals(n[:d.experts*vec.Lanes], rng.Mix(t.Key+noiseDraws))
}

// draw fills n with the noise σ·ε of a tile.
func (d gatingNoise) draw(t *moe.Tile, n, sigma []float32) {
	d.normals(t, n)
	for i, v := range sigma[:d.experts*vec.Lanes] {
		n[i] *= v
	}
}

func (d gatingNoise) apply(t *moe.Tile, to, z []float32, w *moe.Scratch) {
	if !t.Training {
		copy(to, z[:d.experts*vec.Lanes])
		return
	}
	d.sigmas(w.Adjusted, w.Noise)
	d.draw(t, w.Room, w.Adjusted)
	for i, v := range w.Room[:d.experts*vec.Lanes] {
		to[i] = z[i] + v
	}
}

func (d gatingNoise) backward(t *moe.Tile, g, _ []float32, w *moe.Scratch) {
	if !t.Training || w.Noise == nil {
		return
	}
	d.normals(t, w.Room)
	d.slopes(w.Adjusted, w.Noise)
	for i, v := range g[:d.experts*vec.Lanes] {
		w.NoiseGrad[i] += float32(float32(v*w.Room[i]) * w.Adjusted[i])
	}
}
