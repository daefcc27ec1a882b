package sim

import (
	"math"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Modes of a router: what moves while a run learns.
const (
	Frozen  = "frozen"  // nothing but the strategy's own state: z = z*
	Learned = "learned" // the weights W [E][d] of z = x·Wᵀ
	Offsets = "offsets" // one offset per expert, z = z* + o, on streams without latent vectors
)

// gradientChunks is the number of partial sums of a weight gradient. Tiles belong to a chunk by their place in the batch
// and chunks are added in order, so the sum does not depend on who computed which chunk.
const gradientChunks = 8

// learner is a router that learns: its parameters, W or o, and Adam's moments (Kingma and Ba 2015, arXiv 1412.6980).
type learner struct {
	mode   string
	layer  moe.Layer
	theta  []float32 // W [E][d], or o [E]
	m, v   []float32
	matrix *vec.Matrix
	grad   [gradientChunks]*vec.Gradient

	rate           float64
	steps          int
	decay1, decay2 float64 // β₁^t, β₂^t
}

const (
	beta1, beta2, adamEpsilon = 0.9, 0.95, 1e-8
	decayShare                = 0.3  // of the steps, at the end, over which the rate falls to 0
	initSpread                = 0.02 // standard deviation of the first weights
)

func newLearner(c *Config, seed uint64, oracle []float32) *learner {
	l := zeroLearner(c)
	switch {
	case l.mode == Learned && c.Router.Oracle:
		copy(l.theta, oracle)
	case l.mode == Learned:
		all := make([]float32, (len(l.theta)+31)&^31)
		vec.Normals(all, rng.Key(seed, rng.RouterInit))
		for i := range l.theta {
			l.theta[i] = float32(all[i] * initSpread)
		}
	}
	l.pack()
	return l
}

// zeroLearner returns a router whose parameters are 0.
func zeroLearner(c *Config) *learner {
	l := &learner{mode: c.Router.Mode, layer: c.Layer, rate: c.Router.Rate, steps: c.Steps, decay1: 1, decay2: 1}
	n, width := c.Layer.Experts, 1
	if l.mode == Learned {
		width = c.Layer.Width
		n *= width
		l.matrix = vec.NewMatrix(c.Layer.Experts, width)
	}
	l.theta = make([]float32, n)
	l.m, l.v = make([]float32, n), make([]float32, n)
	for i := range l.grad {
		l.grad[i] = vec.NewGradient(c.Layer.Experts, width)
	}
	l.pack()
	return l
}

func (l *learner) pack() {
	if l.mode == Learned {
		l.matrix.Set(l.theta)
	}
}

// logits computes the router's logits of a tile.
func (l *learner) logits(z []float32, t *moe.Tile, w *moe.Scratch) {
	if l.mode == Learned {
		l.matrix.Times(z, t.X, w.Product)
		return
	}
	for e, o := range l.theta {
		from, to := (*vec.Row)(t.Z[e*vec.Lanes:]), (*vec.Row)(z[e*vec.Lanes:])
		for i, v := range from {
			to[i] = v + o
		}
	}
}

// chunkOf returns the tiles of a chunk, to exclusive: tile i belongs to chunk ⌊i·gradientChunks/tiles⌋.
func chunkOf(chunk, tiles int) (from, to int) {
	first := func(chunk int) int { return (chunk*tiles + gradientChunks - 1) / gradientChunks }
	return first(chunk), first(chunk + 1)
}

// accumulate adds the gradient g = ∂L/∂z of one tile to its chunk.
func (l *learner) accumulate(chunk int, t *moe.Tile, g []float32, w *moe.Scratch) {
	sum := l.grad[chunk]
	if l.mode == Learned {
		sum.Add(g, t.X, w.Product)
		return
	}
	for e := range l.layer.Experts {
		offset := sum.Row(e)
		for _, v := range (*vec.Row)(g[e*vec.Lanes:]) {
			offset[0] += v
		}
	}
}

// step applies the accumulated gradient, and more [E][d] if not nil, at a step of the run and clears it.
func (l *learner) step(step int, more []float32) {
	l.decay1 = float64(l.decay1 * beta1)
	l.decay2 = float64(l.decay2 * beta2)
	left := float64(l.steps-step) / (decayShare * float64(l.steps))
	rate := float32(l.rate * min(1, left) / (1 - l.decay1))
	correct2 := float32(1 / (1 - l.decay2))
	width := len(l.theta) / l.layer.Experts
	for e := range l.layer.Experts {
		sum := l.grad[0].Row(e)
		for _, chunk := range l.grad[1:] {
			for c, v := range chunk.Row(e) {
				sum[c] += v
			}
		}
		for c, g := range sum {
			i := e*width + c
			if more != nil {
				g += more[i]
			}
			m := float32(beta1*l.m[i]) + float32((1-beta1)*g)
			v := float32(beta2*l.v[i]) + float32((1-beta2)*float32(g*g))
			l.m[i], l.v[i] = m, v
			l.theta[i] -= float32(rate*m) / (float32(math.Sqrt(float64(float32(v*correct2)))) + adamEpsilon)
		}
	}
	for _, chunk := range l.grad {
		chunk.Clear()
	}
	l.pack()
}

// layerError is the task of a layer whose experts are fixed. Expert outputs are orthonormal and every expert is useful to
// a token by its affinity, so the layer's target holds ĝ_te = s*_te / Σ_{j∈TopK(s*_t)} s*_tj of every expert and its
// squared error is Σ_e (g_te − ĝ_te)², with g the gates divided by their sum over the chosen, zero where not chosen. Sized
// gates, and all where K = 1, are g = s_te/Σ_{j∈TopK(s*_t)} s*_tj. It returns the error of a tile's tokens, summed.
//
// w.Grad receives ∂/∂s of weight times that sum at the chosen experts, which are the only ones that a sparse layer can
// teach, and 0 elsewhere.
func layerError(o *oracle, tile int, s []float32, mask []uint64, sized bool, weight float32, w *moe.Scratch) float64 {
	invIdeal := (*vec.Row)(o.inverse[tile*vec.Lanes:])
	inv, err, mean := &w.Rows[0], &w.Rows[1], &w.Rows[2]
	if sized {
		*inv = *invIdeal
	} else {
		vec.SumChosen(inv, s, mask)
		vec.Invert(inv)
	}
	vec.GateError(err, mean, w.Grad, s, o.tileScores(tile), mask, inv, invIdeal, 2*weight)
	if sized {
		*mean = vec.Row{}
	}
	vec.GateGradient(w.Grad, mean, inv, mask)
	return vec.Total(err) + vec.Total((*vec.Row)(o.energy[tile*vec.Lanes:]))
}
