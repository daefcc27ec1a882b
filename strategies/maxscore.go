package strategies

import (
	"fmt"
	"math/bits"

	"evenkeel/internal/vec"
	"evenkeel/moe"
)

var maxScore = Preset{
	Name:    "maxscore",
	Family:  "assignment",
	Summary: "experts with room for exactly TK/E; who finds its expert full proposes to the next best, round by round",
	Formula: `C = ⌈TK/E⌉.  First choices: each expert admits its first C in token order, and the others are lost.
For every further choice, rounds: each token that lacks it proposes to its best expert not yet asked, and experts admit
proposals in token order while they have room, until all are served or have asked all.  Gates g = s
L = α · mean over micro-batches of Σ_e (E·first choices of e/T)·P_e,  before places are denied

Published for K = 2, where this is the released code; more choices go on in the same way. A lost first choice is not
replaced, so that loads are at most C and not all of them C. The released gate of the second choice is multiplied by a temperature
that falls from 4 to 1 over 40,000 steps, which is not modelled. Ignores group limits.`,
	Knobs: []Knob{
		{Name: "coeff", Default: "0.01", Low: 0, High: 1e6, About: "α of the loss, whose value at balance is 1; 0 for a router that does not learn"},
		{Name: "scope", Default: scopeMicroBatch, Options: []string{scopeMicroBatch, scopeGlobal}, About: "where the loss counts"},
		scoreKnob,
	},
	Needs:   "a router that learns, for its loss (coeff=0 does without)",
	Changes: "which experts, capacity, gates, gradient",
	Fails:   "late tokens find popular experts full; first choices are dropped; not causal in all but the first choice: an expert's room depends on later tokens' first choices",
	Paper:   "MaxScore (2025, arXiv 2508.12801), its iterative version modeling_ours_iter.py",
	Read:    "code of the iterative version; the min-cost flow and the soft top-K of the full one are not here",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		score, warnings, err := v.score(l)
		if err != nil {
			return nil, err
		}
		if l.TopK == 1 {
			warnings = append(warnings, "with one expert a token there is no second choice to reassign: it only drops what is over capacity")
		}
		r := &strategy{layer: l, score: score, revision: &proposals{},
			traits: moe.Traits{Free: true, Drops: true, Gate: moe.Gate{Scale: 1}, Warnings: warnings,
				Notes: []string{"the temperature on the gate of the second choice is left out"}}}
		if alpha := v.Number("coeff"); alpha > 0 {
			balance := newLoss(alpha, v.Text("scope"))
			balance.fresh, balance.first, balance.plain = true, true, score == moe.Softmax
			r.losses = []loss{balance}
			r.traits.Notes = append(r.traits.Notes, fmt.Sprintf("scope %s, α = %.4g where the loss at balance is 1, counting first choices before places are denied",
				balance.scope, alpha))
		}
		return compose(r), nil
	},
}

// proposals is MaxScore's iterative assignment.
type proposals struct {
	want, tried []uint64
	room        []int
}

func (p *proposals) revise(b *moe.Batch, s, _ []float32, a *moe.Assignment) error {
	e := a.Experts
	p.want, p.tried, p.room = resize(p.want, len(b.Tiles)), resize(p.tried, len(a.Mask)), resize(p.room, e)
	clear(a.Mask)
	clear(a.Dropped)
	clear(p.tried)
	for x := range p.room {
		p.room[x] = (b.Tokens*b.Layer.TopK + e - 1) / e
	}
	p.first(b, s, a)
	for range b.Layer.TopK - 1 {
		for i := range b.Tiles {
			p.want[i] = b.Tiles[i].Live()
		}
		nextBest(b, s, p.want, p.tried, a.Mask, p.room)
		p.drop(b, s, a)
	}
	return nil
}

// first admits first choices and drops those that find no room. They are what the loss counts.
func (p *proposals) first(b *moe.Batch, s []float32, a *moe.Assignment) {
	e := a.Experts
	var best [moe.TileTokens]int32
	for i := range b.Tiles {
		favourites(&best, s[i*e*vec.Lanes:(i+1)*e*vec.Lanes], p.tried[i*e:(i+1)*e], b.Tiles[i].Live())
		for t, x := range best[:b.Tiles[i].Tokens] {
			at, bit := i*e+int(x), uint64(1)<<t
			p.tried[at] |= bit
			if p.room[x] > 0 {
				p.room[x]--
				a.Mask[at] |= bit
			} else {
				a.Dropped[at] |= bit
			}
		}
		copy(a.FreshTile(i), p.tried[i*e:(i+1)*e])
	}
}

// drop notes which expert each token in want would have liked best among those it neither has nor was denied before.
func (p *proposals) drop(b *moe.Batch, s []float32, a *moe.Assignment) {
	e := a.Experts
	var best [moe.TileTokens]int32
	for i := range b.Tiles {
		if p.want[i] == 0 {
			continue
		}
		dropped, mask := a.Dropped[i*e:(i+1)*e], a.Tile(i)
		for x, m := range mask { // for want of another place to hold what is out of question
			dropped[x] |= m
		}
		favourites(&best, s[i*e*vec.Lanes:(i+1)*e*vec.Lanes], dropped, p.want[i])
		for x, m := range mask {
			dropped[x] &^= m
		}
		for m := p.want[i]; m != 0; m &= m - 1 {
			if x := best[bits.TrailingZeros64(m)]; x >= 0 {
				dropped[x] |= m & -m
			}
		}
	}
}
