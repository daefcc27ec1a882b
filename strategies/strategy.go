// Package strategies holds how tokens choose experts: the parts of which nearly every published method is made, the presets
// that put them together, and the registry that names them.
//
// A strategy is a value made of nine parts, in the order in which a token meets them:
//
//	1 logit transform       z → z′             transform.go: z-score, temperature, noise
//	2 score                 z′ → s             moe.Score
//	3 selection adjustment  s, state → a       + b (bias.go); · b (multiplicative.go)
//	4 eligibility           a → mask           all, or the best groups (selection.go, groups.go)
//	5 selection             a, mask → S        selection.go, groups.go, hash.go, idle.go, gumbel.go; assignment.go
//	                                           for rules of whole batches; optimum.go for the bound
//	6 capacity              S → S′, drops      none, or capacity.go
//	7 gate                  s, S′ → g          moe.Gate, from unbiased scores
//	8 loss terms            s, counts → ∂L/∂s  loss.go: price-vector losses; squaredcv.go, zloss.go, simbal.go and others
//	9 controller            counts → state     bias.go: sign, proportional, RMS, tanh with momentum, PID, budgets;
//	                                           quantile.go, bip.go: dual prices; coefficient.go: of losses
//
// A preset is one file: the composition, its knobs, its paper. It is entered once in the table of registry.go; lists,
// help and checks follow from there. What a batch is lives in package moe, the step loop in package sim.
package strategies

import (
	"slices"

	"evenkeel/moe"
)

// strategy is a composition of parts. Parts that a preset leaves out are nil.
type strategy struct {
	traits      moe.Traits
	layer       moe.Layer
	transform   transform
	score       moe.Score
	bias        []float32 // b, added to the scores for the choice
	selection   selection
	revision    revision
	counted     selection // what losses count in place of the chosen set; plain top-K of the scores unless a preset says otherwise
	losses      []loss
	controllers []controller
}

// transform is part 1, from logits z to z′.
type transform interface {
	// apply computes z′ of a tile into to, which may be z.
	apply(t *moe.Tile, to, z []float32, w *moe.Scratch)
	// backward turns ∂L/∂z′ into ∂L/∂z in place.
	backward(t *moe.Tile, g, z []float32, w *moe.Scratch)
}

// selection is parts 3 to 5: it marks the chosen experts of every live token of a tile. bias may be nil.
type selection interface {
	choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64)
}

// revision is a choice, or a change of the choice, that needs the whole batch: assignment rules, and part 6, capacity.
type revision interface {
	revise(b *moe.Batch, s, bias []float32, a *moe.Assignment) error
}

// loss is one of part 8.
type loss interface {
	// prepare fixes what it takes from the whole batch.
	prepare(o *moe.Outcome)
	// addGradient adds ∂L/∂s of one tile to g and returns the tile's part of L.
	addGradient(b *moe.Batch, tile int, s, g []float32, w *moe.Scratch) float64
}

// scoreless is embedded in losses that do not act on scores.
type scoreless struct{}

func (scoreless) addGradient(*moe.Batch, int, []float32, []float32, *moe.Scratch) float64 { return 0 }

// logitLoss is a loss of the logits themselves.
type logitLoss interface {
	// addLogitGradient adds ∂L/∂z of one tile to g and returns the tile's part of L.
	addLogitGradient(b *moe.Batch, tile int, z, g []float32, w *moe.Scratch) float64
}

// controller is part 9: it moves the state of other parts after each step.
type controller interface{ update(o *moe.Outcome) }

// Traits implements moe.Strategy.
func (r *strategy) Traits() moe.Traits { return r.traits }

// Score implements moe.Strategy.
func (r *strategy) Score(t *moe.Tile, s, z []float32, w *moe.Scratch) {
	if r.transform != nil {
		r.transform.apply(t, s, z, w)
		z = s
	}
	r.score.Apply(s, z, r.layer.Experts)
}

// Route implements moe.Strategy.
func (r *strategy) Route(t *moe.Tile, s []float32, w *moe.Scratch, mask, fresh []uint64) {
	if r.selection != nil {
		r.selection.choose(t, s, r.bias, w, mask)
	}
	if fresh != nil {
		r.counted.choose(t, s, nil, w, fresh)
	}
}

// RouteBatch implements moe.Strategy.
func (r *strategy) RouteBatch(b *moe.Batch, s []float32, a *moe.Assignment) error {
	if r.revision == nil {
		return nil
	}
	return r.revision.revise(b, s, r.bias, a)
}

// PrepareLoss implements moe.Strategy.
func (r *strategy) PrepareLoss(o *moe.Outcome) {
	for _, l := range r.losses {
		l.prepare(o)
	}
}

// Backward implements moe.Strategy.
func (r *strategy) Backward(b *moe.Batch, tile int, s, z, g []float32, w *moe.Scratch) (sum float64) {
	for _, l := range r.losses {
		sum += l.addGradient(b, tile, s, g, w)
	}
	r.score.Backward(g, s, r.layer.Experts)
	if r.transform != nil {
		r.transform.backward(&b.Tiles[tile], g, z, w)
	}
	for _, l := range r.losses {
		if l, ok := l.(logitLoss); ok {
			sum += l.addLogitGradient(b, tile, z, g, w)
		}
	}
	return sum
}

// Update implements moe.Strategy.
func (r *strategy) Update(o *moe.Outcome) {
	for _, c := range r.controllers {
		c.update(o)
	}
}

// Bias implements moe.Strategy.
func (r *strategy) Bias() []float32 { return r.bias }

// declarer is a part that asks something of the run or changes what the strategy is.
type declarer interface{ declare(t *moe.Traits) }

// weightLoss is a loss of the router's weights.
type weightLoss interface {
	// addWeightGradient adds ∂L/∂W to g, both [E][d] with the weights, and returns L.
	addWeightGradient(weights, g []float32, experts int) float64
}

// AddWeightGradient implements moe.Strategy.
func (r *strategy) AddWeightGradient(weights, g []float32) (sum float64) {
	for _, l := range r.losses {
		if l, ok := l.(weightLoss); ok {
			sum += l.addWeightGradient(weights, g, r.layer.Experts)
		}
	}
	return sum
}

// defaultGate is the gate of a strategy that does not bring its own.
func defaultGate(l moe.Layer) moe.Gate {
	if l.Gate.Scale == 0 {
		return moe.Gate{Normalised: true, Scale: 1}
	}
	return l.Gate
}

// aggregates reports whether a part does to a token that stands for many what it would do to each: it chooses by scores and state
// alone, and what it sums it weighs.
func aggregates(part any) bool {
	switch part := part.(type) {
	case nil, topK, groupTopK, perGroup, product, *balanceLoss, zLoss, *biasController:
		return true
	case idle:
		return aggregates(part.selection)
	}
	return false
}

// compose finishes a composition: it derives the traits that follow from the parts.
func compose(r *strategy) *strategy {
	t := &r.traits
	t.Score = r.score
	if t.Gate.Scale == 0 {
		t.Gate = defaultGate(r.layer)
	}
	t.Whole, t.Transforms, t.Loss = r.revision != nil, r.transform != nil, len(r.losses) > 0
	t.Logits = t.Transforms
	t.Collective = t.Whole || t.Loss || len(r.controllers) > 0
	if r.counted == nil {
		r.counted = topK{r.layer.Ungrouped()}
	}
	parts := []any{r.transform, r.selection, r.revision}
	for _, l := range r.losses {
		parts = append(parts, l)
		if _, ok := l.(logitLoss); ok {
			t.Logits = true
		}
		if _, ok := l.(weightLoss); ok {
			t.Weights = true
		}
	}
	for _, c := range r.controllers {
		parts = append(parts, c)
	}
	t.Aggregates = !slices.ContainsFunc(parts, func(part any) bool { return !aggregates(part) })
	for _, p := range parts {
		if p, ok := p.(declarer); ok {
			p.declare(t)
		}
	}
	return r
}
