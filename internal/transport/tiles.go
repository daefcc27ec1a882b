package transport

import "evenkeel/internal/vec"

// Tiles solves batches in the tile layout, whose tokens are innermost. It keeps a solver and its scratch from batch to
// batch; results do not depend on what it solved before. Its zero value is ready.
type Tiles struct {
	solver               *Solver
	tokens, expert, topk int
	scores               []float32 // [T][E]
}

// Solve finds the best exactly balanced assignment of a batch from its scores s [tile][E][64] and marks it in mask
// [tile·E], one bit for each token. It returns the total score, summed over tokens in order.
func (x *Tiles) Solve(s []float32, tokens, experts, topk int, mask []uint64) (total float64, err error) {
	if x.solver == nil || x.tokens != tokens || x.expert != experts || x.topk != topk {
		if x.solver, err = NewSolver(tokens, experts, topk); err != nil {
			return 0, err
		}
		x.tokens, x.expert, x.topk = tokens, experts, topk
		x.scores = make([]float32, tokens*experts)
	}
	for t := range tokens {
		tile := s[t/vec.Lanes*experts*vec.Lanes+t%vec.Lanes:]
		for e := range experts {
			x.scores[t*experts+e] = tile[e*vec.Lanes]
		}
	}
	if err := x.solver.Solve(x.scores); err != nil {
		return 0, err
	}
	clear(mask)
	for i, e := range x.solver.Choice() {
		t := i / topk
		mask[t/vec.Lanes*experts+int(e)] |= 1 << (t % vec.Lanes)
	}
	return x.solver.Total(), nil
}
