package moe

import (
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
	Key    uint64            // keys the random choices of a strategy for this tile
	// Training: the tile belongs to a step of the run, not to an evaluation, so that noise meant for training acts.
	Training bool
}

// Live has a bit for each live token.
func (t *Tile) Live() uint64 { return ^uint64(0) >> (TileTokens - t.Tokens) }

// Batch is one step's tokens: whole sequences, grouped into micro-batches.
type Batch struct {
	Layer        Layer
	Tokens       int
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
	b.Tokens = tokens
	b.Tiles = b.Tiles[:(tokens+TileTokens-1)/TileTokens]
	dx, dz := b.Layer.Width*TileTokens, b.Layer.Experts*TileTokens
	for i := range b.Tiles {
		t := &b.Tiles[i]
		t.Start, t.Tokens = i*TileTokens, min(TileTokens, tokens-i*TileTokens)
		t.Z = b.z[i*dz : (i+1)*dz]
		if dx > 0 {
			t.X = b.x[i*dx : (i+1)*dx]
		}
	}
}

// Truncate keeps the first tokens of a batch that has more, with their sequences and micro-batches.
func (b *Batch) Truncate(tokens int) {
	b.Tokens = tokens
	b.Tiles = b.Tiles[:(tokens+TileTokens-1)/TileTokens]
	last := &b.Tiles[len(b.Tiles)-1]
	last.Tokens = tokens - last.Start
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
