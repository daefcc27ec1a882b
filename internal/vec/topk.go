package vec

// Selector finds the best K rows of every token of a tile. It is scratch that one worker owns.
type Selector struct {
	Sum Row // Σ s[e][t] over the rows that the last TopK chose for each token, without bias, rows in order

	k int

	// Of the portable kernel.
	ranks []uint64 // [k][64], best first: see rankOf
	least Row      // value of the k-th best so far

	// Of the vector kernels.
	list    []int32  // [≥k][64] keys of the best, best first
	signed  int      // calls for which numbers do not pass for their own keys, since a negative one was lately among the best
	allowed []uint64 // [G]
	bias    []float32
	zeros   []float32

	group []Row // rank value of each group
}

// NewSelector returns a selector of the k best rows out of at most the given number of groups.
func NewSelector(k, groups int) *Selector {
	return &Selector{k: k, ranks: make([]uint64, Lanes*k), list: make([]int32, 2*Lanes*k),
		allowed: make([]uint64, groups), group: make([]Row, groups)}
}

// TopK marks the k best rows of every live token: bit t of mask[e] is set when row e is among the k largest of
// a[e][t] = s[e][t] + bias[e]. Ties go to the lower row; −Inf is never chosen. mask and bias hold one entry for each row,
// bias may be nil, and live has a bit for every token of the tile. allowed, if not nil, has one word for each of its
// equal groups of rows, as Groups fills it: other groups count as −Inf.
func (q *Selector) TopK(mask []uint64, s, bias []float32, live uint64, allowed []uint64) {
	active.topK(q, mask, s[:len(mask)*Lanes], bias, live, allowed)
}

// Best is TopK for fewer rows, k of them, at most the selector's own number, and without groups.
func (q *Selector) Best(k int, mask []uint64, s, bias []float32, live uint64) {
	own := q.k
	q.k = k
	q.TopK(mask, s, bias, live, nil)
	q.k = own
}

// Groups finds the groups of rows that each token may touch, by DeepSeek-V3's rule: a group's rank value is the sum of its
// two best a = s + bias (of its only one, where it has one row), and the kept best groups stay, ties to the lower one.
// Bit t of allowed[g] is set when token t may use group g. The rows divide evenly into len(allowed) groups.
func (q *Selector) Groups(allowed []uint64, s, bias []float32, rows, kept int) {
	active.groups(q, allowed, s[:rows*Lanes], bias, rows, kept)
}
