package sim

import (
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

// learner is a linear map that learns, such as a router: its parameters, W or o, and how Adam moves them.
type learner struct {
	mode   string
	rows   int       // E of a router
	theta  []float32 // W [rows][d], or o [rows]
	adam   adam
	pace   pace
	matrix *vec.Matrix
	grad   [gradientChunks]*vec.Gradient
}

const initSpread = 0.02 // standard deviation of a router's first weights

func newLearner(c *Config, seed uint64, oracle []float32) *learner {
	l := zeroLearner(c)
	switch {
	case l.mode == Learned && c.Router.Oracle:
		copy(l.theta, oracle)
	case l.mode == Learned:
		copy(l.theta, normals(rng.Key(seed, rng.RouterInit), len(l.theta), initSpread))
	}
	l.pack()
	return l
}

// normals draws n numbers of N(0, spread²).
func normals(key uint64, n int, spread float64) []float32 {
	x := make([]float32, (n+31)&^31)
	vec.Normals(x, key)
	for i := range x {
		x[i] *= float32(spread)
	}
	return x[:n]
}

// zeroLearner returns a router whose parameters are 0.
func zeroLearner(c *Config) *learner {
	return newLinear(c.Router.Mode, c.Layer.Experts, c.Layer.Width, c.Router.Rate, c.Steps)
}

// newLinear returns a map of width numbers to the given number of rows whose parameters are 0.
func newLinear(mode string, rows, width int, rate float64, steps int) *learner {
	l := &learner{mode: mode, rows: rows, pace: newPace(rate, steps)}
	if mode == Learned {
		l.matrix = vec.NewMatrix(rows, width)
	} else {
		width = 1
	}
	l.theta, l.adam = make([]float32, rows*width), newAdam(rows*width)
	for i := range l.grad {
		l.grad[i] = vec.NewGradient(rows, width)
	}
	l.pack()
	return l
}

func (l *learner) pack() {
	if l.mode == Learned {
		l.matrix.Set(l.theta)
	}
}

// logits computes what the map makes of a tile, such as a router's logits.
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
	for e := range l.rows {
		offset := sum.Row(e)
		for _, v := range (*vec.Row)(g[e*vec.Lanes:]) {
			offset[0] += v
		}
	}
}

// step applies the accumulated gradient, and more of theta's shape if not nil, at a step of the run and clears it.
func (l *learner) step(step int, more []float32) {
	l.pace.next(step)
	width := len(l.theta) / l.rows
	for e := range l.rows {
		sum := l.grad[0].Row(e)
		for _, chunk := range l.grad[1:] {
			for c, v := range chunk.Row(e) {
				sum[c] += v
			}
		}
		if more != nil {
			for c, v := range more[e*width : (e+1)*width] {
				sum[c] += v
			}
		}
		l.adam.move(l.theta, sum, e*width, &l.pace)
	}
	for _, chunk := range l.grad {
		chunk.Clear()
	}
	l.pack()
}

// layerError is the task of a layer whose experts are fixed. Expert outputs are orthonormal and every expert is useful to
// a token by its affinity, so the layer's target holds ĝ_te = s*_te / Σ_{j∈TopK(s*_t)} s*_tj of every expert and its
// squared error is Σ_e (g_te − ĝ_te)², with g the gates divided by their sum over the chosen, zero where not chosen. Sized
// gates, and all where K = 1, are g = s_te/Σ_{j∈TopK(s*_t)} s*_tj. It returns the error of the tokens that a tile stands for,
// summed.
//
// w.Grad receives ∂/∂s of weight times that sum at the chosen experts, which are the only ones that a sparse layer can
// teach, and 0 elsewhere.
func layerError(o *oracle, t *moe.Tile, tile int, s []float32, mask []uint64, sized bool, weight float32, w *moe.Scratch) float64 {
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
	if t.Weight != nil {
		for l, n := range t.Weight {
			inv[l] = float32(n)
		}
		vec.Scale(w.Grad, inv, len(mask))
	}
	return t.Sum(err) + t.Sum((*vec.Row)(o.energy[tile*vec.Lanes:]))
}
