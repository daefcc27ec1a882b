// Package bench measures what this machine and these kernels can do: the processor's own limits, every kernel alone, and
// the whole step of routing a batch and measuring it, in the form in which the peers beside it (peers.py) do the same work.
// It decides nothing about routing and is no part of a comparison.
package bench

import (
	"fmt"
	"math"
	"math/bits"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// Shape is the size of one step.
type Shape struct {
	Name   string
	Tokens int // T
	moe.Layer
}

// Shapes are the four on which Evenkeel is compared with its peers.
func Shapes() []Shape {
	return []Shape{
		{"A", 8192, moe.Layer{Experts: 64, TopK: 6, Width: 64, Groups: 1, GroupsKept: 1, Score: moe.Softmax}},
		{"B", 16384, moe.Layer{Experts: 256, TopK: 8, Width: 64, Groups: 8, GroupsKept: 4, Score: moe.Sigmoid}},
		{"C", 4096, moe.Layer{Experts: 8, TopK: 2, Width: 32, Groups: 1, GroupsKept: 1, Score: moe.Softmax}},
		{"D", 32768, moe.Layer{Experts: 512, TopK: 8, Width: 128, Groups: 1, GroupsKept: 1, Score: moe.Softmax}},
	}
}

// Inputs are a step's tokens, router and bias.
type Inputs struct {
	Hidden []float32 // [T][d], row-major
	Router []float32 // [E][d], row-major
	Bias   []float32 // [E]
}

const topics = 64

// Draw returns inputs in which tokens resemble one of 64 topics.
func (s Shape) Draw(seed uint64) Inputs {
	in := Inputs{Hidden: normals(rng.Key(seed, rng.Noise), s.Tokens*s.Width), Router: normals(rng.Key(seed, rng.World), s.Experts*s.Width),
		Bias: normals(rng.Key(seed, rng.Choice), s.Experts)}
	centres := normals(rng.Key(seed, rng.Layout), topics*s.Width)
	r := rng.New(rng.Key(seed, rng.Token))
	scale := float32(1 / math.Sqrt(float64(s.Width)))
	for t := range s.Tokens {
		topic := centres[r.IntN(topics)*s.Width:]
		for c := range s.Width {
			x := &in.Hidden[t*s.Width+c]
			*x = (topic[c] + 0.6**x) * scale
		}
	}
	spread := float32(0.02)
	if s.Score == moe.Softmax {
		spread = 0.3 / float32(s.Experts)
	}
	for e := range in.Bias {
		in.Bias[e] *= spread
	}
	return in
}

func normals(key uint64, n int) []float32 {
	x := make([]float32, (n+31)&^31)
	vec.Normals(x, key)
	return x[:n]
}

// Step routes one batch and measures it. Its results stay in the fields until the next call.
type Step struct {
	Shape
	in     Inputs
	matrix *vec.Matrix

	Chosen []int32   // [T][K] ids, ascending for each token
	Gates  []float32 // [T][K] weights from the unbiased scores, divided by their sum
	Load   []int64   // [E]
	Hit    float64   // share of the oracle's unbiased, unlimited top-K that was chosen
	Mass   float64   // Σ of chosen scores over Σ of the oracle's

	selector     *vec.Selector
	x, s, tile   []float32
	mask, oracle []uint64
	allowed      []uint64
	row          [4]vec.Row
	source       [vec.Lanes]int32

	scores []float32 // of all tiles, where a gradient will want them
	grad   *vec.Gradient
	g      []float32
	prices []float32

	key                 uint64 // of the tokens that Generate draws
	topics, topic, zero []float32
}

// NewStep prepares a step.
func NewStep(shape Shape, in Inputs) (*Step, error) {
	if err := shape.Validate(); err != nil {
		return nil, err
	}
	if len(in.Hidden) != shape.Tokens*shape.Width || len(in.Router) != shape.Experts*shape.Width || len(in.Bias) != shape.Experts {
		return nil, fmt.Errorf("inputs of %d, %d and %d numbers do not fit %d tokens, %d experts and a width of %d",
			len(in.Hidden), len(in.Router), len(in.Bias), shape.Tokens, shape.Experts, shape.Width)
	}
	e := shape.Experts
	b := &Step{Shape: shape, in: in, matrix: vec.NewMatrix(e, shape.Width),
		Chosen: make([]int32, shape.Tokens*shape.TopK), Gates: make([]float32, shape.Tokens*shape.TopK), Load: make([]int64, e),
		selector: vec.NewSelector(shape.TopK, shape.Groups), x: make([]float32, shape.Width*vec.Lanes), s: make([]float32, e*vec.Lanes),
		tile: vec.NewScratch(shape.Width), mask: make([]uint64, e), oracle: make([]uint64, e)}
	if shape.Limited() {
		b.allowed = make([]uint64, shape.Groups)
	}
	b.matrix.Set(in.Router)
	return b, nil
}

func (b *Step) tiles() int { return (b.Tokens + vec.Lanes - 1) / vec.Lanes }

// load brings the tokens of a tile into its layout.
func (b *Step) load(tile int) uint64 {
	n := min(vec.Lanes, b.Tokens-tile*vec.Lanes)
	rows := b.in.Hidden[tile*vec.Lanes*b.Width:]
	if n == vec.Lanes {
		vec.Load(b.x, rows, b.Width)
	} else {
		for l := range n {
			b.source[l] = int32(l)
		}
		vec.Gather(b.x, rows, b.source[:n], b.Width)
	}
	return ^uint64(0) >> (vec.Lanes - n)
}

// choose scores a tile into s and marks the experts of its tokens.
func (b *Step) choose(s []float32, live uint64) {
	b.matrix.Times(s, b.x, b.tile)
	b.Score.Apply(s, s, b.Experts)
	if b.allowed != nil {
		b.selector.Groups(b.allowed, s, b.in.Bias, b.Experts, b.GroupsKept)
	}
	b.selector.TopK(b.mask, s, b.in.Bias, live, b.allowed)
}

// list writes the ids and gates of a tile.
func (b *Step) list(tile int, s []float32) {
	b.row[0] = b.selector.Sum
	vec.Invert(&b.row[0])
	from := tile * vec.Lanes * b.TopK
	vec.Lists(b.Chosen[from:], b.Gates[from:], b.mask, s, &b.row[0], b.TopK)
}

// Route routes the batch: affinities, scores, biased and perhaps limited top-K, lists and gates, loads, and the agreement
// with the oracle's choice.
func (b *Step) Route() { b.route(b.load) }

// Generate is Route on new tokens near topics, which it draws first.
func (b *Step) Generate() {
	b.key++
	b.route(b.draw)
}

func (b *Step) route(load func(tile int) (live uint64)) {
	clear(b.Load)
	var agreed int64
	var mass, best float64
	for i := range b.tiles() {
		live := load(i)
		b.choose(b.s, live)
		b.list(i, b.s)
		mass += vec.Total(&b.selector.Sum)
		b.selector.TopK(b.oracle, b.s, nil, live, nil)
		best += vec.Total(&b.selector.Sum)
		agreed += b.count()
	}
	b.Hit, b.Mass = float64(agreed)/float64(b.Tokens*b.TopK), mass/best
}

// draw fills a tile with tokens near topics.
func (b *Step) draw(tile int) uint64 {
	scale := float32(1 / math.Sqrt(float64(b.Width)))
	if b.topics == nil {
		b.topics = normals(rng.Key(1, rng.World), topics*b.Width)
		for i := range b.topics {
			b.topics[i] *= scale
		}
		b.topic, b.zero = make([]float32, len(b.x)), make([]float32, len(b.x))
	}
	key := rng.Key(b.key, rng.Noise, uint64(tile))
	vec.Normals(b.x, key)
	r := rng.New(key + 1)
	for l := 0; l < len(b.source); l += 8 {
		word := r.Uint64()
		for i := range b.source[l : l+8] {
			b.source[l+i] = int32(word >> (8 * i) % topics) // a power of 2, so all are equally likely
		}
	}
	vec.Gather(b.topic, b.topics, b.source[:], b.Width)
	vec.Mix(&b.row[3], b.x, b.topic, b.zero, 0.6*scale, b.Width)
	return ^uint64(0) >> (vec.Lanes - min(vec.Lanes, b.Tokens-tile*vec.Lanes))
}

// count adds the tile's loads and returns how many choices the oracle shares.
func (b *Step) count() (agreed int64) {
	for e, m := range b.mask {
		b.Load[e] += int64(bits.OnesCount64(m))
		agreed += int64(bits.OnesCount64(m & b.oracle[e]))
	}
	return agreed
}

// Train routes the batch and computes the gradient of an auxiliary loss with respect to the router's weights.
func (b *Step) Train() {
	n := b.Experts * vec.Lanes
	if b.scores == nil {
		b.scores, b.grad = make([]float32, b.tiles()*n), vec.NewGradient(b.Experts, b.Width)
		b.g, b.prices = make([]float32, n), make([]float32, b.Experts)
	}
	clear(b.Load)
	for i := range b.tiles() {
		s := b.scores[i*n : (i+1)*n]
		b.choose(s, b.load(i))
		b.list(i, s)
		for e, m := range b.mask {
			b.Load[e] += int64(bits.OnesCount64(m))
		}
	}
	scale := float64(b.Experts) / (float64(b.Tokens) * float64(b.Tokens) * float64(b.TopK))
	for e, v := range b.Load {
		b.prices[e] = float32(scale * float64(v))
	}
	b.grad.Clear()
	for i := range b.tiles() {
		s := b.scores[i*n : (i+1)*n]
		clear(b.g)
		offset, factor := &b.row[0], &b.row[1]
		b.price(s, offset, factor, b.Tokens-i*vec.Lanes)
		vec.AddPrices(b.g, b.prices, offset, factor)
		b.Score.Backward(b.g, s, b.Experts)
		if rows := b.in.Hidden[i*vec.Lanes*b.Width:]; len(rows) >= vec.Lanes*b.Width {
			b.grad.AddRows(b.g, rows, b.tile)
		} else {
			b.load(i)
			b.grad.Add(b.g, b.x, b.tile)
		}
	}
}

// price fills the offset and scale of a tile's gradient with respect to its scores, for its live tokens: 0 and 1 for
// softmax, whose own derivative has the rest, else the mean price and 1/Σ s.
func (b *Step) price(s []float32, offset, scale *vec.Row, live int) {
	if b.Score == moe.Softmax {
		*offset = vec.Row{}
		for t := range min(vec.Lanes, live) {
			scale[t] = 1
		}
	} else {
		vec.WeightedSum(offset, scale, s, b.prices)
		vec.Invert(scale)
		for t, v := range scale {
			offset[t] *= v
		}
	}
	for t := live; t < vec.Lanes; t++ {
		offset[t], scale[t] = 0, 0
	}
}

// Gradient returns the last gradient of one expert's weights [d].
func (b *Step) Gradient(expert int) []float32 { return b.grad.Row(expert) }
