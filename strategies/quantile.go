package strategies

import (
	"math"
	"math/bits"

	"evenkeel/internal/order"
	"evenkeel/internal/vec"
	"evenkeel/moe"
)

// How a quantile of a whole step is found.
const (
	estimateExact      = "exact"       // of all its tokens
	estimateMicroBatch = "micro-batch" // the mean of its micro-batches' quantiles, another quantity (Megatron-LM)
	estimateHistogram  = "histogram"   // of all its tokens, from counts in bins that ranks can add up (Kimi K3)
)

// quantileController is a selection bias b = −β [E] that each step sets to the threshold which the step's own tokens would
// have needed: β_e is the 1 − K/E quantile of a column x_te, so that the share K/E of the tokens lies above it.
//
// Where tokens choose K experts, x_te = s_te − α_t with α_t the (K+1)-th largest of s_t + b, what it takes to be chosen; β less
// its mean is one step of coordinate descent on the dual of the balanced assignment (Su 2026, kexue.fm 11619). Where experts
// choose by threshold alone, x_te = s_te (kexue.fm 11626).
type quantileController struct {
	b          []float32
	layer      moe.Layer
	competing  bool   // x_te = s_te − α_t, and β is centred
	estimate   string // of the quantile
	keep       float64
	midpoint   bool // α and β in the middle of the values that solve the dual, instead of at their lower ends
	iterations int
	bins       int
	of         moe.Score // where it is of their logits, what makes the scores
	logits     []float32 // [tile][E][64]
	outright   bool      // the next step sets β, whatever is to be kept of the old one
	columns    columns
	histogram  []int32
	before     []float32
	beta       []float64
	selector   *vec.Selector // of the K+1 best
	mask       []uint64
}

func newQuantile(l moe.Layer, competing bool) *quantileController {
	c := &quantileController{layer: l, competing: competing, estimate: estimateExact, iterations: 1, of: moe.Stored}
	c.b, c.before, c.beta = make([]float32, l.Experts), make([]float32, l.Experts), make([]float64, l.Experts)
	c.mask, c.selector = make([]uint64, l.Experts), vec.NewSelector(min(l.TopK+1, l.Experts), l.Groups)
	c.columns = newColumns(l)
	return c
}

func (c *quantileController) declare(t *moe.Traits) {
	t.MicroBatches = t.MicroBatches || c.estimate == estimateMicroBatch
}

func (c *quantileController) update(o *moe.Outcome) {
	if c.of == moe.Stored {
		c.learn(o.Batch, o.Scores)
		return
	}
	if len(c.logits) < len(o.Scores) {
		c.logits = make([]float32, len(o.Scores))
	}
	n := len(c.b) * vec.Lanes
	for i := range o.Batch.Tiles {
		c.of.Logits(c.logits[i*n:(i+1)*n], o.Scores[i*n:(i+1)*n], len(c.b))
	}
	c.learn(o.Batch, c.logits)
}

// learn moves b by a batch of scores s [tile][E][64].
func (c *quantileController) learn(batch *moe.Batch, s []float32) {
	if c.layer.TopK == c.layer.Experts {
		return // every expert has every token, whatever b
	}
	copy(c.before, c.b)
	c.columns.resize(len(batch.Tiles))
	for range c.iterations {
		if c.competing {
			c.cutoffs(batch, s)
		}
		c.quantiles(batch, s)
		var mean float64
		for _, v := range c.beta {
			mean += v
		}
		mean /= float64(len(c.beta))
		for e, v := range c.beta {
			if c.competing {
				v -= mean
			}
			c.b[e] = float32(-v)
		}
	}
	if keep := c.keep; keep > 0 && !c.outright {
		for e, v := range c.before {
			c.b[e] = float32(float64(keep*float64(v)) + float64((1-keep)*float64(c.b[e])))
		}
	}
	c.outright = false
}

// cutoffs finds every token's α, by the bias as it stands.
func (c *quantileController) cutoffs(batch *moe.Batch, s []float32) {
	inf := float32(math.Inf(1))
	for i := range batch.Tiles {
		t := &batch.Tiles[i]
		tile := s[i*len(c.b)*vec.Lanes:]
		c.selector.TopK(c.mask, tile, c.b, t.Live(), nil)
		alpha := (*vec.Row)(c.columns.alpha[i*vec.Lanes:])
		var next vec.Row // the K-th largest
		for l := range alpha {
			alpha[l], next[l] = inf, inf
		}
		for e, m := range c.mask {
			row, b := (*vec.Row)(tile[e*vec.Lanes:]), c.b[e]
			for ; m != 0; m &= m - 1 {
				l := bits.TrailingZeros64(m)
				a := row[l] + b
				if c.midpoint {
					next[l] = min(next[l], max(alpha[l], a))
				}
				alpha[l] = min(alpha[l], a)
			}
		}
		if c.midpoint {
			for l, v := range next {
				alpha[l] += float32((v - alpha[l]) / 2)
			}
		}
	}
}

// quantiles fills β with the quantiles of all columns.
func (c *quantileController) quantiles(batch *moe.Batch, s []float32) {
	switch c.estimate {
	case estimateHistogram:
		c.count(batch, s)
	case estimateMicroBatch:
		c.columns.sift(s, moe.Span{From: 0, To: batch.Tokens})
		clear(c.beta)
		for _, m := range batch.MicroBatches {
			for e := range c.beta {
				c.beta[e] += float64(c.columns.quantile(s, e, m, c.midpoint))
			}
		}
		for e := range c.beta {
			c.beta[e] /= float64(len(batch.MicroBatches))
			c.columns.guess[e] = float32(c.beta[e])
		}
	default:
		c.columns.sift(s, moe.Span{From: 0, To: batch.Tokens})
		for e := range c.beta {
			c.beta[e] = float64(c.columns.quantile(s, e, moe.Span{From: 0, To: batch.Tokens}, c.midpoint))
			c.columns.guess[e] = float32(c.beta[e])
		}
	}
}

// count fills β from counts of the bias that each token would need, α − s, in equal bins over [min b − 1, max b + 1], outside
// of which scores in [0, 1] need none. β is the middle of the bin that holds the quantile.
func (c *quantileController) count(batch *moe.Batch, s []float32) {
	if len(c.histogram) != c.bins {
		c.histogram = make([]int32, c.bins)
	}
	low, high := c.b[0], c.b[0]
	for _, v := range c.b {
		low, high = min(low, v), max(high, v)
	}
	low, high = low-1, high+1
	scale, last := float32(c.bins)/(high-low), float32(c.bins-1)
	above := batch.Tokens * c.layer.TopK / c.layer.Experts
	for e := range c.beta {
		clear(c.histogram)
		for i := range batch.Tiles {
			row, alpha := s[(i*len(c.b)+e)*vec.Lanes:], c.columns.alpha[i*vec.Lanes:]
			for l, v := range row[:batch.Tiles[i].Tokens] {
				c.histogram[bucket(float32((alpha[l]-v-low)*scale), last)]++
			}
		}
		bin, n := 0, 0
		for n += int(c.histogram[0]); n <= above; n += int(c.histogram[bin]) {
			bin++
		}
		c.beta[e] = -(float64(low) + float64((float64(bin)+0.5)/float64(scale)))
	}
}

// bucket returns ⌊x⌋, but 0 below that, and last above.
func bucket(x, last float32) int {
	if !(x > 0) {
		return 0
	}
	return int(min(x, last))
}

// columns finds order statistics of experts' columns x_te = s_te − α_t of a batch.
//
// From one step to the next a quantile hardly moves, so a first pass keeps only what lies above a little less than the last
// one, some K/E of a column, and the order statistic is selected from that. Where the guess was too high, all is kept.
// Either way the result is exact.
type columns struct {
	layer moe.Layer
	alpha []float32 // [tile][64]
	high  []uint64  // [tile][E], the lanes whose x is above least
	least []float32 // [E]
	kept  []int32   // keys, at most one for every token
	guess []float32 // [E], what the quantiles are expected to be
	reach float32   // how far from it they are expected at most
	seen  float32   // how far they were
}

func newColumns(l moe.Layer) columns {
	return columns{layer: l, least: make([]float32, l.Experts), guess: make([]float32, l.Experts), seen: float32(math.Inf(1))}
}

func (c *columns) resize(tiles int) {
	if n := tiles * vec.Lanes; len(c.alpha) < n {
		c.alpha, c.kept, c.high = make([]float32, n), make([]int32, n), make([]uint64, tiles*c.layer.Experts)
	}
}

// sift prepares for the quantiles of tokens in a span of a batch.
func (c *columns) sift(s []float32, span moe.Span) {
	c.reach, c.seen = 2*c.seen, 0
	for e, v := range c.guess {
		c.least[e] = math.Nextafter32(v-c.reach, float32(math.Inf(-1))) // so that what does not move is kept
	}
	n := c.layer.Experts
	for i := span.From / vec.Lanes; i*vec.Lanes < span.To; i++ {
		vec.Above(c.high[i*n:(i+1)*n], s[i*n*vec.Lanes:], c.least, (*vec.Row)(c.alpha[i*vec.Lanes:]))
	}
}

// quantile returns the 1 − K/E quantile of an expert's column over a span of n tokens: the (⌊nK/E⌋+1)-th largest, above which
// lie ⌊nK/E⌋. Every value from that to the ⌈nK/E⌉-th solves the dual, and midpoint is the middle of these; where E does not
// divide nK they are one. Megatron-LM refuses such a batch.
func (c *columns) quantile(s []float32, e int, span moe.Span, midpoint bool) float32 {
	assignments := span.Len() * c.layer.TopK
	above := assignments / c.layer.Experts
	kept := c.keys(s, e, span, false)
	if len(kept) <= above {
		kept = c.keys(s, e, span, true)
	}
	n := len(kept) - 1 - above
	from, to := 0, order.Partition(kept, order.Key(math.Float32bits(c.guess[e]+c.reach)))
	if n >= to {
		from, to = to, len(kept)
	}
	q := order.Value(order.Nth(kept[from:to], n-from))
	if d := q - c.guess[e]; d > c.seen || -d > c.seen {
		c.seen = max(d, -d)
	}
	if midpoint && assignments%c.layer.Experts == 0 {
		next := kept[n+1]
		for _, k := range kept[n+1:] {
			next = min(next, k)
		}
		q += float32((order.Value(next) - q) / 2)
	}
	return q
}

// keys returns keys of the entries of a column that passed the sieve, or of all.
func (c *columns) keys(s []float32, e int, span moe.Span, all bool) []int32 {
	n := 0
	for at := span.From; at < span.To; {
		tile, from := at/vec.Lanes, at%vec.Lanes
		to := min(vec.Lanes, from+span.To-at)
		row, alpha := (*vec.Row)(s[(tile*c.layer.Experts+e)*vec.Lanes:]), (*vec.Row)(c.alpha[tile*vec.Lanes:])
		lanes := moe.LaneMask(from, to)
		if !all {
			lanes &= c.high[tile*c.layer.Experts+e]
		}
		for ; lanes != 0; lanes &= lanes - 1 {
			l := bits.TrailingZeros64(lanes) & (vec.Lanes - 1)
			c.kept[n] = order.Key(math.Float32bits(row[l] - alpha[l]))
			n++
		}
		at += to - from
	}
	return c.kept[:n]
}
