package moe

// Assignment says which experts every token of a batch was sent to: bit t of Mask[tile·E+e] is token t of the tile and
// expert e.
type Assignment struct {
	Experts int
	Mask    []uint64
	// Fresh, where a loss asks for it, is what it counts in place of Mask: the top-K of the same router's scores without bias
	// and group limit, from which Megatron-LM and DeepSeek-V3 count, or first choices only, from which GShard does.
	Fresh []uint64
	// Dropped, where a strategy drops, has the choices that found no room; Mask does not.
	Dropped []uint64
}

// NewAssignment returns storage for what a strategy of the given traits does with up to the given number of tokens.
func NewAssignment(layer Layer, tokens int, t Traits) *Assignment {
	n := (tokens + TileTokens - 1) / TileTokens * layer.Experts
	a := &Assignment{Experts: layer.Experts, Mask: make([]uint64, n)}
	if t.Fresh {
		a.Fresh = make([]uint64, n)
	}
	if t.Drops {
		a.Dropped = make([]uint64, n)
	}
	return a
}

// Tile returns the masks of one tile, one word for each expert.
func (a *Assignment) Tile(i int) []uint64 { return a.Mask[i*a.Experts : (i+1)*a.Experts] }

// FreshTile returns the fresh masks of one tile, or nil.
func (a *Assignment) FreshTile(i int) []uint64 {
	if a.Fresh == nil {
		return nil
	}
	return a.Fresh[i*a.Experts : (i+1)*a.Experts]
}

// Counts is the counting service: the assignments n_e of every expert in every scope of one batch. Losses and controllers
// read it; nobody else counts.
type Counts struct {
	Experts    int
	Tokens     int
	Sequence   []int64 // [sequence][E]
	MicroBatch []int64 // [micro-batch][E]
	Global     []int64 // [E], the whole step

	// In the same scopes, the tokens with at least one choice in each group of experts, [..][G]; empty without groups.
	SequenceTokens, MicroBatchTokens, GlobalTokens []int64
}

// Count counts one set of masks (an Assignment's Mask or Fresh) of a batch.
func (c *Counts) Count(b *Batch, masks []uint64) {
	e := b.Layer.Experts
	c.Experts, c.Tokens = e, b.Total
	c.Sequence = resized(c.Sequence, len(b.Sequences)*e)
	c.MicroBatch = resized(c.MicroBatch, len(b.MicroBatches)*e)
	c.Global = resized(c.Global, e)
	groups := b.Layer.Groups
	if groups == 1 {
		groups = 0
	}
	c.SequenceTokens = resized(c.SequenceTokens, len(b.Sequences)*groups)
	c.MicroBatchTokens = resized(c.MicroBatchTokens, len(b.MicroBatches)*groups)
	c.GlobalTokens = resized(c.GlobalTokens, groups)
	for i := range b.Tiles {
		t, m := &b.Tiles[i], masks[i*e:(i+1)*e]
		b.Segments(i, b.Sequences, func(unit, from, to int) {
			n, lanes := c.Sequence[unit*e:(unit+1)*e], LaneMask(from, to)
			for x, w := range m {
				n[x] += t.Count(w & lanes)
			}
			if groups > 0 {
				countTokens(c.SequenceTokens[unit*groups:(unit+1)*groups], t, m, lanes)
			}
		})
	}
	batch := 0
	for i, s := range b.Sequences {
		for b.MicroBatches[batch].To <= s.From {
			batch++
		}
		add(c.MicroBatch[batch*e:(batch+1)*e], c.Sequence[i*e:(i+1)*e])
		add(c.MicroBatchTokens[batch*groups:(batch+1)*groups], c.SequenceTokens[i*groups:(i+1)*groups])
	}
	for i := range b.MicroBatches {
		add(c.Global, c.MicroBatch[i*e:(i+1)*e])
		add(c.GlobalTokens, c.MicroBatchTokens[i*groups:(i+1)*groups])
	}
}

// countTokens adds to n [G] the tokens among the lanes that chose an expert of each group.
func countTokens(n []int64, t *Tile, mask []uint64, lanes uint64) {
	size := len(mask) / len(n)
	for g := range n {
		var touched uint64
		for _, w := range mask[g*size : (g+1)*size] {
			touched |= w
		}
		n[g] += t.Count(touched & lanes)
	}
}

// Add adds the counts of the same batch's other masks, but not the tokens by group, which may be the same ones.
func (c *Counts) Add(o *Counts) {
	add(c.Sequence, o.Sequence)
	add(c.MicroBatch, o.MicroBatch)
	add(c.Global, o.Global)
}

func add(to, n []int64) {
	for i, v := range n {
		to[i] += v
	}
}

func resized(n []int64, size int) []int64 {
	if cap(n) < size {
		return make([]int64, size)
	}
	n = n[:size]
	clear(n)
	return n
}
