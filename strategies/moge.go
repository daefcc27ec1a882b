package strategies

import (
	"fmt"

	"evenkeel/moe"
)

var moge = Preset{
	Name:    "moge",
	Family:  "structure",
	Summary: "MoGE: as many experts from every group, so that devices are even by construction",
	Formula: `s = softmax(z) over all E;  S_t = the K/M best s of each of M equal groups of consecutive experts;  gates s as they are
L = α · Σ_e w_e·P_e,   w_e = E·n_e/(KT) and P from the softmax over all E, over the whole step

Every group gets exactly TK/M choices; the loss evens the experts inside. Each group is meant to be a device: Pangu Pro MoE
has E = 64, K = 8, M = 8, one expert of each. A token touches every group, so a group limit does not apply.`,
	Knobs: []Knob{
		{Name: "groups", Default: "0", Whole: true, Low: 0, High: moe.MaxExperts,
			About: "M; 0 for the scenario's groups or, without any, as many as K and E allow (their greatest common divisor)"},
		{Name: "coeff", Default: "0", Low: 0, High: 1e6, About: "α of the loss, whose value at balance is 1; its published value is not known here, 0 for none"},
	},
	Strength: "coeff",
	Sweep:    [2]float64{0.001, 1},
	Needs:    "the scores of all experts; a router that learns for coeff > 0",
	Changes:  "which experts; gradient for coeff > 0",
	Fails:    "a token must use a group that has nothing for it; even devices say nothing about the experts inside them; every token touches every device",
	Paper:    "Pangu Pro MoE (Tang et al. 2025, arXiv 2505.21411), section 2",
	Read:     "paper",
	Build: func(v Values, l moe.Layer) (*strategy, error) {
		r := &strategy{layer: l, score: moe.Softmax, traits: moe.Traits{Causal: true, Gate: moe.Gate{Scale: 1}}}
		if l.Score == moe.Stored {
			r.score = l.Score
		}
		if r.score != l.Score {
			r.traits.Warnings = append(r.traits.Warnings, fmt.Sprintf("its router scores by softmax, while the scenario's affinities are %s", l.Score))
		}
		m := v.Whole("groups")
		switch {
		case m > 0 && (l.TopK%m != 0 || l.Experts%m != 0):
			return nil, fmt.Errorf("groups is %d: it must divide topk, which is %d, and experts, which is %d, such as groups=%d",
				m, l.TopK, l.Experts, divisor(l.TopK, l.Experts))
		case m == 0 && l.Groups > 1:
			if m = divisor(l.TopK, l.Groups); m < l.Groups {
				r.traits.Warnings = append(r.traits.Warnings, fmt.Sprintf("topk, which is %d, cannot be shared evenly by %d groups, so %d groups of experts are even, not each device: --set topk=%d",
					l.TopK, l.Groups, m, l.Groups))
			}
		case m == 0:
			m = divisor(l.TopK, l.Experts)
		}
		if m == 1 {
			r.traits.Warnings = append(r.traits.Warnings, "with one group it is plain top-K: choose a topk and a number of experts that share a divisor")
		}
		r.traits.Notes = []string{fmt.Sprintf("%d groups of %d experts, %d chosen in each", m, l.Experts/m, l.TopK/m)}
		r.selection = perGroup{l, m}
		if alpha := v.Number("coeff"); alpha > 0 {
			balance := newLoss(alpha, scopeGlobal)
			balance.plain = r.score == moe.Softmax
			r.losses = []loss{balance}
			r.traits.Notes = append(r.traits.Notes, balance.conventions(l.TopK))
		}
		return compose(r), nil
	},
}

// divisor returns the greatest common divisor.
func divisor(a, b int) int {
	for b > 0 {
		a, b = b, a%b
	}
	return a
}
