package sim

import (
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// oracle holds what the stream's true affinities say about a batch, before anyone balances. All strategies of a
// comparison share it.
type oracle struct {
	layer   moe.Layer
	scores  []float32 // s* [tile][E][64]
	mask    []uint64  // top-K of s*, without group limit [tile·E]
	inverse []float32 // 1/Σ_{TopK} s*, by token
	energy  []float32 // Σ_e ĝ² of the layer's target, by token; 0 past the last token
	parts   []parts   // by tile, so that sums have one order whoever computed them
	total   float64   // Σ over tokens of Σ_{TopK} s*
	target  float64   // mean over tokens of Σ_e ĝ², or of ‖y‖² where experts learn
	own     float64   // Σ over tokens of the squared error that the oracle's own choice and gates leave
	task    *task     // where experts learn
}

// parts are one tile's parts of the sums over tokens.
type parts struct{ total, target, own float64 }

func newOracle(layer moe.Layer, tokens int) *oracle {
	tiles := (tokens + vec.Lanes - 1) / vec.Lanes
	return &oracle{
		layer:   layer,
		scores:  make([]float32, tiles*layer.Experts*vec.Lanes),
		mask:    make([]uint64, tiles*layer.Experts),
		inverse: make([]float32, tiles*vec.Lanes),
		energy:  make([]float32, tiles*vec.Lanes),
		parts:   make([]parts, tiles),
	}
}

func (o *oracle) tileScores(i int) []float32 {
	n := o.layer.Experts * vec.Lanes
	return o.scores[i*n : (i+1)*n]
}

func (o *oracle) tileMask(i int) []uint64 { return o.mask[i*o.layer.Experts : (i+1)*o.layer.Experts] }

// tile computes one tile's part from its logits.
func (o *oracle) tile(i int, t *moe.Tile, w *moe.Scratch) {
	s, mask := o.tileScores(i), o.tileMask(i)
	o.layer.Score.Apply(s, t.Z, o.layer.Experts)
	w.Select.TopK(mask, s, nil, t.Live(), nil)
	sum, all := &w.Rows[0], &w.Rows[1]
	*sum = w.Select.Sum
	vec.SumSquares(all, s, len(mask))
	p := &o.parts[i]
	p.total = t.Sum(sum)
	inverse, energy := (*vec.Row)(o.inverse[i*vec.Lanes:]), (*vec.Row)(o.energy[i*vec.Lanes:])
	*inverse = *sum
	vec.Invert(inverse)
	for l, v := range inverse {
		energy[l] = float32(all[l] * float32(v*v)) // 0 past the last token, whose inverse is 0
	}
	p.target = t.Sum(energy)
	vec.GateError(sum, all, w.Grad, s, s, mask, inverse, inverse, 0)
	p.own = p.target + t.Sum(sum)
}

// finish adds up the parts of a batch's tiles once all are in.
func (o *oracle) finish(b *moe.Batch) {
	o.total, o.target, o.own = 0, 0, 0
	for _, p := range o.parts[:len(b.Tiles)] {
		o.total += p.total
		o.target += p.target
		o.own += p.own
	}
	if o.task != nil {
		o.target, o.own = sum(o.task.energy), 0
	}
	o.target /= float64(b.Total)
}
