package sim

import (
	"math"
	"math/bits"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// experts are the experts of one contestant where they learn: two layers each, and one linear expert that all tokens have,
//
//	ŷ_t = S·x_t + Σ_{e∈S_t} g_te·V_eᵀ·gelu(W_e·x_t),   W_e, V_e [h][d],   S [d][d],   gelu(u) = u·σ(1.702·u),
//
// with the strategy's own gates g. Gelu is Hendrycks and Gimpel's second form (arXiv 1606.08415). W begins as N(0, 1/d), V as
// N(0, 1/h) and S at 0, the same for all strategies of a seed.
//
// A choice of a token is a slot. Slots lie expert after expert, so that each expert's work is of whole tiles, and its gradient
// one sum over its tokens in order, whoever computes it.
type experts struct {
	*task
	hidden int
	shared *learner // S, nil where there is none

	theta   []float32 // [E]{W, V}
	adam    adam
	pace    pace
	in      []*vec.Matrix // W
	back    []*vec.Matrix // V
	out     []*vec.Matrix // Vᵀ
	gradIn  []*vec.Gradient
	gradOut []*vec.Gradient

	first  []int32   // the first slot of each expert, and the end [E+1]
	start  []int32   // of the slots of each tile's tokens, [tile][E]
	source []int32   // token of each slot
	pre    []float32 // W·x of each slot, [tile of an expert's slots][h][64]
	output []float32 // V·gelu(W·x), [slot][d]
	gate   []float32 // g by slot
	delta  []float32 // ∂L/∂ŷ [T][d]
}

func newExperts(c *Config, k *task, seed uint64) *experts {
	d, h, n := c.Layer.Width, c.Experts.Hidden, c.Layer.Experts
	x := &experts{task: k, hidden: h, theta: make([]float32, n*2*h*d), adam: newAdam(n * 2 * h * d), pace: newPace(c.Experts.Rate, c.Steps),
		first: make([]int32, n+1), start: make([]int32, (c.Tokens+vec.Lanes-1)/vec.Lanes*n), delta: make([]float32, len(k.rows))}
	w := new(moe.Scratch)
	for e := range n {
		copy(x.of(e), normals(rng.Key(seed, rng.ExpertInit, uint64(e), 0), h*d, math.Sqrt(1/float64(d))))
		copy(x.of(e)[h*d:], normals(rng.Key(seed, rng.ExpertInit, uint64(e), 1), h*d, math.Sqrt(1/float64(h))))
		x.in, x.out, x.back = append(x.in, vec.NewMatrix(h, d)), append(x.out, vec.NewMatrix(d, h)), append(x.back, vec.NewMatrix(h, d))
		x.gradIn, x.gradOut = append(x.gradIn, vec.NewGradient(h, d)), append(x.gradOut, vec.NewGradient(h, d))
		x.pack(e, w)
	}
	if c.Experts.Shared {
		x.shared = newLinear(Learned, d, d, c.Experts.Rate, c.Steps)
	}
	return x
}

// of returns the parameters of one expert, W and then V.
func (x *experts) of(e int) []float32 {
	n := 2 * x.hidden * x.width
	return x.theta[e*n : (e+1)*n]
}

// pack prepares an expert's products once its parameters have moved.
func (x *experts) pack(e int, w *moe.Scratch) {
	h, d := x.hidden, x.width
	in, out := x.of(e)[:h*d], x.of(e)[h*d:]
	x.in[e].Set(in)
	x.back[e].Set(out)
	turned := w.Floats(0, h*d)
	for i := range h {
		for c, v := range out[i*d : (i+1)*d] {
			turned[c*h+i] = v
		}
	}
	x.out[e].Set(turned)
}

// assign lays out the slots of a batch's choices.
func (x *experts) assign(b *moe.Batch, a *moe.Assignment) {
	n := a.Experts
	clear(x.first)
	for i, m := range a.Mask[:len(b.Tiles)*n] {
		x.first[i%n+1] += int32(bits.OnesCount64(m))
	}
	for e := range n {
		x.first[e+1] += x.first[e]
	}
	slots := int(x.first[n])
	x.source, x.gate, x.output = sized(x.source, slots), sized(x.gate, slots), sized(x.output, slots*x.width)
	x.pre = sized(x.pre, (slots/vec.Lanes+n)*x.hidden*vec.Lanes)
	for e := range n {
		slot := x.first[e]
		for i := range b.Tiles {
			x.start[i*n+e] = slot
			for m := a.Mask[i*n+e]; m != 0; m &= m - 1 {
				x.source[slot] = int32(b.Tiles[i].Start + bits.TrailingZeros64(m))
				slot++
			}
		}
	}
}

// sized returns a slice of n numbers whose content does not matter.
func sized[T any](x []T, n int) []T {
	if cap(x) < n {
		return make([]T, n+n/8) // loads wander: a little more room saves making room again
	}
	return x[:n]
}

// preOf is where W·x of the slots of an expert from one on are kept.
func (x *experts) preOf(e, from int) []float32 {
	tile := (int(x.first[e])+from)/vec.Lanes + e // experts begin tiles of their own
	n := x.hidden * vec.Lanes
	return x.pre[tile*n : (tile+1)*n]
}

// forward computes the outputs of one expert.
func (x *experts) forward(e int, w *moe.Scratch) {
	d := x.width
	tile, act, rows := w.Floats(0, d*vec.Lanes), w.Floats(1, x.hidden*vec.Lanes), w.Floats(2, d*vec.Lanes)
	list := x.source[x.first[e]:x.first[e+1]]
	for from := 0; from < len(list); from += vec.Lanes {
		tokens, source := piece(list, from, w)
		pre := x.preOf(e, from)
		vec.Gather(tile, x.rows, source, d)
		x.in[e].Times(pre, tile, w.Product)
		sigmoids(act, pre)
		for i, u := range pre {
			act[i] *= u
		}
		x.out[e].Times(tile, act, w.ForProduct(x.hidden))
		vec.Unload(rows, tile, d)
		copy(x.output[(int(x.first[e])+from)*d:], rows[:len(tokens)*d])
	}
}

// sigmoids computes σ(1.702·u) of whole rows of a tile.
func sigmoids(to, u []float32) {
	for i, v := range u {
		to[i] = 1.702 * v
	}
	vec.Sigmoid(to, to, len(u)/vec.Lanes)
}

// error computes a tile's outputs ŷ from the experts' and returns Σ ‖ŷ − y‖² of its tokens. Where the weight is not 0, it keeps
// ∂L/∂ŷ of L = weight·Σ ‖ŷ − y‖², adds what S learns to its chunk, and w.Grad receives ∂L/∂s at the chosen experts and 0
// elsewhere. s holds the scores of the tile, normalised whether gates are divided by their sum.
func (x *experts) error(b *moe.Batch, tile, chunk int, s []float32, mask []uint64, g moe.Gate, weight float32, w *moe.Scratch) (sum float64) {
	t, d := &b.Tiles[tile], x.width
	inverse, mean := &w.Rows[0], &w.Rows[1]
	for l := range inverse {
		inverse[l] = 1
	}
	if g.Normalised {
		vec.SumChosen(inverse, s, mask)
		vec.Invert(inverse)
	}
	for l := range inverse {
		inverse[l] *= g.Scale
	}
	answer, rows := w.Floats(0, d*vec.Lanes), w.Floats(1, d*vec.Lanes)
	clear(rows)
	if x.shared != nil {
		x.shared.logits(answer, t, w)
		vec.Unload(rows, answer, d)
	}
	x.each(tile, mask, func(e, l, slot int) {
		gate := float32(s[e*vec.Lanes+l] * inverse[l])
		x.gate[slot] = gate
		addScaled(rows[l*d:(l+1)*d], x.output[slot*d:(slot+1)*d], gate)
	})
	delta := x.delta[t.Start*d : (t.Start+vec.Lanes)*d]
	for l := range vec.Lanes {
		from, y, row := delta[l*d:(l+1)*d], x.target[(t.Start+l)*d:(t.Start+l+1)*d], rows[l*d:(l+1)*d]
		if l >= t.Tokens {
			clear(from)
			continue
		}
		for c, v := range row {
			miss := v - y[c]
			sum += float64(float64(miss) * float64(miss))
			from[c] = float32(float32(2*weight) * miss)
		}
	}
	if weight == 0 {
		return sum
	}
	if x.shared != nil {
		vec.Load(answer, delta, d)
		x.shared.accumulate(chunk, t, answer, w)
	}
	// g = γ·scale with γ = s/Σs: ∂L/∂s_e = (∂L/∂g_e − Σ_j γ_j·∂L/∂g_j)·scale/Σs; of raw gates the sum does not enter.
	clear(w.Grad)
	*mean = vec.Row{}
	x.each(tile, mask, func(e, l, slot int) {
		a := product(delta[l*d:(l+1)*d], x.output[slot*d:(slot+1)*d])
		w.Grad[e*vec.Lanes+l] = a
		if g.Normalised {
			mean[l] += float32(a*x.gate[slot]) / g.Scale
		}
	})
	vec.GateGradient(w.Grad, mean, inverse, mask)
	return sum
}

// each calls f for every choice of a tile, expert after expert: its expert, its lane and its slot.
func (x *experts) each(tile int, mask []uint64, f func(e, l, slot int)) {
	for e, m := range mask {
		for slot := int(x.start[tile*len(mask)+e]); m != 0; m &= m - 1 {
			f(e, bits.TrailingZeros64(m), slot)
			slot++
		}
	}
}

// addScaled adds f·v to a row.
func addScaled(row, v []float32, f float32) {
	v = v[:len(row)]
	for i := range row {
		row[i] += float32(f * v[i])
	}
}

// product is the scalar product of two rows, in four partial sums.
func product(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		p, q := (*[4]float32)(a[i:]), (*[4]float32)(b[i:])
		s0 += float32(p[0] * q[0])
		s1 += float32(p[1] * q[1])
		s2 += float32(p[2] * q[2])
		s3 += float32(p[3] * q[3])
	}
	for ; i < len(a); i++ {
		s0 += float32(a[i] * b[i])
	}
	return (s0 + s1) + (s2 + s3)
}

// learn moves one expert by the gradient of its tokens.
func (x *experts) learn(e int, w *moe.Scratch) {
	x.backward(e, w)
	n := x.hidden * x.width
	for i := range x.hidden {
		x.adam.move(x.theta, x.gradIn[e].Row(i), 2*e*n+i*x.width, &x.pace)
		x.adam.move(x.theta, x.gradOut[e].Row(i), (2*e+1)*n+i*x.width, &x.pace)
	}
	x.gradIn[e].Clear()
	x.gradOut[e].Clear()
	x.pack(e, w)
}

// backward adds ∂L/∂W and ∂L/∂V of one expert's tokens to its gradients.
func (x *experts) backward(e int, w *moe.Scratch) {
	d, h := x.width, x.hidden
	tile, act, back, rows := w.Floats(0, d*vec.Lanes), w.Floats(1, h*vec.Lanes), w.Floats(2, h*vec.Lanes), w.Floats(3, d*vec.Lanes)
	list := x.source[x.first[e]:x.first[e+1]]
	for from := 0; from < len(list); from += vec.Lanes {
		tokens, source := piece(list, from, w)
		gates := &w.Rows[0]
		*gates = vec.Row{} // 0 past the last slot, so that what fills a piece up teaches nothing
		copy(gates[:], x.gate[int(x.first[e])+from:][:len(tokens)])
		vec.Gather(tile, x.delta, source, d)
		vec.Scale(tile, gates, d)
		x.back[e].Times(back, tile, w.ForProduct(d))
		pre := x.preOf(e, from)
		sigmoids(act, pre)
		for i, u := range pre {
			σ := act[i]
			a := float32(u * σ)
			act[i] = a
			back[i] *= σ + float32(float32(1.702*a)*(1-σ))
		}
		x.gradOut[e].Add(act, tile, w.ForProduct(d))
		for i, t := range source {
			copy(rows[i*d:(i+1)*d], x.rows[int(t)*d:])
		}
		x.gradIn[e].AddRows(back, rows, w.ForProduct(d))
	}
}
