package strategies

import (
	"fmt"

	"evenkeel/internal/transport"
	"evenkeel/moe"
)

// optimum routes a whole batch so that the total affinity is the largest that exactly balanced loads allow.
type optimum struct{ solver transport.Tiles }

var balancedOptimum = Preset{
	Name:    "balanced-optimum",
	Family:  "bounds",
	Summary: "the best exactly balanced assignment of each batch; not causal, a bound",
	Formula: `maximise Σ_t Σ_{e∈S_t} s*_te  subject to |S_t| = K and n_e = ⌊TK/E⌋ or ⌈TK/E⌉

Solved exactly (a transportation problem) over the true affinities s* of a whole batch, on at most 8 evenly spaced steps
of a seed and on the evaluation's batches. No router can use it: a token's experts depend on tokens that come after it.
It ignores group limits, and so bounds limited routing too. It says what balance must cost on this stream, as
Belady's algorithm does for caches.`,
	Needs:   "the scores of all experts; no router of its own",
	Changes: "which experts",
	Fails:   "not causal",
	Paper:   "BASE layers (Lewis et al. 2021, arXiv 2103.16716) for K = 1 by auction; here by successive shortest paths",
	Read:    "own derivation",
	Build: func(_ Values, l moe.Layer) (*strategy, error) {
		return compose(&strategy{layer: l, score: l.Score, revision: &optimum{},
			traits: moe.Traits{Causal: false, Bound: true, Oracle: true, Free: true,
				Notes: []string{"bounds the affinity of routing that is exactly even on every batch; it bounds neither the output error nor a rule that is even only over many batches"}}}), nil
	},
}

func (o *optimum) revise(b *moe.Batch, s, _ []float32, a *moe.Assignment) error {
	if _, err := o.solver.Solve(s, b.Tokens, b.Layer.Experts, b.Layer.TopK, a.Mask); err != nil {
		return fmt.Errorf("balanced optimum: %w", err)
	}
	return nil
}
