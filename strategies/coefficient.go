package strategies

import (
	"math/bits"

	"evenkeel/moe"
)

// dropController is Skywork-MoE's adaptive coefficient of a loss (2024, arXiv 2406.06563, section 4.1). After each step,
// with d the share of the step's choices that were dropped,
//
//	α ← β·α + (1−β)·min(ξ·d, α_max).
//
// Where nothing is dropped, d is what a capacity of the whole step would drop: Σ_e max(0, n_e − cf·n̄)/Σ_e n_e.
type dropController struct {
	coeff    *float64 // α
	xi, most float64  // ξ and α_max
	memory   float64  // β
	capacity float64  // cf
}

func (c *dropController) update(o *moe.Outcome) {
	old, target := *c.coeff, min(float64(c.xi*c.rate(o)), c.most)
	*c.coeff = float64(c.memory*old) + float64((1-c.memory)*target)
}

func (c *dropController) rate(o *moe.Outcome) float64 {
	var kept, dropped, above float64
	for _, n := range o.Chosen.Global {
		kept += float64(n)
	}
	if o.Assigned != nil && o.Assigned.Dropped != nil {
		for _, m := range o.Assigned.Dropped[:len(o.Batch.Tiles)*o.Assigned.Experts] {
			dropped += float64(bits.OnesCount64(m))
		}
		return dropped / (kept + dropped)
	}
	capacity := c.capacity * kept / float64(len(o.Chosen.Global))
	for _, n := range o.Chosen.Global {
		above += max(0, float64(n)-capacity)
	}
	return above / kept
}

// sparsityController is ReMoE's control of its L1 loss (2024, arXiv 2412.14711): after each step λ is multiplied by a
// factor where tokens have more than K experts on average, and divided by it where not.
type sparsityController struct {
	coeff  *float64 // λ
	factor float64
	topK   int
}

func (c *sparsityController) update(o *moe.Outcome) {
	var active int64
	for _, n := range o.Chosen.Global {
		active += n
	}
	if active > int64(c.topK)*int64(o.Chosen.Tokens) {
		*c.coeff *= c.factor
	} else {
		*c.coeff /= c.factor
	}
}
