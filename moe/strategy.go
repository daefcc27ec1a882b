package moe

import "evenkeel/internal/vec"

// Strategy routes batches: it owns how tokens choose experts and the state behind that choice, and nothing of the
// measuring. Within a step Route sees the state as the step before left it; Update comes last. Score, Route and Backward
// may run for several tiles at once and must not change the strategy.
type Strategy interface {
	Traits() Traits
	// Score computes the scores s of a tile from its logits z, both [E][64]; they may be the same.
	Score(t *Tile, s, z []float32, w *Scratch)
	// Route chooses the experts of one tile from its scores s [E][64]: bit t of mask[e] for token t and expert e. fresh,
	// if not nil, receives what losses count beside the choice; see Assignment.
	Route(t *Tile, s []float32, w *Scratch, mask, fresh []uint64)
	// RouteBatch chooses, or revises what Route chose, where a strategy must see a whole batch; see Traits.Whole. s holds
	// the scores of all its tiles, [tile][E][64].
	RouteBatch(b *Batch, s []float32, a *Assignment) error
	// PrepareLoss fixes what the step's losses take from its whole batch, such as prices from counts; see Traits.Loss. It
	// comes before Backward, which may still read what o holds.
	PrepareLoss(o *Outcome)
	// Backward turns g = ∂L_task/∂s of one tile, [E][64], into ∂(L_task + L)/∂z in place, L being the strategy's losses, and
	// returns the tile's part of L. z holds the tile's logits where Traits.Logits asks for them.
	Backward(b *Batch, tile int, s, z, g []float32, w *Scratch) float64
	// AddWeightGradient adds ∂L/∂W of losses of the router's weights W [E][d] to g, of the same shape, and returns their
	// value; see Traits.Weights.
	AddWeightGradient(weights, g []float32) float64
	// Update moves the state from the outcome of a finished step.
	Update(o *Outcome)
	// Bias returns the selection bias b [E] as it stands, or nil where there is none. The caller must not keep it.
	Bias() []float32
}

// Outcome is what a step shows a strategy once its batch is routed.
type Outcome struct {
	Step     int
	Batch    *Batch
	Scores   []float32 // of the strategy's own router, [tile][E][64]
	Logits   []float32 // of the same router, where Traits.Logits asks for them and it learns
	Noise    []float32 // of the second router of Traits.Noise, [tile][E][64], where it learns
	Assigned *Assignment
	Chosen   *Counts // of Assigned.Mask, so after drops
	Fresh    *Counts // of Assigned.Fresh, where Traits.Fresh asks for it
	Wanted   *Counts // with Assigned.Dropped; where nothing is dropped, Chosen
}

// Traits say what a strategy is and what it asks of the run.
type Traits struct {
	Name string // of the preset: aux-loss
	Spec string // canonical, with the knobs that differ from their defaults: aux-loss:coeff=0.1
	// Family is the spec without the knob that sets the strength: strategies of one family differ in strength alone.
	Family string
	// Zero is the spec of what the family is at strength 0, or empty where that is nothing else.
	Zero   string
	Causal bool  // a token's routing depends on no later token of its batch
	Bound  bool  // drawn as a bound, not as a strategy that one could use
	Score  Score // its score function
	Gate   Gate
	Loss   bool // it has a balancing loss, which acts only on a router that learns
	Fresh  bool // its losses count another choice beside the chosen set
	Whole  bool // RouteBatch has work to do
	Logits bool // Backward needs logits
	// Noise: a second router, which begins at 0, sets how strong the noise on its logits is; see Scratch.Noise.
	Noise bool
	// Transforms: the scores are not the score function of the logits alone.
	Transforms bool
	Factor     bool // its bias is a factor on the scores, not a term
	Drops      bool // it may leave choices out for want of capacity
	Varies     bool // tokens may have more or fewer than K experts
	Free       bool // it ignores the group limit
	// Aggregates: it does to one token that stands for many what it would do to each of them; see Batch.
	Aggregates bool
	// Collective: how it treats a token depends on other tokens, of the batch or of earlier ones, be it by a loss, by a revision of
	// a whole batch or by a state that moves.
	Collective bool
	Sized      bool // the size of its gates is its own to learn, so that the task takes them as they are
	// Idle experts, the last ones of the layer, compute nothing: masks leave them out, and loads are those of the others.
	Idle int
	// Weights: it has a loss of the router's weights. TokenIDs: it chooses by token ids.
	Weights, TokenIDs bool
	// Sequences: it needs to know where sequences begin. MicroBatches: it counts by micro-batch.
	Sequences, MicroBatches bool
	// Oracle: it chooses by the true affinities s*, has no router of its own, and is solved on few batches only.
	Oracle bool
	// TrainingOnly: outside training it chooses each token's own K best.
	TrainingOnly bool
	// Freeze is the step from which its router no longer learns, and 0 where it always does.
	Freeze int
	// Until is the step at which a schedule of it is over, and 0 where it has none.
	Until int
	// Rate is the step u of a bias that moves by u, or by at most u, and 0 where nothing does.
	Rate float64
	// Travel is how far such a bias can move in a whole run, if its rate ends, and 0 where it does not.
	Travel   float64
	Notes    []string // what a reader of the results must know: conventions
	Warnings []string // what is probably not meant
}

// Gate says how a strategy makes the weights that multiply its experts' outputs from the unbiased scores of the chosen.
type Gate struct {
	Normalised bool    // divided by their sum over the chosen
	Scale      float32 // then multiplied by this
}

// Sum returns the sum of a token's gate weights, given the sum of the scores of its chosen experts.
func (g Gate) Sum(chosen float32) float32 {
	if g.Normalised {
		return g.Scale
	}
	return float32(g.Scale * chosen)
}

// Scratch is what work on one tile needs beside its result. One worker owns it.
type Scratch struct {
	Select  *vec.Selector
	Wide    *vec.Selector // of up to WideK best, for rules that choose more than K
	Allowed []uint64      // [G]
	Order   []int64       // [E], ranks of one token's experts
	Rows    [4]vec.Row    // sums by token
	Grad    []float32     // ∂L/∂s, then ∂L/∂z, of one tile [E][64]
	Room    []float32     // [E][64], of a part while it works on a tile
	Product []float32     // of products with tiles of latent vectors, see vec.NewScratch
	// Noise holds the second router's logits r of Traits.Noise for the tile at hand, in training, and is nil where there is no such
	// router or it does not learn. Backward adds ∂(L_task + L)/∂r to NoiseGrad. Both are [E][64].
	Noise, NoiseGrad []float32
	// Adjusted holds what a selection compares where that is not s + b, [E][64].
	Adjusted []float32

	floats [4][]float32

	// Of a stream that fills a tile: where its tokens come from, and parts of their latent vectors [d][64].
	Source [TileTokens]int32
	Parts  [2][]float32
}

// WideK is the largest number of best experts that Scratch.Wide finds.
const WideK = 32

// NewScratch returns the scratch of a layer.
func NewScratch(l Layer) *Scratch {
	w := &Scratch{Select: vec.NewSelector(l.TopK, l.Groups), Wide: vec.NewSelector(min(WideK, l.Experts), l.Groups), Allowed: make([]uint64, l.Groups), Order: make([]int64, l.Experts),
		Grad: make([]float32, l.Experts*vec.Lanes), Adjusted: make([]float32, l.Experts*vec.Lanes),
		Room: make([]float32, l.Experts*vec.Lanes), NoiseGrad: make([]float32, l.Experts*vec.Lanes), Product: vec.NewScratch(l.Width)}
	for i := range w.Parts {
		w.Parts[i] = make([]float32, l.Width*vec.Lanes)
	}
	return w
}

// Floats returns one of four lists of numbers, of length n, for the work at hand: what it holds is of earlier work.
func (w *Scratch) Floats(which, n int) []float32 {
	if len(w.floats[which]) < n {
		w.floats[which] = make([]float32, n)
	}
	return w.floats[which][:n]
}

// ForProduct returns what products with tiles of the given number of columns need; see vec.NewScratch.
func (w *Scratch) ForProduct(columns int) []float32 {
	if n := vec.ScratchSize(columns); len(w.Product) < n {
		w.Product = make([]float32, n)
	}
	return w.Product
}

// Kind is what a reader of the strategy's figures must know of it: bound, in training only, not causal, or nothing.
func (t *Traits) Kind() string {
	switch {
	case t.Bound:
		return "bound"
	case t.TrainingOnly:
		return "in training only"
	case !t.Causal:
		return "not causal"
	}
	return ""
}
