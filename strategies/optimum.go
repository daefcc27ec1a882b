package strategies

import (
	"fmt"

	"evenkeel/internal/transport"
	"evenkeel/moe"
)

// optimum routes a whole batch so that the total affinity is the largest that exactly balanced loads allow.
type optimum struct {
	strategy
	solver transport.Tiles
}

var balancedOptimum = Preset{
	Name:    "balanced-optimum",
	Family:  "bounds",
	Summary: "the best exactly balanced assignment of each batch; not causal, a bound",
	Formula: `maximise Σ_t Σ_{e∈S_t} s*_te  subject to |S_t| = K and n_e = ⌊TK/E⌋ or ⌈TK/E⌉

Solved exactly (a transportation problem) over the true affinities s* of a whole batch, on at most 8 evenly spaced steps
of a seed and on the evaluation's batches. No router can use it: a token's experts depend on tokens that come after it.
It ignores group limits, and so bounds limited routing too. It says what balance must cost on this stream, as
Belady's algorithm does for caches.`,
	Needs: "the scores of all experts; no router of its own",
	Paper: "BASE layers (Lewis et al. 2021, arXiv 2103.16716) for K = 1 by auction; here by successive shortest paths",
	Build: func(_ Values, l moe.Layer) (moe.Strategy, error) {
		return &optimum{strategy: strategy{
			layer: l, score: l.Score,
			traits: moe.Traits{Causal: false, Bound: true, Oracle: true, Score: l.Score, Gate: moe.Gate{Normalised: true, Scale: 1},
				Notes: []string{"bounds the affinity of routing that is exactly even on every batch; it bounds neither the output error nor a rule that is even only over many batches"}},
		}}, nil
	},
}

// Route implements moe.Strategy; the optimum routes whole batches only.
func (o *optimum) Route(*moe.Tile, []float32, *moe.Scratch, []uint64, []uint64) {}

// RouteBatch implements moe.BatchStrategy.
func (o *optimum) RouteBatch(b *moe.Batch, s []float32, mask []uint64) error {
	if _, err := o.solver.Solve(s, b.Tokens, b.Layer.Experts, b.Layer.TopK, mask); err != nil {
		return fmt.Errorf("balanced optimum: %w", err)
	}
	return nil
}
