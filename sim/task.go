package sim

import (
	"math"
	"math/bits"

	"evenkeel/internal/rng"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// task is what a layer whose experts learn is asked for, from its latent vectors x [d] alone: the target
//
//	y_t = B_r x_t,   r = argmax_j c_j·x_t,   B_j [d][d] ~ N(0, 1/d),   c_j [d] ~ N(0, I) made of unit length,
//
// with R regions, so that no linear map serves all tokens and an expert does well to have few regions to itself. The task
// loss is mean ‖ŷ − y‖² / mean ‖y‖² over the tokens of a batch: 0 is perfect, 1 what a layer earns that outputs nothing.
type task struct {
	width   int
	centres *vec.Matrix   // [R][d]
	maps    []*vec.Matrix // B [R][d][d]
	rows    []float32     // x of the batch, [T][d]
	target  []float32     // y of the same
	region  []int32       // r of the same
	members []int32       // tokens, region after region
	first   []int32       // the first member of each region, and the end [R+1]
	energy  []float64     // Σ ‖y‖² by region, so that the sum has one order
}

// What a task draws, as the place of its keys.
const (
	drawRegions = iota
	drawMaps
)

func newTask(c *Config, world uint64) *task {
	d, n := c.Layer.Width, c.Experts.Regions
	k := &task{width: d, centres: vec.NewMatrix(n, d), maps: make([]*vec.Matrix, n), first: make([]int32, n+1), energy: make([]float64, n)}
	centres := normals(rng.Key(world, rng.Task, drawRegions), n*d, 1)
	for r := range n {
		c := centres[r*d : (r+1)*d]
		var square float64
		for _, v := range c {
			square += float64(float64(v) * float64(v))
		}
		for i := range c {
			c[i] = float32(float64(c[i]) / math.Sqrt(square))
		}
		k.maps[r] = vec.NewMatrix(d, d)
		k.maps[r].Set(normals(rng.Key(world, rng.Task, drawMaps, uint64(r)), d*d, math.Sqrt(1/float64(d))))
	}
	k.centres.Set(centres)
	tokens := (c.Tokens + vec.Lanes - 1) / vec.Lanes * vec.Lanes
	k.rows, k.target = make([]float32, tokens*d), make([]float32, tokens*d)
	k.region, k.members = make([]int32, tokens), make([]int32, tokens)
	return k
}

// locate finds the regions of a tile's tokens.
func (k *task) locate(i int, t *moe.Tile, w *moe.Scratch) {
	vec.Unload(k.rows[i*vec.Lanes*k.width:], t.X, k.width)
	near := w.Floats(0, len(k.maps)*vec.Lanes)
	k.centres.Times(near, t.X, w.Product)
	best, region := (*vec.Row)(near), k.region[i*vec.Lanes:(i+1)*vec.Lanes]
	clear(region)
	for r := 1; r < len(k.maps); r++ {
		for l, v := range (*vec.Row)(near[r*vec.Lanes:]) {
			if v > best[l] {
				best[l], region[l] = v, int32(r)
			}
		}
	}
	for m := t.Waste; m != 0; m &= m - 1 {
		region[bits.TrailingZeros64(m)] = nowhere
	}
}

// nowhere is the region of a token whose output nobody uses.
const nowhere = -1

// gather lists the tokens of each region.
func (k *task) gather(tokens int) {
	clear(k.first)
	for _, r := range k.region[:tokens] {
		if r != nowhere {
			k.first[r+1]++
		}
	}
	for r := range k.maps {
		k.first[r+1] += k.first[r]
	}
	for t, r := range k.region[:tokens] {
		if r == nowhere {
			continue
		}
		k.members[k.first[r]] = int32(t)
		k.first[r]++
	}
	copy(k.first[1:], k.first) // each is now where the next one begins
	k.first[0] = 0
}

// answer computes the targets of the tokens of one region.
func (k *task) answer(r int, w *moe.Scratch) {
	d := k.width
	x, y, rows := w.Floats(0, d*vec.Lanes), w.Floats(1, d*vec.Lanes), w.Floats(2, d*vec.Lanes)
	k.energy[r] = 0
	members := k.members[k.first[r]:k.first[r+1]]
	for from := 0; from < len(members); from += vec.Lanes {
		tokens, source := piece(members, from, w)
		vec.Gather(x, k.rows, source, d)
		k.maps[r].Times(y, x, w.Product)
		vec.Unload(rows, y, d)
		for i, t := range tokens {
			row := rows[i*d : (i+1)*d]
			copy(k.target[int(t)*d:], row)
			for _, v := range row {
				k.energy[r] += float64(float64(v) * float64(v))
			}
		}
	}
}

// piece returns up to 64 tokens of a list from one on, and the same, filled up with the first of them, as a source of rows.
func piece(list []int32, from int, w *moe.Scratch) (tokens, source []int32) {
	tokens = list[from:min(len(list), from+vec.Lanes)]
	source = w.Source[:]
	for i := copy(source, tokens); i < vec.Lanes; i++ {
		source[i] = tokens[0]
	}
	return tokens, source
}
