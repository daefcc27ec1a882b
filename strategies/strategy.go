// Package strategies holds how tokens choose experts: the parts of which nearly every published method is made, the presets
// that put them together, and the registry that names them.
//
// A strategy is a value made of nine parts, in the order in which a token meets them:
//
//	1 logit transform       z → z′             none yet
//	2 score                 z′ → s             moe.Score
//	3 selection adjustment  s, state → a       + b (bias.go)
//	4 eligibility           a → mask           all, or the best groups by the sum of their two best a (DeepSeek-V3)
//	5 selection             a, mask → S        selection.go; optimum.go for the bound
//	6 capacity              S → S′, drops      none yet: dropless
//	7 gate                  s, S′ → g          moe.Gate, from unbiased scores
//	8 loss terms            s, counts → ∂L/∂s  loss.go: price-vector losses of every scope
//	9 controller            counts → state     bias.go: sign and proportional rules
//
// A preset is one file: the composition, its knobs, its paper. It is entered once in the table of registry.go; lists,
// help and checks follow from there. What a batch is lives in package moe, the step loop in package sim.
package strategies

import "evenkeel/moe"

// strategy is a composition of parts. Parts that a preset leaves out are nil.
type strategy struct {
	traits    moe.Traits
	layer     moe.Layer
	score     moe.Score
	selection selection
	losses    []*balanceLoss
	bias      *biasController
}

// selection is part 5: it marks the chosen experts of every live token of a tile. bias may be nil.
type selection interface {
	choose(t *moe.Tile, s, bias []float32, w *moe.Scratch, mask []uint64)
}

// Traits implements moe.Strategy.
func (r *strategy) Traits() moe.Traits { return r.traits }

// Score implements moe.Strategy.
func (r *strategy) Score(s, z []float32) { r.score.Apply(s, z, r.layer.Experts) }

// ScoreBackward implements moe.Strategy.
func (r *strategy) ScoreBackward(g, s []float32) { r.score.Backward(g, s, r.layer.Experts) }

// Route implements moe.Strategy.
func (r *strategy) Route(t *moe.Tile, s []float32, w *moe.Scratch, mask, fresh []uint64) {
	r.selection.choose(t, s, r.Bias(), w, mask)
	if fresh != nil {
		w.Select.TopK(fresh, s, nil, t.Live(), nil)
	}
}

// PrepareLoss implements moe.Strategy.
func (r *strategy) PrepareLoss(b *moe.Batch, chosen, fresh *moe.Counts) {
	for _, l := range r.losses {
		counts := chosen
		if l.fresh {
			counts = fresh
		}
		l.price(b, counts)
	}
}

// AddLossGradient implements moe.Strategy.
func (r *strategy) AddLossGradient(b *moe.Batch, tile int, s, g []float32, w *moe.Scratch) (loss float64) {
	for _, l := range r.losses {
		loss += l.addGradient(b, tile, s, g, w)
	}
	return loss
}

// Update implements moe.Strategy.
func (r *strategy) Update(step int, chosen *moe.Counts) {
	if r.bias != nil {
		r.bias.update(step, chosen)
	}
}

// Bias implements moe.Strategy.
func (r *strategy) Bias() []float32 {
	if r.bias == nil {
		return nil
	}
	return r.bias.b
}

// compose finishes a composition: it derives the traits that follow from the parts.
func compose(r *strategy) *strategy {
	r.traits.Score = r.score
	if r.traits.Gate.Scale == 0 {
		r.traits.Gate = moe.Gate{Normalised: true, Scale: 1}
	}
	for _, l := range r.losses {
		r.traits.Loss = true
		r.traits.Fresh = r.traits.Fresh || l.fresh
		r.traits.Sequences = r.traits.Sequences || l.scope == scopeSequence
		r.traits.MicroBatches = r.traits.MicroBatches || l.scope == scopeMicroBatch || l.running
	}
	if r.bias != nil {
		r.traits.Rate = r.bias.stepSize()
	}
	return r
}
