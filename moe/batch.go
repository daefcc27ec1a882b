package moe

import (
	"math/bits"
	"slices"

	"evenkeel/internal/vec"
)

// TileTokens is the number of tokens of a full tile, the unit of all work.
const TileTokens = vec.Lanes

// Span is a range of a batch's tokens, From inclusive, To exclusive.
type Span struct{ From, To int }

// Len is the number of tokens in the span.
func (s Span) Len() int { return s.To - s.From }

// Tile is up to 64 consecutive tokens of a batch, stored with tokens innermost. Lanes past Tokens hold zeros in X and
// finite numbers in Z.
type Tile struct {
	Start  int               // index in the batch of the first token
	Tokens int               // live tokens, 1 to 64
	X      []float32         // latent vectors [d][64], RMS about 1; nil where the stream has none
	Z      []float32         // the oracle's logits z* [E][64]; its scores where the layer's Score is Stored
	Token  [TileTokens]int32 // token ids; −1 where unknown
	Domain [TileTokens]int32 // domain ids; −1 where unknown
	Weight []int64           // tokens that each lane stands for [64], 0 past the last one; nil where each stands for itself
	// Waste has a bit for each lane whose output nobody uses, such as padding or a draft that is rejected: it loads experts, and
	// quality leaves it out. Unseen has one for each of those that counts leave out too.
	Waste, Unseen uint64
	Key           uint64 // keys the random choices of a strategy for this tile
	// Training: the tile belongs to a step of the run, not to an evaluation, so that noise meant for training acts.
	Training bool
}

// Live has a bit for each live token.
func (t *Tile) Live() uint64 { return ^uint64(0) >> (TileTokens - t.Tokens) }

// Sum returns Σ_t x[t] over the tokens that the tile stands for and whose output is used.
func (t *Tile) Sum(x *vec.Row) (sum float64) {
	switch {
	case t.Weight != nil:
		for l, n := range t.Weight {
			sum += float64(float64(n) * float64(x[l]))
		}
	case t.Waste != 0:
		for l, v := range x {
			if t.Waste>>l&1 == 0 {
				sum += float64(v)
			}
		}
	default:
		return vec.Total(x)
	}
	return sum
}

// Plain reports whether each lane is one token, whose output is used.
func (t *Tile) Plain() bool { return t.Weight == nil && t.Waste == 0 }

// Weigh sets x[l] to how many tokens with an output that is used lane l stands for.
func (t *Tile) Weigh(x *vec.Row) {
	for l := range x {
		switch {
		case t.Waste>>l&1 != 0:
			x[l] = 0
		case t.Weight != nil:
			x[l] = float32(t.Weight[l])
		default:
			x[l] = 1
		}
	}
}

// Seen is how many tokens lane l stands for in counts.
func (t *Tile) Seen(l int) float64 {
	switch {
	case t.Unseen>>l&1 != 0:
		return 0
	case t.Weight != nil:
		return float64(t.Weight[l])
	}
	return 1
}

// Count returns how many tokens the given lanes stand for.
func (t *Tile) Count(lanes uint64) int64 {
	if t.Weight == nil {
		return int64(bits.OnesCount64(lanes))
	}
	var n int64
	for ; lanes != 0; lanes &= lanes - 1 {
		n += t.Weight[bits.TrailingZeros64(lanes)]
	}
	return n
}

// Batch is one step's tokens: whole sequences, grouped into micro-batches. Where tokens that are alike are aggregated, a token of
// the batch stands for as many as its tile's Weight says, and the whole batch is one sequence.
type Batch struct {
	Layer        Layer
	Tokens       int
	Total        int // T, tokens that the batch stands for; Tokens, unless they are aggregated
	Useful, Seen int // those of them whose output is used, and those that counts see
	Tiles        []Tile
	Sequences    []Span // in order, covering the batch
	MicroBatches []Span // in order, covering the batch, of whole sequences
	Ranks        int    // micro-batches that run side by side; the others accumulate

	x, z []float32
}

// NewBatch returns storage for up to the given number of tokens of a layer.
func NewBatch(layer Layer, tokens int) *Batch {
	tiles := (tokens + TileTokens - 1) / TileTokens
	return &Batch{
		Layer: layer, Ranks: 1,
		Tiles: make([]Tile, 0, tiles),
		x:     make([]float32, tiles*TileTokens*layer.Width),
		z:     make([]float32, tiles*TileTokens*layer.Experts),
	}
}

// Resize lays the batch out for a number of tokens, at most that of NewBatch, in tiles without content.
func (b *Batch) Resize(tokens int) {
	b.Tokens, b.Total, b.Useful, b.Seen = tokens, tokens, tokens, tokens
	b.Tiles = b.Tiles[:(tokens+TileTokens-1)/TileTokens]
	dx, dz := b.Layer.Width*TileTokens, b.Layer.Experts*TileTokens
	for i := range b.Tiles {
		t := &b.Tiles[i]
		t.Start, t.Tokens = i*TileTokens, min(TileTokens, tokens-i*TileTokens)
		t.Weight, t.Waste, t.Unseen = nil, 0, 0
		t.Z = b.z[i*dz : (i+1)*dz]
		if dx > 0 {
			t.X = b.x[i*dx : (i+1)*dx]
		}
	}
}

// Aggregate lays the batch out, as one micro-batch, for tokens that stand for as many as weight says, which is of that length and
// longer by at least 63 zeros, and that is kept.
func (b *Batch) Aggregate(weight []int64, tokens int) {
	b.Resize(tokens)
	b.Total, b.Ranks = 0, 1
	for i := range b.Tiles {
		b.Tiles[i].Weight = weight[i*TileTokens : (i+1)*TileTokens]
		for _, n := range b.Tiles[i].Weight {
			b.Total += int(n)
		}
	}
	b.Useful, b.Seen = b.Total, b.Total
	b.Sequences = append(b.Sequences[:0], Span{0, tokens})
	b.MicroBatches = append(b.MicroBatches[:0], Span{0, tokens})
}

// Throw marks a token of the batch, which is not aggregated, as one whose output nobody uses, and if it is unseen as one that
// counts leave out.
func (b *Batch) Throw(token int, unseen bool) {
	t, bit := &b.Tiles[token/TileTokens], uint64(1)<<(token%TileTokens)
	t.Waste |= bit
	b.Useful--
	if unseen {
		t.Unseen |= bit
		b.Seen--
	}
}

// Size returns how many tokens of a span counts see.
func (b *Batch) Size(s Span) int {
	switch {
	case b.Seen == b.Tokens:
		return s.Len()
	case s.Len() == b.Tokens:
		return b.Seen
	}
	n := int64(0)
	for i := s.From / TileTokens; i*TileTokens < s.To; i++ {
		t := &b.Tiles[i]
		n += t.Count(LaneMask(max(0, s.From-t.Start), min(TileTokens, s.To-t.Start)) &^ t.Unseen)
	}
	return int(n)
}

// Truncate keeps the first tokens of a batch that has more, with their sequences and micro-batches.
func (b *Batch) Truncate(tokens int) {
	b.Tokens = tokens
	b.Tiles = b.Tiles[:(tokens+TileTokens-1)/TileTokens]
	last := &b.Tiles[len(b.Tiles)-1]
	last.Tokens = tokens - last.Start
	if last.Weight != nil {
		last.Weight = append(slices.Clone(last.Weight[:last.Tokens]), make([]int64, TileTokens-last.Tokens)...)
	}
	b.Total, b.Useful, b.Seen = 0, 0, 0
	for i := range b.Tiles {
		t := &b.Tiles[i]
		b.Total += int(t.Count(t.Live()))
		b.Useful += int(t.Count(t.Live() &^ t.Waste))
		b.Seen += int(t.Count(t.Live() &^ t.Unseen))
	}
	for _, spans := range []*[]Span{&b.Sequences, &b.MicroBatches} {
		n := 0
		for n < len(*spans) && (*spans)[n].From < tokens {
			n++
		}
		*spans = (*spans)[:n]
		(*spans)[n-1].To = tokens
	}
}

// SplitMicroBatches groups the sequences into n micro-batches of nearly equal size, or into as many as there are
// sequences where that is fewer.
func (b *Batch) SplitMicroBatches(n int) {
	n = min(n, len(b.Sequences))
	b.MicroBatches = b.MicroBatches[:0]
	from := 0
	for i, s := range b.Sequences {
		filled := len(b.MicroBatches) + 1
		last := i == len(b.Sequences)-1
		full := s.To*n >= filled*b.Tokens
		scarce := len(b.Sequences)-1-i == n-filled
		if last || filled < n && (full || scarce) {
			b.MicroBatches = append(b.MicroBatches, Span{from, s.To})
			from = s.To
		}
	}
}

// Segments calls f for every run of a tile's tokens that lies in one unit of a partition of the batch (its sequences, its
// micro-batches), with the unit's index and the run's lanes, to exclusive.
func (b *Batch) Segments(tile int, partition []Span, f func(unit, from, to int)) {
	t := &b.Tiles[tile]
	unit, _ := slices.BinarySearchFunc(partition, t.Start, func(s Span, token int) int {
		if s.To <= token {
			return -1
		}
		return 1
	})
	for lane := 0; lane < t.Tokens; unit++ {
		to := min(t.Tokens, partition[unit].To-t.Start)
		f(unit, lane, to)
		lane = to
	}
}

// LaneMask has the bits of lanes from to to−1.
func LaneMask(from, to int) uint64 {
	return ^uint64(0) >> (TileTokens - to) &^ (1<<from - 1)
}
