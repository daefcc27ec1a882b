package strategies

import (
	"math"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// zScore is Skywork-MoE's normalisation of a token's logits over the E experts (2024, arXiv 2406.06563, section 4.2),
//
//	z′ = λ·h,   h = (z − μ)/σ,   σ² = mean_e (z_e − μ)²,
//
// which fixes the scale that a balancing loss could shrink. With a = ∂L/∂z′ and means over experts
//
//	∂L/∂z_j = (λ/σ)·(a_j − mean(a) − h_j·mean(a·h)).
//
// A token whose logits are all equal gets z′ = 0 and no gradient.
type zScore struct {
	experts int
	lambda  float32
}

// moments computes μ and λ/σ of every token.
func (n zScore) moments(z []float32, mean, scale *vec.Row) {
	inv := 1 / float32(n.experts)
	*mean, *scale = vec.Row{}, vec.Row{}
	for e := range n.experts {
		for t, v := range row(z, e) {
			mean[t] += v
		}
	}
	for t := range mean {
		mean[t] *= inv
	}
	for e := range n.experts {
		for t, v := range row(z, e) {
			d := v - mean[t]
			scale[t] += float32(d * d)
		}
	}
	for t, v := range scale {
		if v = float32(v * inv); v > 0 {
			scale[t] = n.lambda / float32(math.Sqrt(float64(v)))
		}
	}
}

func (n zScore) apply(_ *moe.Tile, to, z []float32, w *moe.Scratch) {
	mean, scale := &w.Rows[0], &w.Rows[1]
	n.moments(z, mean, scale)
	for e := range n.experts {
		from, to := row(z, e), row(to, e)
		for t, v := range from {
			to[t] = float32(scale[t] * (v - mean[t]))
		}
	}
}

func (n zScore) backward(_ *moe.Tile, g, z []float32, w *moe.Scratch) {
	mean, scale, meanA, meanAH := &w.Rows[0], &w.Rows[1], &w.Rows[2], &w.Rows[3]
	n.moments(z, mean, scale)
	inv := 1 / float32(n.experts)
	*meanA, *meanAH = vec.Row{}, vec.Row{}
	for e := range n.experts {
		from := row(z, e)
		for t, a := range row(g, e) {
			h := float32(scale[t] * (from[t] - mean[t])) // λ times the h above
			meanA[t] += float32(a * inv)
			meanAH[t] += float32(float32(a*h) * inv)
		}
	}
	square := float32(n.lambda * n.lambda)
	for e := range n.experts {
		from, to := row(z, e), row(g, e)
		for t, a := range to {
			h := float32(scale[t] * (from[t] - mean[t]))
			to[t] = float32(scale[t] * (a - meanA[t] - float32(h*meanAH[t])/square))
		}
	}
}

// temperature divides logits by a temperature: z′ = z/τ.
type temperature struct {
	experts int
	tau     float32
}

func (d temperature) apply(_ *moe.Tile, to, z []float32, _ *moe.Scratch) {
	for i, v := range z[:d.experts*vec.Lanes] {
		to[i] = v / d.tau
	}
}

func (d temperature) backward(t *moe.Tile, g, _ []float32, w *moe.Scratch) { d.apply(t, g, g, w) }

// Kinds of noise on logits.
const (
	noiseNormal = "normal" // z + σ·ε, ε ~ N(0, 1): noisy top-K
	noiseInput  = "input"  // of z = W·(x∘u), u ~ U(1−η, 1+η) in every coordinate: Switch Transformers, Megatron-LM
	noiseAdd    = "add"    // z + u, u ~ U(1−η, 1+η) for every expert: FastMoE, of which ±η is left, since the 1 is everybody's
)

// noise disturbs the logits of training tiles, and so choices and gates; evaluation is undisturbed. size is σ or η. Its
// gradient is that of z′ = z.
//
// A strategy has no router's weights, so input noise is approximated by normal noise on the logits. The exact variance
// given x is η²/3·Σ_i (W_ei·x_i)², and Σ_i (W_ei·x_i)² is on average z_te² where coordinates are independent of one
// another, taken here as the token's mean of z_te² over all experts.
type noise struct {
	experts int
	kind    string
	size    float32
}

// draw fills n [E][64] with the noise of a tile of logits z; z is read for input noise only.
func (d noise) draw(t *moe.Tile, n, z []float32) {
	n = n[:d.experts*vec.Lanes]
	key := rng.Mix(t.Key + noiseDraws)
	if d.kind == noiseAdd {
		r := rng.New(key)
		for i := range n {
			n[i] = float32(d.size * (float32(2*chance(&r)) - 1))
		}
		return
	}
	vec.Normals(n, key)
	var scale vec.Row
	if d.kind == noiseInput {
		for e := range d.experts {
			for t, v := range row(z, e) {
				scale[t] += float32(v * v)
			}
		}
	}
	for t, v := range scale {
		scale[t] = d.size
		if d.kind == noiseInput {
			scale[t] = d.size * float32(math.Sqrt(float64(v/float32(3*d.experts))))
		}
	}
	for e := range d.experts {
		to := row(n, e)
		for t, v := range scale {
			to[t] *= v
		}
	}
}

func (d noise) apply(t *moe.Tile, to, z []float32, w *moe.Scratch) {
	if !t.Training {
		copy(to, z[:d.experts*vec.Lanes])
		return
	}
	d.draw(t, w.Room, z)
	for i, v := range w.Room[:d.experts*vec.Lanes] {
		to[i] = z[i] + v
	}
}

func (noise) backward(*moe.Tile, []float32, []float32, *moe.Scratch) {}

// Random numbers of a tile are keyed by its Key plus the lane for draws of a token, and by these for draws of all its
// tokens, so that a strategy may make several.
const (
	noiseDraws  = moe.TileTokens + iota
	gumbelDraws // one key for each expert from here on
)

// chance returns a uniform number in (0, 1), an odd multiple of 2^-24.
func chance(r *rng.Rand) float32 { return float32((float32(r.Uint64()>>41) + 0.5) * 0x1p-23) }

// row returns row e of a tile.
func row(tile []float32, e int) *vec.Row { return (*vec.Row)(tile[e*vec.Lanes:]) }
